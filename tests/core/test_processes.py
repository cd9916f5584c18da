"""Children answer on a pipe of their own, and end with their input."""

import io

import pytest

from featuretl._core.processes import READY, receive, start_module


def test_a_child_answers_and_ends_with_its_input():
    child = start_module("featuretl.images.isolated")
    try:
        assert child.stdout.read(len(READY)) == READY
        child.stdin.close()
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.stdout.close()


def test_a_pipe_that_ends_early_is_an_error():
    data = bytearray(4)
    receive(io.BytesIO(b"abcdef"), data)
    assert data == b"abcd"
    with pytest.raises(EOFError):
        receive(io.BytesIO(b"abc"), data)
