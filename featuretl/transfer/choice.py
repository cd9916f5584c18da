"""The choice of a strategy, with a score of images that had no part in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from featuretl._core.types import Array
from featuretl._learning.groups import subset
from featuretl.exceptions import InputError
from featuretl.transfer.decision import Decision, Outer
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import MANY, MANY_NUMBERS, Search, Trial

# The folds of the outer score: many where fitting is cheap and images are few, else one.
_FOLDS_OF_FEW, _FEW_IMAGES = 10, 300
_HELD_OUT = 5


def choose(
    experiment: Experiment, backbones: list[str], *, strategy: str, cv: Any, test_size: Any
) -> tuple[Trial, Decision]:
    """Return the candidate to fit to all images, and the decision with its outer score.

    The parameters are those of `TransferClassifier`. No choice sees the images that it is scored on.
    """
    experiment.keep_copies_together(backbones[0])
    fold, how = _outer_folds(experiment, strategy, test_size)
    n_folds, rows = fold.max() + 1, np.arange(experiment.n)
    scores = np.full(experiment.n, np.nan)
    for k in range(n_folds):
        train, test = rows[fold != k], rows[fold == k]
        search = Search(experiment, train, backbones, strategy, cv)
        winner = search.run()
        chosen, backbone = winner.strategy, winner.backbone
        model = experiment.fit(chosen, backbone, winner.settings, train)
        scores[test] = experiment.judge(model, chosen, test, backbone)[0]
    if n_folds != 1:  # of one fold, the choice that was scored is the choice that counts
        search = Search(experiment, rows, backbones, strategy, cv)
        winner = search.run()
    outer, targets = Outer(how=how), experiment.targets
    if n_folds:
        judged = ~np.isnan(scores)
        outer = Outer.of(scores[judged], subset(experiment.groups, judged), targets.proportion, how)
    return winner, Decision(
        strategy=winner.strategy,
        backbone=winner.backbone,
        outer=outer,
        seconds=experiment.seconds(),
        trials=search.trials,
        n_images=experiment.n,
        per_class=targets.per_class,
        folds=search.folds,
        score_name=targets.score_name,
        proportion=targets.proportion,
        groups=experiment.groups,
    )


def _outer_folds(experiment: Experiment, strategy: str, test_size: Any) -> tuple[Array, str]:
    """Return the fold that each image is scored in, -1 for none, and how they are held out."""
    rows, targets = np.arange(experiment.n), experiment.targets
    if test_size is None:
        return np.full(len(rows), -1), "test_size=None"
    enough = targets.per_class >= MANY if targets.per_class else len(rows) >= MANY_NUMBERS
    is_costly = strategy == "fine-tune" or (strategy == "auto" and enough)
    many_folds = test_size == "auto" and not is_costly and len(rows) <= _FEW_IMAGES
    n_folds = _HELD_OUT if test_size == "auto" else max(2, round(1 / test_size))
    try:
        fold, _ = experiment.folds(rows, _FOLDS_OF_FEW if many_folds else n_folds)
    except InputError as error:
        return np.full(len(rows), -1), str(error).rstrip(".")
    if many_folds:
        return fold, f"the choice was repeated on the rest of each of {fold.max() + 1} folds"
    left = np.count_nonzero(fold != 0)
    return np.where(fold == 0, 0, -1), f"the choice was made on the other {left:,}"
