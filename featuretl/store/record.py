"""The record of a space, ``space.json``: its recipe and its golden embedding."""

from __future__ import annotations

import base64
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.text import parse_json
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store.format import FORMAT_VERSION, DamagedFileError, reading
from featuretl.store.keys import Recipe, json_checksum, space_id

GOLDEN_COSINE = 0.99999


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``space.json``; see `reading`. Raises StoreError if its format is newer."""
    with reading(path):
        data = path.read_bytes()
    return parse_record(data, path)


def parse_record(data: bytes, path: Path) -> dict[str, Any]:
    """Return the record in `data`, the content of the file at `path`; see `read_record`."""
    try:
        record = parse_json(data)
        checksum = record.pop("checksum", None)
        if record["format"] > FORMAT_VERSION:
            raise StoreError(
                f"{str(path)!r} has store format {record['format']}; this featuretl reads up to "
                f"{FORMAT_VERSION}: upgrade featuretl or choose another cache."
            )
        named = space_id(record["recipe"], record["generation"])
        golden = base64.b64decode(record["golden"], validate=True)
        intact = named == record["id"] == path.parent.name and "versions" in record
        intact &= len(golden) == 4 * record["recipe"]["output"]["n_features"]
        intact &= checksum in (None, json_checksum(record))  # the first stores had no checksum
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(path, f"its record cannot be read ({error!r})") from error
    if not intact:
        raise DamagedFileError(path, "its record does not describe this space")
    return record


def golden_of(record: dict[str, Any]) -> np.ndarray:
    """Return a space's golden embedding: float32 (d,)."""
    return np.frombuffer(base64.b64decode(record["golden"]), "<f4")


def agrees(record: dict[str, Any], golden: np.ndarray) -> bool:
    """Return whether a space's golden embedding equals `golden` (d,) up to rounding."""
    then = golden_of(record).astype(np.float64)
    now = golden.astype(np.float64)
    norms = np.linalg.norm(then) * np.linalg.norm(now)
    return bool(then.shape == now.shape and then @ now >= GOLDEN_COSINE * norms)


def generations(
    find: Callable[[str], dict[str, Any] | None], recipe: Recipe
) -> list[dict[str, Any]]:
    """Return a recipe's records, oldest first; `find` maps a space's id to its record or None."""
    records: list[dict[str, Any]] = []
    while record := find(space_id(recipe, len(records))):
        records.append(record)
    return records


def agreeing_record(
    find: Callable[[str], dict[str, Any] | None],
    recipe: Recipe,
    golden: np.ndarray,
    versions: dict[str, str],
) -> tuple[dict[str, Any], bool]:
    """Return the newest record that agrees with `golden` (d,) and True; or a new one and False."""
    existing = generations(find, recipe)
    for record in reversed(existing):
        if agrees(record, golden):
            return record, True
    if existing:
        warnings.warn(
            "The golden image no longer gives the embedding recorded in the store (a library's "
            f"version or the processor differs; recorded: {existing[-1]['versions']}, now: "
            f"{versions}); embeddings are computed again and stored separately from the old ones.",
            FeatureTLWarning,
            stacklevel=3,
        )
    record = {
        "format": FORMAT_VERSION,
        "id": space_id(recipe, len(existing)),
        "recipe": recipe,
        "generation": len(existing),
        "golden": base64.b64encode(golden.astype("<f4").tobytes()).decode(),
        "versions": versions,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {**record, "checksum": json_checksum(record)}, False
