"""Fine-tuning: the top blocks of a backbone and a head, trained on images.

One way through: divide the backbone at a block, run the frozen trunk once per view and keep its
activations, fit the linear probe, choose a rate on an inner split, train, compare, keep the better.
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
