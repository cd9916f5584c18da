"""Children answer on a pipe of their own, and end with their input."""

import io

import pytest

from featuretl._core.processes import READY, Child


@pytest.fixture
def child():
    child = Child("featuretl.images.isolated")
    yield child
    child.end()
    assert not child.is_alive()


def test_a_child_answers_and_ends_with_its_input(child):
    assert child.receive(len(READY)) == READY
    child.process.stdin.close()
    assert child.process.wait(30) == 0


def test_a_pipe_that_ends_early_is_an_error(child, monkeypatch):
    monkeypatch.setattr(child, "answers", io.BytesIO(b"abcdef"))
    assert child.receive(4) == b"abcd"
    with pytest.raises(EOFError):
        child.receive(4)
