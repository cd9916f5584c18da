"""save_model and load_model: fitted models as files that are safe to load."""

from __future__ import annotations

import json
import os
import warnings
from functools import partial
from typing import Any

import numpy as np

from featuretl._core.text import printable, reason_of
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError, FeatureTLWarning, ModelError, StoreError
from featuretl.models.card import Card, card_of
from featuretl.models.classes import CLASSES, FORMER, INSTEAD
from featuretl.models.fitted import Fitted
from featuretl.models.format import (
    Tensors,
    check_target,
    digest_of,
    read_card_text,
    read_file,
    unreadable,
    write_file,
)
from featuretl.models.schema import IGNORED, OF_TRAINING, parameters
from featuretl.models.values import NotPlainError, Packer, unpack
from featuretl.store.keys import canonical_json

_FROM_FILE = "file"
_FROM_FOLDER = "local-dir:"  # without the path
_NAMES = ("backbone", "name")  # attributes that name a backbone
_BLANK = np.zeros((32, 32, 3), np.uint8)


def save_model(model: Any, path: str | os.PathLike[str], *, card: Card | None = None) -> None:
    """Write a fitted model to one file, without pickle.

    Supported are the heads, `DomainAdaptedClassifier`, `ImageEmbedder`, `NoveltyDetector`,
    `FineTuneClassifier`, `TransferClassifier`, their regressors, `TransferMultiTask`, and pipelines
    of these with scikit-learn's StandardScaler, Normalizer, PCA, LogisticRegression, LinearSVC,
    SVC, Ridge, SVR, Nystroem and TransformedTargetRegressor. For other steps use
    ``skops.io.dump``: see ``examples/other_steps.py``.

    Parameters
    ----------
    model : estimator
    path : path
        Ending in ``.featuretl``; replaced atomically.
    card : dict (JSON), optional
        Additional entries of the card; see `read_card`.

    Raises
    ------
    ModelError
        If the model is not fitted or has a value that cannot be saved, or the file cannot be
        written.

    Warns
    -----
    FeatureTLWarning
        If a parameter that only `fit` uses, such as a splitter for `cv`, is not saved.

    Notes
    -----
    Pretrained weights are not saved; `load_model` compares the sha256 of their tensors. The file of
    a fine-tuned model has the tensors of the fine-tuned blocks. The file of a `TransferClassifier`
    has embeddings of training images, for its `NoveltyDetector`, unless ``novelty=False``.
    Parameters of the machine (`cache`, `checkpoint`, `device`, `n_jobs`, `memory`, `verbose`) are
    not saved.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from featuretl import LinearProbeClassifier, load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(LinearProbeClassifier().fit(X, y), f"{folder}/iris.featuretl")
    ...     load_model(f"{folder}/iris.featuretl").predict(X[:1])
    array([0])
    """
    target = check_target(path)
    packed, tensors = _packed(model)
    text = json.dumps({**card_of(model), **(card or {})}, allow_nan=False)
    write_file(target, packed, text, tensors)


def load_model(
    path: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None
) -> Any:
    """Read a model that `save_model` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : path
    weights : path, optional
        The backbone's weights, if the model was trained with those of a local file, or the folder
        of a backbone ``local-dir:folder``.

    Returns
    -------
    model : estimator
        On the same machine, predictions from the same embeddings are bit-identical. Embeddings that
        are not cached may be computed in other batches; probabilities then agree to 1e-5.

    Raises
    ------
    ModelError
        If the file is unreadable, damaged, of a newer format, or no model file, or the weights of
        the backbone are not those that the model was trained on.
    BackboneError
        If the weights of the backbone are not available.

    Warns
    -----
    FeatureTLWarning
        If this version of featuretl preprocesses images differently.
    """
    text, tensors = read_file(path)
    try:
        model = unpack(json.loads(text), tensors, partial(_make_object, weights))
        _check_predicts(model)
    except (ModelError, BackboneError, StoreError):
        raise
    except Exception as error:  # malicious content can cause any error; nothing was executed
        why = reason_of(error).rstrip(".")
        why = why if isinstance(error, ValueError) else f"{type(error).__name__} {why}"
        raise unreadable(path, why) from error
    return model


def read_card(path: str | os.PathLike[str]) -> Card:
    """Return the card of a model file, without loading the model.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict (JSON)
        As written, not validated: `model` (class name), `created` (UTC) and `versions`; if known
        `backbone`, `weights` (sha256 of its tensors), `strategy`, `decision` (text), `classes` (as
        text), `novelty` (`references`: number of training images in the detector) and `metrics`
        (`name`, `score`, its 95% interval `low` and `high`, and `images`: number of held-out
        images). For a multi-task model, `tasks` has for each task its `task`, its `classes` or the
        `range` of its training targets, and its `metrics`. ``featuretl train`` adds `data`:
        `images` (number of training images), `sha256` (of contents and labels, in order),
        `per_class` (images per label) and `contents` (the first 8 bytes of the sha256 of each
        image, sorted, in base64), by which `write_report` recognises training images.

    Raises
    ------
    ModelError
        If the file is not a model file.
    """
    text = read_card_text(path)
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, "its card is not JSON") from error
    if not isinstance(card, dict):
        raise unreadable(path, "its card is not a JSON object")
    return card


def model_digest(model: Any) -> str:
    """Return the sha256, in hex, of a model file without its card."""
    packed, tensors = _packed(model)
    return digest_of(packed, "", tensors)


def _packed(model: Any) -> tuple[str, Tensors]:
    """Return a fitted model as JSON text and tensors. Raises ModelError if it cannot be saved."""
    name = type(model).__name__
    if hasattr(model, "best_estimator_"):
        raise ModelError(f"save_model cannot save a {name}; save its best_estimator_.")
    if name not in CLASSES:
        raise ModelError(f"save_model cannot save a {name}; {INSTEAD}.")
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ModelError(f"The {name} is not fitted; call fit before save_model.") from error
    packer = Packer(lambda value: _packed_object(value, packer))
    packed = packer.pack(model)
    return json.dumps(packed, allow_nan=False), packer.tensors


def _packed_object(value: Any, packer: Packer) -> tuple[str, dict[str, Any]] | None:
    """Return the class name and the packed state of an object; None if its class is not allowed."""
    name, cls = type(value).__name__, type(value)
    if name == "Backbone":
        return _packed_object(value.spec, packer)
    if name == "BackboneSpec" and value.network is not None:
        raise ModelError(
            f"save_model keeps no code, such as that of the network {value.name!r}; pass the name "
            "of a timm model as backbone, or keep the model with pickle."
        )
    schema = CLASSES.get(name)
    if schema is None or schema.load(name) is not cls:
        return None
    state: dict[str, Any] = {}
    left_out = {*schema.fresh, *schema.left_out, *IGNORED}
    contents = {name: content for name, content in vars(value).items() if name not in left_out}
    try:
        if schema.check(cls, contents):
            schema.check_fit(value)
    except ValueError as error:
        raise ModelError(
            f"save_model cannot save this {name}, which differs from the supported version of the "
            f"class: {error}."
        ) from error
    for attribute, content in contents.items():
        if attribute == "weights" and content not in ("auto", "random"):
            content = _FROM_FILE
        if attribute in _NAMES and str(content).startswith(_FROM_FOLDER):
            content = _FROM_FOLDER
        try:
            state[attribute] = packer.pack(content)
        except NotPlainError as error:
            if attribute not in OF_TRAINING:
                message = f"save_model cannot save {error} as {attribute} of {name}; {INSTEAD}."
                raise ModelError(message) from error
            message = f"The {attribute!r} of {name}, {error}, is not saved in the model file."
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
    if name == "ImageEmbedder":
        state["recipe"] = canonical_json(value.recipe())
    return name, state


def _make_object(weights: str | os.PathLike[str] | None, name: str, state: dict[str, Any]) -> Any:
    """Return an object of an allowed class, without calling its constructor."""
    if name in FORMER:
        name, own = FORMER[name]
        state = own | state
    if name not in CLASSES:
        raise ValueError(f"it contains the class {name!r}, which is not allowed")
    schema = CLASSES[name]
    cls = schema.load(name)
    recipe = state.pop("recipe", "") if name == "ImageEmbedder" else ""
    for attribute in schema.former:
        state.pop(attribute, None)
    is_fitted = schema.check(cls, state)
    saved = state.get("weights", "auto")
    if saved not in ("auto", "random"):
        state["weights"] = _given(saved == _FROM_FILE, weights)
    for attribute in _NAMES:
        if str(state.get(attribute)).startswith(_FROM_FOLDER):
            state[attribute] = _FROM_FOLDER + _given(state[attribute] == _FROM_FOLDER, weights)
    if name == "BackboneSpec":
        backbone = state.pop("name")
        return BackboneSpec.of("load_model", backbone, **state)
    made: Any = object.__new__(cls)
    vars(made).update({**parameters(cls), **schema.fresh, **state})
    if is_fitted:
        schema.check_fit(made)
    if name == "ImageEmbedder":
        _check_recipe(made, json.loads(recipe))
    return made


def _given(is_marked: bool, path: str | os.PathLike[str] | None) -> str:
    """Return the path that the caller gives instead of one in the file."""
    if not is_marked:
        raise ValueError("its weights are neither 'auto', 'random' nor 'file', or have a path")
    if path is None:
        raise ModelError(
            "The model was trained with a backbone from a local file or folder; pass it as weights "
            "of load_model, or as --weights."
        )
    return os.fspath(path)


def _check_recipe(embedder: Any, trained_on: dict[str, Any]) -> None:
    """Raise ModelError if the backbone differs; warn if the preprocessing of images differs."""
    here = json.loads(canonical_json(embedder.recipe()))
    if here["backbone"] != trained_on["backbone"]:
        raise ModelError(
            f"The weights of {embedder.backbone!r} on this machine are not those of the model; "
            "install the same weights, or pass them as weights."
        )
    other = [part for part in here if here[part] != trained_on.get(part)]
    if other:
        warnings.warn(
            f"The model was trained on embeddings whose {printable(', '.join(other))} differ from "
            "those of this version: predictions may change; train the model again to avoid this.",
            FeatureTLWarning,
            stacklevel=2,
        )


def _check_predicts(model: Any) -> None:
    """Raise an error unless a model predicts a blank image, with outputs that match its classes."""
    fitted = Fitted.of(model)
    if fitted.novelty is not None:
        if not hasattr(fitted.novelty[-1], "novelty"):
            raise ValueError("novelty_ must end with a NoveltyDetector")
        _check_predicts(fitted.novelty)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if fitted.tuned is not None:
            _predict_once(fitted.inner, [_BLANK])
        elif fitted.embedder is None:
            _predict_once(fitted.inner, np.zeros((1, fitted.inner.n_features_in_), np.float32))
        elif len(fitted.steps) > 1:
            d = fitted.embedder.recipe()["output"]["n_features"]
            _predict_once(fitted.inner[1:], np.zeros((1, d), np.float32))


def _predict_once(model: Any, X: Any) -> None:
    fitted = Fitted.of(model)
    if fitted.head is None:
        model.transform(X)
        return
    model.predict(X)
    if fitted.tasks is not None:
        for head in fitted.head.estimators_:
            row = np.zeros((1, fitted.head.n_features_in_), np.float32)
            _predict_once(head, row)
            if head.predict(row).shape != (1,):
                raise ValueError("a task has several predictions per image")
        return
    if fitted.classes is None:
        return
    classes = len(fitted.classes)
    if fitted.gives_probabilities:
        allowed, scores = {classes}, model.predict_proba(X)
    else:  # SVC may have one column per pair of classes
        allowed, scores = {classes, classes * (classes - 1) // 2}, model.decision_function(X)
    columns = 2 if scores.ndim == 1 else scores.shape[1]
    if columns not in allowed:
        raise ValueError(f"it has {columns} outputs for {classes} classes")
