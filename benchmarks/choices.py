"""Every automatic choice against the best choice in hindsight, on tasks that nobody tuned.

    python benchmarks/choices.py [--tasks 60]          the tasks to look at while developing
    python benchmarks/choices.py --last                the third that is kept for the last run

A task draws a set (hand signs, emoji of two vendors, ants and bees, 8 x 8 digits without a
network), some of its classes, a number of labels per class, and whether half of the classes are
rare (three quarters of their images are left out). Labels are drawn in the proportions of the classes,
at least two per class. Signers are never on both sides of a split. The seed decides everything; tasks whose seed
leaves the remainder 2 when divided by 3 are drawn with `--last` only.

Each choice is compared with its alternatives on the task's test images: the best alternative in
hindsight is chosen on one half of them and scored, like the automatic choice, on the other half.
"regret" is the difference of the two accuracies in points, +- its standard error over tasks, and
"regret / se" relates it to the standard error of an accuracy that is measured on as many images as
the task has labels. "bias" is the reported minus the measured accuracy in points; "covered" is the
fraction of 95% intervals that contain the measured accuracy, or for NoveltyDetector the fraction of
images of known kind that it does not call novel at the 5% level.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import joblib
import numpy as np
from common import DATA, show, signers
from sklearn.datasets import load_digits
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    NearestMeanClassifier,
    NoveltyDetector,
    SemiSupervisedProbeClassifier,
    TransferClassifier,
    forecast_accuracy,
    metrics_report,
    suggest_labels,
)

SETS = ("sign-digits", "emoji/google", "emoji/twitter", "hymenoptera", "digits")
PER_CLASS = (5, 10, 19, 40)
LEAST = 2  # labels of every class
RARE = 0.75  # fraction of the images of a rare class that are left out
COARSE = [10.0**exponent for exponent in range(-5, 2)]


class Task(NamedTuple):
    """Labelled rows, unlabelled rows of the same pool, and test rows of other groups."""

    X: Any
    y: Any
    groups: Any
    images: Any  # None for digits
    labelled: Any
    pool: Any
    test: Any
    seed: int


class Result(NamedTuple):
    """What a choice gave on a task; NaN where it has no alternatives, score or interval."""

    choice: str
    labels: int
    accuracy: float
    regret: float = np.nan
    bias: float = np.nan
    covered: float = np.nan


@click.command(help=__doc__)
@click.option("--tasks", default=60, show_default=True)
@click.option("--last", is_flag=True, help="The tasks that are kept for the last run.")
@click.option("--jobs", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(tasks: int, last: bool, jobs: int, as_json: bool) -> None:
    """Measure all choices on all tasks."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    seeds = [seed for seed in range(3 * tasks) if (seed % 3 == 2) == last][:tasks]
    for name in SETS:
        load(name)  # embedded once, before processes start
    found = joblib.Parallel(jobs)(joblib.delayed(results)(seed) for seed in seeds)
    rows = [result for of_task in found for result in of_task]
    choices = dict.fromkeys(result.choice for result in rows)
    show([_row(choice, [r for r in rows if r.choice == choice]) for choice in choices], as_json)


def results(seed: int) -> list[Result]:
    """Return what every choice gave on the task of a seed."""
    warnings.simplefilter("ignore")
    task = draw(seed)
    return [found for measure in MEASURES for found in measure(task)]


def load(name: str) -> tuple[Any, Any, Any, Any]:
    """Return X, y, groups and images of a set."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X, y, np.arange(len(y)), None
    found = featuretl.load_image_folder(DATA / name)
    y = np.asarray(found.target)
    groups = signers(found.data, y) if name == "sign-digits" else np.arange(len(y))
    return ImageEmbedder().transform(found.data), y, groups, np.asarray(found.data, object)


def draw(seed: int) -> Task:
    """Return the task of a seed."""
    rng = np.random.default_rng(seed)
    X, y, groups, images = load(SETS[rng.integers(len(SETS))])
    classes = rng.permutation(np.unique(y))
    classes = classes[: rng.integers(2, len(classes) + 1)]
    rare = classes[::2] if rng.integers(2) else classes[:0]
    is_left = np.isin(y, classes) & ~(np.isin(y, rare) & (rng.random(len(y)) < RARE))
    rows = np.flatnonzero(is_left)
    split = GroupShuffleSplit(1, test_size=0.5, random_state=seed)
    pool, test = (rows[part] for part in next(split.split(rows, groups=groups[rows])))
    order = rng.permutation(pool)
    fraction = min(rng.choice(PER_CLASS) * len(classes) / len(pool), 1)
    of_class = [order[y[order] == name] for name in classes]
    sizes = [max(LEAST, round(fraction * len(of))) for of in of_class]
    labelled = np.concatenate([of[:n] for of, n in zip(of_class, sizes, strict=True)])
    labelled = rng.permutation(labelled)
    return Task(X, y, groups, images, labelled, pool, rng.permutation(test), seed)


def regret(task: Task, chosen: Any, others: dict[Any, Any]) -> float:
    """Return the accuracy lost by predictions of the test rows, to the best other in hindsight."""
    right = {name: of == task.y[task.test] for name, of in others.items()}
    half = len(task.test) // 2
    best = max(right, key=lambda name: right[name][:half].mean())
    own = (chosen == task.y[task.test])[half:].mean()
    return float(right[best][half:].mean() - own)


def choice_of_C(task: Task) -> Iterator[Result]:
    """LinearProbeClassifier("cv") against every C of its coarse grid."""
    head = LinearProbeClassifier("cv", random_state=task.seed)
    predicted = _fitted(task, head, groups=task.groups[task.labelled]).predict(_test(task))
    others = {C: _fitted(task, LinearProbeClassifier(C)).predict(_test(task)) for C in COARSE}
    yield _result('LinearProbeClassifier("cv")', task, predicted, regret(task, predicted, others))


def semi_supervised(task: Task) -> Iterator[Result]:
    """SemiSupervisedProbeClassifier against its methods and the probe of the labelled rows."""
    names, codes = np.unique(task.y, return_inverse=True)
    known = np.where(np.isin(np.arange(len(codes)), task.labelled), codes, -1)
    found = {
        method: names[
            SemiSupervisedProbeClassifier(method=method, random_state=task.seed)
            .fit(task.X[task.pool], known[task.pool])
            .predict(_test(task))
        ]
        for method in ("auto", "spreading", "self-training")
    }
    found["probe"] = _fitted(task, LinearProbeClassifier(0.03)).predict(_test(task))
    lost = regret(task, found["auto"], {name: found[name] for name in list(found)[1:]})
    yield _result("SemiSupervisedProbeClassifier", task, found["auto"], lost)


def suggestions(task: Task) -> Iterator[Result]:
    """suggest_labels("auto") against its strategies, with twice as many labels as before."""
    if 2 * len(task.labelled) > len(task.pool):
        return
    place = np.searchsorted(task.pool, task.labelled)
    found = {}
    for strategy in ("auto", "typiclust", "uncertainty", "random"):
        how = {"labelled": place, "y": task.y[task.labelled], "random_state": task.seed}
        more = suggest_labels(task.X[task.pool], len(place), strategy, **how)
        both = task._replace(labelled=np.concatenate([task.labelled, task.pool[more]]))
        found[strategy] = _fitted(both, LinearProbeClassifier()).predict(_test(task))
    lost = regret(task, found["auto"], {name: found[name] for name in list(found)[1:]})
    yield _result('suggest_labels("auto")', task, found["auto"], lost)


def forecasts(task: Task) -> Iterator[Result]:
    """forecast_accuracy of twice as many labels against the accuracy with as many."""
    n = len(task.labelled)
    more = np.setdiff1d(task.pool, task.labelled)
    if n < 20 or len(more) < n:
        return
    shares, groups = task.y[task.labelled], task.groups[task.labelled]
    asked = forecast_accuracy(task.X[task.labelled], shares, groups, random_state=task.seed)
    extra = np.random.default_rng(task.seed).permutation(more)[:n]
    both = task._replace(labelled=np.concatenate([task.labelled, extra]))
    value, low, high = asked.accuracy_at(2 * n)
    predicted = _fitted(both, LinearProbeClassifier()).predict(_test(task))
    truth = float((predicted == task.y[task.test]).mean())
    covered = float(low <= truth <= high)
    yield _result("forecast_accuracy", task, predicted, bias=value - truth, covered=covered)


def reports(task: Task) -> Iterator[Result]:
    """The interval of metrics_report on a fifth of the test rows against the other rows."""
    predicted = _fitted(task, LinearProbeClassifier()).predict(_test(task))
    y, groups, few = task.y[task.test], task.groups[task.test], len(task.test) // 5
    found = metrics_report(y[:few], predicted[:few], groups=groups[:few], random_state=task.seed)
    low, high = found.intervals["accuracy"]
    truth = float((predicted == y)[few:].mean())
    bias, covered = found.scores["accuracy"] - truth, float(low <= truth <= high)
    yield _result("metrics_report, accuracy", task, predicted, bias=bias, covered=covered)


def novelty(task: Task) -> Iterator[Result]:
    """NoveltyDetector on images of the same kind and other groups."""
    detector = NoveltyDetector(random_state=task.seed)
    detector.fit(task.X[task.labelled], groups=task.groups[task.labelled])
    known = detector.novelty(_test(task)) < 0.95
    yield Result("NoveltyDetector", len(task.labelled), np.nan, covered=float(known.mean()))


def transfer(task: Task) -> Iterator[Result]:
    """TransferClassifier without fine-tuning against the heads that it chooses from."""
    per_class = np.median(np.unique(task.y[task.labelled], return_counts=True)[1])
    if task.images is None or per_class >= 20:
        return
    groups = task.groups[task.labelled]
    model = TransferClassifier(random_state=task.seed, novelty=False)
    model.fit(task.images[task.labelled].tolist(), task.y[task.labelled], groups=groups)
    predicted = model.predict(task.images[task.test].tolist())
    heads = {
        "linear": LinearProbeClassifier("cv", random_state=task.seed),
        "nearest-mean": NearestMeanClassifier(),
    }
    others = {name: _fitted(task, head).predict(_test(task)) for name, head in heads.items()}
    outer = model.decision_.outer
    truth = float((predicted == task.y[task.test]).mean())
    covered = float(outer.low <= truth <= outer.high) if outer.images else np.nan
    lost = regret(task, predicted, others)
    yield _result("TransferClassifier", task, predicted, lost, outer.score - truth, covered)


MEASURES = (choice_of_C, transfer, semi_supervised, suggestions, forecasts, reports, novelty)


def _test(task: Task) -> Any:
    return task.X[task.test]


def _fitted(task: Task, head: Any, **extra: Any) -> Any:
    return head.fit(task.X[task.labelled], task.y[task.labelled], **extra)


def _result(
    choice: str,
    task: Task,
    predicted: Any,
    lost: float = np.nan,
    bias: float = np.nan,
    covered: float = np.nan,
) -> Result:
    accuracy = float((predicted == task.y[task.test]).mean())
    return Result(choice, len(task.labelled), accuracy, lost, bias, covered)


def _row(choice: str, found: list[Result]) -> dict[str, Any]:
    labels, accuracy, lost, bias, covered = np.array([r[1:] for r in found], float).T
    one = np.sqrt(accuracy * (1 - accuracy) / labels)  # standard error on as many images
    return {
        "choice": choice,
        "tasks": len(found),
        "accuracy": _mean(accuracy),
        "regret, points": _with_error(lost),
        "regret / se": _mean(lost) / _mean(one),
        "bias, points": _with_error(bias),
        "bias / se": _mean(bias) / _mean(one),
        "covered": _mean(covered),
    }


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.isfinite(values).all() else np.nan


def _with_error(values: Any) -> str:
    if not np.isfinite(values).all():
        return ""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():+.2f} +- {100 * error:.2f}"


if __name__ == "__main__":
    main()
