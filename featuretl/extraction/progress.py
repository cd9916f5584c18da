"""The progress bar of an extraction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from featuretl._core.progress import progress_bar
from featuretl.extraction.engine import Progress


@contextlib.contextmanager
def embedding_bar(n_images: int, unit: str = "images", *, shown: bool = True) -> Iterator[Progress]:
    """Show a bar while the context lasts; yield what to call with the statistics so far."""
    with progress_bar("Embedding", n_images, unit, shown=shown) as update:
        yield lambda statistics: update(statistics.done, statistics.images)
