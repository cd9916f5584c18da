"""Images: finding, reading and decoding them."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"folder": ["load_image_folder"], "crops": ["Crop"], "sources": ["ImageList"]}
)
