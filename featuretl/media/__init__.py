"""Embeddings of sound, video, text and your own media, with the engine and store of images."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"medium": ["Medium"], "sound": ["Sound"], "text": ["Text"], "video": ["Video"]}
)
