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
``name dtype shape\n`` and bytes. It detects damage, not malice.

**Writing.** The file is replaced atomically. **Reading.** The card is read alone, from the header,
without comparing the checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    """Write a model file durably and atomically.

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
    with _opened(path) as (file, texts):
        try:
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        except Exception as error:  # a dtype that NumPy lacks is any of several errors
            raise unreadable(path, f"its tensors: {error}") from error
    if digest_of(texts["model"], texts["card"], tensors) != texts["sha256"]:
        raise unreadable(path, "its checksum does not match its content")
    return texts["model"], tensors


def read_card_text(path: str | os.PathLike[str]) -> str:
    """Return the card, as JSON text, from the header alone; raises as `read_file` does."""
    with _opened(path) as (_, texts):
        return texts["card"]


def unreadable(path: str | os.PathLike[str], why: object) -> ModelError:
    """Return the error of a file that is no sound model file."""
    return ModelError(
        f"{printable(os.fspath(path))!r} cannot be loaded as a model: {printable(why)}; it is damaged "
        "or was not written by save_model."
    )


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield the safetensors file and the texts of a model file of a known version."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise unreadable(path, "not a regular file")
        opened = safe_open(path, framework="numpy")
    except (FileNotFoundError, PermissionError) as error:
        reason = "No such file" if isinstance(error, FileNotFoundError) else error.strerror
        name = printable(os.fspath(path))
        raise ModelError(f"The model file {name!r} cannot be read: {reason}.") from error
    except (OSError, SafetensorError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or error) from error
    with opened as file:
        texts = file.metadata() or {}
        version = texts.get("featuretl_format", "")
        if not version.isdecimal() or int(version[:9]) < 1:
            raise unreadable(path, "a safetensors file, but no model")
        if int(version[:9]) > FORMAT_VERSION:
            raise ModelError(
                f"{printable(os.fspath(path))!r} has format {version[:9]} and this featuretl "
                f"reads format {FORMAT_VERSION}; upgrade featuretl to load it."
            )
        if missing := {"card", "model", "sha256"} - set(texts):
            raise unreadable(path, f"its header has no {min(missing)!r}")
        yield file, texts
