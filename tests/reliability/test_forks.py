"""Forked children do not inherit their parent's locks, claims and connections."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from known_rows import append, found_in, key, open_space, present, put, take

from featuretl import EmbeddingStore, ImageEmbedder
from featuretl.exceptions import InputError
from featuretl.prediction.parts import Parts
from featuretl.store.collect import collect

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # from Python 3.12 on
]


def in_child(work: Callable[[], object], seconds: int = 20) -> int:
    """Return the exit status of a forked child that runs `work`; SIGALRM ends a deadlock."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def living_child() -> Iterator[None]:
    """Keep an idle forked child alive within the context."""
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        os.write(begun, b".")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(ready, 1)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(begun)


def test_a_child_that_lives_on_holds_no_lock_and_no_claim(store, cache):
    with ExitStack() as stack:
        with open_space(store) as space:
            assert space.claim([key(1)])[0] is True
            stack.enter_context(living_child())
        with open_space(EmbeddingStore(cache)) as other:
            assert other.claim([key(1)])[0] is True  # the parent released it
        assert collect(store).spaces == []  # the parent unlocked the store


def test_a_child_neither_commits_nor_unlocks_what_is_the_parents(store, cache):
    other = EmbeddingStore(cache)
    with open_space(store) as space:
        append(space, take(space, [1, 2]))
        space.claim([key(3)])[0]
        assert in_child(lambda: space.__exit__(None, None, None)) == 0
        assert present(other, [1, 2]) == set()
        with open_space(other) as second:
            assert second.claim([key(3)])[0] is None
        with pytest.raises(Exception, match="in use by an extraction"):
            collect(other)
    assert present(other, [1, 2]) == {1, 2}
    assert [info.segments for info in other.info()] == [1]


def test_a_child_extracts_with_the_store_and_reads_with_the_space_it_inherits(store):
    put(store, [1, 2])
    with open_space(store) as space:
        space.claim([key(5)])[0]

        def work() -> None:
            assert found_in(space, [1, 2]) == {1, 2}
            store.memo.put("fact", 1)
            with open_space(store) as own:
                assert own.claim([key(5)])[0] is None
                append(own, take(own, [3, 4]))
                with pytest.raises(Exception, match="in use by an extraction"):
                    collect(EmbeddingStore(store.path))

        assert in_child(work) == 0
    assert present(store, range(6)) == {1, 2, 3, 4}
    assert store.memo.get("fact") == 1


def test_forks_while_other_threads_use_the_store_never_hang(store):
    put(store, range(10))
    stop = threading.Event()
    numbers = iter(range(100, 10**6))

    def busy() -> None:
        with open_space(store) as space:
            while not stop.is_set():
                append(space, take(space, [next(numbers)]))
                space.commit()
                store.memo.put("fact", 1)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()

    def work() -> None:
        assert present(store, range(10)) == {*range(10)}
        store.memo.get("fact")
        with open_space(store) as space:
            assert take(space, range(10)) == []

    try:
        assert {in_child(work) for _ in range(6)} == {0}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(present(store, range(100, 200))) > 0


def test_a_child_does_not_hold_the_output_of_predictions(tmp_path):
    output = tmp_path / "out.csv"
    with ExitStack() as stack:
        with Parts(output, "{}"):
            stack.enter_context(living_child())
            with pytest.raises(InputError, match="Another run"), Parts(output, "{}"):
                pass
        with Parts(output, "{}"):
            pass


def test_a_child_embeds_after_its_parent_did(store, pixels):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the child does not inherit the threads
    try:
        embedder = ImageEmbedder(cache=store, runtime="torch", n_jobs=1)
        images = [pixels[i : i + 64, :64].copy() for i in range(4)]
        first = embedder.transform(images[:2])

        def work() -> None:
            np.testing.assert_array_equal(embedder.transform(images[:2]), first)
            assert np.isfinite(embedder.transform(images)).all()

        assert in_child(work, seconds=60) == 0
        assert embedder.extract(images).statistics.embedded == 0
    finally:
        torch.set_num_threads(threads)
