"""Checkpoints: a folder from which a killed `fit` resumes, with the same result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from featuretl._core.files import replace_file
from featuretl.exceptions import InputError
from featuretl.finetune.loop import State, Trainer

_VERSION = 2


class Checkpoint:
    """The last state of a fit, in one file; `identity` is all that the fit depends on."""

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self._folder = Path(folder).expanduser()
        self._file = self._folder / "checkpoint.pt"
        self._identity = json.dumps(identity, sort_keys=True, default=repr)

    def load(self) -> dict[str, Any] | None:
        """Return the last state, or None; InputError if it is of another fit or cannot be read."""
        if not self._file.exists():
            return None
        try:
            content = torch.load(self._file, map_location="cpu", weights_only=True)
            known = content["version"] == _VERSION and content["identity"]
        except Exception as error:  # torch raises many classes for a damaged or malicious file
            raise InputError(
                f"The checkpoint {str(self._file)!r} cannot be read ({type(error).__name__}); "
                "delete it to start again."
            ) from error
        if known != self._identity:
            raise InputError(
                f"The checkpoint {str(self._file)!r} belongs to a fit with other parameters, "
                "images, labels or groups; delete it or choose another folder as checkpoint."
            )
        return content["training"]

    def save(self, training: dict[str, Any]) -> None:
        """Replace the checkpoint durably."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"version": _VERSION, "identity": self._identity, "training": training}
        replace_file(self._file, lambda partial: torch.save(content, partial))


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return the state of a trainer as tensors and plain values."""
    average = trainer.average
    return {
        "network": trainer.task.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "average": None if average is None else average.state_dict(),
        "state": vars(trainer.state),
    }


def restore(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Set a trainer to a state that `state_of` returned."""
    trainer.task.network.load_state_dict(saved["network"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if trainer.average is not None:
        trainer.average.load_state_dict(saved["average"])
    trainer.state = State(**saved["state"])
