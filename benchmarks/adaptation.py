"""Domain adaptation: what each method, and each criterion of choice, gains on target images.

    npm pack emoji-datasource-apple emoji-datasource-facebook     # unpack into EMOJI/apple, ..
    python benchmarks/adaptation.py measure --emoji EMOJI --store STORE
    python benchmarks/adaptation.py measure --emoji EMOJI --store STORE --unseen    (once, last)
    python benchmarks/adaptation.py table --store STORE

`measure` needs ../shared/data, resumes, and embeds each image once. The domains are the emoji of
four vendors, handwritten digits and digits of fonts, and photographs of ants and bees, of hands,
and of blood cells with changes as in ImageNet-C, and as edges, negatives, in other colours and in
grey. The photographs (drawings, signers) are split into labelled source rows, unlabelled target
rows, and target rows for testing. The target rows are drawn to class shares at a total variation
distance of 0, 0.2, 0.4 and 0.6 from the source's (less, if there are two classes); the test rows
are weighted to the same shares.

A third of the pairs took no part in any decision: all of blood cells, and those that involve one
of the vendors or two of the kinds of change, drawn by `unseen_kinds`.
"""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import adaptation_methods as methods
import click
import numpy as np
import sklearn
import torch
from adaptation_domains import CHANGES, VENDORS, Domains, Pair, pairs
from common import DATA, show
from sklearn.model_selection import GroupKFold, KFold

import featuretl
from featuretl.adaptation import domain_gap

SHIFTS = (0.0, 0.2, 0.4, 0.6)
LABELS = (5, 10, 20, 50)  # labelled rows of the target
_CHECKED = 20  # that many labelled rows are cross-validated
_MOST = 0.95  # share of the classes that become more frequent
Array = Any
Record = dict[str, Any]


def unseen_kinds() -> set[str]:
    """Return the kinds of domains that were kept apart: a vendor and two kinds of change."""
    rng = np.random.default_rng(2026)
    changes = rng.choice([*CHANGES, "fonts"], 2, replace=False)
    return {str(rng.choice(VENDORS)), *map(str, changes)}


def is_unseen(pair: Pair) -> bool:
    """Return whether a pair was kept apart."""
    return pair.images == "cells" or not unseen_kinds().isdisjoint(pair.kinds)


def _split(groups: Array, seed: int) -> list[Array]:
    """Split the rows by group: 40%, 30% and 30% of the groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    parts = np.split(names, [int(0.4 * len(names)), int(0.7 * len(names))])
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]


def _shifted(shares: Array, distance: float, rng: np.random.Generator) -> Array:
    """Return class shares (k,) in which random classes are more frequent by `distance` in all."""
    order = rng.permutation(len(shares))
    total = np.cumsum(shares[order])
    more = order[: max(1, int((total <= _MOST - distance).sum()))]
    before = shares[more].sum()
    after = before + min(distance, _MOST - before)
    found = shares * (1 - after) / (1 - before)
    found[more] = shares[more] * after / before
    return found


def _drawn(codes: Array, shares: Array, rng: np.random.Generator) -> Array:
    """Return as many rows as possible with these class shares."""
    n = np.min(np.bincount(codes, minlength=len(shares)) / shares)
    rows = [
        rng.permutation(np.flatnonzero(codes == c))[: round(n * share)]
        for c, share in enumerate(shares)
    ]
    return np.sort(np.concatenate(rows))


def _measure(domains: Domains, pair: Pair, shift: float, seed: int) -> Record:
    """Return the accuracies of all methods on the target, and the criteria."""
    source, target = domains[pair.source], domains[pair.target]
    rng = np.random.default_rng([seed, int(10 * shift)])
    labelled = _split(source.groups, seed)[0]
    unlabelled, tested = _split(target.groups, seed)[1:]
    classes, codes = np.unique(source.y[labelled], return_inverse=True)
    S, k = source.X[labelled], len(classes)
    of_target = np.searchsorted(classes, target.y)
    present = np.bincount(codes) / len(codes)
    shares = _shifted(present, shift, rng)
    unlabelled = unlabelled[_drawn(of_target[unlabelled], shares, rng)]
    T, truth = target.X[unlabelled], of_target[unlabelled]
    X, y = target.X[tested], of_target[tested]
    drawn = np.bincount(truth, minlength=k) / len(truth)
    weight = (drawn / np.maximum(np.bincount(y, minlength=k), 1))[y]

    def accuracy(head: Any, rows: Array) -> float:
        return float(np.average(head.predict(rows) == y, weights=weight))

    gap = domain_gap(S, T, codes, groups=source.groups[labelled])
    priors = np.array(list(gap.priors.values()))
    adapted = methods.methods(S, codes, T, priors)
    groups = np.unique(source.groups[labelled], return_inverse=True)[1]
    fold = np.empty(len(S), int)
    for i, (_, test) in enumerate(GroupKFold(3, shuffle=True, random_state=0).split(S, codes, groups)):
        fold[test] = i
    wrong = np.empty(len(S))
    for i in range(3):
        head = methods.fitted(S[fold != i], codes[fold != i])
        wrong[fold == i] = head.predict(S[fold == i]) != codes[fold == i]
    found: Record = {**pair._asdict(), "shift": shift, "seed": seed, "unseen": is_unseen(pair)}
    found["rows"] = len(S), len(T), len(X)
    found["distance"] = float(np.abs(present - drawn).sum() / 2)
    found["gap"] = {
        "is_clear": gap.is_clear,
        "low": gap.matched_low,
        "prior_shift": gap.prior_shift,
        "error": float(np.abs(priors - drawn).sum() / 2),
    }
    found["source accuracy"] = float(1 - wrong.mean())
    found["accuracy"] = {name: accuracy(a.head, a.map(X)) for name, a in adapted.items()}
    found["criteria"] = {name: methods.criteria(a, T, priors) for name, a in adapted.items()}
    for name in ("none", "moments", "matched"):
        dev = methods.importance_weighted(adapted[name], wrong, T, fold)
        found["criteria"][name]["DEV"] = dev
    aligns = {"none": lambda S, T: methods.identity, "moments": methods.moments}
    right = {
        name: methods.reverse_validated(align, S, codes, T, fold) for name, align in aligns.items()
    }
    gain = right["moments"] - right["none"]
    sums = np.bincount(groups, gain - gain.mean())
    error = np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(gain)
    found["reverse"] = float(gain.mean()), float(error)
    found["labels"] = _with_labels(adapted, codes, T, truth, X, accuracy, seed)
    return found


def _pooled(adapted: Any, codes: Array, T: Array, truth: Array, weight: float) -> Any:
    """Return a head trained on the source and on labelled rows of the target, weighted."""
    X = np.vstack([adapted.source, adapted.map(T)])
    sample_weight = np.repeat([1.0, weight], [len(codes), len(T)])
    return featuretl.LinearProbeClassifier().fit(X, np.append(codes, truth), sample_weight)


def _with_labels(
    adapted: Any, codes: Array, T: Array, truth: Array, X: Array, accuracy: Any, seed: int
) -> Record:
    """Return what a few labelled rows of the target give, by their number."""
    order = np.random.default_rng([seed, 7]).permutation(len(T))
    predicted = {name: a.head.predict(a.map(T)) == truth for name, a in adapted.items()}
    found: Record = {}
    for k in LABELS:
        if k >= len(T):
            continue
        rows, equal = order[:k], len(codes) / k
        own: Record = {"right": {name: int(right[rows].sum()) for name, right in predicted.items()}}
        change = predicted["moments"][rows].astype(int) - predicted["none"][rows]
        own["moments"] = int((change > 0).sum()), int((change < 0).sum())
        accuracies = {}
        for name, method, weight in (
            ("pooled", "none", equal),
            ("pooled, weight 1", "none", 1.0),
            ("pooled, moments", "moments", equal),
        ):
            head = _pooled(adapted[method], codes, T[rows], truth[rows], weight)
            accuracies[name] = accuracy(head, adapted[method].map(X))
        if len(np.unique(truth[rows])) > 1:
            accuracies["target only"] = accuracy(methods.fitted(T[rows], truth[rows]), X)
        own["accuracy"] = accuracies
        if k == _CHECKED:
            own["checked"] = _checked(adapted, codes, T[rows], truth[rows])
        found[str(k)] = own
    return found


def _checked(adapted: Any, codes: Array, T: Array, truth: Array) -> Record:
    """Return whether cross-validated predictions of the labelled rows are right, by method."""
    right = {name: adapted[name].head.predict(adapted[name].map(T)) == truth for name in ("none", "moments")}
    for name in ("none", "moments"):
        own = np.empty(len(T), bool)
        for train, test in KFold(3).split(T):
            head = _pooled(adapted[name], codes, T[train], truth[train], len(codes) / len(train))
            own[test] = head.predict(adapted[name].map(T[test])) == truth[test]
        right["pooled" if name == "none" else "pooled, moments"] = own
    return {name: "".join(map(str, rows.astype(int))) for name, rows in right.items()}


@click.group(help=__doc__)
def main() -> None:
    """Choose a command."""


store_option = click.option("--store", type=click.Path(path_type=Path), required=True)


@main.command()
@store_option
@click.option("--emoji", type=click.Path(path_type=Path, exists=True), help="Unpacked packages.")
@click.option("--unseen", is_flag=True, help="Measure the pairs that were kept apart.")
@click.option("--seed", default=0, show_default=True)
def measure(store: Path, emoji: Path | None, unseen: bool, seed: int) -> None:
    """Measure all pairs and class shares; continue where an earlier run stopped."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    domains = Domains(store, emoji)
    file = store / f"{'unseen' if unseen else 'seen'}-{seed}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(r["source"], r["target"], r["shift"]) for r in map(json.loads, lines)}
    units = [(pair, shift) for pair in pairs() if is_unseen(pair) == unseen for shift in SHIFTS]
    for i in np.random.default_rng(0).permutation(len(units)):
        pair, shift = units[i]
        if (pair.source, pair.target, shift) not in done:
            record = _measure(domains, pair, shift, seed)
            with file.open("a") as out:
                out.write(json.dumps(record) + "\n")
            click.echo(f"{pair.source} -> {pair.target}, {shift}: {record['accuracy']}", err=True)


if __name__ == "__main__":
    main()
