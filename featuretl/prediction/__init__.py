"""Predictions and scores of fitted models, in bounded memory."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {"files": ["predict_to_file"], "evaluate": ["evaluate_model"], "predict": ["task_models"]},
)
