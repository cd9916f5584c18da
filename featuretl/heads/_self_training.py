"""Self-training: probes that learn their own confident predictions, balanced across classes."""

from __future__ import annotations

import numpy as np

from featuretl._core.types import Array
from featuretl.heads.linear import LinearProbeClassifier

# The threshold is the least probability at which this fraction of held-out predictions is right.
_PRECISION = 0.9
_UNTESTED = 0.9  # the threshold where no label can be held out
_ROUNDS = 5
_GROWTH = 3


class Learner:
    """A probe of the rows that have a label, which adds its own predictions to them.

    Rows that a fold holds out are to its learner what rows without a label are to the learner of all
    labels, so that the threshold holds for both, round after round. `codes` (n,) are classes from 0 on,
    or -1 for no label; `added` (n,) are the rows that it learnt by its own predictions; `proba`
    (n, n_classes) are the predictions of its `probe`.
    """

    def __init__(self, C: float, X: Array, codes: Array, n_classes: int) -> None:
        self._C, self._X, self._n_classes = C, X, n_classes
        self.codes, self.added = codes, np.zeros(len(X), bool)
        self._learn(codes)

    @property
    def found(self) -> Array:
        """The most probable class of each row (n,)."""
        return self.proba.argmax(axis=1)

    def learn_more(self, threshold: float) -> None:
        """Learn the labels again, with the predictions that are at least as probable as `threshold`."""
        unknown = np.where(self.codes[:, None] < 0, self.proba, 0)
        self.added = _most_confident(unknown, threshold)
        labels = np.where(self.added, self.found, self.codes)
        if not np.array_equal(labels, self._labels):
            self._learn(labels)

    def _learn(self, labels: Array) -> None:
        self._labels = labels
        rows = np.flatnonzero(labels >= 0)
        self.probe = LinearProbeClassifier(self._C).fit(self._X[rows], labels[rows])
        self.proba = np.zeros((len(self._X), self._n_classes))
        self.proba[:, self.probe.classes_] = self.probe.predict_proba(self._X)


def teach(learners: list[Learner], codes: Array) -> list[float]:
    """Run all rounds of the folds' learners; return the threshold of each round."""
    thresholds = []
    for _ in range(_ROUNDS):
        thresholds.append(_threshold(learners, codes))
        for learner in learners:
            learner.learn_more(thresholds[-1])
    return thresholds


def _threshold(learners: list[Learner], codes: Array) -> float:
    """Return the least probability at which held-out predictions are precise; inf if none is."""
    if not learners:
        return _UNTESTED
    tests = [(learner, (learner.codes < 0) & (codes >= 0)) for learner in learners]
    confidence = np.concatenate([of.proba[test].max(axis=1) for of, test in tests])
    right = np.concatenate([of.found[test] == codes[test] for of, test in tests])
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= _PRECISION)
    return float(confidence[order][enough[-1]]) if len(enough) else float("inf")


def _most_confident(proba: Array, threshold: float) -> Array:
    """Return which rows (n,) are added: the most confident ones of each class, from `threshold` on.

    No class gets more than three times as many as the one that has the fewest.
    """
    code, confidence = proba.argmax(axis=1), proba.max(axis=1)
    found = [np.flatnonzero((code == c) & (confidence >= threshold)) for c in range(proba.shape[1])]
    most = _GROWTH * min((len(rows) for rows in found if len(rows)), default=0)
    added = np.zeros(len(proba), bool)
    for rows in found:
        added[rows[np.argsort(-confidence[rows], kind="stable")[:most]]] = True
    return added
