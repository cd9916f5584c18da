"""A fitted model as one PyTorch network: what `explain` differentiates and `export_model` exports."""
