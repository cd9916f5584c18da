"""Runtimes that compute embeddings instead of eager PyTorch, and the choice of the fastest."""
