"""Model files: what a fitted model is, as tensors and JSON, and nothing that could be executed."""
