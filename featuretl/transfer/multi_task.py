"""TransferMultiTask: one model for several tasks on the same images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import is_word, parameter_error, random_generator
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.columns import KINDS, Column, in_column, read_column, table_of
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.refit import forget
from featuretl.exceptions import FeatureTLWarning
from featuretl.heads.multi_task import MultiTaskHead
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images
from featuretl.transfer.base import BaseTransfer
from featuretl.transfer.decision import Decision, choose
from featuretl.transfer.experiment import Experiment, backbones_of, embedder_of
from featuretl.transfer.targets import RegressionTargets, classification_targets


@dataclass(eq=False, repr=False, kw_only=True)
class TransferMultiTask(BaseTransfer):
    """Fit one model to several tasks on the same images, with a score of each task.

    Images are embedded once. Each task gets the linear probe and the outer score that
    `TransferClassifier` or `TransferRegressor` would give it with ``strategy="linear"``.

    Parameters
    ----------
    strategy : {"auto", "linear"}, default="auto"
        Both are the cross-validated linear probe, the only strategy for several tasks.
    tasks : dict of column to {"classification", "regression"}, or None, default=None
        The kinds of tasks; others are inferred from the labels, see `MultiTaskHead` (the head
        alone, with any estimators).
    backbone, weights, cv, test_size, device, n_jobs, cache, novelty, random_state, verbose
        As in `TransferClassifier`, with a single backbone.

    Attributes
    ----------
    tasks_ : dict of str to {"classification", "regression"}
        The tasks, in the order of their columns.
    decisions_ : dict of str to Decision
        The decision of each task, as `decision_` of `TransferClassifier`.
    decision_ : str
        The kind and the score of each task, a line each.
    estimator_ : Pipeline
        `ImageEmbedder` and a fitted `MultiTaskHead`.
    strategy_, backbone_, novelty_, n_features_in_
        As in `TransferClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl import TransferMultiTask
    >>> china, flower = load_sample_images().images
    >>> images = [p[i : i + 200, i : i + 200] for i in range(0, 180, 30) for p in (china, flower)]
    >>> y = {"what": ["temple", "flower"] * 6, "light": [image.mean() for image in images]}
    >>> model = TransferMultiTask(test_size=0.5, random_state=0, cache=None).fit(images, y)
    >>> model.tasks_
    {'what': 'classification', 'light': 'regression'}
    >>> model.predict(images[:1])[0, 0], model.decisions_["what"].outer.images
    ('temple', 6)
    """

    _strategies = ("auto", "linear")
    tasks: Any = None
    # A time budget limits neither embedding nor probes.
    time_budget: Any = field(default=None, init=False)

    def fit(self, X: Any, y: Any, groups: Any = None) -> TransferMultiTask:
        """Embed the images, score the probe of each task on held-out images, and fit all probes.

        Parameters
        ----------
        X, groups
            As in `TransferClassifier`.
        y : frame of pandas, polars or pyarrow, dict of n values each, or array-like (n, n_tasks)
            A column for each task; None, NaN and empty text are missing labels.

        Raises
        ------
        ParameterError, InputError, ImageError, BackboneError
            As in `TransferClassifier`; an error in a column names the column.
        """
        self._check_parameters()
        forget(self)
        owner = type(self).__name__
        images = as_images(X, owner)
        table = table_of(owner, y, len(images))
        kinds = self._kinds(table)
        columns = {name: read_column(name, v, kinds.get(name)) for name, v in table.items()}
        groups = read_groups(owner, or_files(groups, images), len(images))
        (backbone,) = backbones_of(self)
        embedder = embedder_of(self, backbone)
        embeddings = np.asarray(embedder.transform(images))
        self.decisions_: dict[str, Decision] = {}
        heads = {}
        for name, column in columns.items():
            with in_column(name):
                probe = self._probe(images, column, groups, {backbone: embeddings})
                heads[name], self.decisions_[name] = probe
        with warnings.catch_warnings():  # the choice has already issued these warnings
            warnings.simplefilter("ignore", FeatureTLWarning)
            head = MultiTaskHead(heads).fit(embeddings, table, groups=groups)
        self.n_features_in_ = 1
        self.estimator_ = make_pipeline(embedder, head)
        self.tasks_ = dict(head.tasks_)
        self.strategy_, self.backbone_ = "linear", backbone
        seed = int(random_generator(owner, self.random_state).randint(2**31))
        self._fit_novelty(embeddings, groups, seed)
        lines = (_line(name, column, self.decisions_[name]) for name, column in columns.items())
        self.decision_ = "\n".join(lines)
        return self

    def score(self, X: Any, y: Any) -> float:
        """Return the mean of the tasks' accuracies and R2, for images and a table as in `fit`."""
        check_is_fitted(self)
        return float(self.estimator_.score(X, y))

    def _probe(
        self, images: Any, column: Column, groups: Any, embeddings: dict[str, Array]
    ) -> tuple[Any, Decision]:
        """Return the unfitted head of a task, and its decision."""
        is_class, rows = column.kind == "classification", column.rows
        experiment = Experiment(
            self,
            [images[i] for i in rows],
            column.y,
            subset(groups, rows),
            classification_targets if is_class else RegressionTargets,
            {backbone: known[rows] for backbone, known in embeddings.items()},
        )
        _, decision = choose(experiment, "linear", self.test_size)
        return experiment.new_head("linear", np.arange(experiment.n), last=True), decision

    def _kinds(self, table: dict[str, Any]) -> dict[str, str]:
        """Return `tasks` with the column names as text."""
        owner = type(self).__name__
        if self.tasks is not None and not isinstance(self.tasks, dict):
            raise parameter_error(owner, "tasks", "None or a dict of column to kind", self.tasks)
        kinds = {str(name): kind for name, kind in (self.tasks or {}).items()}
        for name, kind in kinds.items():
            if name not in table:
                raise parameter_error(owner, "tasks", f"of the columns {', '.join(table)}", name)
            if kind not in KINDS:
                raise parameter_error(owner, "tasks", f"of kinds among {', '.join(KINDS)}", kind)
        return kinds

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.backbone, (list, tuple)) or is_word(self.backbone, "auto"):
            expected = "a name or Backbone, as several tasks have one backbone (rank_backbones compares them)"
            raise parameter_error(type(self).__name__, "backbone", expected, self.backbone)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags = MultiTaskHead().__sklearn_tags__().target_tags
        return tags


def _line(name: str, column: Column, decision: Decision) -> str:
    outer = decision.outer
    score = outer.explain(decision.score_name) if outer.images else f"no outer score ({outer.how})"
    task = f"{printable(name)}: {column.kind} ({column.why})"
    return f"{task} of {decision.n_images:,} images; {score}."
