"""Several tasks on one embedding: scores and cost of one model compared with separate models.

    python benchmarks/tasks.py [--json]      (needs ../shared/data)

bccd: 364 microscope images of blood. The tasks are the number of red cells (regression) and
whether there are no, one or several platelets (classification; a random third of these labels is
removed). The features come from the last layer or, because early layers retain counts, from the
averages of three early layers. emoji: every second emoji of two vendors. The tasks are its
category (nine classes) and its vendor.

Five folds, with both drawings of an emoji in the same fold. "one model" is `MultiTaskHead()`;
"separate models" are `LinearProbeClassifier()` and `LinearProbeRegressor()`, fitted to the same
rows of one task; "dummy baseline" predicts the most frequent class or the mean. Scores are
accuracy or R2 on the held-out images that have the label. The costs are measured without a store,
from images to fitted heads: separate models embed the images again for every task. With a shared
store they embed once as well.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # parses trusted files only

import click
import numpy as np
from common import DATA, Table, show
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.model_selection import GroupKFold

import featuretl
from featuretl import LinearProbeClassifier, LinearProbeRegressor, MultiTaskHead

_HEADS = {
    "classification": (LinearProbeClassifier, DummyClassifier),
    "regression": (LinearProbeRegressor, DummyRegressor),
}
_MISSING = 1 / 3


@click.command(help=__doc__)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(as_json: bool) -> None:
    """Run the benchmark and print the scores, then the costs."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    scores: Table = []
    costs: Table = []
    for name, (read, options) in _DATA.items():
        images, table, groups = read()
        began = time.perf_counter()
        X = featuretl.ImageEmbedder(**options, cache=None, n_jobs=1).transform(images)
        embedding = time.perf_counter() - began
        scores += [{"data": name, **row} for row in _scored(X, table, groups)]
        costs.append({"data": name, "images": len(X), **_cost(X, table, embedding)})
    show(scores, as_json)
    click.echo()
    show(costs, as_json)


def blood() -> tuple[list[Path], dict[str, Any], Any]:
    """Return the paths of the blood images, their labels by task, and their groups."""
    folder = DATA / "bccd"
    files = sorted((folder / "Annotations").glob("*.xml"))
    counts = [
        Counter(box.findtext("name") for box in ElementTree.parse(file).iter("object"))
        for file in files
    ]
    words = np.array(["none", "one", "several"])
    platelets = words[[min(count["Platelets"], 2) for count in counts]].astype(object)
    platelets[np.random.default_rng(0).random(len(files)) < _MISSING] = None
    table = {"red cells": [count["RBC"] for count in counts], "platelets": platelets}
    images = [folder / "JPEGImages" / f"{file.stem}.jpg" for file in files]
    return images, table, np.arange(len(images))


def emoji() -> tuple[list[Path], dict[str, Any], Any]:
    """Return the paths of the drawings of two vendors, their labels by task, and their groups."""
    with (DATA / "emoji" / "tags.csv").open(encoding="utf-8") as file:
        rows = [(row["image"], row["category"]) for row in csv.DictReader(file)][::2]
    images, category, vendor, groups = [], [], [], []
    for who in ("google", "twitter"):
        for number, (image, kind) in enumerate(rows):
            images.append(DATA / "emoji" / who / kind / image)
            category.append(kind)
            vendor.append(who)
            groups.append(number)
    return images, {"category": category, "vendor": vendor}, np.array(groups)


def _scored(X: Any, table: dict[str, Any], groups: Any) -> Table:
    """Return a table row for each task."""
    columns = {name: np.array(values, object) for name, values in table.items()}
    kinds = MultiTaskHead().fit(X, columns).tasks_
    found: dict[str, list[list[float]]] = {name: [] for name in columns}
    same = dict.fromkeys(columns, True)
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(X, groups=groups):
        head = MultiTaskHead().fit(X[train], {name: y[train] for name, y in columns.items()})
        for name, y in columns.items():
            rows, held = (part[_has(y[part])] for part in (train, test))
            y_train, truth = (np.array(y[part].tolist()) for part in (rows, held))
            alone, guess = (make().fit(X[rows], y_train) for make in _HEADS[kinds[name]])
            one = head.named_estimators_[name]
            found[name].append([each.score(X[held], truth) for each in (one, alone, guess)])
            same[name] &= bool((one.predict(X[held]) == alone.predict(X[held])).all())
    rows_ = []
    for name, folds in found.items():
        means = dict(
            zip(
                ("one model", "separate models", "dummy baseline"),
                np.mean(folds, axis=0),
                strict=True,
            )
        )
        facts = {"task": name, "kind": kinds[name], "labels": int(_has(columns[name]).sum())}
        rows_.append({**facts, **{k: float(v) for k, v in means.items()}, "same": same[name]})
    return rows_


def _cost(X: Any, table: dict[str, Any], embedding: float) -> dict[str, Any]:
    """Return the numbers of forward passes, and the seconds from images to fitted heads."""
    began = time.perf_counter()
    MultiTaskHead().fit(X, table)
    fitting = time.perf_counter() - began
    return {
        "tasks": len(table),
        "embedded": len(X),
        "embedded by separate models": len(table) * len(X),
        "embedding s": embedding,
        "fitting s": fitting,
        "one model s": embedding + fitting,
        "separate models s": len(table) * embedding + fitting,
    }


def _has(y: Any) -> Any:
    return np.array([value is not None for value in y])


_DATA: dict[str, tuple[Any, dict[str, Any]]] = {
    "bccd": (blood, {}),
    "bccd, layers=[1, 2, 3]": (blood, {"layers": [1, 2, 3]}),
    "emoji": (emoji, {}),
}


if __name__ == "__main__":
    main()
