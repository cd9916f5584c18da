"""The identity of an embedding: the image's content and the recipe that produced it.

A **recipe** is a JSON object with everything that changes an embedding's values beyond
floating-point noise:

- ``backbone``: architecture name and the sha256 of its tensors (not their origin: the same weights
  give the same recipe, whether packaged, from the hub or from a file);
- ``preprocess``: size, interpolation, crop, mean and standard deviation;
- ``decode``: the decoder and its policy for EXIF, alpha, 16 bits and frames;
- ``output``: layers, pooling, normalisation, width and storage dtype;
- ``compute``: precision (a check ensures that all runtimes of a precision agree);
- ``version``: increased when the meaning of a recipe itself changes.

A recipe does not cover batch size, number of threads or device, because embeddings are reproducible
within a tolerance, not bit by bit. Library versions are recorded but not hashed; a golden image
checks them (see `featuretl.store.store`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

Recipe = dict[str, Any]


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of `value`: sorted keys, no spaces, ASCII.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_checksum(value: Any) -> int:
    """Return the CRC-32 of the canonical JSON of `value`."""
    return zlib.crc32(canonical_json(value).encode())


def space_id(recipe: Recipe, generation: int) -> str:
    """Return the id (sha256, 64 hex digits) of the given generation of a recipe's space."""
    text = canonical_json({"recipe": recipe, "generation": generation})
    return hashlib.sha256(text.encode()).hexdigest()
