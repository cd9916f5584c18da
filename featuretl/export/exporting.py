"""export_model: a fitted model as an ONNX file that was compared with it."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import r2_score

from featuretl._core.files import replace_file
from featuretl._core.parameters import check_option
from featuretl._core.statistics import error_of_mean
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import FeatureTLError, ImageError, InputError, ModelError
from featuretl.export.graph import Session, joined, metadata_of, parts_of
from featuretl.extraction.outputs import check_output
from featuretl.images.inputs import as_images, name_of, read
from featuretl.models.card import Card, card_of
from featuretl.models.fitted import Fitted
from featuretl.networks.network import Network, network_of
from featuretl.prediction.evaluate import known_labels
from featuretl.prediction.predict import use_machine
from featuretl.runtimes.choice import probe_images

TOLERANCE = 1e-4
PRECISIONS = ("float32", "int8")

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_BATCH = 3
_PHOTOGRAPH_CROPS = 100


@dataclass(frozen=True)
class Loss:
    """Loss of accuracy by int8, on labelled images.

    Attributes
    ----------
    images : int
    score_name : {"accuracy", "label_accuracy", "r2"}
        "label_accuracy", for multi-label models: the fraction of right labels, absent ones included.
    float32, int8 : float
        The scores of both.
    standard_error : float
        Standard error of their difference, over images drawn at random; NaN for "r2".
    changed : int
        Images of another class, or of other labels, in int8; for "r2", 0.
    """

    images: int
    score_name: str
    float32: float
    int8: float
    standard_error: float
    changed: int


@dataclass(frozen=True)
class ExportResult:
    """Result of `export_model`.

    Attributes
    ----------
    path : str
    bytes : int
        Size of the file.
    precision : {"float32", "int8"}
    outputs : tuple of str
        Names of the graph's outputs.
    checked : int
        Images on which the float32 graph was compared with the model in Python.
    difference : float
        Largest difference between them in any output but the label, relative to the larger of 1 and
        the largest number of that output.
    loss : Loss or None
        Loss of accuracy by int8; None in float32.
    """

    path: str
    bytes: int
    precision: str
    outputs: tuple[str, ...]
    checked: int
    difference: float
    loss: Loss | None = None


def export_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    precision: str = "float32",
    check: Sequence[Any] = (),
    calibrate: Sequence[Any] | None = None,
    evaluate: Sequence[Any] | None = None,
    y: Any = None,
    card: Card | None = None,
) -> ExportResult:
    """Write a fitted model as one ONNX graph: backbone, scaling and head.

    The graph takes `images`, float32 (n, 3, height, width), resized, cropped and normalised as its
    metadata say, for any n. It gives `label`, int64 (n,), a position in the classes;
    `probabilities`, float32 (n, n_classes), where the model has them; `decision`, as
    `decision_function`; for labels (n, n_labels) each. A regressor gives `prediction`, (n,) or
    (n, n_outputs). ``examples/serve_onnx.py`` serves it with ONNX Runtime, Pillow and NumPy.

    Parameters
    ----------
    model : estimator
        Fitted; takes images, as for `explain`.
    path : path
        Ending in ``.onnx``; replaced atomically once the graph is written and compared.
    precision : {"float32", "int8"}, default="float32"
        "int8" quantizes the backbone's weights and activations, not the head; it needs `evaluate`.
    check : sequence of images, default=()
        On these, and on four views of a photograph that comes with featuretl, the float32 graph
        must agree with the model in Python: to 1e-4, times the largest number of an output where
        that exceeds 1.
    calibrate : sequence of images, optional
        Unlabelled images on which the ranges of activations in int8 are measured: about a hundred like
        those to be predicted. By default crops of scikit-learn's two photographs.
    evaluate : sequence of n images, optional
        Images on which the loss by int8 is measured. None must be in `calibrate`, and none should have
        been trained on.
    y : array-like of shape (n,), optional
        Labels of `evaluate`: classes, as the model's or as text, or regression targets.
    card : dict (JSON), optional
        The model's card for the metadata; by default `card_of`.

    Returns
    -------
    ExportResult

    Raises
    ------
    ParameterError, InputError, ImageError
        If something handed over cannot be used.
    ModelError
        If the model has no form as a network, or the graph does not agree with it: nothing is
        written.

    Notes
    -----
    Metadata of the file (``metadata_props``): `task`, `classes` (JSON), `preprocessing` (JSON:
    `input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean`, `std`), `precision`, `backbone`,
    `weights` (sha256 of the pretrained tensors), `featuretl_version`, `card` (JSON).

    A fine-tuned model predicts, in Python, from activations that its cache keeps in float16, unless
    ``cache_trunk=False``. The graph does not round them, and is compared with what Python computes
    without the cache.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn.pipeline import make_pipeline
    >>> from featuretl import ImageEmbedder, NearestMeanClassifier
    >>> images = load_sample_images().images
    >>> pipe = make_pipeline(ImageEmbedder(cache=None), NearestMeanClassifier())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = export_model(pipe.fit(images, ["temple", "flower"]), f"{folder}/m.onnx")
    >>> found.outputs, found.difference < 1e-4
    (('decision', 'probabilities', 'label'), True)
    """
    target = check_output(path, (".onnx",))
    check_option("export_model", "precision", precision, PRECISIONS)
    if any(importlib.util.find_spec(package) is None for package in _NEEDED):
        raise ModelError(f"export_model needs: pip install {' '.join(_NEEDED)}")
    if precision == "float32" and not (calibrate is evaluate is y is None):
        raise InputError("calibrate, evaluate and y are for precision='int8' only.")
    network = network_of(model, "cpu")
    images = [*probe_images(), *as_images(check, "export_model")]
    labelled = None
    if precision == "int8":
        labelled = _labelled(model, evaluate, y)
        calibrate = None if calibrate is None else as_images(calibrate, "export_model")
        _check_apart(calibrate or [], labelled[0])
    metadata = metadata_of(network, card or card_of(model), precision)
    try:
        backbone, head, names = parts_of(network)
        graph = joined(backbone, head, metadata)
        session = Session(graph)
    except Exception as error:  # the exporter, the checker and the runtime raise anything
        raise _not_exported(error) from error
    difference = _compared(session, network, model, images)
    loss = None
    if labelled is not None:
        graph = _quantized(network, backbone, head, metadata, calibrate)
        loss = _loss(Session(graph), network, model, *labelled)
    _write(target, graph)
    size = len(graph)
    return ExportResult(str(target), size, precision, tuple(names), len(images), difference, loss)


def _labelled(model: Any, images: Any, y: Any) -> tuple[Sequence[Any], Array]:
    if images is None or y is None:
        raise InputError(
            "precision='int8' changes predictions: it needs labelled images on which the loss is "
            "measured, as evaluate and y, or --evaluate."
        )
    images, y = as_images(images, "export_model"), known_labels(model, y, "export_model")
    if len(images) != len(y) or not len(y):
        raise InputError(f"y must have one entry per image; got {len(y)} for {len(images)}.")
    return images, y


def _check_apart(calibrate: Sequence[Any], evaluate: Sequence[Any]) -> None:
    """Raise InputError if an image is in both."""
    calibrated, evaluated = (set(_keys(images)) for images in (calibrate, evaluate))
    both = calibrated & evaluated
    if both:
        raise InputError(
            f"{len(both)} images are both in calibrate and in evaluate; the loss is measured on "
            "images that calibration has not seen: leave them out of one."
        )


def _keys(images: Sequence[Any]) -> Iterator[bytes]:
    for i, image in enumerate(images):
        with _named(i, image):
            yield read(image).key


def _compared(session: Session, network: Network, model: Any, images: Sequence[Any]) -> float:
    """Return the largest difference between graph and model. Raises ModelError if it is too large."""
    found = session(_batches(network, images))
    expected = _in_python(model, images, list(found))
    worst = 0.0
    for name, values in expected.items():
        if name == "label":
            agrees = np.array_equal(values, found[name])
        else:
            finite = np.isfinite(values)
            scale = max(1.0, float(np.abs(values[finite]).max(initial=0)))
            same = values.shape == found[name].shape and np.array_equal(
                finite, np.isfinite(found[name])
            )
            by = float(np.abs(values - found[name])[finite].max(initial=0)) / scale if same else 1.0
            agrees, worst = by <= TOLERANCE, max(worst, by)
        if not agrees:
            raise ModelError(
                f"The exported model does not agree with Python: its {name!r} differs on "
                f"{len(images)} images by more than {TOLERANCE:g}; nothing was written."
            )
    return worst


def _in_python(model: Any, images: Sequence[Any], names: list[str]) -> dict[str, Array]:
    """Return the outputs `names` of the model itself, computed by eager PyTorch without a cache."""
    twin = copy.deepcopy(Fitted.of(model).inner)
    use_machine(twin, cache=None, device="cpu", runtime="torch")
    fitted = Fitted.of(twin)
    if fitted.tuned is not None:
        fitted.embedder._cached = False  # the cache rounds activations to float16
    if fitted.embedder is not fitted.head:
        rows: Any = np.asarray(fitted.embedder.transform(images))
        twin, images = twin[1:], rows
    methods = {
        "decision": "decision_function",
        "probabilities": "predict_proba",
        "prediction": "predict",
    }
    found = {name: getattr(twin, methods[name])(images) for name in names if name != "label"}
    if "label" in names:
        predicted = twin.predict(images)
        is_class = predicted.ndim == 1
        found["label"] = np.searchsorted(twin.classes_, predicted) if is_class else predicted
    return found


def _quantized(
    network: Network, backbone: bytes, head: bytes, metadata: dict[str, str], images: Any
) -> bytes:
    """Return the graph with its backbone in int8."""
    from featuretl.runtimes.int8 import photograph_crops, quantize

    if images is None:
        crops = photograph_crops(network.backbone, _PHOTOGRAPH_CROPS)
        batches = iter([network.backbone.batch([crop]) for crop in crops])
    else:
        batches = _batches(network, images, 1)
    try:
        inputs = (batch.contiguous().numpy() for batch in batches)
        return joined(quantize(backbone, inputs), head, metadata)
    except FeatureTLError:
        raise
    except Exception as error:  # the quantizer raises anything
        raise _not_exported(error) from error


def _loss(session: Session, network: Network, model: Any, images: Sequence[Any], y: Array) -> Loss:
    """Return the loss by int8 on labelled images."""
    found = session(_batches(network, images))
    n = len(images)
    if network.head.classes is None:
        in_python = _in_python(model, images, ["prediction"])["prediction"]
        scores = r2_score(y, in_python), r2_score(y, found["prediction"])
        return Loss(n, "r2", *scores, standard_error=float("nan"), changed=0)
    labels = _in_python(model, images, ["label"])["label"], found["label"]
    name = "accuracy" if y.ndim == 1 else "label_accuracy"
    truth = np.searchsorted(Fitted.of(model).classes, y) if y.ndim == 1 else y
    right = [(label == truth).reshape(n, -1).mean(axis=1) for label in labels]
    changed = int((labels[0] != labels[1]).reshape(n, -1).any(axis=1).sum())
    error = error_of_mean(right[1] - right[0])
    return Loss(n, name, float(right[0].mean()), float(right[1].mean()), error, changed)


def _batches(network: Network, images: Sequence[Any], size: int = _BATCH) -> Iterator[torch.Tensor]:
    for begin in range(0, len(images), size):
        prepared = []
        for i, image in enumerate(images[begin : begin + size], begin):
            with _named(i, image):
                prepared.append(network.backbone.prepare(read(image).pixels()))
        yield network.backbone.batch(prepared)


@contextmanager
def _named(position: int, image: Any) -> Iterator[None]:
    """Name the image in errors."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"Cannot export with {name_of(image, position)}: {error}.") from error


def _not_exported(error: Exception) -> ModelError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return ModelError(f"The model cannot be exported to ONNX: {printable(reason)}.")


def _write(target: Path, graph: bytes) -> None:
    try:
        replace_file(target, lambda partial: partial.write_bytes(graph))
    except OSError as error:
        raise ModelError(
            f"The model {printable(target)!r} cannot be written ({error.strerror}); choose another "
            "place."
        ) from error
