"""Locks and connections that a forked child must not share with its parent.

A child inherits open files: a lock on one lasts until both have closed it, an unlock in the child
unlocks the parent, and a lock that another thread held is held for ever. The owners registered here
start again in the child. A thread of the parent may be inside SQLite, whose own mutexes do not
survive a fork, so SQLite works only under `SQLITE`, which the forking thread waits for.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

SQLITE = threading.RLock()


class ForkAware(Protocol):
    """What holds locks, open files or connections."""

    def begin_in_child(self) -> None:
        """Replace locks, close inherited files without unlocking them, and drop connections."""


_owners: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def begin_again_after_fork(owner: ForkAware) -> None:
    """Have `owner` start again in each child that this process forks."""
    _owners.add(owner)


def _in_child() -> None:
    SQLITE.release()
    for owner in list(_owners):
        owner.begin_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=SQLITE.acquire, after_in_parent=SQLITE.release, after_in_child=_in_child
    )
