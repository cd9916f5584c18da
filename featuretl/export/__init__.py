"""A fitted model as one ONNX file, for servers that have neither featuretl nor PyTorch."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"exporting": ["export_model"]})
