"""The sections of a page that show photographs: mistakes, probable label errors, near-duplicates, leaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import FeatureTLError
from featuretl.report.examination import Examination
from featuretl.report.names import short_names
from featuretl.report.thumbnails import data_uri, thumbnails

# Of each kind, on the page; the findings hold all.
_SHOWN, _SHOWN_PAIRS = 24, 12
_SIDE, _QUALITY = 240, 72


def galleries(
    found: Examination, model: Any, pairs: bool = True
) -> tuple[list[dict[str, Any]], list[str]]:
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
        f"{gallery['short']}: {len(gallery['shots']):,} of {gallery['n']:,} are shown; "
        "featuretl report --json, or what write_report returns, holds all."
        for gallery in made
        if gallery["n"] > len(gallery["shots"])
    ]
    return made, left_out


def _mistakes(found: Examination, model: Any) -> dict[str, Any]:
    subject, rows = found.subject, found.mistakes[:_SHOWN]
    images = [subject.images[i] for i in rows["index"]]
    names = short_names(subject.names)
    photos = [[uri] for uri in thumbnails(images, _SIDE, quality=_QUALITY)]
    evidence: list[Image.Image] = []
    remark = ""
    if model is not None and images:
        evidence, remark = _evidence(model, images)
    for shown, drawn in zip(photos, evidence, strict=False):
        shown.append(data_uri(drawn, _SIDE, _QUALITY))
    n = len(found.mistakes)
    shots = []
    for row, shown in zip(rows.itertuples(), photos, strict=True):
        number = subject.classes is None
        sure = f" ({row.confidence:.2f})" if "confidence" in rows else ""
        lines = [
            ("right", f"is {row.label:.4g}" if number else f"is {row.label}"),
            (
                "wrong",
                f"predicted {row.prediction:.4g}"
                if number
                else f"predicted {row.prediction}{sure}",
            ),
        ]
        shots.append(_shot(shown, lines, [names[row.index]]))
    if subject.classes is None:
        name, words, n = "Largest residuals", "The numbers that are furthest off.", len(shots)
    else:
        name = "Most confident mistakes" if subject.proba is not None else "Mistakes"
        words = (
            f"{n:,} of {found.metrics.n:,} images are predicted wrongly."
            if n
            else (f"None of {found.metrics.n:,} images is predicted wrongly.")
        )
    return _gallery("mistakes", name, name.split()[-1].capitalize(), words + remark, shots, n)


def _evidence(model: Any, images: list[Any]) -> tuple[list[Image.Image], str]:
    """Return a picture for each image, none where the model cannot be explained, and a remark."""
    from featuretl.explanation.explaining import explain

    try:
        found = explain(model, images)
    except FeatureTLError as error:
        return [], f" No evidence is shown: {error}"
    made_by = f"red for it, blue against it ({found[0].method})"
    return [
        e.overlay() for e in found
    ], f" Beside each, the evidence for what was predicted: {made_by}."


def _label_errors(found: Examination) -> dict[str, Any]:
    subject, suspects = found.subject, found.label_errors
    assert suspects is not None  # nosec B101
    rows, names = suspects[:_SHOWN], short_names(subject.names)
    photos = thumbnails([subject.images[i] for i in rows["index"]], _SIDE, quality=_QUALITY)
    shots = [
        _shot(
            [uri],
            [
                ("", f"labelled {row.label} ({row.probability:.2f})"),
                ("wrong", f"rather {row.suggestion}? ({row.suggested_probability:.2f})"),
            ],
            [names[row.index]],
        )
        for row, uri in zip(rows.itertuples(), photos, strict=True)
    ]
    n = len(suspects)
    words = (
        f"{n:,} of {len(subject):,} labels look wrong"
        if n
        else f"None of {len(subject):,} labels looks wrong"
    )
    words += f", by {subject.label_source.rstrip('.')}. Look at each before you change it: some are hard images."
    return _gallery("label-errors", "Probable label errors", "Label errors", words, shots, n)


def _duplicates(found: Examination) -> dict[str, Any]:
    subject, pairs = found.subject, found.duplicates
    n, other = len(pairs), int((~pairs["same_label"]).sum())
    words = f"{n:,} pairs of images are nearly the same to the network"
    words += f"; {other:,} of them have different labels." if other else "."
    if not n:
        words = "No two images are nearly the same to the network."
    if found.across_folds:
        words += (
            f" {found.across_folds:,} pairs were divided between folds, so that one was learnt from and "
            "the other scored: the scores are too good by that. Give both one group (--groups)."
        )
    shots = _pairs(found, pairs[:_SHOWN_PAIRS], subject.images, subject.names, subject.y)
    return _gallery("duplicates", "Near-duplicates", "Near-duplicates", words, shots, n, "pairs")


def _leaks(found: Examination) -> dict[str, Any]:
    pairs, training = found.leaks, found.training
    assert pairs is not None and training is not None  # nosec B101
    images = pairs["first"].nunique()
    words = (
        f"{images:,} of {len(found.subject):,} images are nearly the same as one of the "
        f"{len(training.names):,} that the model was trained on (on the right): what it says of them "
        "tells little of others."
        if images
        else f"No image is nearly the same as one of the {len(training.names):,} of training."
    )
    shots = _pairs(found, pairs[:_SHOWN_PAIRS], training.images, training.names, training.y)
    return _gallery("leaks", "Leaks from training", "Leaks", words, shots, len(pairs), "pairs")


def _pairs(
    found: Examination, pairs: Any, others: Sequence[Any], other_names: list[str], other_y: Array
) -> list[dict[str, Any]]:
    subject = found.subject
    first, second = pairs["first"].to_numpy(int), pairs["second"].to_numpy(int)
    left = thumbnails([subject.images[i] for i in first], _SIDE, quality=_QUALITY)
    right = thumbnails([others[i] for i in second], _SIDE, quality=_QUALITY)
    names, others_short = short_names(subject.names), short_names(other_names)
    shots = []
    for k, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        one, two = (
            f"{y:.4g}" if subject.classes is None else str(y) for y in (subject.y[i], other_y[j])
        )
        lines = [("", f"similarity {pairs['similarity'].iloc[k]:.3f}")]
        lines.append(("", one) if one == two else ("wrong", f"{one} and {two}"))
        shots.append(_shot([left[k], right[k]], lines, [names[i], others_short[j]]))
    return shots


def _shot(
    photos: list[str | None], lines: list[tuple[str, str]], files: list[str]
) -> dict[str, Any]:
    return {
        "photos": photos,
        "alt": files[0],
        "lines": [{"kind": kind, "text": printable(text)} for kind, text in lines],
        "files": files,
    }


def _gallery(
    anchor: str,
    name: str,
    short: str,
    words: str,
    shots: list[dict[str, Any]],
    n: int,
    kind: str = "",
) -> dict[str, Any]:
    return {
        "anchor": anchor, "name": name, "short": short, "words": words, "shots": shots, "n": n,
        "kind": kind,
    }  # fmt: skip
