"""Child processes that run a module of this package and answer on their standard output."""

from __future__ import annotations

import contextlib
import os
import subprocess  # this interpreter and a module of this package  # nosec B404
import sys
from typing import Any, BinaryIO

READY = b"\n"

_PIPE_BYTES = 2**20  # most messages need one system call


class Child:
    """A process that runs a module, which writes READY once it can answer.

    It ends when its standard input ends. Raises OSError if no process can be started.
    """

    def __init__(self, module: str, **environment: str) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(  # no shell, no outside input  # nosec B603
            # -P keeps the working folder off the import path.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            start_new_session=True,  # only the parent handles Ctrl-C
            pipesize=_PIPE_BYTES,
        )
        self._requests: Any = self.process.stdin
        self.answers: Any = self.process.stdout

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self.process.poll() is None

    def send(self, *parts: bytes) -> None:
        """Send the parts of a request. Raises OSError if the process has ended."""
        for part in parts:
            self._requests.write(part)
        self._requests.flush()

    def receive(self, size: int) -> bytearray:
        """Return the next `size` bytes of the answer. Raises EOFError if it ends before."""
        data = bytearray(size)
        self.receive_into(data)
        return data

    def receive_into(self, data: bytearray | memoryview) -> None:
        """Fill `data` from the answer; see `receive`."""
        if self.answers.readinto(data) != len(data):
            raise EOFError

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()
        self.answers.close()
        with contextlib.suppress(OSError):  # the data that it did not read
            self._requests.close()


def requests_and_answers() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes of this child; what libraries print does not mix with the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers
