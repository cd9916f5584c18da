"""Model files: fitted models as tensors and JSON, without executable content."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"persistence": ["load_model", "read_card", "save_model"]}
)
