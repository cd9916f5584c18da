"""Errors and warnings of featuretl; each message says what was expected and what to do."""

from __future__ import annotations

# Phrases in the messages of PyTorch, CUDA, ONNX Runtime and the C++ library.
_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate",
    "bad_alloc",
    "alloc_failed",  # cuDNN and cuBLAS
)


class FeatureTLError(Exception):
    """Base of every error that featuretl raises on purpose."""


class ParameterError(FeatureTLError, ValueError):
    """A parameter has an invalid value."""


class InputError(FeatureTLError, ValueError):
    """Input data (images, arrays, labels, manifests) are invalid."""


class NoColumnsError(InputError):
    """A column was requested from a source without columns, such as a folder."""


class ItemError(InputError):
    """An item (an image, a sound, a video, a text) cannot be read or decoded."""


class ImageError(ItemError):
    """An image cannot be read or decoded."""


class BackboneError(FeatureTLError, RuntimeError):
    """A backbone or its weights cannot be found, loaded or used."""


class StoreError(FeatureTLError, RuntimeError):
    """The embedding store cannot be read or written."""


class UnusableStoreError(StoreError):
    """The embedding store is intact but unavailable: disk full, permission denied, .."""


class ModelError(FeatureTLError, ValueError):
    """A model cannot be saved, or a file is not a valid model."""


class FeatureTLWarning(UserWarning):
    """featuretl deviated from the request; the message says how and why."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or of a library means that memory is exhausted."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)
