"""Domain adaptation: what each method, and each criterion of choice, gains on target images.

    npm pack emoji-datasource-apple emoji-datasource-facebook     # unpack into EMOJI/apple, ..
    python benchmarks/adaptation.py measure criteria --emoji EMOJI --store STORE    (or: labels)
    python benchmarks/adaptation.py measure criteria --emoji EMOJI --store STORE --unseen
    python benchmarks/adaptation.py table --store STORE

`measure` needs ../shared/data, resumes, and embeds each image once. The domains are the emoji of
four vendors, handwritten digits and digits of fonts, and photographs of ants and bees, of hands,
and of blood cells with changes as in ImageNet-C, and as edges, negatives, in other colours and in
grey. The photographs (drawings, signers) are split into labelled source rows, unlabelled target
rows, and target rows for testing. The target rows are drawn to class shares at a total variation
distance of 0, 0.2, 0.4 and 0.6 from the source's (less, if there are two classes); the test rows
are weighted to the same shares.

A third of the pairs took no part in any decision, and is measured last: all of blood cells, and those that involve one
of the vendors or two of the kinds of change, drawn by `unseen_kinds`.
"""

from __future__ import annotations

import json
import subprocess
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import adaptation_methods as methods
import click
import numpy as np
import sklearn
import torch
from adaptation_domains import CHANGES, VENDORS, Domains, Pair, pairs
from common import DATA, show
from sklearn.model_selection import GroupKFold

import featuretl
from featuretl.adaptation import classifier, domain_gap

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
SHIFTS = {"criteria": (0.4, 0.0, 0.2, 0.6), "labels": (0.4, 0.0)}
LABELS = (5, 10, 20, 50)  # labelled rows of the target
_MOST = 0.95  # share of the classes that become more frequent
_LOOKED_AT = "emoji apple", "emoji google"  # its results were printed while the script was timed
Array = Any
Record = dict[str, Any]


def unseen_kinds() -> set[str]:
    """Return the kinds of domains that were kept apart: a vendor and two kinds of change."""
    rng = np.random.default_rng(2026)
    changes = rng.choice([*CHANGES, "fonts"], 2, replace=False)
    return {str(rng.choice(VENDORS)), *map(str, changes)}


def is_unseen(pair: Pair) -> bool:
    """Return whether a pair was kept apart."""
    if (pair.source, pair.target) == _LOOKED_AT:
        return False
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


class Unit(NamedTuple):
    """A pair of domains at certain class shares."""

    S: Array  # labelled source rows, their class codes and groups
    codes: Array
    groups: Array
    T: Array  # target rows, with labels that no method may see
    truth: Array
    X: Array  # target rows for testing, their codes, and weights
    y: Array
    weight: Array

    def accuracy(self, head: Any, rows: Array) -> float:
        """Return the accuracy of a head on the test rows, given as `rows`."""
        return float(np.average(head.predict(rows) == self.y, weights=self.weight))


def _unit(domains: Domains, pair: Pair, shift: float, seed: int) -> Unit:
    source, target = domains[pair.source], domains[pair.target]
    rng = np.random.default_rng([seed, int(10 * shift)])
    labelled = _split(source.groups, seed)[0]
    unlabelled, tested = _split(target.groups, seed)[1:]
    classes, codes = np.unique(source.y[labelled], return_inverse=True)
    of_target = np.searchsorted(classes, target.y)
    shares = _shifted(np.bincount(codes) / len(codes), shift, rng)
    unlabelled = unlabelled[_drawn(of_target[unlabelled], shares, rng)]
    truth, y = of_target[unlabelled], of_target[tested]
    counts = [np.bincount(of, minlength=len(classes)) for of in (truth, y)]
    weight = (counts[0] / np.maximum(counts[1], 1) / len(truth))[y]
    groups = np.unique(source.groups[labelled], return_inverse=True)[1]
    rows = source.X[labelled], codes, groups, target.X[unlabelled], truth
    return Unit(*rows, target.X[tested], y, weight)


def _by_criteria(unit: Unit, seed: int) -> Record:
    """Return the accuracies of all methods on the target, and the criteria."""
    S, codes, groups, T, truth = unit[:5]
    shares = [np.bincount(of, minlength=codes.max() + 1) / len(of) for of in (codes, truth)]
    gap = domain_gap(S, T, codes, groups=groups)
    priors = np.array(list(gap.priors.values()))
    adapted = methods.methods(S, codes, T, priors)
    fold, wrong = np.empty(len(S), int), np.empty(len(S))
    splits = GroupKFold(3, shuffle=True, random_state=0).split(S, codes, groups)
    for i, (train, test) in enumerate(splits):
        fold[test] = i
        wrong[test] = methods.fitted(S[train], codes[train]).predict(S[test]) != codes[test]
    found: Record = {
        "distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
        "gap": {
            "is_clear": gap.is_clear,
            "prior_shift": gap.prior_shift,
            "error": float(np.abs(priors - shares[1]).sum() / 2),
        },
        "source accuracy": float(1 - wrong.mean()),
        "accuracy": {name: unit.accuracy(a.head, a.map(unit.X)) for name, a in adapted.items()},
        "criteria": {name: methods.criteria(a, T, priors) for name, a in adapted.items()},
    }
    for name in ("none", "moments", "matched"):
        dev = methods.importance_weighted(adapted[name], wrong, T, fold)
        found["criteria"][name]["DEV"] = dev
    right = [
        methods.reverse_validated(align, S, codes, T, fold)
        for align in (lambda S, T: methods.identity, methods.moments)
    ]
    gain = right[1] - right[0]
    sums = np.bincount(groups, gain - gain.mean())
    error = np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(gain)
    return found | {"reverse": (float(gain.mean()), float(error))}


def _by_labels(unit: Unit, seed: int) -> Record:
    """Return what a few labelled target rows give: accuracies, and the evidence, by their number."""
    vars(classifier)["domain_gap"] = lambda *_, **__: None  # slow, and no part of the decision
    S, codes, _, T, truth = unit[:5]
    order, found = np.random.default_rng([seed, 7]).permutation(len(T)), {}
    plain, aligned = methods.fitted(S, codes), methods.moments(S, T)(unit.X)
    for k in (k for k in LABELS if k < len(T)):
        rows, known = order[:k], np.full(len(T), -1)
        known[rows] = truth[rows]
        model = featuretl.DomainAdaptedClassifier(random_state=0).fit(S, codes, T, known)
        X, y = np.vstack([S, T[rows]]), np.append(codes, truth[rows])
        accuracy = {
            "none": unit.accuracy(plain, unit.X),
            "moments": unit.accuracy(plain, aligned),
            "pooled": unit.accuracy(methods.fitted(X, y), unit.X),
            "DomainAdaptedClassifier": unit.accuracy(model, unit.X),
        }
        if len(np.unique(truth[rows])) > 1:
            accuracy["target only"] = unit.accuracy(methods.fitted(T[rows], truth[rows]), unit.X)
        right = {name: of.astype(int).tolist() for name, of in model.decision_.right.items()}
        found[str(k)] = {
            "accuracy": accuracy, "chosen": model.method_, "right": right,
        }  # fmt: skip
    return found


@click.group(help=__doc__)
def main() -> None:
    """Choose a command."""


store_option = click.option("--store", type=click.Path(path_type=Path), required=True)


@main.command()
@click.argument("what", type=click.Choice(list(SHIFTS)))
@store_option
@click.option("--emoji", type=click.Path(path_type=Path, exists=True), help="Unpacked packages.")
@click.option("--unseen", is_flag=True, help="Measure the pairs that were kept apart.")
@click.option("--seed", default=0, show_default=True)
def measure(what: str, store: Path, emoji: Path | None, unseen: bool, seed: int) -> None:
    """Measure all pairs and class shares; continue where an earlier run stopped."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    domains, how = Domains(store, emoji), _by_criteria if what == "criteria" else _by_labels
    file = store / f"{what}-{'unseen' if unseen else 'seen'}.jsonl"
    done = {(r["source"], r["target"], r["shift"]) for r in _records(file)}
    mine = [pair for pair in pairs() if is_unseen(pair) == unseen]
    for shift, pair in product(SHIFTS[what], mine):
        if (pair.source, pair.target, shift) not in done:
            unit = _unit(domains, pair, shift, seed)
            record = {**pair._asdict(), "shift": shift, **how(unit, seed)}
            with file.open("a") as out:
                out.write(json.dumps(record) + "\n")
            click.echo(f"{pair.source} -> {pair.target}, {shift}", err=True)


def _records(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _summary(gains: Array, records: list[Record]) -> Record:
    worst = records[int(np.argmin(gains))]
    return {
        "mean": float(np.mean(gains)),
        "worst": float(np.min(gains)),
        "lost": float(np.mean(np.asarray(gains) < -1)),
        "worst pair": f"{worst['source']} -> {worst['target']}, {worst['shift']}",
    }


def _of_rules(records: list[Record]) -> dict[str, Record]:
    """Return the gains in points of all rules over the plain head."""
    found = {}
    for name, rule in methods.rules().items():
        gains = [100 * (r["accuracy"][rule(r)] - r["accuracy"]["none"]) for r in records]
        found[name] = _summary(gains, records)
        found[name]["kept"] = found[name]["mean"] / found["oracle"]["mean"]
    return found


def _by_distance(records: list[Record]) -> dict[str, Record]:
    """Return the gains of aligned moments by the distance of the class shares."""
    found = {}
    for shift in sorted(SHIFTS["criteria"]):
        own = [r for r in records if r["shift"] == shift]
        gains = [100 * (r["accuracy"]["moments"] - r["accuracy"]["none"]) for r in own]
        if own:
            found[f"moments, distance {shift}"] = _summary(gains, own)
    return found


def _of_labels(records: list[Record]) -> dict[str, Record]:
    """Return the gains in points of all uses of labels over the plain head."""
    found = {}
    for k in map(str, LABELS):
        for name in ("DomainAdaptedClassifier", "pooled", "moments", "target only"):
            own = [r for r in records if name in r.get(k, {}).get("accuracy", ())]
            scores = [r[k]["accuracy"] for r in own]
            gains = [100 * (score[name] - score["none"]) for score in scores]
            found[f"{name}, {k} labels"] = _summary(gains, own)
        found[f"pooled, {k} labels"]["coverage"] = _coverage([r[k] for r in records])
    return found


def _coverage(records: list[Record]) -> float:
    """Return the fraction of intervals of the gain that hold the gain on the test rows."""
    held = []
    for r in records:
        right = {name: np.array(of) for name, of in r["right"].items()}
        _, low, high = classifier.Adaptation("pooled", None, right).gain("pooled")
        gain = r["accuracy"]["pooled"] - r["accuracy"]["none"]
        held.append(low <= gain <= high)
    return float(np.mean(held))


@main.command()
@store_option
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def table(store: Path, output: Path) -> None:
    """Write the results of all runs as JSON, and print them."""
    processor = (
        Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    libraries = featuretl, torch, sklearn, np
    found: Record = {
        "processor": processor,
        "versions": {library.__name__: library.__version__ for library in libraries},
        "date": str(date.today()),
        "commit": commit.stdout.strip(),
        "unseen": sorted({f"{p.source} -> {p.target}" for p in pairs() if is_unseen(p)}),
    }
    for what, summarise in (
        ("criteria", _of_rules), ("distances", _by_distance), ("labels", _of_labels)
    ):  # fmt: skip
        file = "labels" if what == "labels" else "criteria"
        parts = {part: _records(store / f"{file}-{part}.jsonl") for part in ("seen", "unseen")}
        found[what] = {part: summarise(records) for part, records in parts.items() if records}
        found[what]["units"] = {part: len(records) for part, records in parts.items()}
        rows = [
            {"": name}
            | {
                f"{part} {key}": found[what][part][name].get(key, "")
                for part in ("seen", "unseen")
                if part in found[what]
                for key in ("mean", "worst", "lost", "kept")
            }
            for name in found[what]["seen"]
        ]
        show(rows, as_json=False)
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
