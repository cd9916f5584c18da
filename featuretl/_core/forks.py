"""Locks and connections that a forked child must not share with its parent.

A file lock lasts until both processes close the file, an unlock in the child unlocks the parent, and
a lock that another thread held is never released: owners registered here reset themselves.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

# All calls of SQLite hold it, and a fork waits for it: the mutexes of SQLite do not survive a fork.
SQLITE = threading.RLock()


class ForkAware(Protocol):
    """An owner of locks, open files or connections."""

    def begin_in_child(self) -> None:
        """Replace locks, close inherited files without unlocking them, and drop connections."""


_owners: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def begin_again_after_fork(owner: ForkAware) -> None:
    """Register `owner`, whose `begin_in_child` runs in each child that this process forks."""
    _owners.add(owner)


def _in_child() -> None:
    SQLITE.release()
    for owner in list(_owners):
        owner.begin_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=SQLITE.acquire, after_in_parent=SQLITE.release, after_in_child=_in_child
    )
