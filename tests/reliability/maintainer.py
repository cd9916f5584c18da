"""Kill the maintenance of a store at every step.

    python maintainer.py BEFORE AFTER repair|rebuild|collect

Copies the store BEFORE to AFTER/0, AFTER/1, .. and runs the maintenance on each copy in a process
that kills itself before its first, second, .. file operation or SQL statement, until one run
completes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import sys
import warnings
from pathlib import Path
from typing import Any

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning
from featuretl.store.collect import collect
from featuretl.store.verify import rebuild, verify

WORK = {
    "repair": lambda store: verify(store, repair=True),
    "rebuild": rebuild,
    "collect": lambda store: collect(store, older_than=3600),
}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "sqlite3.connect"}
CREATES = os.O_CREAT | os.O_EXCL


def kill_before(number: int) -> None:
    """Make this process kill itself before its operation with this number."""
    numbers = itertools.count()

    def count(*_: object) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & CREATES == CREATES):
            count()

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect_whole(*arguments, **options)
        db.set_trace_callback(count)
        return db

    sys.addaudithook(watch)
    connect_whole, sqlite3.connect = sqlite3.connect, connect


def main(before: str, after: str, work: str) -> None:
    """Run the maintenance on copies until one run is not killed."""
    warnings.simplefilter("ignore", FeatureTLWarning)
    for number in itertools.count():
        shutil.copytree(before, Path(after, str(number)))
        child = os.fork()
        if not child:
            kill_before(number)
            WORK[work](EmbeddingStore(Path(after, str(number))))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL, status


if __name__ == "__main__":
    main(*sys.argv[1:])
