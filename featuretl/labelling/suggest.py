"""suggest_labels: active learning by typicality, uncertainty or coverage of the embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featuretl._core.parameters import check_int, check_option, parameter_error, random_generator
from featuretl._core.types import Array
from featuretl._learning.labels import one_label_each, some_labels
from featuretl._learning.rows import finite_matrix
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier

STRATEGIES = ("auto", "typiclust", "uncertainty", "coreset", "random")

_OWNER = "suggest_labels"
_MAX_NEIGHBOURS = 20
_MAX_CLUSTERS = 500  # in more, noise would become typical, and clustering would be slow
_MAX_KMEANS_ROWS = 20_000  # more rows are clustered in mini-batches


def suggest_labels(
    X: Any,
    n: int,
    strategy: str = "auto",
    *,
    labelled: Any = None,
    y: Any = None,
    random_state: Any = None,
) -> Array:
    """Suggest the images to label next, the most useful first.

    Parameters
    ----------
    X : array-like of shape (m, d)
        Embeddings of all images, labelled or not; finite.
    n : int >= 1
        The number of images to suggest, at most all unlabelled ones.
    strategy : {"auto", "typiclust", "uncertainty", "coreset", "random"}, default="auto"
        - "typiclust": the most typical image of each of the largest clusters without a label
          (Hacohen, Dekel and Weinshall 2022, arXiv:2202.02794);
        - "uncertainty": images with the smallest margin between the two most probable classes, from
          different clusters (Citovsky et al. 2021, arXiv:2107.14263); needs `y`;
        - "coreset": images farthest from all labelled or suggested ones (Sener and Savarese 2018,
          arXiv:1708.00489);
        - "random": a baseline;
        - "auto": "typiclust" up to five labels per class, then "uncertainty".
    labelled : array-like of int, shape (l,), default=None
        The labelled rows of X.
    y : array-like of shape (l,), or of shape (m,) without `labelled`, default=None
        Their labels; None, NaN, "" and, without `labelled`, -1 mark unlabelled rows.
    random_state : int, RandomState or None, default=None
        Seed of the clusters and the draws.

    Returns
    -------
    rows : ndarray of int, shape (min(n, m - l),)
        Rows of X, none of `labelled`.

    Raises
    ------
    ParameterError, InputError
        If a parameter has an invalid value, X has NaN, lengths differ, or "uncertainty" gets labels
        of less than two classes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> rows = suggest_labels(X, 10, random_state=0)
    >>> len(set(y[rows]))  # of ten digits
    9
    >>> suggest_labels(X, 3, labelled=rows, y=y[rows], random_state=0).shape
    (3,)
    """
    check_int(_OWNER, "n", n, 1)
    check_option(_OWNER, "strategy", strategy, STRATEGIES)
    X = finite_matrix(f"X of {_OWNER}", X)
    known = _rows_of(labelled, len(X))
    if y is not None:
        y, has_label = some_labels(_OWNER, y, minus_one=labelled is None)
        known = np.arange(len(X)) if labelled is None and len(has_label) else known
        if len(has_label) != len(known):
            got = f"{len(has_label)} for {len(known)}"
            raise InputError(f"y must have one entry per labelled row; got {got}.")
        y, known = one_label_each(_OWNER, y), known[has_label]
    left = np.setdiff1d(np.arange(len(X)), known)
    n = min(n, len(left))
    if not n:
        return left
    rng = random_generator(_OWNER, random_state)
    if strategy == "auto":
        strategy = "typiclust" if _are_few(y) else "uncertainty"
    if strategy == "random":
        return rng.permutation(left)[:n]
    if strategy == "uncertainty":
        return _select_uncertain(X, n, known, y, left, rng)
    Z = normalize(X - X.mean(axis=0))
    select = _select_typical if strategy == "typiclust" else _select_farthest
    return select(Z, n, known, left, rng)


def _rows_of(labelled: Any, m: int) -> Array:
    rows: Array = np.asarray([] if labelled is None else labelled, int).ravel()
    if len(np.unique(rows)) < len(rows) or (len(rows) and not 0 <= rows.min() <= rows.max() < m):
        raise parameter_error(_OWNER, "labelled", f"distinct rows of X, 0 to {m - 1}", labelled)
    return rows


def _are_few(y: Any) -> bool:
    """Return whether typicality beats uncertainty: below a median of five labels per class."""
    if y is None or not len(y):
        return True
    counts = np.unique(y, return_counts=True)[1]
    return bool(len(counts) < 2 or np.median(counts) < 5)


def _select_uncertain(X: Array, n: int, known: Array, y: Any, left: Array, rng: Any) -> Array:
    """Return n rows with small margins, from different clusters of the 10 n least certain rows."""
    if y is None or len(np.unique(y)) < 2:
        raise InputError(
            "strategy='uncertainty' needs labels of two classes; pass labelled and y, or start "
            "with strategy='typiclust'."
        )
    proba = LinearProbeClassifier().fit(X[known], y).predict_proba(X[left])
    proba.sort(axis=1)
    margin = proba[:, -1] - proba[:, -2]
    least = np.argsort(margin, kind="stable")[: 10 * n]
    if len(least) <= n:
        return left[least]
    cluster = _clusters(normalize(X[left[least]] - X.mean(axis=0)), n, rng)
    first = np.sort(np.unique(cluster, return_index=True)[1])
    rest = np.setdiff1d(np.arange(len(least)), first)  # if a cluster is empty
    chosen = np.concatenate([first, rest])[:n]
    return left[least[chosen]]


def _select_typical(Z: Array, n: int, known: Array, left: Array, rng: Any) -> Array:
    """Return the most typical rows of clusters, fewest labels first, then largest clusters."""
    cluster = _clusters(Z, min(len(known) + n, _MAX_CLUSTERS, len(Z)), rng)
    size = np.bincount(cluster)
    n_labels = np.bincount(cluster[known], minlength=len(size))
    ordered = [_by_typicality(Z, np.flatnonzero(cluster == number)) for number in range(len(size))]
    candidates = [rows[np.isin(rows, left)].tolist() for rows in ordered]
    chosen: list[int] = []
    while len(chosen) < n:
        remaining = [number for number, rows in enumerate(candidates) if rows]
        best = min(remaining, key=lambda number: (n_labels[number], -size[number]))
        chosen.append(candidates[best].pop(0))
        n_labels[best] += 1
    return np.array(chosen)


def _by_typicality(Z: Array, rows: Array) -> Array:
    """Return `rows` sorted by the mean distance to their nearest neighbours in `rows`."""
    if len(rows) < 3:
        return rows
    k = min(_MAX_NEIGHBOURS, len(rows) - 1)
    distance, _ = NearestNeighbors(n_neighbors=k).fit(Z[rows]).kneighbors()
    return rows[np.argsort(distance.mean(axis=1), kind="stable")]


def _select_farthest(Z: Array, n: int, known: Array, left: Array, rng: Any) -> Array:
    """Return rows by farthest-first traversal, from the labelled rows or else the central row."""
    chosen: list[int] = []
    if not len(known):
        chosen.append(int(np.argmin(np.square(Z - Z.mean(axis=0)).sum(axis=1))))
    ends = Z[known if len(known) else chosen]
    nearest = pairwise_distances_argmin_min(Z, ends, metric="sqeuclidean")[1].astype(np.float64)
    nearest[np.setdiff1d(np.arange(len(Z)), left)] = -1.0
    nearest[chosen] = -1.0
    while len(chosen) < n:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(Z - Z[chosen[-1]]).sum(axis=1))
        nearest[chosen[-1]] = -1.0
    return np.array(chosen)


def _clusters(Z: Array, k: int, rng: Any) -> Array:
    kind = KMeans if len(Z) <= _MAX_KMEANS_ROWS else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        return kind(k, n_init=1, random_state=rng.randint(2**31)).fit_predict(Z)
