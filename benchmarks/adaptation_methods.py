"""The methods of adaptation.py, and the criteria for choosing one without labels of the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.special import entr
from sklearn.covariance import ledoit_wolf

from featuretl import LinearProbeClassifier, NearestMeanClassifier

Array = Any
Map = Callable[[Array], Array]
Record = dict[str, Any]
Rule = Callable[[Record], str]
METHODS = ("none", "moments", "matched", "coral")
_LEAST = 1e-6
_SND_TEMPERATURE = 0.05
_DOMAIN_C = 0.003  # of the classifier of domains
_EQUAL_SHARES = 0.1  # estimated difference of class shares


class Adapted(NamedTuple):
    """Source rows to train on, a map of the target's rows, a head, and a head of another kind."""

    source: Array
    map: Map
    head: Any
    other: Any


def identity(X: Array) -> Array:
    """Return X."""
    return X


def moments(S: Array, T: Array, weight: Array | None = None) -> Map:
    """Map the target to the mean and deviation of each feature in the source, weighted (n,)."""
    S, T = S.astype(np.float64), T.astype(np.float64)
    weight = np.full(len(S), 1 / len(S)) if weight is None else weight / weight.sum()
    mean, own = weight @ S, T.std(axis=0)
    spread = np.sqrt(weight @ (S - mean) ** 2)
    constant = own <= _LEAST * own.max()
    factor = np.where(constant, 1, spread / np.where(constant, 1, own))
    center = T.mean(axis=0)
    return lambda X: ((X - center) * factor + mean).astype(np.float32)


def coral(S: Array, T: Array) -> Array:
    """Return the source (n, d) with the target's covariance and mean (Sun 2016)."""
    S, T = S.astype(np.float64), T.astype(np.float64)
    scale = np.maximum(S.std(axis=0), _LEAST)
    whiten = _power(ledoit_wolf(S / scale)[0], -0.5)
    factor = (whiten @ _power(ledoit_wolf(T / scale)[0], 0.5)) / scale[:, None] * scale
    return ((S - S.mean(axis=0)) @ factor + T.mean(axis=0)).astype(np.float32)


def _power(covariance: Array, exponent: float) -> Array:
    values, vectors = eigh(covariance)
    return (vectors * np.maximum(values, _LEAST * values[-1]) ** exponent) @ vectors.T


def fitted(S: Array, codes: Array, **how: Any) -> LinearProbeClassifier:
    """Return the head of all methods."""
    return LinearProbeClassifier(**how).fit(S, codes)


def methods(S: Array, codes: Array, T: Array, priors: Array) -> dict[str, Adapted]:
    """Return all methods, fitted; `priors` (k,) are the class shares estimated for the target."""
    heads = fitted(S, codes), NearestMeanClassifier().fit(S, codes)
    weight = (priors / np.bincount(codes) * len(codes))[codes]
    aligned = coral(S, T)
    own = fitted(aligned, codes), NearestMeanClassifier().fit(aligned, codes)
    return {
        "none": Adapted(S, identity, *heads),
        "moments": Adapted(S, moments(S, T), *heads),
        "matched": Adapted(S, moments(S, T, weight), *heads),
        "coral": Adapted(aligned, identity, *own),
    }


def criteria(adapted: Adapted, T: Array, priors: Array) -> dict[str, float]:
    """Return what predictions for the target reveal; higher is better."""
    rows = adapted.map(T)
    proba = adapted.head.predict_proba(rows)
    codes = proba.argmax(axis=1)
    entropy, shares = entr(proba).sum(axis=1).mean(), proba.mean(axis=0)
    predicted = np.bincount(codes, minlength=len(priors)) / len(codes)
    return {
        "entropy": -float(entropy),
        "mutual information": float(entr(shares).sum() - entropy),
        "SND": _neighbourhood_density(proba),
        "agreement": float((adapted.other.predict(rows) == codes).mean()),
        "class shares": -float(np.abs(predicted - priors).sum() / 2),
        "nuclear norm": float(np.linalg.norm(proba, "nuc") / len(proba)),
    }


def _neighbourhood_density(proba: Array) -> float:
    """Return the soft neighbourhood density (Saito et al. 2021, arXiv:2108.10860)."""
    rows = proba / np.linalg.norm(proba, axis=1, keepdims=True)
    logits = rows @ rows.T / _SND_TEMPERATURE
    np.fill_diagonal(logits, -np.inf)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return float(entr(weight).sum(axis=1).mean())


def importance_weighted(adapted: Adapted, wrong: Array, T: Array, fold: Array) -> float:
    """Return minus the deep embedded validation risk (DEV; You et al. 2019).

    `wrong` (n,) are the errors on held-out rows of the source, `fold` (n,) their folds.
    """
    S, T = adapted.source, adapted.map(T)
    X, domain = np.vstack([S, T]), np.repeat([0, 1], [len(S), len(T)])
    folds = np.append(fold, np.arange(len(T)) % (fold.max() + 1))
    ratio = np.empty(len(X))
    for k in range(fold.max() + 1):
        head = fitted(X[folds != k], domain[folds != k], C=_DOMAIN_C)
        proba = head.predict_proba(X[folds == k])
        ratio[folds == k] = proba[:, 1] / np.maximum(proba[:, 0], _LEAST)
    weight = ratio[: len(S)] * len(S) / len(T)
    loss, variance = weight * wrong, weight.var(ddof=1)
    eta = -np.cov(loss, weight)[0, 1] / variance if variance > 0 else 0.0
    return -float(loss.mean() + eta * weight.mean() - eta)


def reverse_validated(
    align: Callable[[Array, Array], Map], S: Array, codes: Array, T: Array, fold: Array
) -> Array:
    """Return whether a head trained on pseudo-labels of the target predicts held-out rows: (n,)."""
    right = np.zeros(len(codes))
    for k in range(fold.max() + 1):
        train, held_out = fold != k, fold == k
        head = fitted(S[train], codes[train], class_weight="balanced")
        labels = head.predict(align(S[train], T)(T))
        if len(np.unique(labels)) > 1:
            back = fitted(T, labels, class_weight="balanced")
            found = back.predict(align(T, S[train])(S[held_out]))
            right[held_out] = found == codes[held_out]
    return right


def _best(criterion: str, among: tuple[str, ...] = ("none", "moments")) -> Rule:
    """Return the rule that the highest value of a criterion decides; ties go to "none"."""
    return lambda r: max(
        (name for name in among if criterion in r["criteria"][name]),
        key=lambda name: (r["criteria"][name][criterion], name == "none"),
    )


def _moments_if(*tests: Callable[[Record], bool]) -> Rule:
    return lambda r: "moments" if all(test(r) for test in tests) else "none"


def _gap(r: Record) -> bool:
    return r["gap"]["is_clear"]


def _reverse(r: Record) -> bool:
    return r["reverse"][0] > r["reverse"][1]


def _shares_are_equal(r: Record) -> bool:
    return r["gap"]["prior_shift"] < _EQUAL_SHARES


def _three_agree(r: Record) -> bool:
    names = "class shares", "agreement", "mutual information"
    return all(_best(name)(r) == "moments" for name in names)


def rules() -> dict[str, Rule]:
    """Return all rules, which choose a method by a record; the oracle knows the accuracies."""
    found: dict[str, Rule] = {
        "oracle": lambda r: max(METHODS, key=r["accuracy"].__getitem__),
        "moments": _moments_if(),
        "matched": lambda r: "matched",
        "coral": lambda r: "coral",
        "gap test": _moments_if(_gap),
        "reverse validation": _moments_if(_reverse),
        "gap test, reverse validation": _moments_if(_gap, _reverse),
        "the same, equal shares": _moments_if(_gap, _reverse, _shares_are_equal),
    }
    for name in ("DEV", "SND", "entropy", "mutual information", "nuclear norm", "agreement"):
        found |= {name: _best(name), f"{name}, all methods": _best(name, METHODS)}
    found["class shares"] = _best("class shares")
    found["class shares, all methods"] = _best("class shares", METHODS)
    found["class shares, gap test"] = _moments_if(
        _gap, lambda r: _best("class shares")(r) == "moments"
    )
    return found | {"gap test, three criteria agree": _moments_if(_gap, _three_agree)}
