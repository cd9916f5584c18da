"""The difference between two domains beyond their class proportions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from sklearn.covariance import ledoit_wolf
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_consistent_length

from featuretl._core.parameters import check_int, random_generator
from featuretl._core.statistics import CONFIDENCE, interval_of_share, standard_error
from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows
from featuretl._learning.groups import group_names, read_groups
from featuretl._learning.labels import one_label_each
from featuretl._learning.rows import finite_matrix
from featuretl._learning.targets import Targets
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier

_ROWS = 5000  # of each domain; more rows add no information
_ROWS_OF_KERNEL, _PERMUTATIONS = 1000, 200
_CLEAR = 0.55  # the domains look different if the interval of the matched AUC lies above
_DOMAIN_C = 0.003  # of the classifier of domains, which must not memorise rows


@dataclass(repr=False, frozen=True)
class DomainGap:
    """Difference between a source and a target domain; printed it is `explain()`.

    Attributes
    ----------
    auc : float
        AUC of a linear classifier of the domains, averaged over held-out folds; 0.5 is chance.
    a_distance : float
        Proxy A-distance, 2 (1 - 2 error), of that classifier, in [0, 2] up to noise (Ben-David et
        al. 2010, doi:10.1007/s10994-009-5152-4).
    mmd, mmd_p : float
        Squared maximum mean discrepancy with an RBF kernel of the median distance, unbiased
        (Gretton et al. 2012), and its p-value: the fraction of 200 permutations of the rows that
        reach it.
    priors : dict of class to float, or None
        Estimated class proportions of the target: those at which the class means of the source add
        up to the mean of the target. Reliable only if the gap is small.
    prior_shift : float
        Total variation distance, in [0, 1], between `priors` and the proportions in the source; NaN
        without `y`.
    matched_auc, matched_error, matched_low : float
        The AUC after the source is weighted to `priors`, its standard error, which counts the rows
        of a group as one draw, and the lower end of its 95% interval.
    """

    auc: float
    a_distance: float
    mmd: float
    mmd_p: float
    priors: dict[Any, float] | None
    prior_shift: float
    matched_auc: float
    matched_error: float
    matched_low: float

    @property
    def is_clear(self) -> bool:
        """Whether the domains differ beyond their class proportions."""
        return self.matched_low > _CLEAR

    def explain(self) -> str:
        """Return the findings as sentences."""
        lines = [
            f"A classifier of source and target has an AUC of {self.auc:.3f} (0.5: chance), "
            f"A-distance {self.a_distance:.2f} of 2; MMD {self.mmd:.4f} (p {self.mmd_p:.3f})."
        ]
        if self.priors is not None:
            lines.append(
                f"The class proportions differ by about {self.prior_shift:.2f}; with equal "
                f"proportions the AUC is {self.matched_auc:.3f} +- {self.matched_error:.3f}."
            )
        domains = "The" if self.priors is None else "Apart from class proportions, the"
        verdict = "look different" if self.is_clear else "do not clearly differ"
        return "\n".join([*lines, f"{domains} domains {verdict}."])

    __repr__ = explain


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
    """Measure the difference of two sets of embeddings, and whether it is more than class shares.

    A target with other proportions of the same classes looks different, too. The domains are
    therefore compared twice: as they are, and with the source weighted to the estimated class
    proportions of the target.

    Parameters
    ----------
    X, X_target : array-like of shape (n, d) and (m, d)
        Finite embeddings of the source and of the target.
    y : array-like of shape (n,), default=None
        Classes of the source. Without them, the class proportions are assumed to be equal.
    groups, groups_target : array-like of shape (n,) and (m,), default=None
        Rows of one group are never on both sides of a split. A group may be in both domains.
    cv : int >= 2, default=3
        Number of folds.
    random_state : int, RandomState or None, default=0
        Draws the folds, the permutations, and 5,000 rows of a domain that has more.

    Raises
    ------
    InputError
        If lengths or widths differ, there are NaN, or fewer groups than folds.

    Examples
    --------
    >>> import numpy as np
    >>> from featuretl.adaptation import domain_gap
    >>> X = np.random.default_rng(0).normal(size=(400, 8))
    >>> domain_gap(X[:200], X[200:]).is_clear, domain_gap(X[:200], X[200:] + 1).is_clear
    (False, True)
    """
    check_int("domain_gap", "cv", cv, 2)
    rng = random_generator("domain_gap", random_state)
    S, T = read_domains(X, X_target)
    y = None if y is None else one_label_each("domain_gap", y)
    check_consistent_length(S, y)
    group = _group_numbers(len(S), len(T), groups, groups_target)
    if group.max() + 1 < cv:
        raise InputError(f"domain_gap needs at least cv={cv} groups; got {group.max() + 1}.")
    some, others = sampled(len(S), rng), sampled(len(T), rng)
    group = group[np.concatenate([some, len(S) + others])]
    S, T = S[some], T[others]
    domains = Targets(np.arange(2), np.repeat([0, 1], [len(S), len(T)]))
    with warnings.catch_warnings():  # fewer folds are fine if there are few groups
        warnings.simplefilter("ignore", FeatureTLWarning)
        fold = fold_of_rows("domain_gap", domains, group, cv, rng)
    auc, a_distance, *error = _separation(S, T, np.ones(len(S)), fold, group)
    mmd, p = _mmd(S, T, rng)
    if y is None:
        return DomainGap(auc, a_distance, mmd, p, None, np.nan, auc, *error)
    classes, codes = np.unique(y[some], return_inverse=True)
    present = np.bincount(codes) / len(codes)
    estimated = _estimated_proportions(T, S, codes)
    matched, _, *error = _separation(S, T, (estimated / present)[codes], fold, group)
    priors = dict(zip(classes.tolist(), estimated.tolist(), strict=True))
    shift = float(np.abs(estimated - present).sum() / 2)
    return DomainGap(auc, a_distance, mmd, p, priors, shift, matched, *error)


def read_domains(X: Any, X_target: Any) -> tuple[Array, Array]:
    """Return source (n, d) and target (m, d) as finite float arrays; raises InputError."""
    S, T = finite_matrix("X", X), finite_matrix("X_target", X_target)
    if min(len(S), len(T)) < 2 or S.shape[1] != T.shape[1]:
        raise InputError(
            "X and X_target must be matrices with at least two rows and the same width; got "
            f"{S.shape} and {T.shape}."
        )
    return S, T


def sampled(n: int, rng: np.random.RandomState) -> Array:
    """Return the sorted numbers of at most 5,000 random rows of n."""
    return np.arange(n) if n <= _ROWS else np.sort(rng.choice(n, _ROWS, replace=False))


def _group_numbers(n: int, m: int, groups: Any, groups_target: Any) -> Array:
    """Return the group numbers (n + m,) of both domains; a row without groups is its own group."""
    names: list[Any] = []
    for rows, of_rows in ((n, groups), (m, groups_target)):
        read_groups("domain_gap", of_rows, rows)
        names += [object() for _ in range(rows)] if of_rows is None else list(group_names(of_rows))
    return pd.factorize(np.array(names, object))[0]


def _separation(S: Array, T: Array, weight: Array, fold: Array, group: Array) -> tuple[float, ...]:
    """Return AUC, proxy A-distance, standard error and lower end of the AUC; `weight` is (n,)."""
    X, domain = np.vstack([S, T]), np.repeat([0, 1], [len(S), len(T)])
    weight = np.concatenate([weight, np.ones(len(T))])
    found, influence = [], np.zeros(len(X))
    for k in range(fold.max() + 1):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        sizes = [np.bincount(domain[rows], weight[rows], 2) for rows in (train, test)]
        if not np.all(sizes):
            continue  # a single domain
        balanced = weight[train] / sizes[0][domain[train]] * len(train)
        head = LinearProbeClassifier(_DOMAIN_C)
        head.fit(X[train], domain[train], sample_weight=balanced)
        logit, pairs = head.decision_function(X[test]), sizes[1].prod()
        auc, influence[test] = _auc(domain[test], logit, weight[test])
        influence[test] *= pairs
        wrong = np.bincount(domain[test], weight[test] * ((logit > 0) != domain[test]), 2)
        found.append((auc, (wrong / sizes[1]).mean(), pairs))
    if not found:
        return 0.5, 0.0, np.inf, 0.0
    # Averaged over folds, as scores of different classifiers do not compare.
    aucs, errors, pairs = np.array(found).T
    auc, error_rate = (float(np.average(of, weights=pairs)) for of in (aucs, errors))
    units = np.unique(group, return_inverse=True)[1]
    # The variance from the training sets is visible only between folds.
    between = aucs.var(ddof=1) / len(aucs) if len(aucs) > 1 else np.inf
    error = float(np.hypot(standard_error(influence / pairs.sum(), units), np.sqrt(between)))
    low, _ = interval_of_share(auc, error, CONFIDENCE, np.bincount(units).astype(float))
    return auc, 2 * (1 - 2 * error_rate), error, low


def _auc(domain: Array, logit: Array, weight: Array) -> tuple[float, Array]:
    """Return the weighted AUC and its derivative by a factor of each weight (DeLong et al. 1988)."""
    # The fraction of the other domain that each row is correctly ranked against.
    below = np.empty(len(logit))
    for d in (0, 1):
        order = np.argsort(logit[domain != d], kind="stable")
        others, size = logit[domain != d][order], weight[domain != d][order]
        sums = np.concatenate([[0.0], np.cumsum(size)]) / size.sum()
        ends = [np.searchsorted(others, logit[domain == d], side) for side in ("left", "right")]
        placed = (sums[ends[0]] + sums[ends[1]]) / 2
        below[domain == d] = placed if d else 1 - placed
    sizes = np.bincount(domain, weight)
    auc = float(np.average(below[domain == 1], weights=weight[domain == 1]))
    return auc, weight / sizes[domain] * (below - auc)


def _estimated_proportions(T: Array, S: Array, codes: Array) -> Array:
    """Return the class proportions (k,) that bring the source's mean closest to the target's."""
    scale = S.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    Z = S / scale
    means = np.stack([Z[codes == c].mean(axis=0) for c in range(codes.max() + 1)])
    # Mahalanobis distances by the covariance within the classes of the source.
    root = cholesky(ledoit_wolf(Z - means[codes])[0] + 1e-9 * np.eye(len(scale)), lower=True)
    whitened = solve_triangular(root, means.T, lower=True)
    target = solve_triangular(root, (T / scale).mean(axis=0), lower=True)
    # An equation of large weight makes the proportions add up to one.
    one = 1e3 * np.abs(whitened).max()
    system = np.vstack([whitened, np.full(len(means), one)])
    proportions: Array = nnls(system, np.append(target, one))[0]
    return proportions / proportions.sum()


def _mmd(S: Array, T: Array, rng: np.random.RandomState) -> tuple[float, float]:
    """Return the unbiased squared maximum mean discrepancy and its p-value by permutation."""
    rows = [D[np.sort(rng.permutation(len(D))[:_ROWS_OF_KERNEL])] for D in (S, T)]
    squared = euclidean_distances(np.vstack(rows), squared=True)
    between = squared[np.triu_indices(len(squared), 1)]
    kernel = np.exp(-squared / max(np.median(between), np.finfo(np.float64).tiny))
    np.fill_diagonal(kernel, 0.0)
    n, m = len(rows[0]), len(rows[1])
    source = np.repeat([1.0, 0.0], [n, m])
    sources = np.stack([source, *(rng.permutation(source) for _ in range(_PERMUTATIONS))])
    sums = sources @ kernel
    inside, across = (sums * sources).sum(axis=1), (sums * (1 - sources)).sum(axis=1)
    outside = kernel.sum() - inside - 2 * across
    found = inside / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * across / (n * m)
    return float(found[0]), float(np.mean(found >= found[0]))
