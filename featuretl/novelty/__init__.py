"""Images unlike the training ones: which they are, and whether they are too many."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"detector": ["NoveltyDetector"]})
