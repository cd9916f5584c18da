"""Page sections with photographs: mistakes, probable label errors, near-duplicates, leaks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from featuretl._core.text import printable
from featuretl.exceptions import FeatureTLError, ImageError
from featuretl.images.inputs import read
from featuretl.report.examination import Examination
from featuretl.report.subject import Subject, Training, short_names

_SHOWN, _SHOWN_PAIRS = 24, 12  # entries on the page; the returned findings hold all of them
_SIDE, _QUALITY = 240, 72
_BATCH = 256  # images decoded before the budget is checked again


@dataclass(frozen=True)
class Gallery:
    """A page section of photographs."""

    anchor: str
    name: str  # heading
    short: str  # name in the navigation
    words: str
    shots: list[dict[str, Any]]  # `photos`, `lines` (kind, text) and `files` of each entry
    n: int  # number of entries, including those that are not shown
    kind: str = ""  # or "pairs"


def galleries(found: Examination, model: Any, pairs: bool) -> tuple[list[Gallery], list[str]]:
    """Return the sections, with evidence by `model` if given, and sentences on what they omit."""
    made = [_mistakes(found, model)]
    if found.label_errors is not None:
        made.append(_label_errors(found.subject, found.label_errors))
    if pairs:
        made.append(_duplicates(found))
    if pairs and found.leaks is not None and found.subject.training is not None:
        made.append(_leaks(found.subject, found.leaks, found.subject.training))
    left_out = [
        f"{gallery.short}: {len(gallery.shots):,} of {gallery.n:,} are shown; featuretl report "
        "--json and the dict that write_report returns contain all."
        for gallery in made
        if gallery.n > len(gallery.shots)
    ]
    return made, left_out


def _mistakes(found: Examination, model: Any) -> Gallery:
    subject, rows = found.subject, found.mistakes[:_SHOWN]
    images = [subject.images[i] for i in rows["index"]]
    photos = [[uri] for uri in thumbnails(images)]
    remark = _add_evidence(photos, model, images)
    shots = []
    for row, shown in zip(rows.itertuples(), photos, strict=True):
        confidence = f" ({row.confidence:.2f})" if "confidence" in rows else ""
        lines = [
            ("right", f"true {subject.text_of(row.label)}"),
            ("wrong", f"predicted {subject.text_of(row.prediction)}{confidence}"),
        ]
        shots.append(_shot(shown, lines, subject.short_names[row.index]))
    n = len(found.mistakes)
    if subject.classes is None:
        name, words, n = "Largest residuals", "Predictions with the largest error.", len(shots)
    else:
        name = "Mistakes" if subject.proba is None else "Most confident mistakes"
        words = f"Misclassified images: {n:,} of {found.metrics.n:,}."
    return Gallery("mistakes", name, name.split()[-1].capitalize(), words + remark, shots, n)


def _add_evidence(photos: list[list[str | None]], model: Any, images: list[Any]) -> str:
    """Append an overlay of the evidence to each photograph if possible; return a sentence on it."""
    if model is None or not images:
        return ""
    from featuretl.explanation.explaining import explain

    try:
        found = explain(model, images)
    except FeatureTLError as error:
        return f" No evidence is shown: {error}"
    for shown, explanation in zip(photos, found, strict=True):
        shown.append(_data_uri(explanation.overlay(), _SIDE, _QUALITY))
    return (
        " The overlay beside each image shows the evidence for the prediction: red supports "
        f"it, blue contradicts it ({found[0].method})."
    )


def _label_errors(subject: Subject, suspects: pd.DataFrame) -> Gallery:
    rows = suspects[:_SHOWN]
    shots = []
    photos = thumbnails([subject.images[i] for i in rows["index"]])
    for row, uri in zip(rows.itertuples(), photos, strict=True):
        lines = [
            ("", f"labelled {row.label} ({row.probability:.2f})"),
            ("wrong", f"maybe {row.suggestion}? ({row.suggested_probability:.2f})"),
        ]
        shots.append(_shot([uri], lines, subject.short_names[row.index]))
    n = len(suspects)
    source = subject.label_source.rstrip(".")
    words = f"Suspect labels: {n:,} of {len(subject):,}, according to {source}."
    if n:
        words += " Check each image before you change its label: some are hard but correct."
    return Gallery("label-errors", "Probable label errors", "Label errors", words, shots, n)


def _duplicates(found: Examination) -> Gallery:
    subject, pairs = found.subject, found.duplicates
    n, other = len(pairs), int((~pairs["same_label"]).sum())
    words = f"Pairs of images with nearly equal embeddings: {n:,}"
    words += f"; {other:,} of them have different labels." if other else "."
    if found.across_folds:
        words += (
            f" {found.across_folds:,} pairs were split between folds: one image was in a training "
            "set and the other was scored, so the scores are too optimistic. Put both images of a "
            "pair into one group (groups, --groups)."
        )
    shots = _pairs(subject, subject, pairs[:_SHOWN_PAIRS])
    return Gallery("duplicates", "Near-duplicates", "Near-duplicates", words, shots, n, "pairs")


def _leaks(subject: Subject, pairs: pd.DataFrame, training: Training) -> Gallery:
    images = pairs["first"].nunique()
    words = (
        f"Images that are near-duplicates of one of the {len(training.names):,} training images: "
        f"{images:,} of {len(subject):,}."
    )
    if images:
        words += " The training image is on the right. Scores on such images are too optimistic."
    n, name = len(pairs), "Leaks from the training images"
    shots = _pairs(subject, training, pairs[:_SHOWN_PAIRS])
    return Gallery("leaks", name, "Leaks", words, shots, n, "pairs")


def _pairs(subject: Subject, others: Subject | Training, pairs: Any) -> list[dict[str, Any]]:
    other_names = short_names(others.names)
    left = thumbnails([subject.images[i] for i in pairs["first"]])
    right = thumbnails([others.images[i] for i in pairs["second"]])
    shots = []
    for row, *photos in zip(pairs.itertuples(), left, right, strict=True):
        one, two = subject.text_of(subject.y[row.first]), subject.text_of(others.y[row.second])
        lines = [("", f"similarity {row.similarity:.3f}")]
        lines.append(("", one) if one == two else ("wrong", f"{one} and {two}"))
        names = subject.short_names[row.first], other_names[row.second]
        shots.append(_shot(photos, lines, *names))
    return shots


def _shot(photos: list[str | None], lines: list[tuple[str, str]], *files: str) -> dict[str, Any]:
    printed = [(kind, printable(text)) for kind, text in lines]
    return {"photos": photos, "lines": printed, "files": files}


def _data_uri(image: Image.Image, side: int, quality: int) -> str:
    """Return an image, at most `side` pixels wide and high, as a ``data:`` URI of WebP."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnails(
    images: Sequence[Any], side: int = _SIDE, quality: int = _QUALITY, budget: float = np.inf
) -> list[str | None]:
    """Return a ``data:`` URI per image; None if unreadable or beyond `budget` characters in all."""
    made: list[str | None] = []
    spent = 0
    with Parallel(n_jobs=-1, prefer="threads") as parallel:
        while len(made) < len(images) and spent < budget:
            batch = images[len(made) : len(made) + _BATCH]
            for uri in parallel(delayed(_thumbnail)(image, side, quality) for image in batch):
                spent += len(uri or "")
                made.append(uri if spent <= budget else None)
    return made + [None] * (len(images) - len(made))


def _thumbnail(image: Any, side: int, quality: int) -> str | None:
    try:
        return _data_uri(Image.fromarray(read(image).pixels()), side, quality)
    except ImageError:
        return None
