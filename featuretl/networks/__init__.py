"""A fitted model as one PyTorch network, for `explain` and `export_model`."""
