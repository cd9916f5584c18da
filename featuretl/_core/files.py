"""Local files, and remote files through fsspec."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from featuretl._core.parameters import as_path
from featuretl._core.text import printable, reason_of
from featuretl.exceptions import FeatureTLError, InputError, ParameterError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

A = TypeVar("A")
T = TypeVar("T")

_MAX_THREADS = 16


def is_url(path: str) -> bool:
    """Return whether `path` is a URL, such as ``s3://bucket/key``."""
    return "://" in path


def without_scheme(path: str) -> str:
    """Return the local path of a ``file://`` URL; other paths are returned unchanged."""
    return file_system(path)[1] if path.startswith(("file://", "local://")) else path


def absolute(path: str) -> str:
    """Return the absolute path; URLs are returned unchanged."""
    return path if is_url(path) else str(Path.cwd() / path)


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it.

    Raises ParameterError if the file system is unknown or not installed, or for chained URLs.
    """
    import fsspec

    try:
        if "::" in url:
            raise ValueError("it is a chain of URLs; give a plain one")
        fs, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ParameterError(
            f"{printable(url)!r} is on no file system that can be used here: {printable(error)}."
        ) from error
    return fs, path.rstrip("/")


def is_local(fs: Any) -> bool:
    """Return whether an fsspec file system is the local one."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def contents(fs: Any, paths: list[str], limit: int | None = None) -> list[bytes | Exception]:
    """Read files in parallel; return the bytes or the error of each, OverflowError over `limit`."""

    def read(path: str) -> bytes:
        if limit is None:
            return bytes(fs.cat_file(path))
        data = bytearray()
        with fs.open(path, "rb") as file:
            size = getattr(file, "size", None) or 0
            while max(size, len(data)) <= limit and (more := file.read(limit + 1 - len(data))):
                data += more  # a server may return pieces without a total size
        if max(size, len(data)) > limit:
            raise OverflowError(f"over the limit of {limit} bytes")
        return bytes(data)

    return each(read, paths)


def each(call: Callable[[A], T], items: list[A]) -> list[T | Exception]:
    """Call `call` for all items in parallel; return the result or the error of each."""

    def called(item: A) -> T | Exception:
        try:
            return call(item)
        except Exception as error:  # the class depends on the file system
            return error

    if len(items) < 2:
        return [called(item) for item in items]
    with ThreadPoolExecutor(min(len(items), _MAX_THREADS)) as pool:
        return list(pool.map(called, items))


def lock_file(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until it is closed; does nothing on Windows.

    Raises BlockingIOError if the file is locked and `wait` is False, OSError if locks do not work.
    """
    if fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)


def open_local(path: str | os.PathLike[str], buffering: int = -1) -> Any:
    """Open a local file; raises OSError without blocking if it is not a regular file."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb", buffering)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError("not a regular file")


def open_file(path: str) -> IO[bytes]:
    """Open a local file or a URL for reading; raises InputError. Reads raise OSError."""
    try:
        if not is_url(path):
            return open_local(path)
        fs, inside = file_system(path)
        if is_local(fs):
            return open_local(inside)
        return fs.open(inside, "rb")
    except ParameterError:
        raise
    except Exception as error:  # the class depends on the file system
        raise cannot_be_read(printable(path), error) from error


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary path, then replace `path` atomically and durably.

    If anything fails, `path` is unchanged and the temporary file is removed.
    """
    partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(path.parent)


@contextmanager
def write_errors_as(kind: type[FeatureTLError], what: str, path: Path) -> Iterator[None]:
    """Raise an error of `kind` that names `what` and `path` if the path cannot be written."""
    try:
        yield
    except OSError as error:
        raise kind(
            f"{what} {printable(path)!r} cannot be written ({error.strerror or error}); free disk "
            "space or choose another path."
        ) from error


def fsync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk; does nothing on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_be_read(name: str, error: Exception) -> InputError:
    """Return the error for a file `name` that cannot be read."""
    return InputError(f"{name} cannot be read: {reason_of(error)}.")


def check_output(path: str | os.PathLike[str], endings: tuple[str, ...]) -> Path:
    """Return `path` if a file can be written there. Raises ParameterError."""
    target = as_path(path) and Path(path)
    if target is None:
        raise ParameterError(f"The output must be the path of a file; got {printable(repr(path))}.")
    if target.suffix not in endings:
        raise ParameterError(
            f"The output must end in {', '.join(endings)}; got {printable(target)!r}."
        )
    if not target.parent.is_dir():
        raise ParameterError(
            f"The folder of the output {printable(target)!r} does not exist; create it first."
        )
    return target
