"""Domain adaptation: the gain of each method, and of the automatic choice, on target images.

    python benchmarks/adaptation.py embeddings [--seeds 5]      (both need ../shared/data)
    python benchmarks/adaptation.py batch-norm                  one seed; embeds every image twice

The domains are the emoji of two vendors; photographs of ants and bees, their edges and their
negatives; and photographs of hands, blurred hands and darkened hands. Each seed splits the
photographs (for hands, the signers) into three disjoint parts: labelled source rows, unlabelled
target rows, and target rows for testing. The oracle is trained on the target's own labels. In the
pairs with label shift, seven eighths of the target rows of half of the classes are removed.

Subspace alignment (Fernando et al. 2013) and importance weighting serve as comparisons.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from common import DATA, show, signers
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import featuretl
from featuretl import DomainAdapter, LinearProbeClassifier
from featuretl.images.inputs import read

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

_COMPONENTS = 64
_RARE_FRACTION = 0.125


class Domain(NamedTuple):
    """Embeddings, classes, the photograph (or signer) of each row, and the images."""

    X: Any
    y: Any
    groups: Any
    images: Any


class Pair(NamedTuple):
    """A source, a target, and whether half of the target's classes are rare."""

    source: str
    target: str
    label_shift: bool = False


PAIRS = [
    Pair("emoji google", "emoji twitter"),
    Pair("emoji twitter", "emoji google"),
    Pair("ants and bees", "their edges"),
    Pair("their edges", "ants and bees"),
    Pair("ants and bees", "their negatives"),
    Pair("their negatives", "ants and bees"),
    Pair("hands", "blurred hands"),
    Pair("blurred hands", "hands"),
    Pair("hands", "dark hands"),
    Pair("dark hands", "hands"),
]
LABEL_SHIFT_PAIRS = [
    Pair("ants and bees", "ants and bees", label_shift=True),
    Pair("hands", "hands", label_shift=True),
    Pair("ants and bees", "their edges", label_shift=True),
    Pair("hands", "dark hands", label_shift=True),
    Pair("emoji google", "emoji twitter", label_shift=True),
]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


@main.command()
@click.option("--seeds", default=5, show_default=True)
@json_option
def embeddings(seeds: int, as_json: bool) -> None:
    """Compare adaptation methods by accuracy on the target; means over the seeds."""
    domains = dict(all_domains())
    table = []
    for pair in PAIRS + LABEL_SHIFT_PAIRS:
        rows = [_evaluate(domains, pair, seed) for seed in range(seeds)]
        chosen = [row.pop("auto chose") for row in rows]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        target = f"{pair.target}{', half of its classes rare' if pair.label_shift else ''}"
        gain = f"{100 * (means['auto'] - means['none']):+.1f}"
        taken = f"moments {chosen.count('moments')} of {seeds}"
        found = {"source": pair.source, "target": target, **means, "gain of auto": gain}
        table.append(found | {"auto chose": taken})
        click.echo(f"{pair.source} -> {target}: {gain} points", err=True)
    show(table, as_json)


@main.command(name="batch-norm")
@json_option
def batch_norm(as_json: bool) -> None:
    """Re-estimate batch-norm statistics per domain; compare accuracies on the target."""
    domains = dict(all_domains())
    table = []
    for pair in PAIRS:
        source, target = domains[pair.source], domains[pair.target]
        labelled, unlabelled, tested = _split(source.groups, 0)
        S, T, test = source.X[labelled], target.X[unlabelled], target.X[tested]
        S_own = _with_statistics_of(source, labelled, labelled)
        own = _with_statistics_of(target, unlabelled, np.r_[unlabelled, tested])
        T_own, test_own = own[: len(unlabelled)], own[len(unlabelled) :]
        y, truth = source.y[labelled], target.y[tested]
        found = {
            "none": _accuracy("none", S, y, T, test, truth),
            "moments": _accuracy("moments", S, y, T, test, truth),
            "batch norm": _accuracy("none", S_own, y, T_own, test_own, truth),
            "batch norm, moments": _accuracy("moments", S_own, y, T_own, test_own, truth),
        }
        table.append({"source": pair.source, "target": pair.target, **found})
        click.echo(str(table[-1]), err=True)
    show(table, as_json)


def _with_statistics_of(domain: Domain, rows: Any, embedded: Any) -> Any:
    """Embed the images `embedded` with batch-norm statistics estimated on the images `rows`."""
    from batch_norm import reestimate  # type: ignore[import-not-found]

    images = domain.images
    with tempfile.TemporaryDirectory() as folder:
        pixels = [read(images[i]).pixels() for i in rows]
        file = reestimate(pixels, f"{folder}/statistics.safetensors")
        embedder = featuretl.ImageEmbedder(weights=file, runtime="torch", cache=None)
        return embedder.transform([images[i] for i in embedded])


def _accuracy(method: str, S: Any, y: Any, T: Any, test: Any, truth: Any) -> float:
    adapter = DomainAdapter(method)
    head = LinearProbeClassifier().fit(adapter.fit_transform(S, y, X_target=T), y)
    return head.score(adapter.transform(test), truth)


def _evaluate(domains: dict[str, Domain], pair: Pair, seed: int) -> dict[str, Any]:
    """Return the accuracy of every method on the held-out target rows."""
    source, target = domains[pair.source], domains[pair.target]
    labelled, unlabelled, tested = _split(source.groups, seed)
    if pair.label_shift:
        rng = np.random.default_rng(seed)
        unlabelled, tested = (
            _with_rare_classes(target.y, rows, rng) for rows in (unlabelled, tested)
        )
    S, y, groups = (part[labelled] for part in source[:3])
    T, test, truth = target.X[unlabelled], target.X[tested], target.y[tested]
    plain = LinearProbeClassifier().fit(S, y)
    found: dict[str, Any] = {"none": plain.score(test, truth)}
    for method in ("moments", "coral", "auto"):
        adapter = DomainAdapter(method, random_state=seed)
        rows = adapter.fit_transform(S, y, X_target=T, groups=groups)
        head = LinearProbeClassifier().fit(rows, y)
        found[method] = head.score(adapter.transform(test), truth)
    found["subspace"] = _subspace(S, y, T, test, truth)
    found["importance"] = _importance(S, y, T).score(test, truth)
    oracle = LinearProbeClassifier().fit(target.X[labelled], target.y[labelled])
    found["oracle"] = oracle.score(test, truth)
    found["auto chose"] = adapter.method_
    return found


def _subspace(S: Any, y: Any, T: Any, test: Any, truth: Any) -> float:
    """Align the leading components of the source with those of the target."""
    scale = StandardScaler(with_mean=False).fit(S)
    S, T, test = (scale.transform(rows) for rows in (S, T, test))
    k = min(_COMPONENTS, len(S) - 1, len(T) - 1)
    of_source, of_target = (PCA(k, random_state=0).fit(rows) for rows in (S, T))
    turn = of_source.components_ @ of_target.components_.T
    head = LinearProbeClassifier().fit(of_source.transform(S) @ turn, y)
    return head.score(of_target.transform(test), truth)


def _importance(S: Any, y: Any, T: Any) -> LinearProbeClassifier:
    """Weight each source row by its estimated density ratio of target to source."""
    X = StandardScaler().fit_transform(np.vstack([S, T]))
    is_target = np.repeat([0, 1], [len(S), len(T)])
    proba = LogisticRegression(C=1e-3, max_iter=1000).fit(X, is_target).predict_proba(X[: len(S)])
    weight = np.clip(proba[:, 1] / proba[:, 0] * len(S) / len(T), 0.05, 20)
    return LinearProbeClassifier().fit(S, y, sample_weight=weight / weight.mean())


def _split(groups: Any, seed: int) -> list[Any]:
    """Split the rows by group: one half, one quarter and one quarter of the groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    parts = np.split(names, [len(names) // 2, 3 * len(names) // 4])
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]


def _with_rare_classes(y: Any, rows: Any, rng: np.random.Generator) -> Any:
    """Remove seven eighths of the rows in the first half of the classes."""
    classes = np.unique(y)
    rare = np.isin(y[rows], classes[: len(classes) // 2])
    return rows[~rare | (rng.random(len(rows)) < _RARE_FRACTION)]


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
    return Domain(featuretl.ImageEmbedder(verbose=1).transform(images), y, groups, images)


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
