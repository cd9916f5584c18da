"""Failure cases of a model and issues of its data: findings, displays, one page."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "displays": ["ClassScoresDisplay", "EmbeddingMapDisplay", "ImageGridDisplay"],
        "findings": ["class_scores", "confident_mistakes", "label_errors", "near_duplicates"],
        "page": ["write_report"],
    },
)
