"""Active learning: images to label next, and the accuracy to expect from more labels."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"forecast": ["AccuracyForecast", "forecast_accuracy"], "suggest": ["suggest_labels"]}
)
