"""Fine-tuning: train the last blocks of a backbone and a head on images."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "classifier": ["FineTuneClassifier"],
        "regressor": ["FineTuneRegressor"],
        "training": ["Training"],
    },
)
