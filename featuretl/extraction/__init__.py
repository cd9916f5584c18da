"""Extraction of embeddings: `extract`, scikit-learn transformers, and files of embeddings."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "embedder": ["ImageEmbedder", "MediaEmbedder"],
        "extraction": ["Extraction", "extract"],
        "outputs": ["load_embeddings", "save_embeddings"],
    },
)
