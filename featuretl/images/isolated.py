"""Image decoding in child processes: a file that crashes or stalls a decoder costs one row.

Pipes carry bytes, pixels and messages behind headers of fixed size: nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import signal
import struct
import threading
from collections.abc import Iterator
from typing import Self

import numpy as np

from featuretl._core.processes import READY, Child, requests_and_answers
from featuretl.exceptions import FeatureTLError, ImageError
from featuretl.images.decode import MAX_PIXELS, decode

_REQUEST = struct.Struct("<QQ")  # bytes of the image, `least_side` of `decode`
_ANSWER = struct.Struct("<?QQ")  # True, height, width; or False, bytes of the error message, 0
_MAX_MESSAGE = 2**16
_START_SECONDS = 60.0  # limit for the start of a child


class IsolatedDecoder:
    """`decode` in child processes, with a time limit of `seconds` per image; thread-safe.

    Each concurrent call has its own child; a child that ends or exceeds the limit is replaced.
    Leaving this context manager ends the children.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        while self._idle:
            self._idle.pop().end()

    def __call__(self, data: bytes, least_side: int = 0) -> np.ndarray:
        """Decode the bytes of an image file like `decode`.

        Raises ImageError also if the decoder crashes or exceeds the time limit, and FeatureTLError
        if no child can be started.
        """
        child = self._take()
        try:
            answer = child.ask(data, least_side, self._seconds)
        except BaseException:
            child.end()
            raise
        self._idle.append(child)
        if isinstance(answer, str):
            raise ImageError(answer)
        return answer

    def _take(self) -> _Child:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return _Child()
            if child.is_alive():
                return child
            child.end()


class _Child(Child):
    """A process that decodes one image at a time."""

    def __init__(self) -> None:
        try:
            super().__init__(__name__)
        except OSError as error:
            raise _no_child(error.strerror) from error
        with self._deadline(_START_SECONDS) as late:
            is_ready = self.answers.read(len(READY)) == READY
        if not is_ready:
            self.end()
            slow = f"it was not ready after {_START_SECONDS:g} s"
            raise _no_child(slow if late.is_set() else _ending(self.process.returncode))

    def ask(self, data: bytes, least_side: int, seconds: float) -> np.ndarray | str:
        """Return the pixels of an image, or an error message.

        Raises ImageError if the process ends, exceeds the time limit, or sends an invalid answer;
        it must not be used again then.
        """
        answer = None
        with self._deadline(seconds) as late, contextlib.suppress(EOFError, OSError):
            answer = self._ask(data, least_side)
        if late.is_set():
            raise ImageError(f"decoding it took longer than {seconds:g} s")
        if answer is None:
            how = _ending(self.process.wait())
            raise ImageError(f"decoding it ended the decoder's process ({how})")
        return answer

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the process and set the event if the body of the context takes longer."""
        late = threading.Event()

        def kill() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()
            timer.join()

    def _ask(self, data: bytes, least_side: int) -> np.ndarray | str:
        self.send(_REQUEST.pack(len(data), least_side), data)
        is_image, height, width = _ANSWER.unpack(self.receive(_ANSWER.size))
        if is_image and 0 < height * width <= MAX_PIXELS:
            pixels = np.frombuffer(self.receive(height * width * 3), np.uint8)
            return pixels.reshape(height, width, 3)
        if not is_image and height <= _MAX_MESSAGE:
            return self.receive(height).decode(errors="replace")
        raise ImageError("decoding it gave no pixels within the limits")


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _no_child(reason: str | None) -> FeatureTLError:
    return FeatureTLError(
        f"No process that decodes images can be started ({reason}); fix this, or leave out "
        "decode_timeout (--decode-timeout) to decode in this process."
    )


def main() -> None:
    """Decode images in a child process until its input ends."""
    requests, answers = requests_and_answers()
    answers.write(READY)
    answers.flush()
    while header := requests.read(_REQUEST.size):
        size, least_side = _REQUEST.unpack(header)
        try:
            pixels = decode(requests.read(size), least_side)
        except ImageError as error:
            message = str(error).encode(errors="backslashreplace")[:_MAX_MESSAGE]
            answers.write(_ANSWER.pack(False, len(message), 0) + message)
        else:
            answers.write(_ANSWER.pack(True, *pixels.shape[:2]))
            answers.write(np.ascontiguousarray(pixels).data)
        answers.flush()


if __name__ == "__main__":
    main()
