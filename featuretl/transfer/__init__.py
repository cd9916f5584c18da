"""Choice of a transfer strategy: compared on inner splits, scored on an outer split."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "classifier": ["TransferClassifier"],
        "multi_task": ["TransferMultiTask"],
        "regressor": ["TransferRegressor"],
    },
)
