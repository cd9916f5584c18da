"""export_model: write a fitted model to an ONNX file and verify that their outputs agree."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.metrics import r2_score

from featuretl._core.files import check_output, replace_file, write_errors_as
from featuretl._core.parameters import check_option
from featuretl._core.statistics import error_of_mean
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import FeatureTLError, ImageError, InputError, ModelError
from featuretl.export.graph import Session, convert, merged, metadata_of
from featuretl.images.inputs import as_images, name_of, read
from featuretl.models.card import Card, card_of
from featuretl.models.fitted import Fitted
from featuretl.networks.network import Network, network_of
from featuretl.prediction.evaluate import known_labels
from featuretl.prediction.predict import use_machine
from featuretl.runtimes.choice import probe_images

T = TypeVar("T")

TOLERANCE = 1e-4
PRECISIONS = ("float32", "int8")

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_BATCH = 3
_PHOTOGRAPH_CROPS = 100


@dataclass(frozen=True)
class Loss:
    """Loss of accuracy by int8 quantization, on labelled images."""

    images: int
    score_name: str  # "accuracy", "r2", or "label_accuracy" over all labels of multi-label models
    float32: float  # the score in float32
    int8: float  # the score in int8
    standard_error: float  # of the difference, over images; NaN for "r2"
    changed: int  # images whose predicted class or labels differ; 0 for "r2"


@dataclass(frozen=True)
class ExportResult:
    """Result of `export_model`, which describes its attributes."""

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

    The input is `images`, float32 (n, 3, height, width) for any n, resized, cropped and normalised
    as the metadata describe. Outputs of a classifier: `label`, int64 (n,), positions in the
    classes; `probabilities`, float32 (n, n_classes), if the model has them; `decision`, the values
    of `decision_function`. For multi-label models all three have shape (n, n_labels). A regressor
    has the output `prediction`, (n,) or (n, n_outputs). ``examples/serve_onnx.py`` serves the file
    with ONNX Runtime, Pillow and NumPy.

    Parameters
    ----------
    model : estimator
        Fitted image model, as for `explain`.
    path : path
        Ending in ``.onnx``; replaced atomically after the verification.
    precision : {"float32", "int8"}, default="float32"
        "int8" quantizes weights and activations of the backbone, not the head; needs `evaluate`.
    check : sequence of images, default=()
        Images on which the float32 graph is compared with the model in Python, besides four views
        of a packaged photograph. Outputs must agree to 1e-4, relative to the larger of 1 and the
        largest absolute value of the output.
    calibrate : sequence of images, optional
        Unlabelled images for calibrating the ranges of int8 activations: about 100 images like
        those to be predicted. By default crops of scikit-learn's two photographs.
    evaluate : sequence of n images, optional
        Images on which the loss by int8 is measured. They must not be in `calibrate` and should
        not be training images.
    y : array-like of shape (n,), optional
        Labels of `evaluate`: classes, of the model's type or as text, or regression targets.
    card : dict (JSON), optional
        Card of the model for the metadata (`read_card`); by default made from the model.

    Returns
    -------
    ExportResult
        `path`; `bytes`, the size of the file; `precision`; `outputs`, their names; `checked`, the
        number of compared images; `difference`, the largest relative difference of any output but
        `label`; `loss` (None in float32): `images`, `score_name` ("accuracy", "label_accuracy" or
        "r2"), the scores `float32` and `int8`, the `standard_error` of their difference and
        `changed`, the number of images with another prediction.

    Raises
    ------
    ParameterError, InputError, ImageError
        If an argument is invalid.
    ModelError
        If the model cannot be converted, or the outputs do not agree: nothing is written.

    Notes
    -----
    Metadata of the file (``metadata_props``): `task`, `classes` (JSON), `preprocessing` (JSON:
    `input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean`, `std`), `precision`, `backbone`,
    `weights` (sha256 of the pretrained tensors), `featuretl_version`, `card` (JSON).

    In Python, a fine-tuned model predicts from cached activations, rounded to float16, unless
    ``cache_trunk=False``. The graph does not round; it is compared with Python without the cache.

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
        raise InputError("calibrate, evaluate and y are for precision='int8' only; omit them.")
    network = network_of(model, "cpu")
    images = [*probe_images(), *as_images(check, "export_model")]
    labelled = None
    if precision == "int8":
        labelled = _labelled(model, evaluate, y)
        calibrate = None if calibrate is None else as_images(calibrate, "export_model")
        _check_apart(calibrate or [], labelled[0])
    metadata = metadata_of(network, card or card_of(model), precision)
    try:
        backbone, head, names = convert(network)
        graph = merged(backbone, head, metadata)
        session = Session(graph)
    except Exception as error:  # the errors of exporter, checker and runtime are not documented
        raise _not_exported(error) from error
    difference = _check_agreement(session, network, model, images)
    loss = None
    if labelled is not None:
        graph = _quantized(network, backbone, head, metadata, calibrate)
        loss = _loss(Session(graph), network, model, *labelled)
    with write_errors_as(ModelError, "The model", target):
        replace_file(target, lambda partial: partial.write_bytes(graph))
    size = len(graph)
    return ExportResult(str(target), size, precision, tuple(names), len(images), difference, loss)


def _labelled(model: Any, images: Any, y: Any) -> tuple[Sequence[Any], Array]:
    if images is None or y is None:
        raise InputError(
            "precision='int8' changes predictions and needs labelled images to measure the loss; "
            "pass evaluate and y, or --evaluate."
        )
    images = as_images(images, "export_model")
    if not len(images):
        raise InputError("evaluate must have at least one image; got none.")
    return images, known_labels(model, y, "export_model", len(images))


def _check_apart(calibrate: Sequence[Any], evaluate: Sequence[Any]) -> None:
    """Raise InputError if an image is in both."""
    calibrated, evaluated = (
        set(_each(images, lambda content: content.key)) for images in (calibrate, evaluate)
    )
    both = calibrated & evaluated
    if both:
        raise InputError(
            f"{len(both)} images are both in calibrate and in evaluate, which would bias the loss; "
            "remove them from one."
        )


def _check_agreement(
    session: Session, network: Network, model: Any, images: Sequence[Any]
) -> float:
    """Return the largest relative difference between graph and model. Raises ModelError."""
    found = session(_batches(network, images))
    expected = _python_outputs(model, images, list(found))
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
                f"The exported model does not agree with Python: its output {name!r} differs on "
                f"{len(images)} images by more than {TOLERANCE:g}; nothing was written."
            )
    return worst


def _python_outputs(model: Any, images: Sequence[Any], names: list[str]) -> dict[str, Array]:
    """Return the outputs `names` of the model in Python: eager PyTorch without a cache."""
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
        return merged(quantize(backbone, inputs), head, metadata)
    except FeatureTLError:
        raise
    except Exception as error:  # the errors of the quantizer are not documented
        raise _not_exported(error) from error


def _loss(session: Session, network: Network, model: Any, images: Sequence[Any], y: Array) -> Loss:
    """Return the loss by int8 on labelled images."""
    found = session(_batches(network, images))
    n = len(images)
    if network.head.classes is None:
        in_python = _python_outputs(model, images, ["prediction"])["prediction"]
        scores = r2_score(y, in_python), r2_score(y, found["prediction"])
        return Loss(n, "r2", *scores, standard_error=float("nan"), changed=0)
    labels = _python_outputs(model, images, ["label"])["label"], found["label"]
    name = "accuracy" if y.ndim == 1 else "label_accuracy"
    truth = np.searchsorted(Fitted.of(model).classes, y) if y.ndim == 1 else y
    right = [(label == truth).reshape(n, -1).mean(axis=1) for label in labels]
    changed = int((labels[0] != labels[1]).reshape(n, -1).any(axis=1).sum())
    error = error_of_mean(right[1] - right[0])
    return Loss(n, name, float(right[0].mean()), float(right[1].mean()), error, changed)


def _batches(network: Network, images: Sequence[Any], size: int = _BATCH) -> Iterator[torch.Tensor]:
    backbone = network.backbone
    n = backbone.preprocessing.least_side
    prepared = _each(images, lambda content: backbone.prepare(content.pixels(least_side=n)))
    while batch := list(islice(prepared, size)):
        yield backbone.batch(batch)


def _each(images: Sequence[Any], function: Callable[[Any], T]) -> Iterator[T]:
    """Yield `function` of each image. Raises ImageError with the name of an unreadable one."""
    for i, image in enumerate(images):
        try:
            yield function(read(image))
        except ImageError as error:
            raise ImageError(f"Cannot export with {name_of(image, i)}: {error}.") from error


def _not_exported(error: Exception) -> ModelError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return ModelError(f"The model cannot be exported to ONNX: {printable(reason)}.")
