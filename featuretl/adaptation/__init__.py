"""Domain adaptation: when the images to predict look different from the labelled ones."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"classifier": ["DomainAdaptedClassifier"], "gap": ["DomainGap", "domain_gap"]}
)
