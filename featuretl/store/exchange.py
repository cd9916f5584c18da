"""Copy embeddings from a local store to a shared store, and back."""

from __future__ import annotations

import hashlib

import numpy as np

from featuretl._core.text import printable
from featuretl.exceptions import ParameterError, StoreError
from featuretl.store.format import KEY_DTYPE
from featuretl.store.lookup import MISSING, KeyIndex, keys_list
from featuretl.store.record import golden_of
from featuretl.store.shared import SharedStore, metadata_table
from featuretl.store.space import SEGMENT_ROWS
from featuretl.store.store import EmbeddingStore, SpaceInfo


def export_shared(store: EmbeddingStore, shared: SharedStore, space: str = "") -> int:
    """Copy embeddings of a local store into a shared store, for `import_shared` elsewhere.

    Copies spaces whose ids start with `space`, without embeddings that were copied before; returns
    their number. An image's ``path`` in the shared store is its sha256 in hex. Raises
    ParameterError if there is no such space, and StoreError if a store fails.
    """
    copied = 0
    for info in filled_spaces(store, space):
        record = store.record(info.id)
        source = store.space(info.id)
        target = shared.open_space(record["recipe"], golden_of(record), record["versions"])
        finished = set(target.keys())
        keys, locations = source.all_rows()
        for start in range(0, len(keys), SEGMENT_ROWS):
            part = slice(start, start + SEGMENT_ROWS)
            digests = keys_list(keys[part])
            name = hashlib.sha256(b"exported" + b"".join(digests)).hexdigest()
            if name in finished:
                continue
            n = len(digests)
            table = metadata_table([key.hex() for key in digests], [None] * n, digests, range(n))
            target.put(name, "a local store", n, source.gather(locations[part]), table)
            copied += n
    return copied


def import_shared(store: EmbeddingStore, shared: SharedStore, space: str = "") -> int:
    """Copy embeddings of a shared store into a local store, each image once; return their number.

    If the golden image differs between the stores, the embeddings are stored in a separate space,
    with a warning. Parameters and errors are those of `export_shared`.
    """
    sources = [source for source in shared.spaces() if source.id.startswith(space)]
    if not sources:
        raise _no_embeddings(shared.url, space)
    copied = 0
    for source in sources:
        with store.open_space(source.recipe, source.golden, source.versions) as target:
            copied_keys = KeyIndex()  # some of these are not committed yet
            keys = source.keys()
            for key, entry in zip(keys, source.entries(keys), strict=True):
                if entry is None:
                    raise StoreError(
                        f"An entry in the shared store {printable(shared.url)!r} is damaged; "
                        f"remove spaces/{source.id}/shards/{key}.json there, embed the shard "
                        "again, and run the import again."
                    )
                if not entry.rows:
                    continue
                rows, table = source.load(entry)
                digests = table.column("sha256").to_pylist()
                images = np.array(digests, KEY_DTYPE)
                first = np.unique(images, return_index=True)[1]
                places = [known.find(images[first]) for known in (target, copied_keys)]
                new = first[np.maximum(*places) == MISSING]
                copied_keys.add(images[new])
                if len(new):
                    target.append([digests[i] for i in new], np.asarray(rows[new], np.float32))
                copied += len(new)
            target.commit()
    return copied


def filled_spaces(store: EmbeddingStore, space: str) -> list[SpaceInfo]:
    """Return the filled spaces whose ids start with `space`; ParameterError if there are none."""
    infos = [info for info in store.info() if info.rows and info.id.startswith(space)]
    if not infos:
        raise _no_embeddings(str(store.path), space)
    return infos


def _no_embeddings(place: str, space: str) -> ParameterError:
    meant = f" of a recipe whose id starts with {printable(space)!r}" if space else ""
    return ParameterError(
        f"The store {printable(place)!r} holds no embeddings{meant}; list the content of a local "
        "store with `featuretl cache info`."
    )
