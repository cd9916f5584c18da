"""extract: embed images or other media, each at most once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import joblib
import numpy as np

from featuretl._core.display import Display
from featuretl._core.parameters import check_int, check_option, check_seconds, parameter_error
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError, ItemError
from featuretl.extraction.engine import NO_KEY, Run
from featuretl.extraction.source import Source
from featuretl.extraction.statistics import Failure, Progress, Statistics
from featuretl.images.decode import decode
from featuretl.images.inputs import as_images
from featuretl.images.isolated import IsolatedDecoder
from featuretl.media.items import as_items
from featuretl.media.medium import is_medium
from featuretl.runtimes.choice import RUNTIMES, versions
from featuretl.store.collect import keep_limit
from featuretl.store.keys import Recipe, canonical_json
from featuretl.store.lookup import MISSING
from featuretl.store.space import Space, StoredSpace
from featuretl.store.store import EmbeddingStore


@dataclass(eq=False, frozen=True, repr=False)
class Extraction(Display):
    """The embeddings of a sequence of images; returned by `extract`.

    Attributes
    ----------
    images : sequence
        The input; row i belongs to image i.
    recipe : dict
        Everything that determines the embeddings; see `featuretl.store.keys`.
    versions : dict
        Versions of torch, timm and Pillow in this process.
    failures : list of Failure
        Images without an embedding, in order; their rows are NaN. Each has an `index`, a `name`
        and a `message`.
    statistics : Statistics
        Numbers of `images`, `cached`, `embedded` and `failed`; `seconds`, `runtime`, `agreement`
        with float32, and `costs` in processor time.
    keys : ndarray of shape (n,), S32
        SHA-256 of each image's content; zeros for a file that could not be read.
    """

    images: Sequence[Any]
    recipe: Recipe
    versions: dict[str, str]
    failures: list[Failure]
    statistics: Statistics
    keys: np.ndarray
    _space: Space
    _locations: np.ndarray
    _store: EmbeddingStore | None

    def _facts(self) -> dict[str, Any]:
        done = self.statistics
        named = [f"{failure.name}: {failure.message}" for failure in self.failures[:3]]
        return {
            "embeddings": f"float32, {' x '.join(f'{size:,}' for size in self.shape)}",
            "from": self.recipe.get("backbone", {}).get("name", "a medium"),
            "images": f"{done.cached:,} cached, {done.embedded:,} embedded, {done.failed:,} failed",
            **({"failures": "; ".join(named) + " .." * (len(self.failures) > 3)} if named else {}),
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the embeddings, (n, d), or (n, h, w, d) with ``pooling="grid"``."""
        return len(self._locations), *self.recipe["output"].get("grid", [self._space.d])

    @property
    def ok(self) -> np.ndarray:
        """Mask of the images that have an embedding, bool (n,)."""
        return self._locations != MISSING

    def to_numpy(self) -> np.ndarray:
        """Return the embeddings, float32 (n, d) or (n, h, w, d), in memory."""
        return self._shaped(self._space.gather(self._locations))

    def _shaped(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(rows), *self.shape[1:])

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the embeddings, as of `to_numpy`, of the images at `indices`, int (k,)."""
        return self._shaped(self._space.gather(self._locations[indices]))

    def chunks(self, rows: int = 4096, keep: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the embeddings in order, float32 (<= `rows`, d), where the mask `keep` is True.

        With ``pooling="grid"`` each row is flattened, d = h w d.
        """
        locations = self._locations if keep is None else self._locations[keep]
        return self._space.chunks(locations, rows)

    def memmap(self) -> np.ndarray:
        """Return the embeddings, float32 (n, d), as a read-only memory map, for large matrices.

        The first call writes the file, of 4 n d bytes, to the store's ``views`` folder; later calls
        for the same images in the same order open it. Without a store the matrix is in memory.
        """
        if self._store is None:
            return self.to_numpy()
        keys = np.where(self.ok, self.keys, NO_KEY)
        name = hashlib.sha256(canonical_json(self.recipe).encode() + keys.tobytes()).hexdigest()
        with self._store.optionally():
            shape = len(self._locations), self._space.d
            return self._shaped(self._store.view(name, shape, self.chunks()))
        return self.to_numpy()


def extract(
    images: Any,
    backbone: Any = "tf_efficientnet_lite0",
    *,
    store: EmbeddingStore | None = None,
    device: Any = "auto",
    runtime: str = "auto",
    batch_size: int | str = "auto",
    n_jobs: int | None = None,
    on_error: str = "raise",
    decode_timeout: float | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Embed images, or items of another medium, each at most once.

    Parameters
    ----------
    images : sequence of n images or items
        Paths, bytes of files, PIL images, arrays or tensors; see `ImageEmbedder.transform`. For
        another medium, its items.
    backbone : str, BackboneSpec, Backbone or Medium, default="tf_efficientnet_lite0"
        Name of a timm model, or a backbone from `load_backbone`; or a medium (`Sound`, `Video`,
        `Text`, or your own `featuretl.media.medium.Medium`), which chooses its own device and
        runtime: leave `device`, `runtime` and `decode_timeout` at their defaults then.
    store : EmbeddingStore, optional
        Cache of embeddings; None caches nothing.
    device : str, torch.device or list of these, default="auto"
        Devices for a backbone that is not loaded yet, which share the images. "auto" is every CUDA
        GPU; without one, Apple's MPS or an Intel XPU if it gives the embeddings of the CPU for a
        test image (`statistics.agreement`); or the CPU. "cuda" is every CUDA GPU.
    runtime : {"auto", "torch", "onnx", "openvino", "compile"}, default="auto"
        Inference runtime: eager PyTorch; on the CPU ONNX Runtime or OpenVINO (the extra
        ``featuretl[openvino]``); or compiled PyTorch, which takes a minute to compile and needs a
        C++ compiler on the CPU. A runtime other than eager PyTorch must give its embeddings of the
        same precision on a few images (cosine >= 0.9999); ONNX Runtime has no bfloat16. "auto"
        measures which one is fastest if there are at least 1,000 images (20,000 for compiled
        PyTorch, on GPUs only), and caches the result. For fewer it is ONNX Runtime if the store
        keeps the exported network, or for the packaged EfficientNet-Lites; in a process without
        timm, PyTorch is then not imported. Otherwise it is eager PyTorch.
    batch_size : int or "auto", default="auto"
        Images per forward pass. "auto" starts with 16 and doubles while that is faster, up to 32,
        on the CPU; it is 256 elsewhere. If memory runs out, batches are split.
    n_jobs : int, optional
        Number of threads, each of which takes batches from the files through the network, or, for
        a device other than the CPU, prepares images; None or -1 is one per usable core. For such a
        device, 2,000 files or more are prepared in as many child processes (not on Windows).
    on_error : {"raise", "nan"}, default="raise"
        For unreadable images: raise an error, once all others are cached, or return rows of NaN.
    decode_timeout : float, optional
        Time limit in seconds for decoding an image, for untrusted images: they are decoded in child
        processes, and one that crashes the decoder or exceeds the limit counts as unreadable. None
        decodes in this process, which is faster.
    progress : callable, optional
        Called with the current `Statistics`, in this thread, at most ten times a second.

    Raises
    ------
    ImageError
        With ``on_error="raise"``, naming the unreadable images; for another medium an ItemError.
    BackboneError, ParameterError, InputError, StoreError
        If the backbone, a parameter, the input or the store cannot be used.

    See Also
    --------
    extract_shards : Extraction in several processes on this machine (loky) or a cluster (Dask).

    Notes
    -----
    If the call ends early, by an error, Ctrl-C or a signal that raises, the embeddings computed so
    far are committed first; the next call resumes from there. Several processes may extract into
    one store simultaneously: each waits for images that another process is embedding.

    Examples
    --------
    >>> pixels = np.zeros((2, 32, 32, 3), np.uint8)
    >>> pixels[1] = 255
    >>> extraction = extract(pixels)
    >>> extraction.shape, extraction.statistics.embedded
    ((2, 1280), 2)
    """
    check_parameters("extract", batch_size, n_jobs, on_error, runtime, decode_timeout)
    if isinstance(backbone, str):
        backbone = BackboneSpec.of("extract", backbone)
    if of_medium := is_medium(backbone):
        _check_unused(device=device, runtime=runtime, decode_timeout=decode_timeout)
    images = (as_items if of_medium else as_images)(images, "extract")
    source = Source(backbone, store, device, runtime)
    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    isolated = nullcontext(decode) if decode_timeout is None else IsolatedDecoder(decode_timeout)
    with isolated as decoder:
        run = Run(images, source, batch_size, n_threads, progress, decoder)
        failures = run.run()
    if store is not None and isinstance(run.space, StoredSpace):
        keep_limit(store, run.space.id)
    if failures and on_error == "raise":
        kind, what = (ItemError, "items") if of_medium else (ImageError, "images")
        raise kind(describe_failures(failures, len(run.images), what=what))
    return Extraction(
        run.images,
        run.recipe,
        versions(),
        failures,
        run.statistics,
        run.keys,
        run.space,
        run.locations,
        store,
    )


def check_parameters(
    owner: str,
    batch_size: int | str,
    n_jobs: int | None,
    on_error: str,
    runtime: str,
    decode_timeout: float | None = None,
) -> None:
    """Raise ParameterError unless these parameters of `owner` are what `extract` accepts."""
    check_int(owner, "batch_size", batch_size, 1, "auto")
    check_jobs(owner, "n_jobs", n_jobs)
    check_option(owner, "on_error", on_error, ("raise", "nan"))
    check_option(owner, "runtime", runtime, RUNTIMES)
    if decode_timeout is not None:
        check_seconds(owner, "decode_timeout", decode_timeout)


def check_jobs(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is None or an int that joblib accepts as `n_jobs`."""
    if value is not None and (not isinstance(value, Integral) or value == 0):
        raise parameter_error(owner, name, "None or an int other than 0", value)


def _check_unused(**given: Any) -> None:
    for (name, value), default in zip(given.items(), ("auto", "auto", None), strict=True):
        if value != default:
            expected = f"{default!r} with a medium, which chooses its own device and runtime"
            raise parameter_error("extract", name, expected, value)


def most_common(failures: Sequence[Failure]) -> str:
    """Return the most common message, after its number."""
    ((message, n),) = Counter(failure.message for failure in failures).most_common(1)
    return f"{n} in all: {message}"


def describe_failures(
    failures: Sequence[Failure],
    n_images: int,
    remedy: str = "fix or remove these, or pass on_error='nan' to get NaN rows.",
    what: str = "images",
) -> str:
    """Return a sentence that names the first five images or items without an embedding."""
    named = "; ".join(f"{failure.name}: {failure.message}" for failure in failures[:5])
    more = f"; and {len(failures) - 5} more, {most_common(failures)}" if len(failures) > 5 else ""
    return (
        f"{len(failures)} of {n_images} {what} have no embedding ({named}{more}); the others are "
        f"embedded: {remedy}"
    )
