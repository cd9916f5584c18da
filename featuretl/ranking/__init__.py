"""Backbone selection: rank backbones by how well their embeddings suit a task."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"rank": ["rank_backbones"], "scores": ["log_me"], "speed": ["time_backbone"]}
)
