"""Child processes that run a module of this package and answer on their standard output."""

from __future__ import annotations

import os
import subprocess  # this interpreter and a module of this package  # nosec B404
import sys
from typing import Any, BinaryIO

READY = b"\n"

_PIPE_BYTES = 2**20  # most messages need one system call


def start_module(name: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that runs the module `name`, which writes READY once it can answer.

    It ends when its standard input ends. Raises OSError if no process can be started.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(  # no shell, no outside input  # nosec B603
        # -P keeps the working folder off the import path.
        [sys.executable, "-P", "-m", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,  # only the parent handles Ctrl-C
        pipesize=_PIPE_BYTES,
    )


def requests_and_answers() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes of this child; what libraries print does not mix with the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def receive(pipe: Any, into: bytearray | memoryview) -> None:
    """Fill `into` from a pipe. Raises EOFError if it ends before."""
    if pipe.readinto(into) != len(into):
        raise EOFError
