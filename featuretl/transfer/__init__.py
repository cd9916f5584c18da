"""Which strategy, and is fine-tuning worth it here: tried on inner splits, scored on outer ones."""
