"""Networks in several threads use one PyTorch thread each; the setting is restored."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from featuretl.runtimes.threads import one_thread_each


@pytest.fixture(autouse=True)
def three_threads():
    """PyTorch with three threads per operation, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_each_thread_of_the_pool_has_one():
    meeting = threading.Barrier(2)  # so that both threads answer

    def answer():
        meeting.wait(60)
        return threading.get_ident(), torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool, one_thread_each(pool, 2):
        found = dict(future.result() for future in [pool.submit(answer) for _ in range(2)])
    assert list(found.values()) == [1, 1]


def test_the_setting_is_restored_here_and_for_later_threads():
    with pytest.raises(ZeroDivisionError):
        with ThreadPoolExecutor(2) as pool, one_thread_each(pool, 2):
            raise ZeroDivisionError
    assert torch.get_num_threads() == 3
    assert in_new_thread() == 3


def test_a_thread_that_does_not_start_does_not_block_the_others():
    class Exhausted(ThreadPoolExecutor):
        def submit(self, *args):
            if self._threads:
                raise RuntimeError("can't start new thread")
            return super().submit(*args)

    with pytest.raises(RuntimeError, match="can't start"):
        with Exhausted(2) as pool, one_thread_each(pool, 2):
            pass
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_has_one():
    child = os.fork()
    if not child:
        os._exit(torch.get_num_threads())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
