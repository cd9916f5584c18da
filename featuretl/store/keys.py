"""Recipes: JSON with everything that changes an embedding; docs/formats.md lists the entries."""

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
