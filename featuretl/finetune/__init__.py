"""Fine-tuning: train the last blocks of a backbone and a head on images.

`fit` cuts the backbone below the trainable blocks, caches the activations of the frozen part, fits
the linear probe, chooses a learning rate on an inner split, trains, and keeps the better model.
"""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "classifier": ["FineTuneClassifier"],
        "regressor": ["FineTuneRegressor"],
        "training": ["Training"],
    },
)
