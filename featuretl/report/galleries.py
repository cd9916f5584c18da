"""The sections of a page that show photographs: mistakes, probable label errors, near-duplicates, leaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import FeatureTLError
from featuretl.report.examination import Examination
from featuretl.report.names import short_names
from featuretl.report.thumbnails import data_uri, thumbnails

# Entries of each kind on the page; the findings hold all.
_SHOWN, _SHOWN_PAIRS = 24, 12
_SIDE, _QUALITY = 240, 72


@dataclass(frozen=True)
class Gallery:
    """A section of photographs."""

    anchor: str
    name: str  # the heading
    short: str  # in the navigation
    words: str
    shots: list[dict[str, Any]]  # `photos`, `lines` (kind, text) and `files` of those shown
    n: int  # of all
    kind: str = ""  # or "pairs"


def galleries(
    found: Examination, model: Any, pairs: bool = True
) -> tuple[list[Gallery], list[str]]:
    """Return the sections, with evidence for mistakes unless `model` is None, and what they leave out.

    Without `pairs` there are no near-duplicates and leaks.
    """
    made = [_mistakes(found, model)]
    if found.label_errors is not None:
        made.append(_label_errors(found))
    if pairs:
        made.append(_duplicates(found))
    if pairs and found.leaks is not None:
        made.append(_leaks(found))
    left_out = [
        f"{gallery.short}: {len(gallery.shots):,} of {gallery.n:,} are shown; "
        "featuretl report --json, or what write_report returns, holds all."
        for gallery in made
        if gallery.n > len(gallery.shots)
    ]
    return made, left_out


def _mistakes(found: Examination, model: Any) -> Gallery:
    subject, rows = found.subject, found.mistakes[:_SHOWN]
    photos = [[uri] for uri in _photos(subject.images, rows["index"])]
    remark = _add_evidence(photos, model, [subject.images[i] for i in rows["index"]])
    shots = []
    for row, shown in zip(rows.itertuples(), photos, strict=True):
        sure = f" ({row.confidence:.2f})" if "confidence" in rows else ""
        lines = [
            ("right", f"is {subject.text_of(row.label)}"),
            ("wrong", f"predicted {subject.text_of(row.prediction)}{sure}"),
        ]
        shots.append(_shot(shown, lines, subject.short_names[row.index]))
    n = len(found.mistakes)
    if subject.classes is None:
        name, words, n = "Largest residuals", "The numbers that are furthest off.", len(shots)
    else:
        name = "Mistakes" if subject.proba is None else "Most confident mistakes"
        count = (
            f"{n:,} of {found.metrics.n:,} images are"
            if n
            else f"None of {found.metrics.n:,} images is"
        )
        words = f"{count} predicted wrongly."
    return Gallery("mistakes", name, name.split()[-1].capitalize(), words + remark, shots, n)


def _add_evidence(photos: list[list[str | None]], model: Any, images: list[Any]) -> str:
    """Add a picture of the evidence to each photograph, if the model can be explained; a remark."""
    from featuretl.explanation.explaining import explain

    if model is None or not images:
        return ""
    try:
        found = explain(model, images)
    except FeatureTLError as error:
        return f" No evidence is shown: {error}"
    for shown, explanation in zip(photos, found, strict=True):
        shown.append(data_uri(explanation.overlay(), _SIDE, _QUALITY))
    made_by = f"red for it, blue against it ({found[0].method})"
    return f" Beside each, the evidence for what was predicted: {made_by}."


def _label_errors(found: Examination) -> Gallery:
    subject, suspects = found.subject, found.label_errors
    assert suspects is not None  # nosec B101
    rows = suspects[:_SHOWN]
    shots = []
    for row, uri in zip(rows.itertuples(), _photos(subject.images, rows["index"]), strict=True):
        lines = [
            ("", f"labelled {row.label} ({row.probability:.2f})"),
            ("wrong", f"rather {row.suggestion}? ({row.suggested_probability:.2f})"),
        ]
        shots.append(_shot([uri], lines, subject.short_names[row.index]))
    n = len(suspects)
    words = (
        f"{n:,} of {len(subject):,} labels look wrong"
        if n
        else f"None of {len(subject):,} labels looks wrong"
    )
    words += f", by {subject.label_source.rstrip('.')}. Look at each before you change it: some are hard images."
    return Gallery("label-errors", "Probable label errors", "Label errors", words, shots, n)


def _duplicates(found: Examination) -> Gallery:
    subject, pairs = found.subject, found.duplicates
    n, other = len(pairs), int((~pairs["same_label"]).sum())
    words = f"{n:,} pairs of images are nearly the same to the network"
    words += f"; {other:,} of them have different labels." if other else "."
    if not n:
        words = "No two images are nearly the same to the network."
    if found.across_folds:
        words += (
            f" {found.across_folds:,} pairs were divided between folds, so that one was trained on and "
            "the other scored, which makes the scores too good. Give both one group (--groups)."
        )
    shots = _pairs(found, pairs[:_SHOWN_PAIRS], subject.images, subject.names, subject.y)
    return Gallery("duplicates", "Near-duplicates", "Near-duplicates", words, shots, n, "pairs")


def _leaks(found: Examination) -> Gallery:
    pairs, training = found.leaks, found.training
    assert pairs is not None and training is not None  # nosec B101
    images = pairs["first"].nunique()
    words = (
        f"{images:,} of {len(found.subject):,} images are nearly the same as one of the "
        f"{len(training.names):,} that the model was trained on (on the right): its predictions for "
        "them tell little about others."
        if images
        else f"No image is nearly the same as one of the {len(training.names):,} of training."
    )
    shots = _pairs(found, pairs[:_SHOWN_PAIRS], training.images, training.names, training.y)
    return Gallery("leaks", "Leaks from training", "Leaks", words, shots, len(pairs), "pairs")


def _pairs(
    found: Examination, pairs: Any, others: Sequence[Any], other_names: list[str], other_y: Array
) -> list[dict[str, Any]]:
    subject, others_short = found.subject, short_names(other_names)
    left, right = _photos(subject.images, pairs["first"]), _photos(others, pairs["second"])
    shots = []
    for row, *photos in zip(pairs.itertuples(), left, right, strict=True):
        one, two = subject.text_of(subject.y[row.first]), subject.text_of(other_y[row.second])
        lines = [("", f"similarity {row.similarity:.3f}")]
        lines.append(("", one) if one == two else ("wrong", f"{one} and {two}"))
        names = subject.short_names[row.first], others_short[row.second]
        shots.append(_shot(photos, lines, *names))
    return shots


def _photos(images: Sequence[Any], rows: Iterable[int]) -> list[str | None]:
    return thumbnails([images[i] for i in rows], _SIDE, quality=_QUALITY)


def _shot(photos: list[str | None], lines: list[tuple[str, str]], *files: str) -> dict[str, Any]:
    return {
        "photos": photos,
        "lines": [(kind, printable(text)) for kind, text in lines],
        "files": files,
    }
