"""write_report: one page about a model, or about embeddings, and labelled images."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_random_state

import featuretl
from featuretl._validation import (
    as_utf8,
    check_int,
    check_option,
    check_share,
    import_pyplot,
    parameter_error,
    printable,
)
from featuretl.exceptions import FeatureTLError, StoreError
from featuretl.images.inputs import as_images, name_of
from featuretl.models.card import Card, trained_on
from featuretl.outputs import check_output, replace_file
from featuretl.prediction import check_takes_images, known_labels
from featuretl.report.embedding_map import map_section
from featuretl.report.examination import Examination, Training, examine, facts_of
from featuretl.report.galleries import galleries
from featuretl.report.sections import about, class_section, curves, decision, residuals, tiles
from featuretl.report.subject import (
    Subject,
    embedder_of,
    subject_of_embeddings,
    subject_of_model,
)

Array = np.ndarray[Any, Any]

_OWNER = "write_report"
_HERE = Path(__file__).parent


def write_report(
    source: Any,
    images: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    groups: Any = None,
    train: tuple[Any, Any] | None = None,
    card: Card | None = None,
    task: str = "auto",
    cv: int = 5,
    threshold: float = 0.9,
    n_bootstrap: int = 200,
    explain: bool = True,
    title: str | None = None,
    cache: Any = "auto",
    random_state: int = 0,
    progress: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Write one self-contained HTML page on how good a model is, where it fails and what ails its data.

    Scores with intervals, the decision, a map of the images, confusion matrix, classes, calibration,
    learning curve, the most confident mistakes, probable label errors, near-duplicates and leaks. The
    page loads nothing from anywhere.

    Parameters
    ----------
    source : estimator, or array-like of shape (n, d)
        A fitted model that takes images (what `load_model` returns, a pipeline that begins with
        `ImageEmbedder`); or embeddings, row i of image i, NaN where there is none: then the report is
        about a linear probe's out-of-fold predictions.
    images : sequence of n images
        Paths, bytes, PIL images or uint8 arrays.
    y : array-like of shape (n,)
        Their classes, of the type of the model's or as text; or numbers.
    path : path
        Ending in ``.html``; replaced at once when all is written.
    groups : array-like of shape (n,), default=None
        Images of one group are held out together, and count as one draw in the intervals of the classes.
    train : (images, y), default=None
        With a model: what it was trained on. Its near-duplicates among `images` are shown as leaks, and the
        learning curve is that of ever more of these, scored on `images`.
    card : dict, default=None
        With a model: what `read_card` returns. By it the images that the model was trained on are known
        and left out of the scores.
    task : {"auto", "classification", "regression"}, default="auto"
        With embeddings: "regression" takes `y` for numbers; "auto" is classification.
    cv : int >= 2, default=5
        Folds of the linear probe; fewer where a class or `groups` allow no more.
    threshold : float in (0, 1], default=0.9
        From which similarity on two images are near-duplicates; see `near_duplicates`.
    n_bootstrap : int >= 0, default=200
        Resamples for the intervals of other scores than the accuracy and those of classes; 0 gives none.
    explain : bool, default=True
        With a model: show beside each mistake where the evidence for the prediction lies; see `explain`.
    title : str, default=None
        Of the page.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where embeddings are kept for a model that does not begin with an `ImageEmbedder`, which has its own.
    random_state : int, default=0
        Draws folds, resamples, subsets and the map.
    progress : callable, optional
        Called with what is being done, in words.

    Returns
    -------
    dict (JSON)
        All that was found: `scores`, `intervals`, `per_class`, `confusions`, `mistakes`, `label_errors`,
        `near_duplicates`, `leaks`, `learning_curve`, `failures`, `left_out` and more; names of images are
        in full there, and shortened in the page.

    Raises
    ------
    FeatureTLError
        If matplotlib or Jinja2 is not installed.
    ParameterError
        If a parameter has a value that is not accepted.
    InputError
        If lengths differ, `y` holds a class that the model does not know, no image can be read, or
        embeddings cannot be divided into two folds.
    StoreError
        If the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from featuretl import write_report
    >>> digits = load_digits()
    >>> images = [(16 * image).clip(0, 255).astype("uint8") for image in digits.images[:60]]
    >>> X, y = digits.data[:60], digits.target[:60]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = write_report(X, images, y, f"{folder}/report.html", n_bootstrap=0)
    >>> found["scores"]["accuracy"] > 0.7
    True
    """
    target = check_output(path, (".html",))
    template = _template()
    import_pyplot()
    check_int(_OWNER, "cv", cv, 2)
    check_int(_OWNER, "n_bootstrap", n_bootstrap, 0)
    check_share(_OWNER, "threshold", threshold)
    check_option(_OWNER, "task", task, ("auto", "classification", "regression"))
    check_random_state(random_state)
    say = progress or (lambda words: None)
    training = None
    is_model = hasattr(source, "predict")
    if is_model:
        count = lambda done: say(f"Predicted {done:,} of {len(images):,} images")  # noqa: E731
        training = None if train is None else _training(source, train, cache)
        seen = partial(_seen, card or {}, training)
        subject = subject_of_model(source, images, y, groups, seen, cache, cv, random_state, count)
    else:
        if train is not None:
            raise parameter_error(
                _OWNER, "train", "None where embeddings are reported on", "images"
            )
        say("Predicting out of fold")
        is_regression = task == "regression"
        subject = subject_of_embeddings(source, images, y, groups, is_regression, cv, random_state)
    found = examine(subject, training, random_state, threshold, n_bootstrap, say)
    context, left_out = _context(
        found, card or {}, source if explain and is_model else None, random_state, say
    )
    name = title or f"{subject.title} on {len(subject):,} images"
    page = template.render(title=printable(name), **context)

    def write(partial: Path) -> None:
        partial.write_text(as_utf8(page), encoding="utf-8")

    try:
        replace_file(target, write)
    except OSError as error:
        raise StoreError(
            f"The report {printable(target)!r} cannot be written ({error.strerror or error}); choose "
            "another place."
        ) from error
    return {**facts_of(found), "left_out": left_out}


def _template() -> Any:
    """Return the page's template; raises FeatureTLError."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise FeatureTLError(
            "A report needs Jinja2; install it with pip install 'featuretl[report]'."
        ) from error
    # Names come from outside: everything is escaped that does not say that it is markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string((_HERE / "template.html.j2").read_text(encoding="utf-8"))


def _training(model: Any, train: tuple[Any, Any], cache: Any) -> Training:
    """Return the training images that can be read, embedded as the others are."""
    check_takes_images(model)
    images = as_images(train[0], _OWNER)
    y = known_labels(model, train[1])
    if len(y) != len(images):
        raise parameter_error(_OWNER, "train", "images and as many labels", (len(images), len(y)))
    extraction = embedder_of(model, cache).extract(images)
    rows = np.flatnonzero(extraction.ok).tolist()
    return Training(
        names=[name_of(images[i], i) for i in rows],
        images=[images[i] for i in rows],
        y=y[rows],
        X=extraction.rows(np.array(rows, int)),
        keys=extraction.keys[rows],
    )


def _seen(card: Card, training: Training | None, keys: Array) -> Array | None:
    """Return which images were trained on, by the card and by the training images."""
    seen = trained_on(card, keys)
    if training is None:
        return seen
    again = np.isin(keys, training.keys)
    return again if seen is None else seen | again


def _context(
    found: Examination, card: Card, model: Any, seed: int, say: Callable[[str], Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the template shows, and what it leaves out."""
    from markupsafe import Markup

    script = (_HERE / "map.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    subject = found.subject
    say("Drawing the map")
    embedding_map, left_out = map_section(found, seed)
    say("Drawing")
    shown, more_left_out = galleries(found, model)
    context = {
        "subtitle": _subtitle(subject, card),
        "warnings": [printable(warning) for warning in subject.warnings],
        "tiles": tiles(found),
        "scores_are": printable(subject.scores_are.rstrip(".")),
        "decision": decision(subject, card),
        "map": embedding_map,
        "residuals": residuals(found),
        "classes": class_section(found),
        "curves": curves(found),
        "galleries": shown,
        "about": about(subject, card),
        "failures": subject.failures,
        "left_out": left_out + more_left_out,
        "version": featuretl.__version__,
        # Both are files of this package, and hold no text from outside.
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # nosec B704
        "script": Markup(script),  # nosec B704
        "script_hash": f"sha256-{digest}",
    }
    return {**context, "sections": _sections(context)}, left_out + more_left_out


def _subtitle(subject: Subject, card: Card) -> str:
    parts = [f"{len(subject):,} images"]
    if subject.classes is not None:
        parts.append(f"{len(subject.classes):,} classes")
    if card.get("backbone"):
        parts.append(printable(card["backbone"]))
    parts.append(time.strftime("%d %B %Y", time.gmtime()).lstrip("0"))
    return " · ".join(parts)


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the anchors and names of the sections that there are."""
    optional = {
        "decision": "Decision",
        "map": "Map",
        "residuals": "Numbers",
        "classes": "Classes",
        "curves": "Curves",
    }
    return [
        ("summary", "Summary"),
        *((anchor, name) for anchor, name in optional.items() if context[anchor]),
        *((gallery["anchor"], gallery["short"]) for gallery in context["galleries"]),
        ("about", "About"),
    ]
