"""Backbones: timm networks with their weights, preprocessing and pooling."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"backbone": ["Backbone", "load_backbone"], "listing": ["list_backbones"]}
)
