"""Quality of the heads on embeddings of real images (needs ../shared/data).

    python benchmarks/heads.py quality            heads x data sets
    python benchmarks/heads.py portions           partial_fit against fit
    python benchmarks/heads.py scaling            feature scaling

`--json` prints one JSON list instead of a table.
"""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
from common import DATA, show, signers
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featuretl
from featuretl import LinearProbeClassifier, NearestMeanClassifier, SVMProbeClassifier
from featuretl._learning.metrics import metrics_report

SCALINGS = ("features", "common", "floored")


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""
    warnings.simplefilter("ignore")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quality(as_json: bool) -> None:
    """Compare heads on each data set: accuracy, log-loss, calibration error, time and memory."""
    heads = {
        "linear": LinearProbeClassifier(),
        "linear C=cv": LinearProbeClassifier("cv", random_state=0),
        "linear C=cv calibrated": LinearProbeClassifier("cv", calibrate=True, random_state=0),
        "svm linear": SVMProbeClassifier(random_state=0),
        "svm rbf": SVMProbeClassifier(kernel="rbf", random_state=0),
        "nearest mean": NearestMeanClassifier(),
        "5 neighbours, cosine": make_pipeline(Normalizer(), KNeighborsClassifier(5)),
        "sklearn logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    table = [
        {"data": name, "head": label, **_cross_validated(head, X, y, groups, splits)}
        for name, X, y, groups, splits in _real_data()
        for label, head in heads.items()
    ]
    show(table, as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def portions(as_json: bool) -> None:
    """Compare one pass of partial_fit over chunks with fit: held-out scores, means over splits."""
    ways = {
        "fit": (1, False),
        "5 chunks": (5, False),
        "20 chunks": (20, False),
        "10 chunks, by class": (10, True),
    }
    table = [
        {
            "data": name,
            "rows": len(splits[0][0]),
            "trained on": label,
            **_in_chunks(X, y, splits, *way),
        }
        for name, X, y, _, splits in _real_data()
        for label, way in ways.items()
    ]
    show(table, as_json)


@main.command()
@click.option("--draws", default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def scaling(draws: int, as_json: bool) -> None:
    """Compare feature scalings by number of labels per class, with 30% of the groups held out."""
    heads = {scaling: LinearProbeClassifier(scaling=scaling) for scaling in SCALINGS}
    heads["nearest mean"] = NearestMeanClassifier()
    table = []
    for name, X, y, groups, _ in _real_data():
        groups = np.arange(len(y)) if groups is None else groups
        for per_class in (2, 5, 10, 20, 50):
            scores: dict[str, list[float]] = {label: [] for label in heads}
            for draw in range(draws):
                split = GroupShuffleSplit(1, test_size=0.3, random_state=draw)
                train, test = next(split.split(X, y, groups))
                rows = np.random.default_rng(draw).permutation(train)
                rows = np.concatenate([rows[y[rows] == one][:per_class] for one in np.unique(y)])
                for label, head in heads.items():
                    scores[label].append(head.fit(X[rows], y[rows]).score(X[test], y[test]))
            means = {label: float(np.mean(values)) for label, values in scores.items()}
            table.append({"data": name, "labels per class": per_class, **means})
    show(table, as_json)


def _cross_validated(head: Any, X: Any, y: Any, groups: Any, splits: Any) -> dict[str, float]:
    """Return the mean scores of `head` over `splits`."""
    rows = []
    for train, test in splits:
        takes_groups = groups is not None and hasattr(head, "cv")
        extra = {"groups": groups[train]} if takes_groups else {}
        start = time.perf_counter()
        head.fit(X[train], y[train], **extra)
        middle = time.perf_counter()
        proba = head.predict_proba(X[test])
        end = time.perf_counter()
        report = metrics_report(
            y[test], head.predict(X[test]), proba, labels=head.classes_, n_bootstrap=0
        )
        rows.append(
            {
                "accuracy": report.scores["accuracy"],
                "log-loss": report.scores["log_loss"],
                "calibration error": report.scores["calibration_error"],
                "fit s": middle - start,
                "predict s": end - middle,
            }
        )
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return means | {"peak MiB": _allocated_mib(lambda: head.fit(X[train], y[train], **extra))}


def _in_chunks(X: Any, y: Any, splits: Any, n: int, by_class: bool) -> dict[str, float]:
    """Return the mean scores of a head trained on `n` chunks in turn; 1 means `fit`."""
    found = []
    for train, test in splits:
        train = np.random.default_rng(0).permutation(train)
        if by_class:
            train = train[np.argsort(y[train], kind="stable")]
        head = LinearProbeClassifier()
        if n == 1:
            head.fit(X[train], y[train])
        else:
            for rows in np.array_split(train, n):
                head.partial_fit(X[rows], y[rows], np.unique(y))
        proba = head.predict_proba(X[test])
        scores = metrics_report(y[test], head.predict(X[test]), proba, n_bootstrap=0).scores
        found.append((scores["accuracy"], scores["log_loss"]))
    return dict(zip(("accuracy", "log-loss"), np.mean(found, axis=0).tolist(), strict=True))


def _real_data() -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Yield name, embeddings, classes, groups and splits of each data set."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    embedder = featuretl.ImageEmbedder()
    train, val = (featuretl.load_image_folder(DATA / "hymenoptera" / p) for p in ("train", "val"))
    X = embedder.transform([*train.data, *val.data])
    rows = np.arange(len(X))
    split = [(rows[: len(train.data)], rows[len(train.data) :])]
    yield "hymenoptera", X, np.concatenate([train.target, val.target]), None, split
    emoji = featuretl.load_image_folder(DATA / "emoji" / "google")
    X, y = embedder.transform(emoji.data), emoji.target
    splits = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    yield "emoji, 9 categories", X, y, None, splits
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    groups = signers(signs.data, signs.target)
    splits = list(GroupKFold(5, shuffle=True, random_state=0).split(groups, groups=groups))
    both = featuretl.ImageEmbedder(layers=[3, "pre_logits"])
    for name, source in (("sign-digits", embedder), ("sign-digits + block 10", both)):
        yield name, source.transform(signs.data), signs.target, groups, splits


def _allocated_mib(run: Callable[[], Any]) -> float:
    """Return the peak MiB allocated by Python and NumPy during `run`, excluding X."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
