"""What computes embeddings besides eager PyTorch, and which is fastest here."""
