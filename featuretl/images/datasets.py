"""Tensors and data sets of other libraries, none of which is imported here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from featuretl._core.text import printable
from featuretl.exceptions import ImageError
from featuretl.images.decode import CHANNELS


def items_of(X: Any) -> Any:
    """Return the images of a data set or iterator, others unchanged; ImageError if unclear."""
    kind = type(X).__name__
    if hasattr(X, "features") and hasattr(X, "cast_column"):
        return _column_of(X)
    if isinstance(X, Mapping):
        raise ImageError(
            f"a {kind}; pass one of its entries, e.g. X[{printable(next(iter(X), 0))!r}]"
        )
    if isinstance(X, Iterator):
        paths = list(_paths(X))
        if not paths:  # nobody means this, and it would be no embedding without a word
            raise ImageError("an iterator at its end; pass a list, which can be read again")
        return paths
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(X, (data.Dataset, data.DataLoader)):
        return X
    if isinstance(X, data.Subset):
        items = items_of(X.dataset)
        return [items[i] for i in X.indices]
    samples = getattr(X, "samples", None)  # of an ImageFolder
    if isinstance(samples, list) and all(isinstance(sample, tuple) for sample in samples):
        return [path for path, *_ in samples]
    line = "[image for image, _ in X]"
    if isinstance(X, data.DataLoader):
        line = "[image for images, _ in X for image in images]"
    raise ImageError(f"a {kind}; pass its images, e.g. {line}, or the paths of their files")


def array_of(value: Any) -> Any:
    """Return a PyTorch tensor as an array with the channels last; other things unchanged.

    Raises ImageError if the channels may be the first or the last axis.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    shape = tuple(value.shape)
    if len(shape) > 2 and shape[-1] in CHANNELS and shape[-3] in CHANNELS:
        raise ImageError(
            f"a tensor of shape {shape}, whose channels may be first or last; pass an array with "
            "the channels last, e.g. X.movedim(-3, -1).numpy()"
        )
    try:
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ImageError(f"a tensor that is no array ({type(error).__name__}: {error})") from error


def _column_of(dataset: Any) -> Any:
    """Return the images of a Hugging Face dataset, undecoded, one at a time where it can be."""
    features = dataset.features or {}
    names = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    if len(names) != 1 or not hasattr(dataset, "select"):
        have = printable(", ".join(names or features)) or "unknown"
        raise ImageError(
            f"a {type(dataset).__name__} with the {'image ' * bool(names)}columns {have}; pass one "
            f"column of one split that is not streamed, e.g. X[{printable((names or ['image'])[0])!r}]"
        )
    (name,) = names
    plain = dataset.with_format(None).select_columns([name])
    return plain.cast_column(name, type(features[name])(decode=False))[name]


def _paths(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise ImageError(
                f"an iterator of {type(item).__name__}; pass list(X), which holds all in memory"
            )
        yield item
