"""What an extraction reports: its statistics, so far or final, and images without an embedding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from featuretl._core.progress import progress_bar


@dataclass(frozen=True)
class Failure:
    """An image without an embedding; `name` and `message` are safe to print."""

    index: int  # position in the input
    name: str  # path, or position and type
    message: str  # reason


@dataclass
class Statistics:
    """Statistics of an extraction, final or so far.

    At the end `cached`, `embedded` and `failed` add up to `images`.
    """

    images: int
    cached: int = 0  # found in the store, or a repetition of another image of the input
    embedded: int = 0  # embedded by this extraction
    failed: int = 0  # without an embedding
    seconds: float = 0.0
    runtime: str = ""  # "torch", "onnx", ..; empty if no embedding was computed
    # The least cosine between these embeddings and those in float32 on the CPU, on a few images;
    # measured for lower precisions and for Apple's MPS and Intel's XPU, otherwise None.
    agreement: float | None = None
    # Seconds of processor time over all threads and child processes by stage: "read", "hash",
    # "decode", "resize", "normalise", "forward" (with pooling), "commit", and "other" for the rest.
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Number of images that are cached, embedded or failed."""
        return self.cached + self.embedded + self.failed

    @property
    def images_per_second(self) -> float:
        """Images per second, cached ones included."""
        return self.done / self.seconds if self.seconds else 0.0


Progress = Callable[[Statistics], None]


@contextlib.contextmanager
def embedding_bar(n_images: int, unit: str = "images", *, shown: bool = True) -> Iterator[Progress]:
    """Show a progress bar while the context lasts; yield the callback that updates it."""
    with progress_bar("Embedding", n_images, unit, shown=shown) as update:
        yield lambda statistics: update(statistics.done, statistics.images)
