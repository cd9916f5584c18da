"""Embeddings on disk."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"shared": ["SharedStore"], "store": ["EmbeddingStore"]}
)
