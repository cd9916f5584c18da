"""load_image_folder: the images of a folder whose subfolders are the classes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl._core.display import Display
from featuretl._core.text import printable
from featuretl.exceptions import InputError
from featuretl.images.listing import files_of
from featuretl.images.sources import list_files


class ImageFolder(Display, Bunch):
    """Paths and labels of the images of a folder; the result of `load_image_folder`."""

    def _facts(self) -> dict[str, Any]:
        facts = {"data": f"{len(self.data):,} images", "first": self.data[0]}
        if self.target is None:
            return {**facts, "target": None}
        counts = Counter(self.target.tolist()).most_common(10)
        more = len(self.target_names) - len(counts)
        named = ", ".join(f"{name}: {n:,}" for name, n in counts)
        named += f" and {more:,} more" if more else ""
        return {**facts, "target": f"{len(self.target_names):,} classes", "images per class": named}


def load_image_folder(folder: str | os.PathLike[str], *, return_X_y: bool = False) -> Any:
    """List the images of a folder whose subfolders are the classes.

    The label is the name of the first folder below `folder`, however deep the image lies, as in
    ``sklearn.datasets.load_files`` and torchvision's ``ImageFolder``. Files without the suffix of an
    image, and names that begin with a dot, are skipped. No file is opened.

    Parameters
    ----------
    folder : path
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : ~sklearn.utils.Bunch
        ``data``: object array (n,) of paths (str), sorted; ``target``: array (n,) of class names
        (str), or None without subfolders; ``target_names``: list of the distinct class names,
        sorted, empty without subfolders.

    Raises
    ------
    InputError
        If the folder is missing or holds no image, or if only some images lie in subfolders.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.jpg", "dog/2.jpg", "dog/notes.txt"):
    ...         path = pathlib.Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     photos = load_image_folder(folder)
    >>> photos.target_names, photos.target
    (['cat', 'dog'], array(['cat', 'dog'], dtype='<U3'))
    """
    if not Path(folder).is_dir():
        raise InputError(f"{printable(folder)!r} is not a folder; pass one that holds images.")
    images = list_files(files_of(os.fspath(folder)))
    if images.labels is not None and None in images.labels:
        bare = images.paths[images.labels.index(None)]
        raise InputError(
            f"Some images of {printable(folder)!r} lie in class folders and others, like "
            f"{printable(bare)!r}, do not; move every image into a folder named after its class."
        )
    data = np.empty(len(images), dtype=object)
    data[:] = images.paths
    target = None if images.labels is None else np.array(images.labels, str)
    if return_X_y:
        return data, target
    return ImageFolder(data=data, target=target, target_names=images.class_names or [])
