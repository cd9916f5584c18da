"""Other media than images, through the same engine and store: sound, video, text, and your own."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"medium": ["Medium"], "sound": ["Sound"], "text": ["Text"], "video": ["Video"]}
)
