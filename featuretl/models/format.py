"""The format of model files, version 1; docs/formats.md is the specification."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.files import replace_file, write_errors_as
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import ModelError

FORMAT_VERSION = 1
SUFFIX = ".featuretl"

Tensors = Mapping[str, Array]


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path. Raises ModelError unless a model can be written there."""
    target = Path(path).expanduser()
    if target.suffix != SUFFIX:
        raise ModelError(f"A model file must end in {SUFFIX}; got {printable(target)!r}.")
    if not target.parent.is_dir():
        raise ModelError(
            f"The folder of the model file {printable(target)!r} does not exist; create it first."
        )
    return target


def digest_of(model: str, card: str, tensors: Tensors) -> str:
    """Return the sha256, in hex, of the content of a file."""
    digest = hashlib.sha256(f"{card}\n{model}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def write_file(path: Path, model: str, card: str, tensors: Tensors) -> None:
    """Write a model file durably and atomically. Raises ModelError if that fails."""
    from safetensors.numpy import save

    metadata = {
        "featuretl_format": str(FORMAT_VERSION),
        "card": card,
        "model": model,
        "sha256": digest_of(model, card, tensors),
    }
    with write_errors_as(ModelError, "The model file", path):
        replace_file(path, lambda partial: partial.write_bytes(save(dict(tensors), metadata)))


def read_file(path: str | os.PathLike[str]) -> tuple[str, dict[str, Array]]:
    """Return the model as JSON text, and its tensors. Raises ModelError unless it is intact."""
    with _opened(path) as (file, texts):
        try:
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        except Exception as error:  # errors for dtypes that NumPy lacks vary
            raise unreadable(path, f"its tensors: {error}") from error
    if digest_of(texts["model"], texts["card"], tensors) != texts["sha256"]:
        raise unreadable(path, "its checksum does not match its content")
    return texts["model"], tensors


def read_card_text(path: str | os.PathLike[str]) -> str:
    """Return the card as JSON text, from the header only. Raises ModelError as `read_file` does."""
    with _opened(path) as (_, texts):
        return texts["card"]


def unreadable(path: str | os.PathLike[str], why: object) -> ModelError:
    """Return the error for a file that is not an intact model file."""
    return ModelError(
        f"{printable(os.fspath(path))!r} cannot be loaded as a model: {printable(why)}. It is "
        "damaged or was not written by save_model; save the model again."
    )


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield the safetensors file and the metadata of a model file of a supported version."""
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
            raise unreadable(path, "it is a safetensors file without a model")
        if int(version[:9]) > FORMAT_VERSION:
            raise ModelError(
                f"{printable(os.fspath(path))!r} has format {version[:9]} and this featuretl "
                f"reads format {FORMAT_VERSION}; upgrade featuretl to load it."
            )
        if missing := {"card", "model", "sha256"} - set(texts):
            raise unreadable(path, f"its header has no {min(missing)!r}")
        yield file, texts
