"""What TransferClassifier and TransferRegressor share: the outer split, the choice, the last fit."""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_bool, check_option, is_word, parameter_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds
from featuretl._learning.refit import forget
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.transfer.decision import Outer, decision_of
from featuretl.transfer.problem import Problem
from featuretl.transfer.search import MANY, MANY_NUMBERS, Search, Trial
from featuretl.transfer.tasks import Task

# The folds of the outer score: many where fitting is cheap and images are few, one else.
_FOLDS_OF_FEW, _FEW_IMAGES = 10, 300
_HELD_OUT = 5
# Of the time that is left before them.
_OUTER_SHARE, _LAST_SHARE = 0.45, 0.95


class BaseTransfer(BaseEstimator):
    """Base of `TransferClassifier` and `TransferRegressor`."""

    _task: ClassVar[Callable[..., Task]]
    _strategies: ClassVar[tuple[str, ...]]
    decision_: Any

    def __init__(
        self,
        strategy: str = "auto",
        *,
        backbone: Any = "tf_efficientnet_lite0",
        weights: Any = "auto",
        cv: Any = 5,
        test_size: Any = "auto",
        time_budget: Any = None,
        device: str = "auto",
        n_jobs: int | None = None,
        cache: Any = "auto",
        novelty: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.strategy = strategy
        self.backbone = backbone
        self.weights = weights
        self.cv = cv
        self.test_size = test_size
        self.time_budget = time_budget
        self.device = device
        self.n_jobs = n_jobs
        self.cache = cache
        self.novelty = novelty
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Choose, score the choice on images apart, and fit it to all images.

        Parameters
        ----------
        X : sequence of n images
            Paths, bytes, PIL images or uint8 arrays, as for `ImageEmbedder`.
        y : array-like of shape (n,)
            Classes, or numbers. For several labels per image n lists of them, or an indicator of 0
            and 1, (n, n_labels); for several numbers (n, n_outputs).
        groups : array-like of shape (n,), default=None
            Images of one group stay on one side of every split.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If `y` cannot be learnt from or lengths differ; ImageError if an image cannot be read.
        BackboneError
            If a backbone cannot be loaded.
        """
        began = time.monotonic()
        self._check_parameters()
        forget(self)
        problem = Problem(self, X, groups, self._task, y)
        self.n_features_in_ = 1
        search, winner, outer = self._chosen(problem)
        self.estimator_ = self._fitted(problem, winner, np.arange(problem.n), last=True)
        self.strategy_, self.backbone_ = winner.strategy, winner.backbone
        if self.novelty and problem.has_different_groups:
            self.novelty_ = problem.novelty(winner.backbone)
        self.decision_ = decision_of(problem, search, winner, outer, time.monotonic() - began)
        return self

    def predict(self, X: Any) -> Array:
        """Return what the chosen model predicts, (n,).

        Parameters
        ----------
        X : sequence of n images
        """
        check_is_fitted(self)
        predicted: Array = self.estimator_.predict(X)
        return predicted

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags

    def _chosen(self, problem: Problem) -> tuple[Search, Trial, Outer]:
        """Return the choice that counts, its winner and the outer score."""
        rows = np.arange(problem.n)
        backbones = self._backbones()
        problem.keep_copies_together(backbones[0])
        if self.test_size is None:
            search = Search(problem, rows, backbones, self.strategy, self.cv)
            return search, search.run(), Outer(how="test_size=None")
        one, n_folds = self._outer_folds(problem)
        try:
            fold, how = problem.folds(rows, n_folds)
        except InputError as error:
            search = Search(problem, rows, backbones, self.strategy, self.cv)
            return search, search.run(), Outer(how=str(error).rstrip("."))
        scores = np.full(problem.n, np.nan)
        for k in range(1 if one else fold.max() + 1):
            search = Search(problem, rows[fold != k], backbones, self.strategy, self.cv)
            winner = search.run()
            model = self._fitted(problem, winner, rows[fold != k])
            test = rows[fold == k]
            scores[test] = problem.judge(model, winner.strategy, test, winner.backbone)[0]
        judged = ~np.isnan(scores)
        if one:
            how = f"the choice was made on the other {problem.n - judged.sum():,}"
        else:
            search = Search(problem, rows, backbones, self.strategy, self.cv)
            winner = search.run()
            how = f"the choice was made anew on the rest of each of {fold.max() + 1} folds"
        groups = None if problem.groups is None else problem.groups[judged]
        return search, winner, Outer.of(scores[judged], groups, problem.task.proportion, how)

    def _outer_folds(self, problem: Problem) -> tuple[bool, int]:
        """Return whether one fold is enough, and how many folds to make."""
        if self.test_size != "auto":
            return True, max(2, round(1 / self.test_size))
        many = (
            (MANY, problem.task.per_class) if problem.task.per_class else (MANY_NUMBERS, problem.n)
        )
        costly = self.strategy in ("auto", "fine-tune") and many[1] >= many[0]
        if costly or self.strategy == "fine-tune" or problem.n > _FEW_IMAGES:
            return True, _HELD_OUT
        return False, _FOLDS_OF_FEW

    def _fitted(self, problem: Problem, winner: Trial, rows: Array, last: bool = False) -> Any:
        """Return the winner, fitted to `rows`; with `last` what predicts from images."""
        if winner.strategy == "fine-tune":
            share = _LAST_SHARE if last else _OUTER_SHARE
            left = max(0.1, share * problem.seconds_left())
            model = problem.fine_tune(winner.backbone, left, **winner.settings)
            images, y, groups = problem.taken(rows)
            if model.fit(images, y, groups=groups).stopped_ == "interrupted":
                raise KeyboardInterrupt
            return model
        with warnings.catch_warnings():
            if not last:
                warnings.simplefilter("ignore", FeatureTLWarning)
            head = problem.head(winner.strategy, rows, winner.backbone, last)
        return problem.pipeline(winner.backbone, head) if last else head

    def _backbones(self) -> list[str]:
        if isinstance(self.backbone, str):
            installed = [name for name in PACKAGED if packaged_file(name)]
            return installed if self.backbone == "auto" else [self.backbone]
        return list(self.backbone)

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_bool(owner, "novelty", self.novelty)
        check_option(owner, "strategy", self.strategy, self._strategies)
        names = [self.backbone] if isinstance(self.backbone, str) else self.backbone
        if not _is_names(names):
            expected = "a name, a list of different names, or 'auto'"
            raise parameter_error(owner, "backbone", expected, self.backbone)
        if not is_word(self.weights, "auto") and (names == ["auto"] or len(names) > 1):
            raise parameter_error(owner, "weights", "'auto' for several backbones", self.weights)
        if not hasattr(self.cv, "split"):
            if not isinstance(self.cv, numbers.Integral):
                raise parameter_error(owner, "cv", "an int >= 2 or a splitter", self.cv)
            check_folds(owner, self.cv)
        size = self.test_size
        is_given = size is not None and not is_word(size, "auto")
        if is_given and not (_is_number(size) and 0 < size <= 0.5):
            raise parameter_error(owner, "test_size", "'auto', None or a number in (0, 0.5]", size)
        budget = self.time_budget
        if budget is not None and not (_is_number(budget) and budget > 0):
            raise parameter_error(owner, "time_budget", "a number > 0 or None", budget)


def _is_names(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
