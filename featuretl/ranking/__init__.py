"""Ranking: which backbone's embeddings suit a task, by cross-validation or by a score."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"rank": ["rank_backbones"], "scores": ["log_me"], "speed": ["time_backbone"]}
)
