"""The identity of an embedding: the image's content and the recipe that made it.

A **recipe** is a JSON object that covers everything which changes an embedding's values beyond
floating-point noise:

- ``backbone``: architecture name and the sha256 of its tensors (not where they came from, so one
  set of weights is one recipe, whether packaged, from the hub or from a file);
- ``preprocess``: size, interpolation, crop, mean and standard deviation;
- ``decode``: the decoder and its policy for EXIF, alpha, 16 bits and frames;
- ``output``: layers, pooling, normalisation, width and storage dtype;
- ``compute``: precision (runtimes of one precision give the same embeddings, and are checked);
- ``version``: raised when the meaning of a recipe itself changes.

It does not cover the batch size, the number of threads or the device: embeddings are promised
within a tolerance, not bit by bit. Versions of libraries are recorded, and checked by a golden
image (see `featuretl.store.store`), not hashed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

Recipe = dict[str, Any]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, ASCII.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_checksum(value: Any) -> int:
    """Return the CRC-32 of the canonical JSON of `value`."""
    return zlib.crc32(canonical_json(value).encode())


def space_id(recipe: Recipe, generation: int) -> str:
    """Return the sha256 (64 hex digits) that names the space of a recipe.

    `generation` counts the times that the golden image showed that the same recipe no longer gives
    the same embeddings on this machine.
    """
    text = canonical_json({"recipe": recipe, "generation": generation})
    return hashlib.sha256(text.encode()).hexdigest()
