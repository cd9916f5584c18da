"""From images to embeddings: the engine, `extract`, the scikit-learn transformers, files."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "embedder": ["ImageEmbedder"],
        "extraction": ["Extraction", "extract"],
        "media_embedder": ["MediaEmbedder"],
        "outputs": ["load_embeddings", "save_embeddings"],
    },
)
