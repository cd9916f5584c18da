"""Findings about labelled images: label errors, mistakes, near-duplicates, per-class scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featuretl._core.parameters import check_number
from featuretl._core.statistics import share_with_interval
from featuretl._core.types import Array
from featuretl._learning.groups import read_groups
from featuretl._learning.labels import codes_of, one_label_each
from featuretl._learning.metrics import classes_of
from featuretl.exceptions import InputError

_NEIGHBOURS = 5  # larger sets of copies are still connected by pairs


def label_errors(y: Any, proba: Any, classes: Any = None) -> pd.DataFrame:
    """Return the images that are probably mislabelled, the most suspicious first.

    The threshold of a class is its mean predicted probability over the images with that label.
    An image is suspect if the most probable class among those that reach their threshold is more
    probable than its label. This is the confident joint of Northcutt, Jiang and Chuang (Confident
    Learning, JAIR 2021, arXiv:1911.00068).

    Parameters
    ----------
    y : array-like of shape (n,)
        The labels.
    proba : array-like of shape (n, n_classes), in [0, 1]
        Out-of-fold probabilities, for example of
        ``cross_val_predict(head, X, y, method="predict_proba")``. Rows with NaN are skipped.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `proba`; None: the sorted values of `y`.

    Returns
    -------
    pandas.DataFrame
        One row per suspect: `index`, its position; `label`; `suggestion`, the more probable class;
        `probability` of the label and `suggested_probability`; sorted by their difference.

    Raises
    ------
    InputError
        If shapes do not match or `y` has a class that is not in `classes`.

    Examples
    --------
    >>> y = ["cat", "cat", "cat", "dog", "dog"]
    >>> proba = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    >>> label_errors(y, proba, ["cat", "dog"])
       index label suggestion  probability  suggested_probability
    0      2   cat        dog          0.1                    0.9
    """
    codes, proba, classes = _codes("label_errors", y, proba, classes)
    rows = np.flatnonzero(~np.isnan(proba).any(axis=1))
    codes, proba = codes[rows], proba[rows]
    own = proba[np.arange(len(rows)), codes]
    counts = np.bincount(codes, minlength=len(classes))
    thresholds = np.bincount(codes, own, minlength=len(classes)) / np.maximum(counts, 1)
    # A class without images has no threshold, so it is never suggested.
    confident = np.where((proba >= thresholds) & (counts > 0), proba, -1.0)
    best = confident.argmax(axis=1)
    suggested = proba[np.arange(len(rows)), best]
    suspects = np.flatnonzero((confident.max(axis=1) >= 0) & (suggested > own))
    order = suspects[np.argsort(own[suspects] - suggested[suspects], kind="stable")]
    found = {
        "index": rows[order],
        "label": classes[codes[order]],
        "suggestion": classes[best[order]],
        "probability": own[order],
        "suggested_probability": suggested[order],
    }
    return pd.DataFrame(found)


def confident_mistakes(y: Any, proba: Any, classes: Any = None) -> pd.DataFrame:
    """Return the misclassified images, those with the most confident prediction first.

    Parameters
    ----------
    y, proba, classes
        As for `label_errors`.

    Returns
    -------
    pandas.DataFrame
        `index`, `label`, `prediction` and `confidence`, the probability of the prediction.
    """
    codes, proba, classes = _codes("confident_mistakes", y, proba, classes)
    best = np.nan_to_num(proba).argmax(axis=1)
    wrong = np.flatnonzero((best != codes) & ~np.isnan(proba).any(axis=1))
    order = wrong[np.argsort(-proba[wrong, best[wrong]], kind="stable")]
    found = {
        "index": order,
        "label": classes[codes[order]],
        "prediction": classes[best[order]],
        "confidence": proba[order, best[order]],
    }
    return pd.DataFrame(found)


def near_duplicates(X: Any, Y: Any = None, *, threshold: float = 0.9) -> pd.DataFrame:
    """Return pairs of images whose embeddings are nearly equal, the most similar first.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings.
    Y : array-like of shape (m, d), default=None
        Embeddings of other images. Pairs consist of one image of `X` and one of `Y`; if `Y` are
        the training images, such pairs are leaks. None finds pairs within `X`.
    threshold : float in (0, 1], default=0.9
        Smallest similarity of a pair. Similarity is the cosine of the embeddings after the mean of
        all of them is subtracted; otherwise all images of a narrow domain would be similar.

    Returns
    -------
    pandas.DataFrame
        One row per pair: `first`, a position in `X`; `second`, a position in `Y`, or in `X` (then
        `first` < `second`); `similarity`. Each image is compared with its five nearest neighbours.

    Raises
    ------
    ParameterError
        If `threshold` is not in (0, 1].

    Notes
    -----
    Memory is linear in n. Similarity depends on the network: a tighter crop or a smaller copy of
    an image can have a similarity below 0.9.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(50, 16))
    >>> X[7] = X[3] + 0.01
    >>> near_duplicates(X)[["first", "second"]].values.tolist()
    [[3, 7]]
    """
    check_number("near_duplicates", "threshold", threshold, "(0, 1]")
    X = np.asarray(X, np.float32)
    both = X if Y is None else np.concatenate([X, np.asarray(Y, np.float32)])
    Z = normalize(both - both.mean(axis=0)) if len(both) else both
    among, n_own = (Z, 1) if Y is None else (Z[len(X) :], 0)
    n_neighbors = min(_NEIGHBOURS, len(among) - n_own)
    pairs = np.zeros((0, 2), int)
    if len(X) and n_neighbors > 0:
        search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(among)
        distance, second = search.kneighbors(None if Y is None else Z[: len(X)])
        close = 1 - np.square(distance) / 2 >= threshold - 1e-6
        first = np.repeat(np.arange(len(X)), n_neighbors).reshape(second.shape)
        pairs = np.column_stack([first[close], second[close]])
        pairs = np.unique(np.sort(pairs, axis=1) if Y is None else pairs, axis=0)
    similarity = np.einsum("ij,ij->i", Z[: len(X)][pairs[:, 0]], among[pairs[:, 1]])
    order = np.argsort(-similarity, kind="stable")
    found = pd.DataFrame(pairs[order], columns=["first", "second"])
    return found.assign(similarity=np.minimum(similarity[order], 1.0))


def class_scores(
    y: Any, y_pred: Any, labels: Any = None, *, groups: Any = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Return precision, recall and F1 of each class, with confidence intervals.

    Parameters
    ----------
    y, y_pred : array-like of shape (n,)
        True and predicted classes.
    labels : array-like of shape (n_classes,), default=None
        Classes, in the order of the rows. None takes the sorted classes of `y` and `y_pred`.
    groups : array-like of shape (n,), default=None
        Images of one group count as one draw in the intervals.
    confidence : float in (0, 1), default=0.95
        Confidence level of the intervals, which are those of `metrics_report`.

    Returns
    -------
    pandas.DataFrame
        One row per class: `class`; `precision`, `recall` and `f1`, each with `_low` and `_high`;
        `images`. NaN if a class has no images or, for precision, no predictions.

    Examples
    --------
    >>> class_scores(["a", "a", "b"], ["a", "b", "b"])[["class", "precision", "recall", "images"]]
      class  precision  recall  images
    0     a        1.0     0.5       2
    1     b        0.5     1.0       1
    """
    owner = "class_scores"
    y, y_pred = one_label_each(owner, y), one_label_each(owner, y_pred, "y_pred")
    names = classes_of(owner, y, y_pred, labels)
    y = codes_of(owner, y, names, "y", "labels lacks")
    y_pred = codes_of(owner, y_pred, names, "y_pred", "labels lacks")
    groups = read_groups(owner, groups, len(y))
    rows = []
    for code, name in enumerate(names.tolist()):
        true, predicted = (y == code).astype(float), (y_pred == code).astype(float)
        row = {"class": name}
        totals = {"precision": predicted, "recall": true, "f1": (true + predicted) / 2}
        for score, total in totals.items():
            share = share_with_interval(true * predicted, total, groups, confidence)
            row |= dict(zip((score, f"{score}_low", f"{score}_high"), share, strict=True))
        rows.append({**row, "images": int(true.sum())})
    return pd.DataFrame(rows)


def _codes(owner: str, y: Any, proba: Any, classes: Any) -> tuple[Array, Array, Array]:
    """Return the codes of `y`, int (n,), and both arrays. Raises InputError if shapes differ."""
    y = one_label_each(owner, y)
    classes = np.unique(y) if classes is None else one_label_each(owner, classes, "classes")
    proba = np.asarray(proba, np.float64)
    if proba.shape != (len(y), len(classes)):
        raise InputError(
            "proba must have one row per label and one column per class, "
            f"{(len(y), len(classes))}; got {proba.shape}: pass classes=estimator.classes_."
        )
    return codes_of(owner, y, classes, unknown="classes lacks"), proba, classes
