"""Ranking: which backbone's embeddings suit a task, by cross-validation or by a score."""
