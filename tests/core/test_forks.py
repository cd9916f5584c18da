"""Registered owners reset themselves in a forked child, and a fork waits for calls of SQLite."""

import gc
import os
import threading

import pytest

from featuretl._core.forks import SQLITE, _owners, begin_again_after_fork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # from Python 3.12 on
]


class Owner:
    def __init__(self):
        self.begun = 0

    def begin_in_child(self):
        self.begun += 1


def status_of_child(is_right):
    """Return the exit status of a forked child: 0 if ``is_right()`` holds in it."""
    child = os.fork()
    if not child:
        os._exit(0 if is_right() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_owners_begin_again_in_the_child_only():
    owner = Owner()
    begin_again_after_fork(owner)
    begin_again_after_fork(owner)  # registers it once
    assert status_of_child(lambda: owner.begun == 1) == 0
    assert owner.begun == 0


def test_an_owner_may_be_collected():
    owner = Owner()
    begin_again_after_fork(owner)
    before = len(_owners)
    del owner
    gc.collect()
    assert len(_owners) < before


def test_sqlite_is_free_in_both_processes_after_a_fork():
    def is_free():
        found = []

        def use():
            found.append(SQLITE.acquire(timeout=5))
            SQLITE.release()

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        return found == [True]

    assert status_of_child(is_free) == 0
    assert is_free()


def test_a_fork_waits_for_a_thread_that_uses_sqlite():
    held, done, order = threading.Event(), threading.Event(), []

    def use():
        with SQLITE:
            held.set()
            done.wait(0.2)
            order.append("call")

    thread = threading.Thread(target=use)
    thread.start()
    held.wait()
    assert status_of_child(lambda: order == ["call"]) == 0
    thread.join()
