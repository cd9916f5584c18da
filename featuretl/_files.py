"""Files on the local file system and behind URLs, through fsspec."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from featuretl._validation import printable
from featuretl.exceptions import InputError, ParameterError

_AT_ONCE = 16


def is_url(path: str) -> bool:
    """Return whether `path` is a URL, such as ``s3://bucket/key``.

    >>> is_url("s3://bucket/key"), is_url("folder/file")
    (True, False)
    """
    return "://" in path


def absolute(path: str) -> str:
    """Return a path that means the same file in a process that stands elsewhere; URLs as they are."""
    return path if is_url(path) else str(Path.cwd() / path)


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it.

    Raises
    ------
    ParameterError
        If the file system is not known or not installed, or the URL is a chain of several.
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


def contents(fs: Any, paths: list[str]) -> list[bytes | Exception]:
    """Return the bytes of files of a file system, or what was raised; some are read at once."""

    def read(path: str) -> bytes | Exception:
        try:
            return bytes(fs.cat_file(path))
        except Exception as error:  # each file system has its own
            return error

    if len(paths) < 2:
        return [read(path) for path in paths]
    with ThreadPoolExecutor(min(len(paths), _AT_ONCE)) as pool:
        return list(pool.map(read, paths))


def open_file(path: str) -> IO[bytes]:
    """Open a local file or a URL, to read. Raises InputError, as it may from then on: OSError."""
    try:
        if not is_url(path):
            return open(path, "rb")  # noqa: PTH123
        fs, inside = file_system(path)
        return fs.open(inside, "rb")
    except ParameterError:
        raise
    except Exception as error:  # each file system has its own
        raise cannot_be_read(printable(path), error) from error


def cannot_be_read(name: str, error: Exception) -> InputError:
    """Return the error that says that, and why, what is called `name` cannot be read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(f"{name} cannot be read: {printable(reason)}.")
