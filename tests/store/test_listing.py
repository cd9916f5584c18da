"""Listing a store while other processes write, publish and free its files."""

from __future__ import annotations

import threading

from known_rows import present, put

from featuretl import EmbeddingStore
from featuretl.store.format import entries


def test_what_is_gone_is_not_listed(tmp_path):
    assert entries(tmp_path / "no", ".keys") == []
    (tmp_path / "a.keys").write_bytes(b"12")
    (tmp_path / "b.keys").symlink_to(tmp_path / "removed")  # as if removed after the listing
    (tmp_path / "c.npy").touch()
    ((state, path),) = entries(tmp_path, ".keys")
    assert (state.st_size, path.name) == (2, "a.keys")
    assert len(entries(tmp_path, ".keys", ".npy")) == 2


def test_an_index_is_made_anew_while_spaces_are_published_and_removed(tmp_path):
    cache, over = tmp_path / "cache", threading.Event()
    put(EmbeddingStore(cache), range(20))

    def publish_and_remove():
        names = ["a" * 64, f"{'a' * 64}.1.partial", f"{'a' * 64}.2.partial"]
        a, begun, doomed = (cache / "spaces" / name for name in names)
        while not over.is_set():
            begun.mkdir()
            begun.rename(a)
            a.rename(doomed)
            doomed.rmdir()

    other = threading.Thread(target=publish_and_remove)
    other.start()
    try:
        for _ in range(100):
            EmbeddingStore(cache).index.rebuild()
    finally:
        over.set()
        other.join()
    assert present(EmbeddingStore(cache), range(20)) == set(range(20))
