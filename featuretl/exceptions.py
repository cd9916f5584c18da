"""The errors and warnings that featuretl raises; each message is one sentence that says what to do."""

from __future__ import annotations

# As PyTorch, ONNX Runtime and the C++ library say it.
_NO_MEMORY = ("not enough memory", "can't allocate memory", "failed to allocate", "bad_alloc")


class FeatureTLError(Exception):
    """Base of every error that featuretl raises on purpose."""


class ParameterError(FeatureTLError, ValueError):
    """A parameter has a value that its owner does not accept."""


class InputError(FeatureTLError, ValueError):
    """The data handed over (images, arrays, labels, manifests) cannot be used as they are."""


class NoColumnsError(InputError):
    """A column is asked for of a source that has no columns, such as a folder."""


class ItemError(InputError):
    """An item (an image, a sound, a video, a text) cannot be read or decoded."""


class ImageError(ItemError):
    """An image cannot be read or decoded."""


class BackboneError(FeatureTLError, RuntimeError):
    """A backbone, or its weights, cannot be found, loaded or used as asked."""


class StoreError(FeatureTLError, RuntimeError):
    """The embedding store cannot be read or written."""


class UnusableStoreError(StoreError):
    """The embedding store is sound, but the system does not let it be used: no room, no rights, .."""


class ModelError(FeatureTLError, ValueError):
    """A model cannot be kept in a file, or a file is no model that may be loaded."""


class FeatureTLWarning(UserWarning):
    """Something was done differently from what was asked, and here is what and why."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of Python or of a library, says that memory does not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)
