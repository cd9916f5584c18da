"""Child processes that read, decode and preprocess files for a device faster than Python's threads.

A process of Python runs one thread at a time outside of libraries, so that the threads of 16 cores
decode no more images than those of four. A child gets pickles; it answers with JSON and tensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle  # for children of this process only  # nosec B403
import select
import struct
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from featuretl._core.files import is_url
from featuretl._core.processes import READY, Child, requests_and_answers
from featuretl.exceptions import ImageError, ItemError
from featuretl.extraction.costs import Costs
from featuretl.images.decode import decode, golden_pixels
from featuretl.images.inputs import Content, is_file, read
from featuretl.images.isolated import IsolatedDecoder

_CAREFUL_SECONDS = 60.0
_HEADER = struct.Struct("<Q")
_STATE = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")

# A function from pixels to a tensor, and `least_side` of `decode`.
Prepare = tuple[Callable[[np.ndarray], Any], int]
Prepared = tuple[Content | ItemError, Any]  # what was read, and its tensor or an error


class Preparers:
    """`n` child processes that decode files and apply `prepare` to them; thread-safe.

    They start in the background. Leaving this context manager ends them.
    """

    def __init__(self, n: int, prepare: Prepare | None, costs: Costs) -> None:
        self._costs, self._prepare = costs, prepare
        self._idle: deque[_Process] = deque()
        self._left = False
        if prepare is None or os.name == "nt":  # where nothing tells when a pipe can be read
            return
        # A function of the user's own can be one that no other process knows.
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError, OSError):
            pickled = pickle.dumps(prepare)
            for _ in range(n):
                self._idle.append(_Process(pickled))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._left = True
        self._end_idle()

    def _end_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().end()

    def __call__(self, images: Sequence[Any]) -> list[Prepared] | None:
        """Read and prepare local files; return None for others, or if no child is ready."""
        process = self._take() if images and all(map(_is_local, images)) else None
        if process is None or self._prepare is None:
            return None
        try:
            prepared, seconds = process.ask([os.fspath(image) for image in images])
        except (OSError, EOFError, ValueError):  # an image ended it
            process.end()
            with IsolatedDecoder(_CAREFUL_SECONDS) as decoder:
                return [_prepared(image, self._prepare, decoder, self._costs) for image in images]
        except BaseException:
            process.end()
            raise
        self._idle.append(process)
        if self._left:
            self._end_idle()
        self._costs.add_of_child(seconds)
        return prepared

    def _take(self) -> _Process | None:
        for _ in range(len(self._idle)):
            try:
                process = self._idle.popleft()
            except IndexError:  # another thread took it
                return None
            if process.is_ready():
                return process
            if process.is_alive():
                self._idle.append(process)
            else:
                process.end()
        return None


def _is_local(image: Any) -> bool:
    return is_file(image) and not is_url(os.fsdecode(image))


class _Process(Child):
    def __init__(self, prepare: bytes) -> None:
        super().__init__(__name__, OMP_NUM_THREADS="1")
        self._is_ready = False
        self.send(_HEADER.pack(len(prepare)), prepare)

    def is_ready(self) -> bool:
        """Return whether it has started, without waiting."""
        if not self._is_ready and select.select([self.answers], [], [], 0)[0]:
            self._is_ready = self.answers.read(len(READY)) == READY
        return self._is_ready

    def ask(self, paths: list[str | bytes]) -> tuple[list[Prepared], dict[str, float]]:
        """Return prepared files, and the processor time of the child by stage."""
        from featuretl.backbones.devices import from_channels_last

        request = pickle.dumps(paths)
        self.send(_HEADER.pack(len(request)), request)
        facts = self.receive(*_HEADER.unpack(self.receive(_HEADER.size)))
        items, shape, dtype, seconds = json.loads(facts)
        block = np.empty(shape, dtype)
        if block.size:
            self.receive_into(block.data.cast("B"))
        tensors = iter(from_channels_last(block))
        prepared: list[Prepared] = []
        for key, state, error in items:
            digest = bytes.fromhex(key)
            known: Any = state and SimpleNamespace(**dict(zip(_STATE, state, strict=True)))
            content: Any = Content(digest, b"", known, digest) if key else ImageError(error)
            prepared.append((content, next(tensors) if error is None else ImageError(error)))
        return prepared, seconds


def _prepared(image: Any, prepare: Prepare, decoder: Any, costs: Costs) -> Prepared:
    """Read and prepare one file."""
    try:
        content = read(image, costs.stage)
    except ItemError as error:
        return error, None
    function, least_side = prepare
    try:
        with costs.stage("decode"):
            pixels = content.pixels(decoder, least_side)
        with costs.stage("resize"):
            return content, function(pixels)
    except ItemError as error:
        return content, error


def _answer(prepared: list[Prepared], costs: Costs) -> tuple[bytes, np.ndarray]:
    """Return the facts of prepared files (JSON), and their tensors, channels last."""
    items: list[tuple[str, list[int] | None, str | None]] = []
    tensors = []
    for content, tensor in prepared:
        if isinstance(content, ItemError):
            items.append(("", None, str(content)))
            continue
        state = content.state and [getattr(content.state, name) for name in _STATE]
        is_bad = isinstance(tensor, ItemError)
        items.append((content.key.hex(), state, str(tensor) if is_bad else None))
        if not is_bad:
            tensors.append(tensor.movedim(-3, -1).numpy())
    block = np.stack(tensors) if tensors else np.empty((0, 1, 1, 1), np.uint8)
    facts = items, block.shape, str(block.dtype), costs.seconds
    return json.dumps(facts).encode(), block


def main() -> None:
    """Prepare files in a child process until its input ends."""
    requests, answers = requests_and_answers()
    prepare = pickle.loads(_request(requests))  # from the parent  # nosec B301
    prepare[0](golden_pixels())  # which imports what it needs
    answers.write(READY)
    answers.flush()
    while data := _request(requests):
        costs = Costs()
        images = pickle.loads(data)  # nosec B301
        prepared = [_prepared(image, prepare, decode, costs) for image in images]
        facts, block = _answer(prepared, costs)
        answers.write(_HEADER.pack(len(facts)) + facts)
        answers.write(block.data)
        answers.flush()


def _request(pipe: Any) -> bytes:
    header = pipe.read(_HEADER.size)
    return pipe.read(*_HEADER.unpack(header)) if len(header) == _HEADER.size else b""


if __name__ == "__main__":
    main()
