"""Which strategy, and is fine-tuning worth it here: tried on inner splits, scored on outer ones."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "classifier": ["TransferClassifier"],
        "multi_task": ["TransferMultiTask"],
        "regressor": ["TransferRegressor"],
    },
)
