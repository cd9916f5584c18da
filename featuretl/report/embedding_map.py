"""The interactive map of a report: coordinates, colours, captions and thumbnails for its script."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.report.displays import map_of
from featuretl.report.examination import Examination
from featuretl.report.galleries import thumbnails
from featuretl.report.subject import Subject

MOST_ON_MAP = 5_000  # with more points t-SNE takes minutes, and the dots overlap
BUDGET = 9_000_000  # of all thumbnails of the map, in characters of the page
# (at most n images, side in pixels, WebP quality)
_SIZES = ((600, 176, 60), (1_500, 128, 55), (3_000, 96, 50), (MOST_ON_MAP, 80, 40))
_WORDS = (
    "Each dot is an image. Images that look alike to the network are close to each other (t-SNE of "
    "its embeddings; distances between clusters carry little information). Point at a dot, or tap "
    "it, to see the photograph."
)
# Distinguishable on a light and on a dark page.
_COLOURS = (
    "#4c7df0", "#e0803a", "#3fa36c", "#d2526b", "#8f6fd8",
    "#b08a2e", "#2fa3b5", "#c966b3", "#7b8794", "#7fae2f",
)  # fmt: skip


def map_section(found: Examination, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Return the context of the map for the template, and sentences on what the map omits."""
    subject = found.subject
    n, left_out = len(subject), []
    rows = np.arange(n)
    if n > MOST_ON_MAP:
        rows = np.sort(np.random.default_rng(seed).choice(n, MOST_ON_MAP, replace=False))
        left_out.append(f"The map shows a random sample of {MOST_ON_MAP:,} of the {n:,} images.")
    thumbs = _photographs([subject.images[i] for i in rows], seed)
    missing = thumbs.count(None)
    if missing:
        left_out.append(
            f"{missing:,} of the {len(rows):,} images on the map have no photograph: they can no "
            f"longer be opened, or their photographs would exceed {BUDGET / 1e6:.0f} MB."
        )
    groups, group = _groups(subject.y[rows], subject.classes)
    wrong = subject.is_wrong[rows]
    places = map_of(subject.shown_X[rows], random_state=seed)
    low, high = places.min(axis=0), places.max(axis=0)
    # Each axis fills [0, 1]; 0.5 where all points coincide.
    scaled = (places - low) / np.where(high > low, high - low, 1)
    x, y = np.where(high > low, scaled, 0.5).round(4).T.tolist()
    data = {
        "x": x,
        "y": y,
        "group": group.tolist(),
        "wrong": wrong.astype(int).tolist(),
        "label": [printable(subject.text_of(subject.y[i])) for i in rows],
        "prediction": [_prediction_text(subject, int(i)) for i in rows],
        "names": [subject.short_names[i] for i in rows],
        "thumbs": thumbs,
        "colours": [entry["colour"] for entry in groups],
    }
    words = _WORDS + (" Rings mark mistakes." if wrong.any() else "")
    section = {"data": data, "groups": groups, "words": words}
    return {**section, "n": len(rows), "n_wrong": int(wrong.sum())}, left_out


def _photographs(images: list[Any], seed: int) -> list[str | None]:
    """Return a thumbnail of each image; None if it is unreadable or exceeds the budget."""
    side, quality = next(size[1:] for size in _SIZES if len(images) <= size[0])
    # In random order, so that every class has thumbnails when the budget is exhausted.
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    made = thumbnails([images[i] for i in order], side, quality, BUDGET)
    return [made[place] for place in np.argsort(order)]


def _groups(y: Array, classes: Array | None) -> tuple[list[dict[str, str]], Array]:
    """Return the entries of the legend, and the position of each image's entry, int (n,)."""
    if classes is not None:
        position = {name: i for i, name in enumerate(classes.tolist())}
        present, group = np.unique([position[name] for name in y.tolist()], return_inverse=True)
        few = len(present) <= len(_COLOURS)
        entries = [
            {"name": printable(classes[i]), "colour": _COLOURS[k] if few else _hsl(0.618 * k)}
            for k, i in enumerate(present)
        ]
        return entries, group
    edges = np.unique(np.quantile(y, np.linspace(0, 1, 6)))
    group = np.digitize(y, edges[1:-1])
    upper = edges[1:] if len(edges) > 1 else edges
    entries = [
        {"name": f"{low:.4g} to {high:.4g}", "colour": _hsl(0.62 - 0.14 * k)}
        for k, (low, high) in enumerate(zip(edges, upper, strict=False))
    ]
    return entries, group


def _hsl(hue: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, 0.55, 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _prediction_text(subject: Subject, i: int) -> str:
    if not subject.scored[i]:
        return "not scored"
    confidence = "" if subject.proba is None else f" ({subject.proba[i].max():.2f})"
    return f"predicted {printable(subject.text_of(subject.predicted[i]))}{confidence}"
