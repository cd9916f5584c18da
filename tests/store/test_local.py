"""The folder of a local store: locks, claims, system errors, and caches that are optional."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from known_rows import RECIPE, open_space, present, put

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.extraction import engine as _engine
from featuretl.extraction.outputs import export_space
from featuretl.store import local
from featuretl.store.collect import collect
from featuretl.store.exchange import export_shared
from featuretl.store.local import Claims
from featuretl.store.shared import SharedStore
from featuretl.store.store import resolve_store
from featuretl.store.verify import rebuild, verify

SPACE = "cd" * 32
KEY = bytes(range(32))
needs_locks = pytest.mark.skipif(local._SET_LOCK is None, reason="no such locks on this platform")


@needs_locks
def test_a_claim_excludes_others_until_it_is_released(tmp_path):
    one, other = Claims(tmp_path, SPACE), Claims(tmp_path, SPACE)
    assert one.claim(KEY)
    assert one.claim(KEY)
    assert not other.claim(KEY)
    assert other.claim(bytes(reversed(KEY)))
    assert Claims(tmp_path, "01" * 32).claim(KEY)  # another space
    one.release_all()
    assert other.claim(KEY)


@needs_locks
def test_a_claim_ends_when_its_process_is_killed(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from featuretl.store.local import Claims\n"
        f"claims = Claims(Path({str(tmp_path)!r}), {SPACE!r}); assert claims.claim({KEY!r})\n"
        "print('taken', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert process.stdout.readline() == b"taken\n"
    mine = Claims(tmp_path, SPACE)
    assert not mine.claim(KEY)
    process.kill()
    process.communicate()
    assert mine.claim(KEY)
    mine.release_all()


@needs_locks
def test_without_locks_every_claim_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_SET_LOCK", None)
    assert Claims(tmp_path, SPACE).claim(KEY)
    assert Claims(tmp_path, SPACE).claim(KEY)


def test_a_store_that_could_not_be_locked_is_locked_when_it_can(store, cache):
    put(store, [1])
    space = store.find_space(RECIPE)
    (cache / "LOCK").unlink()
    (cache / "LOCK").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        space.__enter__()
    (cache / "LOCK").rmdir()
    with open_space(store), pytest.raises(StoreError, match="in use by an extraction"):
        with EmbeddingStore(cache).locked_exclusively():
            pass


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        put(EmbeddingStore(tmp_path / "cache"), [1])


def test_folders_are_private(store, cache):
    put(store, [1])
    assert stat.S_IMODE(cache.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("kind", ["long", "file", "below a file"])
def test_a_folder_that_cannot_be_there_is_a_store_error(tmp_path, kind):
    (tmp_path / "file").write_text("")
    names = {"long": "x" * 300, "file": "file", "below a file": "file/below"}
    store = EmbeddingStore(tmp_path / names[kind])
    works = [collect, verify, rebuild, EmbeddingStore.info, lambda store: put(store, [1])]
    for work in works:
        with pytest.raises(UnusableStoreError) as error:
            work(store)
        assert "\n" not in str(error.value)


@pytest.fixture
def images(pixels) -> list[np.ndarray]:
    return [pixels[i : i + 64, i : i + 64].copy() for i in range(0, 96, 4)]


@pytest.mark.parametrize("gone", ["deleted", "a file instead", "its space"])
@pytest.mark.parametrize("wanted", ["default", "explicit"])
def test_a_cache_deleted_while_it_is_used(cache, images, monkeypatch, wanted, gone):
    monkeypatch.setattr(_engine, "_REPORT_SECONDS", 0)
    tiny = load_backbone("test_resnet", weights="random")
    expected = extract(images, tiny, n_jobs=1).to_numpy()
    store = resolve_store("auto" if wanted == "default" else cache, "t")
    extract(images[:4], tiny, store=store)

    def delete(statistics):
        if statistics.embedded and not (cache.parent / "gone").exists():
            at = next(cache.glob("spaces/*")) if gone == "its space" else cache
            at.rename(cache.parent / "gone")
            if gone == "a file instead":
                cache.write_text("")

    def run():
        return extract(images, tiny, store=store, batch_size=4, n_jobs=2, progress=delete)

    if wanted == "default":
        with pytest.warns(FeatureTLWarning, match="without caching"):
            found = run()
        np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(found.memmap(), expected, atol=1e-5)
    else:
        with pytest.raises(UnusableStoreError, match="not cached") as error:
            run()
        assert "\n" not in str(error.value) and str(cache) in str(error.value)


N = 6

WORK = {
    "present": lambda store: present(store, range(N)),
    "put": lambda store: put(store, range(N + 2)),
    "verify": verify,
    "repair": lambda store: verify(store, repair=True),
    "rebuild": rebuild,
    "collect": collect,
    "info": lambda store: store.info(),
    "export": lambda store: export_space(store.path / "out.npz", store),
    "share": lambda store: export_shared(store, SharedStore(store.path / "shared")),
    "view": lambda store: store.view("f" * 64, (2, 3), iter([np.ones((2, 3), np.float32)])),
}


@pytest.fixture(scope="module")
def frozen():
    """Exclude the objects of earlier tests and imports from garbage collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def only_free(n: int) -> Iterator[None]:
    """Let this process open n more files."""
    gc.collect()  # closes the files of earlier tests now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 64, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(n):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("known", "frozen")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("work", WORK)
def test_too_many_open_files_is_one_sentence_and_costs_no_row(tmp_path, work):
    filled = EmbeddingStore(tmp_path / "filled")
    for number in range(N):
        put(filled, [number])
    shutil.copytree(filled.path, tmp_path / "other")
    WORK[work](EmbeddingStore(tmp_path / "other"))  # imports modules before the limit
    outcomes = set()
    for more in (*range(12), 40):
        store = EmbeddingStore(filled.path)
        with only_free(more), warnings.catch_warnings():
            warnings.simplefilter("error", FeatureTLWarning)  # warns of damage
            try:
                WORK[work](store)
                said = ""
            except (UnusableStoreError, FeatureTLWarning) as error:
                said = str(error)
        assert not said or ("Too many open files" in said and "\n" not in said)
        assert "damage" not in said
        outcomes.add("refused" if said else "done")
        assert present(EmbeddingStore(filled.path), range(N)) == {*range(N)}
    assert outcomes == {"done", "refused"}
