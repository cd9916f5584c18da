"""Predictions and scores of fitted models for any number of images."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "files": ["predict_to_file"],
        "predict": ["evaluate_model", "task_models"],
    },
)
