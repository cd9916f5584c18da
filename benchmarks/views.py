"""Several views per image: held-out accuracy and the cost of extraction.

    python benchmarks/views.py [--seeds 2] [--json]      (needs ../shared/data)

Photographs: five folds, with sign-digits grouped by signer. A `LinearProbeClassifier()` is trained
on the single image, on the mean of its views (`ViewPooling`), or on every view with averaged
predictions (`ViewsClassifier`). The gain over the single image is paired by fold, with its
standard error over the folds. "cost" is the number of forward passes; the extraction time is
proportional to it.

Canvases: 600 canvases of 672 x 672 pixels, each filled with nine photographs of hymenoptera. One
photograph of sign-digits, 112 x 112 pixels, is pasted at a random position; the task is to
classify its digit, with folds grouped by signer. An `AttentionPoolingClassifier()` takes the place
of `ViewsClassifier`, because most tiles do not show the digit; its `C` and `attention_C` were
chosen on these same folds.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from common import DATA, show, signers
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

import featuretl
from featuretl import ImageEmbedder, LinearProbeClassifier
from featuretl.backbones.views import n_views
from featuretl.heads import AttentionPoolingClassifier, ViewPooling, ViewsClassifier

SCHEMES = ("flip", 8, "ten-crop")
GRID = "4x4"
CANVASES, SIDE, PASTED = 600, 672, 112


@click.command(help=__doc__)
@click.option("--seeds", default=2, show_default=True, help="Number of draws of the five folds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(seeds: int, as_json: bool) -> None:
    """Run the benchmark and print a row for each combination of data set, views and head."""
    if not DATA.exists():
        raise click.ClickException(f"data folder not found: {DATA}")
    table = []
    for name in ("sign-digits", "hymenoptera"):
        images = featuretl.load_image_folder(DATA / name) if name == "sign-digits" else _insects()
        y = np.asarray(images.target)
        groups = signers(images.data, y) if name == "sign-digits" else np.arange(len(y))
        for scheme in SCHEMES:
            X = ImageEmbedder(views=scheme).transform(images.data)
            table += _rows(name, scheme, X, y, groups, seeds, ("mean",), every=True)
    X, y, groups = _canvases()
    table += _rows("canvases", GRID, X, y, groups, seeds, ("mean", "max", "mean+max"), every=False)
    show(table, as_json)


def _rows(
    data: str,
    scheme: Any,
    X: Any,
    y: Any,
    groups: Any,
    seeds: int,
    poolings: tuple[str, ...],
    every: bool,
) -> list[dict[str, Any]]:
    n = n_views(scheme)
    heads: dict[str, Any] = {
        f"{pooling} of views": make_pipeline(
            ViewPooling(n, pooling=pooling), LinearProbeClassifier()
        )
        for pooling in poolings
    }
    if every:
        heads["predictions averaged over all views"] = ViewsClassifier(n)
    else:
        heads["attention"] = AttentionPoolingClassifier(n)
    alone = _scores(LinearProbeClassifier(), X[:, : X.shape[1] // n], y, groups, seeds)
    rows = [{"data": data, "views": str(scheme), "head": "single image", "accuracy": alone.mean()}]
    for name, head in heads.items():
        scores = _scores(head, X, y, groups, seeds)
        gain = scores - alone
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        found = {"accuracy": scores.mean(), "gain": gain.mean(), "standard error": error, "cost": n}
        rows.append({"data": data, "views": str(scheme), "head": name, **found})
        click.echo(f"{data}, {scheme}, {name}: {scores.mean():.4f} {gain.mean():+.4f}", err=True)
    return rows


def _scores(head: Any, X: Any, y: Any, groups: Any, seeds: int) -> Any:
    scores = []
    for seed in range(seeds):
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for train, test in folds.split(X, y, groups):
            scores.append(head.fit(X[train], y[train]).score(X[test], y[test]))
    return np.array(scores)


def _insects() -> Any:
    parts = [featuretl.load_image_folder(DATA / "hymenoptera" / part) for part in ("train", "val")]
    for name in ("data", "target"):
        parts[0][name] = np.concatenate([np.asarray(part[name]) for part in parts])
    return parts[0]


def _canvases() -> tuple[Any, Any, Any]:
    """Return embeddings, digits and signers of the canvases, which are composed in memory."""
    rng = np.random.default_rng(0)
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    y = np.asarray(signs.target)
    chosen = rng.permutation(len(y))[:CANVASES]
    insects = _insects().data
    images = [_canvas(signs.data[i], insects, rng) for i in chosen]
    return (ImageEmbedder(views=GRID).transform(images), y[chosen], signers(signs.data, y)[chosen])


def _canvas(sign: str, insects: Any, rng: np.random.Generator) -> Any:
    canvas, part = Image.new("RGB", (SIDE, SIDE)), SIDE // 3
    for place in range(9):
        with Image.open(insects[rng.integers(len(insects))]) as photo:
            side = min(photo.size)
            square = photo.convert("RGB").crop((0, 0, side, side)).resize((part, part))
        canvas.paste(square, (place % 3 * part, place // 3 * part))
    with Image.open(sign) as photo:
        square = photo.convert("RGB").resize((PASTED, PASTED))
    left, top = rng.integers(0, SIDE - PASTED + 1, 2).tolist()
    canvas.paste(square, (left, top))
    return np.asarray(canvas)


if __name__ == "__main__":
    main()
