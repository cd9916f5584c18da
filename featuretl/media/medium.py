"""Medium: what the engine needs to know of a kind of item; a few lines for a kind of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from featuretl.store.keys import Recipe


class Medium(Protocol):
    """A way from items to embeddings. Any class with these members is one; `Sound` and `Text` are.

    `featuretl.extract` and `featuretl.MediaEmbedder` take it to the store with all that images have:
    threads and batches, each content embedded once, commits, several processes at once, bad items as
    named rows, and going on after a kill.

    Attributes
    ----------
    recipe : dict
        Everything that changes an embedding's values, as JSON: with the items' digests it is the
        store's key. Weights go in as their sha256. ``"backbone": {"name": .., "tensors": ..}`` and
        ``"output": {"layers": [..], "pooling": ..}`` are what `featuretl cache info` shows; the rest is
        free.
    golden : item
        Any item, always the same. It is embedded whenever rows are to be added, so that a library that
        computes something else from some version on is noticed.
    files : bool
        Whether a str or a path among the items is the name of a file. The digest of a file has to be
        the sha256 of its bytes (`featuretl.media.items.digest_of`): that of an unchanged file is
        remembered. False: a str is an item like any other.

    Notes
    -----
    `digest`, `prepare` and `forward` are called from several threads at once. A ValueError or an
    OSError of `digest` or `prepare` is a bad item, a failed row with the error's words; any other
    error ends the run. To be taken to other processes, and for `sklearn.base.clone`, a medium has to
    be picklable, best without its weights.

    Examples
    --------
    >>> import hashlib, string
    >>> import featuretl
    >>> class Letters:
    ...     recipe = {"letters": string.ascii_lowercase, "version": 1}
    ...     golden = "Sphinx of black quartz, judge my vow"
    ...     files = False
    ...
    ...     def digest(self, item):
    ...         if not isinstance(item, str):
    ...             raise ValueError(f"a {type(item).__name__}; expected a str")
    ...         return hashlib.sha256(item.encode()).digest()
    ...
    ...     def prepare(self, item):
    ...         return [item.lower().count(letter) for letter in string.ascii_lowercase]
    ...
    ...     def forward(self, inputs):
    ...         return np.array(inputs, np.float32)
    >>> extraction = featuretl.extract(["Anna", "Bob", None], Letters(), on_error="nan")
    >>> extraction.to_numpy()[:, :3]
    array([[ 2.,  0.,  0.],
           [ 0.,  2.,  0.],
           [nan, nan, nan]], dtype=float32)
    >>> extraction.failures
    [Failure(index=2, name='item 2 (NoneType)', message='a NoneType; expected a str')]
    """

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102

    @property
    def golden(self) -> Any: ...  # noqa: D102

    @property
    def files(self) -> bool: ...  # noqa: D102

    def digest(self, item: Any) -> bytes:
        """Return 32 bytes that identify the item's content."""
        ...

    def prepare(self, item: Any) -> Any:
        """Return what `forward` takes of one item."""
        ...

    def forward(self, inputs: Sequence[Any]) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of n prepared items, whichever share a batch."""
        ...


def is_medium(value: Any) -> bool:
    """Return whether it is meant to be a medium, rather than a backbone of images."""
    return hasattr(value, "digest")
