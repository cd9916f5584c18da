"""What is right and wrong with a model and its images: findings, figures, one page."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "displays": ["ClassScoresDisplay", "EmbeddingMapDisplay", "ImageGridDisplay"],
        "findings": ["class_scores", "confident_mistakes", "label_errors", "near_duplicates"],
        "page": ["write_report"],
    },
)
