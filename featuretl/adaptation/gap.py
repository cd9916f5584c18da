"""How different two domains are, once the shares of their classes are accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from featuretl._validation import check_int
from featuretl.exceptions import InputError
from featuretl.heads._groups import group_names, read_groups
from featuretl.heads._rows import check_finite
from featuretl.heads.linear import LinearProbeClassifier

Array = np.ndarray[Any, Any]

_ROWS = 5000  # of each domain; more say no more
_ROWS_OF_KERNEL, _PERMUTATIONS = 1000, 200
# The lower end of the interval of the matched AUC from which adaptation is worth trying.
_CLEAR = 0.55
_STRENGTH = 0.003  # C of the classifier of domains: it must not learn rows by heart


@dataclass(frozen=True)
class DomainGap:
    """How different source and target are; printed it is `explain()`.

    Attributes
    ----------
    auc : float
        How well a linear classifier tells the domains apart, cross-validated: 0.5 not at all, 1
        without error.
    a_distance : float
        Proxy A-distance, 2 (1 - 2 error) of that classifier, in [0, 2] but for noise (Ben-David et
        al. 2010, doi:10.1007/s10994-009-5152-4).
    mmd, mmd_p : float
        Squared maximum mean discrepancy, RBF kernel with the median distance as its width, unbiased
        (Gretton et al. 2012), and the share of 200 permutations of the rows that reach it.
    priors : dict of class to float, or None
        Estimated shares of the classes in the target: those in which the means of the source's
        classes add up to the target's mean. Reliable only where the gap is small.
    prior_shift : float
        Total variation distance, in [0, 1], between these and the shares in the source; NaN
        without `y`.
    matched_auc, matched_error : float
        The AUC once the source's rows are weighted to have these shares, and its standard error.
    """

    auc: float
    a_distance: float
    mmd: float
    mmd_p: float
    priors: dict[Any, float] | None
    prior_shift: float
    matched_auc: float
    matched_error: float

    @property
    def is_clear(self) -> bool:
        """Whether the domains differ in more than the shares of their classes."""
        return self.matched_auc - 1.96 * self.matched_error > _CLEAR

    def explain(self) -> str:
        """Return what was found, in plain sentences."""
        lines = [
            f"Source and target are told apart with an AUC of {self.auc:.3f} (0.5: not at all), "
            f"A-distance {self.a_distance:.2f} of 2; MMD {self.mmd:.4f} (p {self.mmd_p:.3f})."
        ]
        if self.priors is not None:
            lines.append(
                f"The shares of the classes differ by about {self.prior_shift:.2f}; with equal "
                f"shares the AUC is {self.matched_auc:.3f} +- {self.matched_error:.3f}."
            )
        verdict = "is worth trying" if self.is_clear else "has nothing to gain"
        return "\n".join([*lines, f"Adaptation {verdict}."])

    def __str__(self) -> str:
        return self.explain()


def domain_gap(
    X: Any,
    X_target: Any,
    y: Any = None,
    *,
    groups: Any = None,
    groups_target: Any = None,
    cv: int = 3,
    random_state: Any = 0,
) -> DomainGap:
    """Return how different two sets of embeddings are, and whether adaptation is worth trying.

    A target with other shares of the same classes looks different, too, and aligning its moments
    with the source's does harm then. So the domains are compared twice: as they are, and with the
    source's rows weighted to have the shares that the target seems to have.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings of the source; finite.
    X_target : array-like of shape (m, d)
        Embeddings of the target.
    y : array-like of shape (n,), default=None
        Classes of the source; without them shares are taken to be equal.
    groups, groups_target : array-like of shape (n,) and (m,), default=None
        Rows of one group are never on both sides of a split. A group may be in both domains.
    cv : int >= 2, default=3
        Folds.
    random_state : int, RandomState or None, default=0
        Draws folds, permutations, and 5,000 rows of each domain where there are more.

    Raises
    ------
    InputError
        If lengths or widths differ, or there are NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from featuretl import domain_gap
    >>> X = np.random.default_rng(0).normal(size=(400, 8))
    >>> domain_gap(X[:200], X[200:]).is_clear, domain_gap(X[:200], X[200:] + 1).is_clear
    (False, True)
    """
    check_int("domain_gap", "cv", cv, 2)
    rng = check_random_state(random_state)
    S, T = read_domains(X, X_target)
    y = None if y is None else np.asarray(y)
    check_consistent_length(S, y)
    fold = _folds(len(S), len(T), groups, groups_target, cv, rng)
    some, others = sampled(len(S), rng), sampled(len(T), rng)
    S, T, fold = S[some], T[others], (fold[0][some], fold[1][others])
    auc, a_distance, error = _told_apart(S, T, np.ones(len(S)), fold)
    mmd, p = _mmd(S, T, rng)
    if y is None:
        return DomainGap(auc, a_distance, mmd, p, None, np.nan, auc, error)
    classes, codes = np.unique(y[some], return_inverse=True)
    shares = np.bincount(codes) / len(codes)
    estimated = _shares_in(T, S, codes)
    matched, _, error = _told_apart(S, T, (estimated / shares)[codes], fold)
    priors = dict(zip(classes.tolist(), estimated.tolist(), strict=True))
    shift = float(np.abs(estimated - shares).sum() / 2)
    return DomainGap(auc, a_distance, mmd, p, priors, shift, matched, error)


def read_domains(X: Any, X_target: Any) -> tuple[Array, Array]:
    """Return source (n, d) and target (m, d) as arrays of floats; raises InputError."""
    both = [np.asarray(rows) for rows in (X, X_target)]
    both = [rows if rows.dtype.kind == "f" else rows.astype(np.float64) for rows in both]
    if (
        any(rows.ndim != 2 or len(rows) < 2 for rows in both)
        or both[0].shape[1] != both[1].shape[1]
    ):
        raise InputError(
            "X and X_target must be matrices of two rows or more and of the same width; got "
            f"{both[0].shape} and {both[1].shape}."
        )
    for rows in both:
        check_finite(rows)
    return both[0], both[1]


def sampled(n: int, rng: np.random.RandomState) -> Array:
    """Return the numbers of at most 5,000 of n rows, drawn at random, in order."""
    return np.arange(n) if n <= _ROWS else np.sort(rng.choice(n, _ROWS, replace=False))


def _folds(
    n: int, m: int, groups: Any, groups_target: Any, cv: int, rng: np.random.RandomState
) -> tuple[Array, Array]:
    """Return the fold of each row of both domains; rows without groups are groups of their own."""
    names: list[Any] = []
    for rows, of_rows in ((n, groups), (m, groups_target)):
        read_groups("domain_gap", of_rows, rows)
        names += [object() for _ in range(rows)] if of_rows is None else list(group_names(of_rows))
    codes, distinct = pd.factorize(np.array(names, object))
    if len(distinct) < cv:
        raise InputError(f"domain_gap needs at least cv={cv} groups; got {len(distinct)}.")
    fold = np.empty(len(codes), int)
    seed = rng.randint(2**31)
    splits = GroupKFold(cv, shuffle=True, random_state=seed).split(codes, groups=codes)
    for k, (_, rows) in enumerate(splits):
        fold[rows] = k
    return fold[:n], fold[n:]


def _told_apart(
    S: Array, T: Array, weight: Array, fold: tuple[Array, Array]
) -> tuple[float, float, float]:
    """Return AUC, proxy A-distance and the AUC's standard error, the source weighted (n,)."""
    X, domain = np.vstack([S, T]), np.repeat([0, 1], [len(S), len(T)])
    weight = np.concatenate([weight * len(T) / weight.sum(), np.ones(len(T))])
    folds, logit = np.concatenate(fold), np.zeros(len(X))
    for k in np.unique(folds):
        train = folds != k
        if not weight[train & (domain == 0)].any() or not domain[train].any():
            continue  # of one domain only: nothing can be told
        head = LinearProbeClassifier(_STRENGTH)
        head.fit(X[train], domain[train], sample_weight=weight[train])
        logit[~train] = head.decision_function(X[~train])
    auc = float(roc_auc_score(domain, logit, sample_weight=weight))
    wrong = (logit > 0) != domain
    error = np.mean([np.average(wrong[domain == d], weights=weight[domain == d]) for d in (0, 1)])
    n = weight[domain == 0].sum() ** 2 / np.square(weight[domain == 0]).sum()
    return auc, float(2 * (1 - 2 * error)), _error_of_auc(auc, n, len(T))


def _error_of_auc(auc: float, n: float, m: float) -> float:
    """Return the standard error (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747)."""
    both, one = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (both - auc**2) + (m - 1) * (one - auc**2)
    return float(np.sqrt(max(variance, 0.0) / (n * m)))


def _shares_in(T: Array, S: Array, codes: Array) -> Array:
    """Return the shares (k,) in which the source's class means come nearest to the target's mean.

    Distances are Mahalanobis's, by the covariance within the source's classes.
    """
    scale = S.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    Z = S / scale
    means = np.stack([Z[codes == c].mean(axis=0) for c in range(codes.max() + 1)])
    root = cholesky(ledoit_wolf(Z - means[codes])[0] + 1e-9 * np.eye(len(scale)), lower=True)
    whitened = solve_triangular(root, means.T, lower=True)
    target = solve_triangular(root, (T / scale).mean(axis=0), lower=True)
    one = 1e3 * np.abs(whitened).max()  # an equation so heavy that the shares add up to one
    system = np.vstack([whitened, np.full(len(means), one)])
    shares = nnls(system, np.append(target, one))[0]
    found: Array = shares / shares.sum()
    return found


def _mmd(S: Array, T: Array, rng: np.random.RandomState) -> tuple[float, float]:
    rows = [D[np.sort(rng.permutation(len(D))[:_ROWS_OF_KERNEL])] for D in (S, T)]
    squared = euclidean_distances(np.vstack(rows), squared=True)
    between = squared[np.triu_indices(len(squared), 1)]
    kernel = np.exp(-squared / max(np.median(between), np.finfo(np.float64).tiny))
    np.fill_diagonal(kernel, 0.0)
    sign = np.repeat([1.0, -1.0], [len(rows[0]), len(rows[1])])
    found = _mmd_of(kernel, sign)
    others = [_mmd_of(kernel, rng.permutation(sign)) for _ in range(_PERMUTATIONS)]
    return found, float((1 + np.sum(np.array(others) >= found)) / (1 + _PERMUTATIONS))


def _mmd_of(kernel: Array, sign: Array) -> float:
    """Return the unbiased estimate for rows of the source (1) and the target (-1)."""
    n, m = np.sum(sign > 0), np.sum(sign < 0)
    of_source = kernel @ (sign > 0)
    of_target = kernel @ (sign < 0)
    within = of_source[sign > 0].sum() / (n * (n - 1)) + of_target[sign < 0].sum() / (m * (m - 1))
    return float(within - 2 * of_source[sign < 0].sum() / (n * m))
