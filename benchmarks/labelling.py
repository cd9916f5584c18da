"""When labels are few: which images to label, learning from unlabelled images, forecasts.

    python benchmarks/labelling.py suggest        which images to label
    python benchmarks/labelling.py unlabelled     learning from unlabelled images
    python benchmarks/labelling.py forecast       forecast learning curves and measured accuracies

All need the data sets in ../shared/data and take `--seeds` and `--json`. On sign-digits the
held-out images are those of other signers.

"suggest": each seed holds out a fifth of the signers. `suggest_labels` chooses batches of the
other signers' photographs, which are then labelled, 10 to 500 in total (1 to 50 per digit). After
each batch a head is trained on the labelled rows: `NearestMeanClassifier()` up to 50 labels and
`LinearProbeClassifier()` beyond, whichever is better on average. "area" is the mean accuracy over
the logarithm of the number of labels.

"unlabelled": each seed holds out a fifth of the images and draws n labels per class from the
others; the rest stays unlabelled. The table shows held-out accuracies, and gains over the linear
probe trained on the labelled images alone, with standard errors over the seeds.

"forecast": each seed holds out two fifths of the images and draws n labels per class from the
others. `forecast_accuracy` sees only these and forecasts the accuracy with 1, 2, 5 and 10 times as
many labels. If there are enough labels, a probe is trained on that number and scored on the
held-out images (about 160 to 830). "bias" and "rmse" are those of the forecast minus that score,
"covered" counts the 95% intervals that contain the score, and "width" is their mean width.
"""

from __future__ import annotations

import warnings
from typing import Any

import click
import numpy as np
from common import DATA, show, signers
from scipy.special import entr
from sklearn.base import clone
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit
from sklearn.preprocessing import normalize
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

import featuretl
from featuretl import (
    LinearProbeClassifier,
    NearestMeanClassifier,
    SemiSupervisedProbeClassifier,
    forecast_accuracy,
    suggest_labels,
)

TOTALS = (10, 20, 50, 100, 200, 350, 500)
STRATEGIES = ("random", "typiclust", "coreset", "uncertainty", "auto")
_NEAREST_MEAN_MAX = 50
PER_CLASS = (1, 2, 5, 10, 20, 50)
TIMES = (1, 2, 5, 10)
DATA_SETS = ("sign-digits", "emoji", "hymenoptera")


seeds_option = click.option("--seeds", default=5, show_default=True)
data_option = click.option("--data", type=click.Choice(DATA_SETS), multiple=True, default=DATA_SETS)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    warnings.simplefilter("ignore")


@main.command()
@seeds_option
@json_option
def suggest(seeds: int, as_json: bool) -> None:
    """Compare strategies by accuracy after each number of labels; means over the seeds."""
    X, y, groups = _embedded("sign-digits")
    table, random_areas = [], None
    for strategy in STRATEGIES:
        curves = [_curve(X, y, groups, strategy, seed) for seed in range(seeds)]
        areas = np.array([_area(curve) for curve in curves])
        random_areas = areas if random_areas is None else random_areas
        gain = areas - random_areas
        means = dict(zip(map(str, TOTALS), np.mean(curves, axis=0).tolist(), strict=True))
        error = gain.std(ddof=1) / np.sqrt(seeds)
        row = {"strategy": strategy, **means, "area": areas.mean(), "gain": gain.mean()}
        table.append(row | {"standard error": error})
        click.echo(f"{strategy}: area {areas.mean():.4f}", err=True)
    show(table, as_json)


@main.command()
@seeds_option
@data_option
@click.option("--per-class", type=int, multiple=True, default=PER_CLASS, show_default=True)
@json_option
def unlabelled(
    seeds: int, data: tuple[str, ...], per_class: tuple[int, ...], as_json: bool
) -> None:
    """Compare methods that learn from unlabelled images, by number of labels per class."""
    table = []
    for name in data:
        X, y, groups = _embedded(name)
        for labels in per_class:
            cells = [_accuracies(X, y, groups, labels, seed) for seed in range(seeds)]
            row: dict[str, Any] = {"data": name, "per class": labels}
            for learner in cells[0]:
                scores = np.array([cell[learner] for cell in cells])
                gain = scores - [cell["probe"] for cell in cells]
                error = gain.std(ddof=1) / np.sqrt(seeds)
                row[learner] = f"{scores.mean():.3f} ({gain.mean():+.3f} +- {error:.3f})"
            table.append(row)
            click.echo(row, err=True)
    show(table, as_json)


@main.command()
@seeds_option
@data_option
@click.option("--per-class", type=int, multiple=True, default=(5, 10, 20), show_default=True)
@json_option
def forecast(seeds: int, data: tuple[str, ...], per_class: tuple[int, ...], as_json: bool) -> None:
    """Compare forecasts with the accuracies measured with more labels."""
    table = []
    for name in data:
        X, y, groups = _embedded(name)
        for labels in per_class:
            draws = [_forecasts(X, y, groups, labels, seed) for seed in range(seeds)]
            for times in TIMES:
                found = np.array([draw[times] for draw in draws if times in draw])
                if not len(found):
                    continue
                value, low, high, truth = found.T
                row = {"data": name, "per class": labels, "times": times, "accuracy": truth.mean()}
                row |= {
                    "bias": (value - truth).mean(),
                    "rmse": np.sqrt(((value - truth) ** 2).mean()),
                }
                row["covered"] = f"{((low <= truth) & (truth <= high)).sum()} of {len(found)}"
                table.append(row | {"width": (high - low).mean()})
                click.echo(table[-1], err=True)
    show(table, as_json)


def _forecasts(X: Any, y: Any, groups: Any, per_class: int, seed: int) -> dict[int, Any]:
    """Return (forecast, low, high, measured accuracy) by multiple of the labels."""
    pool, test = _held_out(y, groups, 0.4, seed)
    rank = _rank_in_class(y[pool], seed)
    known = pool[rank < per_class]
    found = forecast_accuracy(X[known], y[known], groups[known], random_state=seed)
    draws = {}
    for times in TIMES:
        rows = pool[rank < times * per_class]
        if len(rows) >= 0.9 * times * len(known):
            truth = LinearProbeClassifier().fit(X[rows], y[rows]).score(X[test], y[test])
            draws[times] = (*found.accuracy_at(len(rows)), truth)
    return draws


def _embedded(name: str) -> tuple[Any, Any, Any]:
    """Return embeddings, classes and groups; without signers, each image is its own group."""
    parts = {"sign-digits": [""], "emoji": ["google"], "hymenoptera": ["train", "val"]}[name]
    photos = [featuretl.load_image_folder(DATA / name / part) for part in parts]
    paths = [path for part in photos for path in part.data]
    y = np.unique(np.concatenate([part.target for part in photos]), return_inverse=True)[1]
    groups = signers(paths, y) if name == "sign-digits" else np.arange(len(y))
    return featuretl.ImageEmbedder().transform(paths), y, groups


def _held_out(y: Any, groups: Any, test_fraction: float, seed: int) -> Any:
    """Return the rows to draw labels from, and a fraction `test_fraction` of held-out rows."""
    kind = StratifiedShuffleSplit if len(np.unique(groups)) == len(y) else GroupShuffleSplit
    return next(kind(1, test_size=test_fraction, random_state=seed).split(y, y, groups))


def _rank_in_class(y: Any, seed: int) -> Any:
    """Return the rank (n,) of each row in a random order of its class."""
    rng, rank = np.random.default_rng(seed), np.empty(len(y), int)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        rank[rng.permutation(rows)] = np.arange(len(rows))
    return rank


def _accuracies(X: Any, y: Any, groups: Any, per_class: int, seed: int) -> dict[str, float]:
    pool, test = _held_out(y, groups, 0.2, seed)
    is_known = _rank_in_class(y[pool], seed) < per_class
    known = np.where(is_known, y[pool], -1)
    return {
        name: float((learn(X[pool], known, X[test]) == y[test]).mean())
        for name, learn in LEARNERS.items()
    }


def _on_known(head: Any) -> Any:
    """Return a learner that trains `head` on the labelled rows alone."""
    return lambda X, y, test: clone(head).fit(X[y >= 0], y[y >= 0]).predict(test)


def _on_all(head: Any) -> Any:
    return lambda X, y, test: clone(head).fit(X, y).predict(test)


def _spread_then_probe(balanced: bool) -> Any:
    """Return a learner: a probe on scikit-learn's spread labels, weighted by certainty."""

    def learn(X: Any, y: Any, test: Any) -> Any:
        Z = normalize(X - X.mean(axis=0))
        soft = np.nan_to_num(_spreading().fit(Z, y).label_distributions_) + 1e-9
        if balanced:
            soft *= np.bincount(y[y >= 0]) / soft.sum(axis=0)
        soft /= soft.sum(axis=1, keepdims=True)
        weight = 1 - entr(soft).sum(axis=1) / np.log(soft.shape[1])
        labels = np.where(y >= 0, y, soft.argmax(axis=1))
        weight = np.where(y >= 0, 1, np.clip(weight, 0, 1))
        return _probe().fit(X, labels, sample_weight=weight).predict(test)

    return learn


def _probe() -> Any:
    return LinearProbeClassifier(tol=1e-3)


def _spreading() -> Any:
    return LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.9, max_iter=200)


def _spread_only(X: Any, y: Any, test: Any) -> Any:
    mean = X.mean(axis=0)
    return _spreading().fit(normalize(X - mean), y).predict(normalize(test - mean))


def _k_best(X: Any, y: Any, test: Any) -> Any:
    head = SelfTrainingClassifier(_probe(), criterion="k_best", k_best=len(X) // 10)
    return head.fit(X, y).predict(test)


LEARNERS = {
    "probe": _on_known(LinearProbeClassifier()),
    "nearest mean": _on_known(NearestMeanClassifier()),
    "self-training": _on_all(SelfTrainingClassifier(_probe())),
    "self-training, k_best": _k_best,
    "LabelSpreading": _spread_only,
    "LabelSpreading and probe": _spread_then_probe(balanced=False),
    "LabelSpreading, class mass normalisation and probe": _spread_then_probe(balanced=True),
    "spreading": _on_all(SemiSupervisedProbeClassifier(method="spreading", random_state=0)),
    "self-training, balanced": _on_all(
        SemiSupervisedProbeClassifier(method="self-training", random_state=0)
    ),
    "auto": _on_all(SemiSupervisedProbeClassifier(random_state=0)),
}


def _curve(X: Any, y: Any, groups: Any, strategy: str, seed: int) -> list[float]:
    """Return the accuracy on held-out signers after each of `TOTALS` labels."""
    split = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(y, groups=groups)
    pool, test = next(split)
    rows, scores = np.empty(0, int), []
    for total in TOTALS:
        # Uncertainty needs a model, and so labels of two classes.
        first = strategy if strategy != "uncertainty" or len(rows) else "random"
        more = suggest_labels(
            X[pool], total - len(rows), first, labelled=rows, y=y[pool][rows], random_state=seed
        )
        rows = np.concatenate([rows, more])
        head = NearestMeanClassifier() if total <= _NEAREST_MEAN_MAX else LinearProbeClassifier()
        scores.append(head.fit(X[pool][rows], y[pool][rows]).score(X[test], y[test]))
    return scores


def _area(curve: list[float]) -> float:
    where = np.log(TOTALS)
    return float(np.trapezoid(curve, where) / (where[-1] - where[0]))


if __name__ == "__main__":
    main()
