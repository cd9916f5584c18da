"""The map of a page: places, colours, words and small photographs, as its script takes them."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.report.displays import map_of
from featuretl.report.examination import Examination
from featuretl.report.subject import Subject
from featuretl.report.thumbnails import thumbnails

# t-SNE of more takes minutes, and dots lie on each other.
MOST_ON_MAP = 5_000
# Characters of the page that the map's photographs may take.
BUDGET = 9_000_000
# (up to so many images, pixels of a side, quality)
_SIZES = ((600, 176, 60), (1_500, 128, 55), (3_000, 96, 50), (MOST_ON_MAP, 80, 40))
_WORDS = (
    "Each dot is an image; near each other are those that look alike to the network (t-SNE of its "
    "embeddings: distances between clusters mean little). Point at a dot, or tap it, to see the "
    "photograph."
)
# They can be distinguished in light and in dark.
_COLOURS = (
    "#4c7df0", "#e0803a", "#3fa36c", "#d2526b", "#8f6fd8",
    "#b08a2e", "#2fa3b5", "#c966b3", "#7b8794", "#7fae2f",
)  # fmt: skip


def map_section(found: Examination, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Return the map, and what it leaves out."""
    subject = found.subject
    n, left_out = len(subject), []
    rows = np.arange(n)
    if n > MOST_ON_MAP:
        rows = np.sort(np.random.default_rng(seed).choice(n, MOST_ON_MAP, replace=False))
        left_out.append(f"The map shows {MOST_ON_MAP:,} of the {n:,} images, drawn at random.")
    thumbs = _photographs([subject.images[i] for i in rows], seed)
    missing = thumbs.count(None)
    if missing:
        left_out.append(
            f"{missing:,} of the {len(rows):,} images on the map have no photograph here: they cannot be "
            f"opened any more, or the page would grow over {BUDGET / 1e6:.0f} MB of them."
        )
    groups, group = _groups(subject.y[rows], subject.classes)
    wrong = _wrong(found, rows)
    places = _in_unit_square(map_of(subject.shown_X[rows], random_state=seed)).round(4)
    data = {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "group": group.tolist(),
        "wrong": wrong.astype(int).tolist(),
        "label": [printable(subject.text_of(subject.y[i])) for i in rows],
        "said": [_said(subject, int(i)) for i in rows],
        "names": [subject.short_names[i] for i in rows],
        "thumbs": thumbs,
        "colours": [entry["colour"] for entry in groups],
    }
    words = _WORDS + (" Rings are mistakes." if wrong.any() else "")
    counts = {"n": len(rows), "n_wrong": int(wrong.sum())}
    return {"data": data, "groups": groups, "words": words, **counts}, left_out


def _photographs(images: list[Any], seed: int) -> list[str | None]:
    """Return a small photograph of each image; None where it cannot be read, or the budget ends."""
    side, quality = next(size[1:] for size in _SIZES if len(images) <= size[0])
    # In random order, so that no class is left without photographs where the budget ends.
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    made = thumbnails([images[i] for i in order], side, quality=quality, budget=BUDGET)
    thumbs: list[str | None] = [None] * len(images)
    for i, uri in zip(order, made, strict=True):
        thumbs[i] = uri
    return thumbs


def _in_unit_square(places: Array) -> Array:
    """Return places (n, 2) scaled to [0, 1] in each direction; 0.5 where they do not differ."""
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1)
    return np.where(high > low, scaled, 0.5)


def _groups(y: Array, classes: Array | None) -> tuple[list[dict[str, str]], Array]:
    """Return the entries of the legend, and which of them each image belongs to."""
    if classes is not None:
        position = {name: i for i, name in enumerate(classes.tolist())}
        group = np.array([position[name] for name in y.tolist()], int)
        present = np.unique(group)
        entries = [
            {"name": printable(classes[i]), "colour": _colour(k, len(present))}
            for k, i in enumerate(present)
        ]
        return entries, np.searchsorted(present, group)
    edges = np.unique(np.quantile(y, np.linspace(0, 1, 6)))
    group = np.clip(np.searchsorted(edges, y, side="right") - 1, 0, max(len(edges) - 2, 0))
    entries = [
        {
            "name": f"{edges[k]:.4g} to {edges[min(k + 1, len(edges) - 1)]:.4g}",
            "colour": _hsl(0.62 - 0.14 * k),
        }
        for k in range(max(len(edges) - 1, 1))
    ]
    return entries, group


def _colour(k: int, n: int) -> str:
    """Return the colour of the k-th of n classes."""
    return _COLOURS[k] if n <= len(_COLOURS) else _hsl(0.618 * k)


def _hsl(hue: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, 0.55, 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _wrong(found: Examination, rows: Array) -> Array:
    subject = found.subject
    if subject.classes is None:
        return np.zeros(len(rows), bool)
    wrong: Array = subject.scored[rows] & (subject.predicted[rows] != subject.y[rows])
    return wrong


def _said(subject: Subject, i: int) -> str:
    """Return what was predicted for an image, in words."""
    if not subject.scored[i]:
        return "not scored"
    sure = "" if subject.proba is None else f" ({subject.proba[i].max():.2f})"
    return f"predicted {printable(subject.text_of(subject.predicted[i]))}{sure}"
