"""A folder that processes on several machines share: on a file system, or behind an fsspec URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from featuretl._core.files import absolute, contents, file_system, is_local, replace_file
from featuretl._core.parameters import as_path
from featuretl._core.text import printable, reason_of
from featuretl.exceptions import FeatureTLError, ParameterError, UnusableStoreError


class SharedFolder:
    """A folder in which a file appears whole or not at all, and is never changed afterwards.

    `url` is a path, or a URL of an fsspec file system that puts files whole, as object stores do.
    Raises ParameterError if it cannot be used, and UnusableStoreError from every method.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        if as_path(url) is None:
            raise ParameterError(
                f"A shared folder needs a path or URL that can be one; got {url!r}."
            )
        self.url = absolute(os.fsdecode(url))
        self._fs, self._root = file_system(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedFolder, (self.url,)

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably, in place of the one of that name if there is one."""
        target = f"{self._root}/{name}"
        try:
            if is_local(self._fs):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                replace_file(Path(target), lambda partial: partial.write_bytes(data))
            else:
                self._fs.pipe_file(target, data)
        except Exception as error:  # each file system has its own
            raise self._unusable("written", error) from error

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes; None where there is none."""
        return self.get_all([name])[0]

    def get_all(self, names: list[str]) -> list[bytes | None]:
        """Return the bytes of files, read in parallel; None where there is none."""
        found = contents(self._fs, [f"{self._root}/{name}" for name in names])
        for content in found:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise self._unusable("read", content) from content
        return [content if isinstance(content, bytes) else None for content in found]

    def names(self, folder: str) -> list[str]:
        """Return the names in a subfolder, in no order; none if there is no such folder."""
        try:
            self._fs.invalidate_cache()
            paths = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._unusable("read", error) from error
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def _unusable(self, done: str, error: Exception) -> FeatureTLError:
        return UnusableStoreError(
            f"The shared store {printable(self.url)!r} cannot be {done} ({reason_of(error)}); its "
            "content is intact: fix the cause, and run the command again."
        )
