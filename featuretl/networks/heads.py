"""Fitted heads and transformers as PyTorch layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import nn

from featuretl._core.types import Array
from featuretl.exceptions import ModelError
from featuretl.models.fitted import Fitted
from featuretl.networks.layers import RBF, Affine, Nearness, Normalise, Votes, fused

Layers = list[nn.Module]


class Head(nn.Module):
    """The head of a model, from embeddings, float32 (n, d), to its outputs.

    `layers` compute values (n, k): decision values or predicted numbers, one column for two
    classes. `link` maps the values, divided by `temperature`, to probabilities: "softmax",
    "logistic" or "labels"; "votes" (one-vs-one), "none" and "number" (regression) have none.
    `classes` is None for regression, whose output is (n,) if `flat`.
    """

    def __init__(
        self,
        layers: Layers,
        link: str,
        classes: Array | None = None,
        temperature: float = 1.0,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.layers = fused(layers)
        self.link, self.temperature, self.flat = link, float(temperature), flat
        self.classes = None if classes is None else classes.tolist()

    @property
    def is_affine(self) -> bool:
        """Whether the values are an affine function of the embedding."""
        return all(isinstance(layer, (Affine, nn.Linear)) for layer in self.layers)

    @property
    def has_probabilities(self) -> bool:
        """Whether the head has probabilities."""
        return self.link in ("softmax", "logistic", "labels")

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return values (n, k)."""
        return self.layers(embedding)

    def probabilities(self, values: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, n_classes) or (n, n_labels) from values."""
        logits = values / self.temperature
        if self.link == "softmax":
            return logits.softmax(1)
        if self.link == "labels":
            return logits.sigmoid()
        # 1 - p would lose small probabilities in float32.
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)

    def chosen(self, values: torch.Tensor) -> torch.Tensor:
        """Return positions in `classes`, int64 (n,), or labels 0 and 1, int64 (n, n_labels)."""
        if self.link == "labels" or values.shape[1] == 1:
            positive = (values > 0).to(torch.int64)
            return positive if self.link == "labels" else positive[:, 0]
        # LIBSVM chooses the first class with the most votes and ignores the tie-break.
        return (values.round() if self.link == "votes" else values).argmax(1)


def head_of(steps: list[Any]) -> Head:
    """Return the head of fitted transformers and a classifier or regressor; raises ModelError."""
    *before, last = [step for step in steps if step not in (None, "passthrough")]
    own, *rest = _converted(last, _HEADS)
    layers = [layer for step in before for layer in _converted(step, _TRANSFORMERS)]
    return Head([*layers, *own], *rest)


def tuned_head(fitted: Fitted, network: nn.Module) -> Head:
    """Return the head of a fine-tuned model; `network` maps embeddings to outputs."""
    inner = list(network) if isinstance(network, nn.Sequential) else [network]
    layers = [Affine(at.weight, at.bias) if isinstance(at, nn.Linear) else at for at in inner]
    if fitted.kind == "regression":
        center, scale = fitted.head._scaling
        return Head([*layers, Affine(scale, center)], "number", flat=fitted.head._flat)
    if fitted.kind == "multilabel":
        return Head(layers, "labels", fitted.classes)
    return Head(*_of_classes(layers, fitted.classes))


def _of_classes(layers: Layers, classes: Array) -> tuple[Layers, str, Array]:
    """Return layers, link and classes for a value per class, or one value for two classes."""
    if len(classes) == 2:
        return [*layers, Affine([[-1.0, 1.0]], [0.0])], "logistic", classes
    return layers, "softmax", classes


def _converted(step: Any, known: dict[str, Callable[[Any], Any]]) -> Any:
    if type(step).__name__ not in known:
        raise _unsupported(step)
    return known[type(step).__name__](step)


def _unsupported(step: Any, detail: str = "") -> ModelError:
    return ModelError(
        f"A {type(step).__name__}{detail} cannot become a network, which explain and export_model "
        "need; use a head of featuretl, LogisticRegression, LinearSVC, SVC, Ridge or SVR, after "
        "StandardScaler, Normalizer, PCA or Nystroem."
    )


def _affine(step: Any) -> Affine:
    return Affine(step.coef_, step.intercept_)


def _standard_scaler(step: Any) -> Layers:
    d = step.n_features_in_
    scale = step.scale_ if step.with_std and step.scale_ is not None else np.ones(d)
    mean = step.mean_ if step.with_mean and step.mean_ is not None else np.zeros(d)
    return [Affine(1 / scale, -mean / scale)]


def _pca(step: Any) -> Layers:
    components = step.components_
    if step.whiten:
        deviation = np.sqrt(step.explained_variance_)
        components = components / np.maximum(deviation, np.finfo(deviation.dtype).eps)[:, None]
    return [Affine(components, -components @ step.mean_)]


def _nystroem(step: Any) -> Layers:
    if step.kernel != "rbf":
        raise _unsupported(step, f" with kernel={step.kernel!r}")
    d = step.components_.shape[1]
    normalization = step.normalization_
    gamma = 1 / d if step.gamma is None else step.gamma
    return [RBF(step.components_, gamma), Affine(normalization, np.zeros(len(normalization)))]


def _linear_probe(head: Any) -> tuple[Any, ...]:
    temperature = head.calibration_.temperature if head.calibrate else 1.0
    link = "labels" if head._multilabel else "softmax" if head._multinomial else "logistic"
    return [_affine(head)], link, head.classes_, temperature


def _logistic_regression(head: Any) -> tuple[Any, ...]:
    return [_affine(head)], "logistic" if len(head.coef_) == 1 else "softmax", head.classes_


def _adapted(head: Any) -> tuple[Any, ...]:
    found = head_of([step for _, step in Fitted.of(head.estimator_).steps])
    return [*found.layers], found.link, head.classes_, found.temperature


def _svm_probe(head: Any) -> tuple[Any, ...]:
    if head.kernel == "linear":
        layers: Layers = [_affine(head)]
    else:
        machine = head._machine
        layers = [Affine(1 / machine._scale, -machine._mean / machine._scale)]
        if head.approximated_:
            layers += [*_nystroem(machine._map), Affine(machine.coef, machine.intercept)]
        else:
            support = machine._rows[machine._svc.support_]
            layers += [RBF(support, machine.gamma), *_decisions(machine._svc)]
    if not head.calibrate:
        return layers, "none", head.classes_
    link = "logistic" if len(head.classes_) == 2 else "softmax"
    return layers, link, head.classes_, head.calibration_.temperature


def _nearest_mean(head: Any) -> tuple[Any, ...]:
    center = Affine(np.ones_like(head.center_), -head.center_)
    nearness = Nearness(head.means_, head.class_weight_ > 0)
    return _of_classes([center, Normalise(), nearness], head.classes_)


def _svc(head: Any) -> tuple[Any, ...]:
    if getattr(head, "probability", False) is True or head.break_ties:
        raise _unsupported(head, " with probability=True or break_ties=True")
    if len(head.classes_) > 2 and head.decision_function_shape != "ovr":
        raise _unsupported(head, " with decision_function_shape='ovo'")
    return [*_kernel(head), *_decisions(head)], "votes", head.classes_


def _svr(head: Any) -> tuple[Any, ...]:
    return [*_kernel(head), Affine(head.dual_coef_, head.intercept_)], "number", None, 1.0, True


def _kernel(machine: Any) -> Layers:
    support = machine.support_vectors_
    if machine.kernel == "rbf":
        return [RBF(support, machine._gamma)]
    if machine.kernel == "linear":
        return [Affine(support, np.zeros(len(support)))]
    raise _unsupported(machine, f" with kernel={machine.kernel!r}")


def _decisions(svc: Any) -> Layers:
    """Return the layers from kernel values of the support vectors (n, s) to decision values."""
    classes = len(svc._n_support)
    if classes == 2:
        return [Affine(svc.dual_coef_, svc.intercept_)]
    ends = np.cumsum(svc._n_support)
    of_class = [np.arange(e - k, e) for e, k in zip(ends, svc._n_support, strict=True)]
    weight = np.zeros((len(svc.intercept_), len(svc.support_)))
    for pair, (i, j) in enumerate(combinations(range(classes), 2)):
        weight[pair, of_class[i]] = svc.dual_coef_[j - 1, of_class[i]]
        weight[pair, of_class[j]] = svc.dual_coef_[i, of_class[j]]
    return [Affine(weight, svc.intercept_), Votes(classes)]


def _ridge(head: Any) -> tuple[Any, ...]:
    coef = np.atleast_2d(head.coef_)
    intercept = np.broadcast_to(head.intercept_, len(coef))
    return [Affine(coef, intercept)], "number", None, 1.0, head.coef_.ndim == 1


def _transformed_target(head: Any) -> tuple[Any, ...]:
    scaler, inner = head.transformer_, head.regressor_
    if type(scaler).__name__ != "StandardScaler":
        raise _unsupported(head, " whose transformer is not a StandardScaler")
    found = head_of([step for _, step in Fitted.of(inner).steps])
    (undo,) = _standard_scaler(scaler)
    assert isinstance(undo, Affine)  # nosec B101
    back = Affine(1 / undo.weight, -undo.bias / undo.weight)
    return [*found.layers.double(), back], "number", None, 1.0, head._training_dim == 1


_TRANSFORMERS: dict[str, Callable[[Any], Layers]] = {
    "StandardScaler": _standard_scaler,
    "Normalizer": lambda step: [Normalise(step.norm)],
    "PCA": _pca,
    "Nystroem": _nystroem,
}
_HEADS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "LinearProbeClassifier": _linear_probe,
    "LinearProbeRegressor": _ridge,
    "DomainAdaptedClassifier": _adapted,
    "SemiSupervisedProbeClassifier": lambda head: _linear_probe(head.probe_),
    "SVMProbeClassifier": _svm_probe,
    "NearestMeanClassifier": _nearest_mean,
    "LogisticRegression": _logistic_regression,
    "LinearSVC": lambda head: ([_affine(head)], "none", head.classes_),
    "SVC": _svc,
    "SVR": _svr,
    "Ridge": _ridge,
    "TransformedTargetRegressor": _transformed_target,
}
