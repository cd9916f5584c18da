"""BackboneSpec: the parameters of a backbone, checked without loading it."""

from __future__ import annotations

import numbers
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featuretl._core.parameters import check_bool, check_option, is_word, parameter_error
from featuretl.backbones.views import check_views

Layer = int | str
PRE_LOGITS = "pre_logits"
POOLINGS = ("auto", "avg", "max", "cls", "avg+max", "cls+avg", "gem", "flatten")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
# Quantization of an int8 network, as a part of its recipe.
QUANTIZATION: dict[str, Any] = {
    "version": 1,
    "crops": 100,
    "weights": "int7 per channel",
    "activations": "uint8",
}


@dataclass(frozen=True)
class BackboneSpec:
    """The resolved parameters of `load_backbone`: name, weights and output of a backbone.

    `name` is timm's, "hf-hub:organisation/model" or "local-dir:" and an absolute path; `weights` is
    "auto", "random" or an absolute path.
    """

    name: str
    weights: str = "auto"
    layers: tuple[Layer, ...] = (PRE_LOGITS,)
    pooling: str = "auto"
    normalize: bool = False
    precision: str = "auto"
    views: int | str = 1

    @classmethod
    def of(cls, owner: str, name: str, **parameters: Any) -> BackboneSpec:
        """Check and resolve the parameters of `owner`. Raises ParameterError."""
        given: Any = cls(name, **parameters)
        weights, layers, precision = given.weights, given.layers, given.precision
        if not isinstance(name, str) or not name:
            raise parameter_error(owner, "backbone", "the name of a timm model", name)
        kind, where = split_name(name)
        if kind == "local-dir":
            where = str(Path(where).expanduser().absolute())
        name = where if kind is None else f"{kind}:{where}"
        if not isinstance(weights, (str, os.PathLike)):
            raise parameter_error(owner, "weights", "'auto', 'random' or a path", weights)
        if not is_word(weights, "auto", "random"):
            weights = Path(weights).expanduser().absolute()
            if not weights.is_file():
                expected = "'auto', 'random' or the path of an existing file"
                raise parameter_error(owner, "weights", expected, str(weights))
        listed = layers if isinstance(layers, (list, tuple)) else (layers,)
        kinds = (numbers.Integral, str)
        if not listed or any(isinstance(x, bool) or not isinstance(x, kinds) for x in listed):
            expected = "'pre_logits', a layer's number or name, or a list of these"
            raise parameter_error(owner, "layers", expected, layers)
        layers = tuple(x if isinstance(x, str) else int(x) for x in listed)
        check_option(owner, "pooling", given.pooling, POOLINGS)
        check_bool(owner, "normalize", given.normalize)
        check_option(owner, "precision", precision, PRECISIONS)
        if precision == "auto":
            precision = "float32"  # a lower precision does not reach cosine 0.9999
        views, normalize = check_views(owner, given.views), bool(given.normalize)
        return cls(name, str(weights), layers, given.pooling, normalize, precision, views)


def split_name(name: str) -> tuple[str | None, str]:
    """Split a backbone's name as timm does: "hf-hub", "local-dir" or None, and the rest."""
    kind, colon, rest = name.partition(":")
    kind = kind.lower().replace("_", "-")
    if colon and kind in ("hf-hub", "local-dir"):
        return kind, rest
    return ("hf-hub", name) if name.startswith("timm/") else (None, name)
