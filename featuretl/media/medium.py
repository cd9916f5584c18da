"""The protocol of a medium: how the engine embeds one kind of item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from featuretl.store.keys import Recipe


class Medium(Protocol):
    """How items of one kind become embeddings; any class with these members is a medium.

    `featuretl.extract` and `featuretl.MediaEmbedder` give it everything that images have: threads
    and batches, each content embedded once, a store that several processes share, failed rows with
    the name of the bad item, and resuming after an interruption.

    Attributes
    ----------
    recipe : dict
        Everything that changes the values of the embeddings, as JSON, including the sha256 of
        weights. With the digests of the items it is the key in the store. `featuretl cache info`
        shows ``"backbone": {"name": .., "tensors": ..}`` and ``"output": {"layers": [..],
        "pooling": ..}``; other keys are free.
    golden : item
        Any constant item. The engine embeds it before it adds rows, to detect that the version of a
        library changed the embeddings.
    files : bool
        Whether a str or path is the name of a file. If so, `digest` must return the sha256 of the
        file's bytes (`featuretl.media.items.digest_of`), which the store remembers.

    Notes
    -----
    The engine calls `digest`, `prepare` and `forward` from several threads concurrently. A
    ValueError or OSError of `digest` or `prepare` marks a bad item: a failed row with the message
    of the error; any other error ends the run. A medium must be picklable for `sklearn.base.clone`
    and for other processes, ideally without its weights.

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
        """Return the input of `forward` for one item."""
        ...

    def forward(self, inputs: Sequence[Any]) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of n prepared items, independent of the batch."""
        ...


def is_medium(value: Any) -> bool:
    """Return whether a value is a medium rather than an image backbone."""
    return hasattr(value, "digest")
