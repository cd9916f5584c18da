"""What the images of a command are labelled with, and grouped by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featuretl.images.sources import ImageList


def labels_of(images: ImageList, numbers: bool) -> list[Any]:
    """Return the label of every image, or the number; raise InputError where one has none."""
    from featuretl._validation import printable
    from featuretl.exceptions import InputError

    labels = images.labels or [None] * len(images)
    if None in labels:
        raise InputError(
            f"{labels.count(None):,} of {len(labels):,} images have no label, such as "
            f"{printable(images.paths[labels.index(None)])!r}; put images into a folder per class, "
            "or name a column of a manifest."
        )
    if not numbers:
        return labels
    try:
        return [float(label or "") for label in labels]
    except ValueError as error:
        raise InputError(f"The column of numbers holds something else: {error}.") from error


def groups_of(images: ImageList) -> Any:
    """Return the group of every image (n,), None where no column was named."""
    import numpy as np

    from featuretl.exceptions import InputError

    if images.groups is None:
        return None
    if None in images.groups:
        raise InputError("The column of groups must hold one in every row; some are empty.")
    return np.array(images.groups)
