"""Images unlike the training ones: which they are, and whether they are too many."""
