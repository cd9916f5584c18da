"""Schemas of the classes that a model file may hold."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# Of the machine, not of the model: where things are kept, what computes, what is shown.
OF_THE_MACHINE = ("cache", "checkpoint", "device", "memory", "n_jobs", "verbose")
# They had their effect in `fit`; one that a file cannot hold is left out with a warning.
OF_TRAINING = ("augment", "cv", "random_state")
# scikit-learn's own notes on an estimator: what set_fit_request leaves is of training.
_NOTES = ("_metadata_request",)


@dataclass(frozen=True)
class ClassSchema:
    """The attributes of a class in model files.

    Attributes
    ----------
    module : str
        The module that defines the class.
    text : str
        The attributes, each as ``name=kind``, separated by white space; ``?`` after a name marks
        an attribute that may be missing. The kinds are described in `featuretl.models.kinds`.
    fresh : dict
        Attributes that are not saved, and their values after loading.
    left_out : tuple of str
        Attributes that are neither saved nor there after loading.
    former : tuple of str
        Parameters of training that files of earlier versions hold; they are skipped.
    fits : callable
        Returns whether the attributes of a fitted object fit together, where kinds alone do not
        tell; called before it is written and after it is made.
    """

    module: str
    text: str = ""
    fresh: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    fits: Callable[[Any], bool] = lambda made: True

    @cached_property
    def attributes(self) -> dict[str, tuple[str, bool]]:
        """The kind of each attribute, and whether it may be missing."""
        pairs = (item.split("=") for item in self.text.split())
        return {name.removesuffix("?"): (kind, name.endswith("?")) for name, kind in pairs}

    def load(self, name: str) -> type:
        """Import the class."""
        found: type = getattr(importlib.import_module(self.module), name)
        return found

    def kinds(self, cls: type) -> dict[str, tuple[str, bool]]:
        """Return what `attributes` has, with the parameters of the constructor before them."""
        return dict.fromkeys(parameters(cls), ("plain", True)) | self.attributes


def parameters(cls: type) -> dict[str, Any]:
    """Return the parameters of an estimator's constructor and their defaults."""
    if not hasattr(cls, "get_params"):
        return {}
    signature = inspect.signature(cls)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def ignored(attribute: str) -> bool:
    """Return whether an attribute is neither written nor read."""
    return attribute in OF_THE_MACHINE or attribute in _NOTES
