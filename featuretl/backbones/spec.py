"""BackboneSpec: the parameters of a backbone, checked without loading it."""

from __future__ import annotations

import numbers
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featuretl._core.parameters import (
    check_bool,
    check_int,
    check_number,
    check_option,
    is_same,
    is_word,
    parameter_error,
)
from featuretl.backbones.views import check_views

Layer = int | str
PRE_LOGITS = "pre_logits"
POOLINGS = ("auto", "avg", "max", "cls", "avg+max", "cls+avg", "gem", "flatten", "grid")
MOST_PIXELS_A_SIDE = 4096  # of `image_size`
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
_DECODE_RATIO = 3  # at 2, cosines to full decoding fall to 0.998
# Quantization of an int8 network, as a part of its recipe.
QUANTIZATION: dict[str, Any] = {
    "version": 1,
    "crops": 100,
    "weights": "int7 per channel",
    "activations": "uint8",
}


@dataclass(frozen=True)
class BackboneSpec:
    """The resolved parameters of `load_backbone`: name, weights, input and output of a backbone.

    `name` is timm's, "hf-hub:organisation/model" or "local-dir:" and an absolute path; `weights` is
    "auto", "random" or an absolute path; `image_size` is (height, width) or None for the network's
    own size; `network` is the caller's own network of `Backbone.of`.
    """

    name: str
    weights: str = "auto"
    layers: tuple[Layer, ...] = (PRE_LOGITS,)
    pooling: str = "auto"
    normalize: bool = False
    precision: str = "auto"
    views: int | str = 1
    image_size: tuple[int, int] | None = None
    crop_pct: float | None = None
    in_chans: int = 3
    decode: str = "full"
    network: Any = None

    @classmethod
    def of(cls, owner: str, backbone: Any, **parameters: Any) -> BackboneSpec:
        """Check and resolve the parameters of `owner`. Raises ParameterError.

        `backbone` is a name, or a Backbone or spec, of which other parameters than the defaults
        replace its own.
        """
        base = getattr(backbone, "spec", backbone)
        if isinstance(base, cls):
            defaults = vars(cls(base.name, layers=PRE_LOGITS))  # type: ignore[arg-type]
            changed = {k: v for k, v in parameters.items() if not is_same(v, defaults[k])}
            given: Any = replace(base, **changed)
        else:
            given = cls(base, **parameters)
        if not isinstance(given.name, str) or not given.name:
            is_module = hasattr(base, "state_dict")  # whose repr fills pages
            remedy = "; make one of it with Backbone.of(module, preprocessing, name)"
            expected = f"the name of a timm model, or a Backbone{remedy if is_module else ''}"
            got = type(base) if is_module else backbone
            raise parameter_error(owner, "backbone", expected, got)
        if given.network is not None:
            _check_custom(owner, given)
        check_option(owner, "pooling", given.pooling, POOLINGS)
        check_bool(owner, "normalize", given.normalize)
        if given.pooling == "grid" and check_views(owner, given.views) != 1:
            raise parameter_error(owner, "views", "1 with pooling='grid'", given.views)
        check_option(owner, "precision", given.precision, PRECISIONS)
        check_option(owner, "decode", given.decode, ("full", "reduced"))
        check_int(owner, "in_chans", given.in_chans, 1)
        check_number(owner, "crop_pct", given.crop_pct, "(0, 1]", None)
        return replace(
            given,
            name=_name(given.name),
            weights=_weights(owner, given.weights),
            layers=_layers(owner, given.layers),
            normalize=bool(given.normalize),
            # A lower precision does not reach cosine 0.9999.
            precision="float32" if given.precision == "auto" else given.precision,
            views=check_views(owner, given.views),
            image_size=_image_size(owner, given.image_size),
            crop_pct=given.crop_pct and float(given.crop_pct),
            in_chans=int(given.in_chans),
        )

    @property
    def decode_ratio(self) -> int:
        """`Preprocessing.decode_ratio`; 0 for views of parts of an image, and channels of TIFF."""
        is_reduced = self.decode == "reduced" and self.views in (1, 2) and self.in_chans in (1, 3)
        return _DECODE_RATIO if is_reduced else 0

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the spec (JSON)."""
        facts = dict(vars(self))
        return facts | ({"network": self.network.tensors} if self.network else {})


def _check_custom(owner: str, given: BackboneSpec) -> None:
    """Raise ParameterError for parameters that the caller's own network does not have."""
    own = {"weights": "auto", "image_size": None, "crop_pct": None, "in_chans": 3, "decode": "full"}
    for parameter, default in own.items():
        if not is_same(getattr(given, parameter), default):
            expected = (
                f"{default!r} for a network of your own, whose module and preprocessing fix it"
            )
            raise parameter_error(owner, parameter, expected, getattr(given, parameter))


def _weights(owner: str, weights: Any) -> str:
    if not isinstance(weights, (str, os.PathLike)):
        raise parameter_error(owner, "weights", "'auto', 'random' or a path", weights)
    if is_word(weights, "auto", "random"):
        return str(weights)
    file = Path(weights).expanduser().absolute()
    if not file.is_file():
        expected = "'auto', 'random' or the path of an existing file"
        raise parameter_error(owner, "weights", expected, str(file))
    return str(file)


def _layers(owner: str, layers: Any) -> tuple[Layer, ...]:
    listed = layers if isinstance(layers, (list, tuple)) else (layers,)
    kinds = (numbers.Integral, str)
    if not listed or any(isinstance(x, bool) or not isinstance(x, kinds) for x in listed):
        expected = "'pre_logits', a layer's number or name, or a list of these"
        raise parameter_error(owner, "layers", expected, layers)
    return tuple(x if isinstance(x, str) else int(x) for x in listed)


def _image_size(owner: str, size: Any) -> tuple[int, int] | None:
    """Return (height, width) of an int, a pair of ints, or None."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    is_pair = len(pair) == 2 and all(
        isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in pair
    )
    if not is_pair or not all(1 <= side <= MOST_PIXELS_A_SIDE for side in pair):
        expected = (
            f"None, an int from 1 to {MOST_PIXELS_A_SIDE}, or a pair (height, width) of these"
        )
        raise parameter_error(owner, "image_size", expected, size)
    return int(pair[0]), int(pair[1])


def split_name(name: str) -> tuple[str | None, str]:
    """Split a backbone's name as timm does: "hf-hub", "local-dir" or None, and the rest."""
    kind, colon, rest = name.partition(":")
    kind = kind.lower().replace("_", "-")
    if colon and kind in ("hf-hub", "local-dir"):
        return kind, rest
    return ("hf-hub", name) if name.startswith("timm/") else (None, name)


def _name(name: str) -> str:
    """Return a name with its kind, and with the absolute path of a folder."""
    kind, where = split_name(name)
    if kind == "local-dir":
        where = str(Path(where).expanduser().absolute())
    return where if kind is None else f"{kind}:{where}"
