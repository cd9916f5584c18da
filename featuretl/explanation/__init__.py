"""Explanations: maps of the evidence for a prediction in an image."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"explaining": ["explain"], "explanation": ["Explanation"]}
)
