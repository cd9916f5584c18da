"""Novelty detection: scores of images unlike the training set, and their false alarms.

    python benchmarks/novelty.py scores [--seeds 5]         (both need ../shared/data)
    python benchmarks/novelty.py calibration [--seeds 20]

Each seed trains on half of the photographs (hands: of the signers; emoji: of the drawings); the
other half is in-distribution. Novel images are those of another data set; edges, negatives,
blurred or darkened versions of the photographs in the other half; and classes left out of
training, one at a time. AUROC is the probability that a novel image gets a lower score than an
in-distribution one. FPR is the fraction of in-distribution images called novel at the threshold
that detects 95% of the novel ones.

`calibration` shows the fraction of in-distribution images that `NoveltyDetector` calls novel at 5%
and at 1%, and the fraction of seeds in which it reports drift for 100 in-distribution images and
for 100 out-of-distribution images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from common import DATA, show, signers
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.svm import OneClassSVM

import featuretl
from featuretl import LinearProbeClassifier, NoveltyDetector

NOVEL = {
    "ants and bees": ["emoji google", "hands", "their edges", "their negatives"],
    "hands": ["emoji google", "ants and bees", "blurred hands", "dark hands"],
    "emoji google": ["ants and bees", "hands", "emoji twitter"],
}
WITH_CLASSES = ("hands", "emoji google")
# Domains made from the same photographs or drawings.
SHARED_SOURCES = [
    {"ants and bees", "their edges", "their negatives"},
    {"hands", "blurred hands", "dark hands"},
    {"emoji google", "emoji twitter"},
]
_N_IMAGES = 100


class Domain(NamedTuple):
    """Embeddings, classes, and the photograph (or signer) of each row."""

    X: Any
    y: Any
    groups: Any


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


@main.command()
@click.option("--seeds", default=5, show_default=True)
@json_option
def scores(seeds: int, as_json: bool) -> None:
    """Compare scores by AUROC and FPR at 95% TPR; means over the seeds."""
    domains = dict(all_domains())
    found: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        for task, is_new, by_method in _tasks(domains, seed):
            for method, score in by_method.items():
                false, true, _ = roc_curve(is_new, -score)
                rate = false[np.argmax(true >= 0.95)]
                found[task][method].append((roc_auc_score(is_new, -score), rate))
        click.echo(f"seed {seed} done", err=True)
    for number, name in enumerate(("AUROC", "FPR at 95% TPR")):
        table = []
        for method in next(iter(found.values())):
            means = {
                task: float(np.mean([pair[number] for pair in of_task[method]]))
                for task, of_task in found.items()
            }
            row = {name: method, **means, "mean": float(np.mean(list(means.values())))}
            table.append(row)
        show(table, as_json)


@main.command()
@click.option("--seeds", default=20, show_default=True)
@json_option
def calibration(seeds: int, as_json: bool) -> None:
    """Count false alarms of NoveltyDetector, with groups and without."""
    domains = dict(all_domains())
    table = []
    for like, unlike, grouped in (
        ("ants and bees", "their edges", False),
        ("emoji google", "emoji twitter", False),
        ("hands", "dark hands", False),
        ("hands", "dark hands", True),
    ):
        rows = [_alarms(domains[like], domains[unlike], grouped, seed) for seed in range(seeds)]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        note = f"{like}{', groups=signers' if grouped else ''}"
        table.append({"trained on half of": note, **means, "out-of-distribution images": unlike})
    show(table, as_json)


def _alarms(like: Domain, unlike: Domain, grouped: bool, seed: int) -> dict[str, float]:
    known = _half(like.groups, seed)
    groups = like.groups[known] if grouped else None
    detector = NoveltyDetector(random_state=seed).fit(like.X[known], groups=groups)
    rng = np.random.default_rng(seed)
    novelty = detector.novelty(like.X[~known])
    same, other = (
        rng.permutation(domain.X[~_half(domain.groups, seed)])[:_N_IMAGES]
        for domain in (like, unlike)
    )
    return {
        "novel at 5%": (novelty >= 0.95).mean(),
        "novel at 1%": (novelty >= 0.99).mean(),
        "drift reported, in-distribution": float(detector.drift(same).is_clear),
        "drift reported, out-of-distribution": float(detector.drift(other).is_clear),
    }


def _tasks(domains: dict[str, Domain], seed: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the names of each comparison, which rows are novel, and the scores by method."""
    for name, others in NOVEL.items():
        known = _half(domains[name].groups, seed)
        X, y, _ = domains[name]
        rows = [X[~known]]
        for other in others:
            shared = any({name, other} <= same for same in SHARED_SOURCES)
            new = ~_half(domains[other].groups, seed) if shared else slice(None)
            rows.append(domains[other].X[new])
        begin = np.cumsum([0, *map(len, rows)])
        by_method = _scores(X[known], y[known], np.vstack(rows), seed)
        for i, other in enumerate(others, 1):
            which = np.r_[: begin[1], begin[i] : begin[i + 1]]
            is_new = np.arange(len(which)) >= begin[1]
            yield f"{name} / {other}", is_new, {m: s[which] for m, s in by_method.items()}
    for name in WITH_CLASSES:
        known = _half(domains[name].groups, seed)
        X, y, _ = domains[name]
        for left_out in np.unique(y):
            seen = known & (y != left_out)
            by_method = _scores(X[seen], y[seen], X[~known], seed)
            yield f"{name} / a class left out", y[~known] == left_out, by_method


def _scores(X: Any, y: Any, rows: Any, seed: int) -> dict[str, Any]:
    """Return the scores of `rows` by each method; higher is more normal."""
    found = _probe_scores(X, y, rows)
    Z, new = normalize(X.astype(np.float64)), normalize(rows.astype(np.float64))
    for k in (1, 5, 50):
        found[f"k-NN, k={k}"] = NoveltyDetector(k, random_state=seed).fit(X).score_samples(rows)
    one = np.zeros(len(X), int)
    found["Mahalanobis, class means"] = _mahalanobis(Z, y, new)
    found["Mahalanobis, overall mean"] = _mahalanobis(Z, one, new)
    found["relative Mahalanobis"] = (
        found["Mahalanobis, class means"] - found["Mahalanobis, overall mean"]
    )
    outlier_detectors: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "LocalOutlierFactor": (LocalOutlierFactor(novelty=True), normalize),
        "IsolationForest": (IsolationForest(random_state=seed), np.asarray),
        "OneClassSVM": (OneClassSVM(nu=0.05), StandardScaler().fit(X).transform),
    }
    for name, (detector, scaled) in outlier_detectors.items():
        found[name] = detector.fit(scaled(X)).score_samples(scaled(rows))
    return found


def _probe_scores(X: Any, y: Any, rows: Any) -> dict[str, Any]:
    head = LinearProbeClassifier().fit(X, y)
    values = head.decision_function(rows)
    logits = np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values
    return {
        "probe, max softmax": head.predict_proba(rows).max(axis=1),
        "probe, max logit": logits.max(axis=1),
        "probe, energy": logsumexp(logits, axis=1),
    }


def _mahalanobis(X: Any, y: Any, rows: Any) -> Any:
    """Return minus the squared distance to the nearest class mean (one shrunk covariance)."""
    classes, codes = np.unique(y, return_inverse=True)
    means = np.array([X[codes == code].mean(axis=0) for code in range(len(classes))])
    covariance, _ = ledoit_wolf(X - means[codes], assume_centered=True)
    white = np.linalg.cholesky(np.linalg.inv(covariance))
    at, to = rows @ white, means @ white
    return -np.min([np.square(at - mean).sum(axis=1) for mean in to], axis=0)


def _half(groups: Any, seed: int) -> Any:
    """Return a mask (n,) of the rows in a random half of the groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: len(names) // 2])


def all_domains() -> Iterator[tuple[str, Domain]]:
    """Yield the names and embeddings of all domains."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    for vendor in ("google", "twitter"):
        emoji = featuretl.load_image_folder(DATA / "emoji" / vendor)
        drawn = np.array([Path(path).stem for path in emoji.data])
        yield f"emoji {vendor}", _embedded(emoji.data, emoji.target, drawn)
    parts = [featuretl.load_image_folder(DATA / "hymenoptera" / part) for part in ("train", "val")]
    paths = [path for part in parts for path in part.data]
    y = np.concatenate([part.target for part in parts])
    changed: dict[str, Callable[[Image.Image], Image.Image]]
    changed = {"ants and bees": _same, "their edges": _edges, "their negatives": ImageOps.invert}
    yield from _copies(paths, y, np.arange(len(paths)), changed)
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    changed = {"hands": _same, "blurred hands": _blurred, "dark hands": _dark}
    yield from _copies(signs.data, signs.target, signers(signs.data, signs.target), changed)


def _copies(
    paths: Any, y: Any, groups: Any, changed: dict[str, Callable[[Image.Image], Image.Image]]
) -> Iterator[tuple[str, Domain]]:
    for name, change in changed.items():
        images = paths if change is _same else [_changed(path, change) for path in paths]
        yield name, _embedded(images, y, groups)


def _changed(path: str, change: Callable[[Image.Image], Image.Image]) -> Any:
    with Image.open(path) as image:
        return np.asarray(change(ImageOps.exif_transpose(image).convert("RGB")))


def _embedded(images: Any, y: Any, groups: Any) -> Domain:
    return Domain(featuretl.ImageEmbedder(verbose=1).transform(images), y, groups)


def _same(image: Image.Image) -> Image.Image:
    return image


def _edges(image: Image.Image) -> Image.Image:
    return ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width / 40))


def _dark(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.3)


if __name__ == "__main__":
    main()
