"""Optimisers and kernel machines of the heads."""
