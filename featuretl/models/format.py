r"""The format of model files, version 1.

The version is the format's own; it does not follow the package's. A model file, ``*.featuretl``, is
one `safetensors <https://github.com/huggingface/safetensors>`_ file, which any reader of that
format opens: eight bytes with the length of a JSON header, the header, then the tensors' bytes
without gaps. Nothing is compressed, and there are no file names inside. The header's metadata are
four texts::

    featuretl_format   "1"
    card               JSON: what the model is, for people; see `featuretl.models.card`
    model              JSON: the estimators; see `featuretl.models.values`
    sha256             hex, over what follows

The sha256 is taken over ``card``, ``model`` and, in order of name, each tensor's line
``name dtype shape\n`` and bytes. It tells damage, not malice: who writes a file writes its sum, too.

**Writing.** Under a name ending in ``.partial``, fsynced, renamed, and the folder fsynced: there is
the old file or the new one. **Reading.** The card is read alone, from the header, unchecked.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featuretl._core.files import replace_file
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import ModelError

FORMAT_VERSION = 1
SUFFIX = ".featuretl"

Tensors = Mapping[str, Array]


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return `path` if a model can be written there; raise ModelError otherwise."""
    target = Path(path).expanduser()
    if target.suffix != SUFFIX:
        raise ModelError(f"A model file must end in {SUFFIX}; got {printable(target)!r}.")
    if not target.parent.is_dir():
        raise ModelError(
            f"The folder of the model file {printable(target)!r} does not exist; create it first."
        )
    return target


def digest_of(model: str, card: str, tensors: Tensors) -> str:
    """Return the sha256, in hex, of what a file holds."""
    digest = hashlib.sha256(f"{card}\n{model}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def write_file(path: Path, model: str, card: str, tensors: Tensors) -> None:
    """Write a model file durably and at once.

    Raises
    ------
    ModelError
        If it cannot be written.
    """
    from safetensors.numpy import save

    metadata = {
        "featuretl_format": str(FORMAT_VERSION),
        "card": card,
        "model": model,
        "sha256": digest_of(model, card, tensors),
    }
    try:
        replace_file(path, lambda partial: partial.write_bytes(save(dict(tensors), metadata)))
    except OSError as error:
        raise ModelError(
            f"The model file {printable(path)!r} cannot be written ({error.strerror}); choose "
            "another place."
        ) from error


def read_file(path: str | os.PathLike[str]) -> tuple[str, dict[str, Array]]:
    """Return the model, as JSON text, and its tensors, with the checksum compared.

    Raises
    ------
    ModelError
        If the file cannot be read, is damaged, of a newer format, or no model file.
    """
    with _Opened(path) as file:
        tensors = {name: np.array(file.tensor(name)) for name in file.names()}
        model, card = file.text("model"), file.text("card")
        if digest_of(model, card, tensors) != file.text("sha256"):
            raise unreadable(path, "its checksum does not match its content")
    return model, tensors


def read_card_text(path: str | os.PathLike[str]) -> str:
    """Return the card, as JSON text, from the header alone; raises as `read_file` does."""
    with _Opened(path) as file:
        return file.text("card")


def unreadable(path: str | os.PathLike[str], why: object) -> ModelError:
    """Return the error of a file that is no sound model file."""
    return ModelError(
        f"{printable(os.fspath(path))!r} cannot be loaded as a model: {printable(why)}; it is damaged "
        "or was not written by save_model."
    )


class _Opened:
    """A file whose header is that of a model file of a known version."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        self._path, self._error = path, SafetensorError
        try:
            if not stat.S_ISREG(Path(path).stat().st_mode):
                raise unreadable(path, "not a regular file")
            self._file = safe_open(path, framework="numpy")
        except (FileNotFoundError, PermissionError) as error:
            reason = "No such file" if isinstance(error, FileNotFoundError) else error.strerror
            name = printable(os.fspath(path))
            raise ModelError(f"The model file {name!r} cannot be read: {reason}.") from error
        except (OSError, SafetensorError) as error:
            raise unreadable(path, getattr(error, "strerror", None) or error) from error
        self._metadata = self._file.metadata() or {}

    def __enter__(self) -> _Opened:
        self._file.__enter__()
        version = self._metadata.get("featuretl_format", "")
        if not version.isdecimal() or int(version[:9]) < 1:
            raise unreadable(self._path, "a safetensors file, but no model")
        if int(version[:9]) > FORMAT_VERSION:
            raise ModelError(
                f"{printable(os.fspath(self._path))!r} has format {version[:9]} and this featuretl "
                f"reads format {FORMAT_VERSION}; upgrade featuretl to load it."
            )
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def names(self) -> list[str]:
        return list(self._file.keys())

    def tensor(self, name: str) -> Array:
        try:
            tensor: Array = self._file.get_tensor(name)
        except Exception as error:  # a dtype that NumPy lacks is any of several errors
            raise unreadable(self._path, f"tensor {name!r}: {error}") from error
        return tensor

    def text(self, name: str) -> str:
        try:
            return str(self._metadata[name])
        except KeyError as error:
            raise unreadable(self._path, f"its header has no {name!r}") from error
