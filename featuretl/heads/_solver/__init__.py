"""The optimisers and kernel machines below the heads."""
