"""Page sections with text, tables and figures; figures are SVG in the page's colours and font."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay, confusion_matrix

from featuretl._core.parameters import import_pyplot
from featuretl._core.text import plain_json, printable
from featuretl._core.types import Array
from featuretl.models.card import Card
from featuretl.report.examination import Examination
from featuretl.report.probe import Curve
from featuretl.report.subject import Subject

_TILES = (
    "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "calibration_error", "r2",
    "mean_absolute_error", "root_mean_squared_error",
)  # fmt: skip
_NAMES = {"roc_auc": "ROC AUC", "r2": "R2"}
_MOST_NUMBERS, _MOST_NAMES = 16, 40  # classes of a confusion matrix with numbers, with names
_CONFUSIONS, _CLASSES = 10, 60
_BINS = 10
_LONG = 4  # longer class names are rotated below the matrix, so that they do not overlap
# Placeholders, replaced by the colours of the page, which differ on a light and a dark page.
_INK, _FAINT = "#010203", "#040506"
_ACCENT = "#4c7df0"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', ['{_ACCENT}', '#e0803a', '#3f9f6b'])",
    "figure.facecolor": "none",
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}


def tiles(found: Examination) -> list[dict[str, str]]:
    """Return the tiles of the summary: scores with intervals, and the number of scored images."""
    shown, subject = [], found.subject
    prefix = "training " if subject.trained_on == len(subject) else ""
    for score in _TILES:
        value = found.metrics.scores.get(score, math.nan)
        if math.isnan(value):
            continue
        low, high = found.metrics.intervals.get(score, (math.nan, math.nan))
        more = f"{low:.3f} to {high:.3f}" if math.isfinite(high - low) else ""
        name = prefix + _NAMES.get(score, score.replace("_", " "))
        shown.append({"name": name, "value": f"{value:.3f}", "more": more})
    of = f"of {len(subject):,}" if found.metrics.n < len(subject) else ""
    shown.append({"name": "images scored", "value": f"{found.metrics.n:,}", "more": of})
    return shown


def decision(made: Any, card: Card) -> dict[str, Any] | None:
    """Return the decision of a model, from its `decision_` or else from its card."""
    if not hasattr(made, "candidates"):
        text = made if isinstance(made, str) else card.get("decision")
        lines = [printable(line) for line in str(text).splitlines()] if text else []
        return {"lines": lines, "rows": [], "columns": []} if lines else None
    rows = [
        [
            printable(row.strategy),
            printable(row.backbone),
            f"{row.score:.3f} ({row.low:.3f} to {row.high:.3f})" if row.images else "",
            f"{row.images:,}" if row.images else "",
            printable(row.verdict),
        ]
        for row in made.candidates.itertuples()
    ]
    columns = ["strategy", "backbone", printable(made.score_name), "images", "verdict"]
    return {
        "lines": [printable(line) for line in made.explain().splitlines()],
        "rows": rows if len(rows) > 1 else [],
        "columns": columns,
    }


def class_section(found: Examination) -> dict[str, Any] | None:
    """Return the confusion matrix and the table of per-class scores; None for regression."""
    subject = found.subject
    if subject.classes is None or found.per_class is None or found.confusions is None:
        return None
    # The classes that occur as true or predicted class, in the order of the model.
    occur = {*subject.y[subject.scored].tolist(), *subject.predicted[subject.scored].tolist()}
    classes = subject.classes[[name in occur for name in subject.classes.tolist()]]
    scored = found.per_class[found.per_class["images"] > 0]
    absent = found.per_class[found.per_class["images"] == 0]["class"].tolist()
    table = scored.sort_values("recall", kind="stable")[:_CLASSES]
    lows = table[["recall_low", "precision_low", "f1_low"]].to_numpy()
    left_out = []
    if len(scored) > _CLASSES:
        left_out.append(f"{_CLASSES} of {len(scored):,} classes are shown.")
    if absent:
        names = ", ".join(map(str, absent[:20]))
        more = ", .." if len(absent) > 20 else ""
        left_out.append(f"Classes without scored images: {printable(names)}{more}.")
    numbers = "; numbers count images" if len(classes) <= _MOST_NUMBERS else ""
    return {
        "matrix": _matrix(subject, classes),
        "matrix_width": min(850, 22 * len(classes)),
        "matrix_words": "Rows are true classes, columns are predicted classes. Colour shows the "
        f"fraction of the true class{numbers}.",
        "confusions": _named(found.confusions[:_CONFUSIONS], "label", "prediction"),
        "rows": _named(table, "class"),
        "grouped": "; images of one group count as one draw" if subject.groups is not None else "",
        "left_out": " ".join(left_out),
        # The bars of the intervals begin at the tenth below the lowest limit.
        "least": float(np.clip(np.floor(10 * np.nanmin(lows, initial=0.9)) / 10, 0, 0.9)),
    }


def curves(found: Examination) -> list[dict[str, Any]]:
    """Return the calibration curve and the learning curve, if available."""
    made, subject = [], found.subject
    if subject.classes is not None and subject.proba is not None:
        error = found.metrics.scores.get("calibration_error", math.nan)
        words = (
            "Fraction of correct predictions by confidence; bars count predictions. Expected "
            f"calibration error: {error:.3f}."
        )
        confidence = subject.proba[subject.scored].max(axis=1).clip(0, 1)
        figure = _calibration(confidence, (subject.predicted == subject.y)[subject.scored])
        made.append({"name": "Calibration", "words": words, "figure": figure})
    if found.curve is not None and len(found.curve.sizes) > 1:
        size = "training images" + (" per class" if subject.classes is not None else "")
        words = (
            f"{found.curve.score_name.capitalize()} of a linear probe on the backbone's embeddings "
            f"by number of {size}: mean and standard deviation on {found.curve.how}."
        )
        figure = _learning_curve(found.curve, size)
        made.append({"name": "Learning curve", "words": words, "figure": figure})
    return made


def residuals(found: Examination) -> list[str] | None:
    """Return the figures of a regression; None for classification."""
    subject = found.subject
    if subject.classes is not None:
        return None
    rows = subject.scored
    display = PredictionErrorDisplay(y_true=subject.y[rows], y_pred=subject.predicted[rows])
    scatter, line = {"s": 14, "alpha": 0.7, "color": _ACCENT}, {"color": "#e0803a"}
    plot = partial(display.plot, scatter_kwargs=scatter, line_kwargs=line)
    kinds = ("actual_vs_predicted", "residual_vs_predicted")
    return [_svg(partial(plot, kind=kind), kind.replace("_", " "), (5, 4.4)) for kind in kinds]


def about(subject: Subject, card: Card) -> list[tuple[str, str]]:
    """Return the facts of the card, which are not validated, and the methods of the report."""
    facts: list[tuple[str, Any]] = [
        (name, card.get(name)) for name in ("model", "strategy", "backbone", "weights", "created")
    ]
    data, metrics = card.get("data"), card.get("metrics")
    if isinstance(data, dict):
        facts.append(("trained on", f"{data.get('images')} images, sha256 {data.get('sha256')}"))
    if isinstance(metrics, dict):
        shown = [f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                 for key, value in metrics.items()]  # fmt: skip
        facts.append(("held-out scores at training time", ", ".join(shown)))
    if isinstance(card.get("versions"), dict):
        facts.append(("versions", ", ".join(f"{k} {v}" for k, v in card["versions"].items())))
    if subject.held_out is not None:
        facts.append(("folds of the linear probe", subject.held_out.how))
    facts.append(("near-duplicates", "cosine similarity of mean-centred embeddings"))
    methods = "95%: Wilson intervals for accuracy and classes; bootstrap intervals for other scores"
    facts.append(("intervals", methods))
    return [(name, printable(value)) for name, value in facts if value]


def _matrix(subject: Subject, classes: Array) -> str:
    rows = subject.scored
    counts = confusion_matrix(subject.y[rows], subject.predicted[rows], labels=classes)
    names = [_cut(name) for name in classes]
    side = float(np.clip(1.6 + 0.42 * len(classes), 3.6, 8.5))
    return _svg(partial(_draw_matrix, counts, names), "Confusion matrix", (side, side))


def _draw_matrix(counts: Array, names: list[str], ax: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    # Transparent at 0, so that the background of the page shows.
    colours = LinearSegmentedColormap.from_list("fraction", [_ACCENT + "00", _ACCENT + "cc"])
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(counts)
    display = ConfusionMatrixDisplay(fraction, display_labels=names if n <= _MOST_NAMES else None)
    display.plot(
        ax=ax,
        cmap=colours,
        colorbar=False,
        include_values=n <= _MOST_NUMBERS,
        # A power below 1 keeps rare mistakes visible.
        im_kw={"norm": PowerNorm(0.6, 0, 1), "interpolation": "nearest"},
        text_kw={"color": ax.xaxis.label.get_color()},
        xticks_rotation="vertical" if max(map(len, names)) > _LONG else "horizontal",
    )
    if display.text_ is not None:
        for text, count in zip(display.text_.flat, counts.flat, strict=True):
            text.set_text(f"{count:,}" if count else "")
    if n > _MOST_NAMES:
        ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted", ylabel="true")


def _calibration(confidence: Array, correct: Array) -> str:
    def draw(ax: Any) -> None:
        counts = ax.twinx()
        counts.hist(confidence, bins=np.linspace(0, 1, _BINS + 1), color=_ACCENT, alpha=0.18)
        counts.set(yticks=[])
        counts.spines[:].set_visible(False)
        style = {"n_bins": _BINS, "pos_label": 1, "ref_line": False, "name": "these images"}
        CalibrationDisplay.from_predictions(correct.astype(int), confidence, ax=ax, **style)
        ax.plot([0, 1], [0, 1], ":", color=ax.xaxis.label.get_color(), label="perfect")
        ax.set(xlabel="confidence", ylabel="fraction correct", xlim=(0, 1.01), ylim=(0, 1.03))
        ax.legend(loc="upper left")

    return _svg(draw, "Calibration curve", (6, 4.2))


def _learning_curve(curve: Curve, size: str) -> str:
    mean, deviation = curve.test.mean(axis=1), curve.test.std(axis=1)

    def draw(ax: Any) -> None:
        ax.plot(curve.sizes, mean, "o-", markersize=4)
        ax.fill_between(curve.sizes, mean - deviation, mean + deviation, alpha=0.5)
        ax.set(xscale="log", xlabel=size, ylabel=curve.score_name)
        ax.minorticks_off()
        ax.set_xticks(curve.sizes, [f"{n:,}" for n in curve.sizes])

    return _svg(draw, "Learning curve", (6, 4.2))


def _named(frame: Any, *columns: str) -> list[dict[str, Any]]:
    """Return rows with printable names and None for NaN."""
    rows = plain_json(frame.to_dict("records"))
    return [{**row, **{column: printable(row[column]) for column in columns}} for row in rows]


def _cut(name: Any, length: int = 24) -> str:
    text = printable(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def _svg(draw: Callable[[Any], Any], label: str, size: tuple[float, float] = (6.0, 4.0)) -> str:
    """Return the figure that `draw` draws into axes as ``<svg>`` with a label; `size` in 100 px."""
    from markupsafe import Markup, escape

    plt = import_pyplot()
    buffer = io.StringIO()
    with plt.style.context(["default", _STYLE, {"svg.hashsalt": label}]):
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        try:
            draw(ax)
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ((?:[\w.]+ )*[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None  # matplotlib writes one  # nosec B101
    head = (
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{escape(label)}" {view_box[0]} style="max-width:{round(100 * size[0])}px">'
    )
    return Markup(head + text[text.index(">") + 1 :])  # nosec B704
