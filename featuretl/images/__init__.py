"""Images: finding, reading and decoding them."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"sources": ["ImageList", "load_image_folder"]})
