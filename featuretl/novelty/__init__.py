"""Novelty detection: images unlike the training images, and tests for drift."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"detector": ["NoveltyDetector"]})
