"""From images to embeddings: the engine, `extract`, the scikit-learn transformers, files."""
