"""Model files: what a fitted model is, as tensors and JSON, and nothing that could be executed."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"persistence": ["load_model", "read_card", "save_model"]}
)
