"""When labels are few: which images to label next, and what accuracy more labels would give."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"forecast": ["AccuracyForecast", "forecast_accuracy"], "suggest": ["suggest_labels"]}
)
