"""A space keeps committed rows, shares the work of its writers, and excludes damaged segments."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from known_rows import RECIPE, D, append, key, open_space, present, put, row, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store import space as space_module
from featuretl.store.lookup import keys_array
from featuretl.store.space import Space


def put_singly(store, numbers):
    """Embed images in one run, one at a time."""
    with open_space(store) as space:
        for number in numbers:
            append(space, take(space, [number]))


def test_rows_are_found_by_other_stores_once_committed(store, cache):
    with open_space(store) as space:
        assert space.claim([key(1)])[0] is True
        assert space.claim([key(1)])[0] is False  # claimed here already
        space.append([key(1)], row(1)[None])
        assert present(EmbeddingStore(cache), [1]) == set()
        space.commit()
        assert present(EmbeddingStore(cache), [1, 2]) == {1}
        assert space.claim([key(1)])[0] is False
    assert present(pickle.loads(pickle.dumps(store)), [1]) == {1}


def test_what_is_appended_is_committed_however_the_context_ends(store):
    with pytest.raises(KeyboardInterrupt), open_space(store) as space:
        space.claim([key(7)])[0]
        space.append([key(7)], row(7)[None])
        raise KeyboardInterrupt
    assert present(store, [7]) == {7}


def test_a_full_segment_is_committed_by_itself(store, monkeypatch, segment_files):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 4)
    put_singly(store, range(10))
    assert [len(np.load(path)) for path in segment_files()] == [4, 4, 2]
    assert present(store, range(10)) == {*range(10)}


def test_wide_rows_make_short_segments_and_a_minute_ends_one(store, monkeypatch, segment_files):
    monkeypatch.setattr(space_module, "SEGMENT_BYTES", 3 * row(0).nbytes)
    put_singly(store, range(7))
    assert [len(np.load(path)) for path in segment_files()] == [3, 3, 1]
    monkeypatch.setattr(space_module, "SEGMENT_SECONDS", 0)
    put_singly(store, [20, 21])
    assert len(segment_files()) == 5


def test_two_extractions_share_the_work(store, cache):
    other = EmbeddingStore(cache)
    with open_space(store) as mine, open_space(other) as theirs:
        assert mine.claim([key(1)])[0] is True
        assert theirs.claim([key(1)])[0] is None
        assert theirs.claim([key(1)], force=True)[0] is True
        assert theirs.claim([key(2)])[0] is True
        mine.append([key(1)], row(1)[None])
        mine.commit()
        theirs.commit()
        assert theirs.claim([key(1)])[0] is False  # the other has committed it meanwhile


def test_gather_keeps_the_order_and_marks_what_is_missing(store, monkeypatch):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 2)
    put_singly(store, range(6))
    space = store.find_space(RECIPE)
    order = [5, 0, 3, 99, 3]
    locations = space.find(keys_array([key(i) for i in order]))
    rows = space.gather(locations)
    np.testing.assert_array_equal(rows[[0, 1, 2, 4]], np.stack([row(i) for i in (5, 0, 3, 3)]))
    assert np.isnan(rows[3]).all()
    np.testing.assert_array_equal(np.concatenate(list(space.chunks(locations, 2))), rows)


@pytest.mark.parametrize("suffix", [".npy", ".keys"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
def test_a_damaged_segment_is_named_and_its_rows_are_made_again(
    store, cache, suffix, damage, segment_files
):
    put(store, [1, 2])
    put(store, [3])
    path = segment_files(suffix)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes({"flip": data, "truncate": data[:-1], "empty": b""}[damage])
    with pytest.warns(FeatureTLWarning, match=path.stem):
        assert present(EmbeddingStore(cache), [1, 2, 3]) == {3}
    with pytest.warns(FeatureTLWarning, match=path.stem):
        put(EmbeddingStore(cache), [1, 2, 3])
    with pytest.warns(FeatureTLWarning, match=path.stem):
        assert present(EmbeddingStore(cache), [1, 2, 3]) == {1, 2, 3}
    assert len(segment_files()) == (2 if damage == "delete" and suffix == ".npy" else 3)


def test_one_space_serves_many_threads(store, monkeypatch):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 16)
    counts = []

    def work(space):
        mine = [i for i in range(200) if space.claim([key(i)])[0]]
        for i in mine:
            space.append([key(i)], row(i)[None])
        counts.append(len(mine))

    with open_space(store) as space:
        threads = [threading.Thread(target=work, args=(space,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == 200
    assert present(store, range(200)) == {*range(200)}


def test_a_store_that_cannot_be_written_says_so_and_loses_nothing(store, monkeypatch):
    put(store, [1])

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(space_module, "write_segment", full)
    with pytest.raises(StoreError, match=r"No space left on device.*1 embeddings of this run"):
        put(store, [2])
    monkeypatch.undo()
    assert present(store, [1, 2]) == {1}


def in_process(code: str, *arguments: object) -> str:
    """Return the output of a Python process that can import the known rows."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'reliability')!r})\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


MANY_SEGMENTS = """
    import os, resource, warnings
    from known_rows import *
    from featuretl.store import SharedStore
    from featuretl.extraction.outputs import export_space
    from featuretl.store.exchange import export_shared
    from featuretl.store.verify import verify

    warnings.simplefilter("error")
    path, n = sys.argv[1], 200
    RECIPE["backbone"]["tensors"] = "0"
    store = EmbeddingStore(path)
    for number in range(n):
        put(store, [number])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    before = len(os.listdir("/proc/self/fd"))
    store = EmbeddingStore(path)
    space = store.find_space(RECIPE)
    assert found_in(space, list(range(n))) == set(range(n))
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "maps keep descriptors"
    assert verify(store) == [] and put(store, range(n)) == []
    assert export_space(path + ".npz", store) == n
    assert export_shared(store, SharedStore(path + ".shared")) == n
    print(len(np.load(path + ".npz")["embeddings"]))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_process_of_64_descriptors_uses_a_store_of_200_segments(tmp_path):
    assert in_process(MANY_SEGMENTS, tmp_path / "many").strip() == "200"


NO_MEMORY = """
    import re, resource
    import pyarrow
    from known_rows import *
    from featuretl.exceptions import UnusableStoreError

    recipe = {**RECIPE, "output": {"n_features": 2**24}}
    row = np.ones((1, 2**24), np.float32)  # 64 MiB
    with EmbeddingStore(sys.argv[1]).open_space(recipe, row[0], {}) as space:
        space.append([key(1)], row)
    del row, space
    used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    space = EmbeddingStore(sys.argv[1]).find_space(recipe)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, -1))
    try:
        space.find(keys_array([key(1)]))
    except UnusableStoreError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert space.find(keys_array([key(1)])).tolist() == [0]
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_that_does_not_suffice_is_one_sentence_and_later_it_is_found(tmp_path):
    said = in_process(NO_MEMORY, tmp_path / "large")
    assert os.strerror(errno.ENOMEM) in said and said.count("\n") == 1


def test_a_space_in_memory_embeds_each_image_once():
    with Space(D) as space:
        assert space.claim([key(1)])[0] is True
        assert space.claim([key(1)])[0] is False  # claimed
        space.append([key(1)], row(1)[None])
        assert space.claim([key(1)])[0] is False  # embedded
        assert space.claim([key(2)])[0] is True
        space.release(key(2))
        assert space.claim([key(2)])[0] is True
        space.append([key(2), key(3)], np.stack([row(2), row(3)]))
        space.commit()
    assert space.claim([key(1)])[0] is False
    locations = space.find(keys_array([key(number) for number in (3, 9, 1)]))
    rows = space.gather(locations)
    np.testing.assert_array_equal(rows[[0, 2]], [row(3), row(1)])
    assert np.isnan(rows[1]).all()


def test_gather_returns_nan_for_missing_rows_and_keeps_the_order(store):
    put_singly(store, range(6))
    space = store.find_space(RECIPE)
    locations = space.find(keys_array([key(number) for number in (4, 99, 0)]))
    rows = space.gather(locations)
    np.testing.assert_array_equal(rows[[0, 2]], [row(4), row(0)])
    assert np.isnan(rows[1]).all()
    assert space.gather(locations[:0]).shape == (0, D)
    assert list(space.chunks(locations[:0])) == []
