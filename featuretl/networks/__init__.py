"""A fitted model as one PyTorch network, which `explain` differentiates and `export_model` exports."""
