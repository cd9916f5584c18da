"""Export of fitted models to ONNX, for servers without featuretl and PyTorch."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"exporting": ["export_model"]})
