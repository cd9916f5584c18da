"""A class that a model file may hold, as a row of a table."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Of the machine, not of the model: where things are kept, what computes, what is shown.
OF_THE_MACHINE = ("cache", "checkpoint", "device", "memory", "n_jobs", "verbose")
# They had their effect in `fit`; one that a file cannot hold is left out with a warning.
OF_TRAINING = ("augment", "cv", "random_state")
# scikit-learn's own notes on an estimator: what set_fit_request leaves is of training.
_NOTES = ("_metadata_request",)


@dataclass(frozen=True)
class Kept:
    """A class that may be kept.

    Attributes
    ----------
    module : str
        Where it lives.
    attributes : dict of str to str
        Name, with ``?`` where it may be missing, to kind; see `featuretl.models.kinds`.
    fresh : dict
        Attributes that are not kept, and what they are after loading.
    left_out : tuple of str
        Attributes that are neither kept nor there after loading.
    former : tuple of str
        Parameters of training that files of earlier versions hold; they are skipped.
    check : callable, optional
        Raises ValueError unless the attributes of a fitted object fit together; called before it is
        written and after it is made.
    """

    module: str
    attributes: dict[str, str]
    fresh: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    check: Callable[[Any], None] | None = None

    def load(self, name: str) -> type:
        """Import the class."""
        found: type = getattr(importlib.import_module(self.module), name)
        return found

    def kinds(self, cls: type) -> dict[str, tuple[str, bool]]:
        """Return kind and whether it may be missing of all attributes, parameters included."""
        kinds = dict.fromkeys(parameters(cls), ("plain", True))
        for name, kind in self.attributes.items():
            kinds[name.removesuffix("?")] = (kind, name.endswith("?"))
        return kinds


def parameters(cls: type) -> dict[str, Any]:
    """Return the parameters of an estimator's constructor and their defaults."""
    if not hasattr(cls, "get_params"):
        return {}
    signature = inspect.signature(cls)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def ignored(attribute: str) -> bool:
    """Return whether an attribute is neither written nor read."""
    return attribute in OF_THE_MACHINE or attribute in _NOTES


# What heads and scikit-learn's steps have in common.
COLUMNS = {
    "n_features_in_": "int:d",
    "feature_names_in_?": "labels[d]",
    "_sklearn_output_config?": "plain",
}
LINEAR = {"classes_": "labels[c]", "coef_": "float[k,d]", "intercept_": "float[k]", **COLUMNS}
