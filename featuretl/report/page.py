"""write_report: an HTML page about a model, or about embeddings, on labelled images."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import featuretl
from featuretl._core.files import check_output, replace_file, write_errors_as
from featuretl._core.lazy import import_extra
from featuretl._core.parameters import (
    check_int,
    check_number,
    check_option,
    import_pyplot,
    parameter_error,
    random_generator,
)
from featuretl._core.statistics import RESAMPLES
from featuretl._core.text import as_utf8, printable
from featuretl._learning.columns import in_column
from featuretl._learning.groups import read_groups, subset
from featuretl.exceptions import StoreError
from featuretl.extraction.statistics import Failure
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images
from featuretl.models.card import Card
from featuretl.models.fitted import Fitted, is_model
from featuretl.prediction.evaluate import known_tasks
from featuretl.report.embedding_map import map_section
from featuretl.report.examination import Examination, examine, facts_of
from featuretl.report.galleries import galleries
from featuretl.report.sections import about, class_section, curves, decision, residuals, tiles
from featuretl.report.subject import Subject, subject_of_embeddings, subject_of_model

_OWNER = "write_report"
_HERE = Path(__file__).parent


def write_report(
    model: Any,
    X: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    groups: Any = None,
    train: tuple[Any, Any] | None = None,
    card: Card | None = None,
    task: str = "auto",
    cv: int = 5,
    threshold: float = 0.9,
    n_bootstrap: int = RESAMPLES,
    explain: bool = True,
    title: str | None = None,
    cache: Any = "auto",
    random_state: int = 0,
    progress: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Write a self-contained HTML page of metrics, failure cases and data-quality issues.

    The page shows scores with intervals, the decision, a map of the images, the confusion matrix,
    per-class scores, calibration, the learning curve, the most confident mistakes, probable label
    errors, near-duplicates and leaks.

    Parameters
    ----------
    model : estimator, or array-like of shape (n, d)
        A fitted model that takes images; or embeddings, one row per image (NaN without an
        embedding), for a report on the out-of-fold predictions of a linear probe.
    X : sequence of n images
        As for `ImageEmbedder`.
    y : array-like of shape (n,)
        Classes, of the model's type or as text, or regression targets. For a multi-task model, a
        DataFrame or dict with a column for each task to report on; None, NaN and "" are missing
        labels.
    path : path
        Ending in ``.html``; replaced atomically.
    groups : array-like of shape (n,), default=None
        Images of one group are in the same fold and count as one draw in all intervals. The default
        for crops is their file.
    train : (images, y), default=None
        Training images and labels of a model. Their near-duplicates in `X` are shown as
        leaks, and the learning curve is trained on subsets of them and scored on `X`.
    card : dict, default=None
        Card of a model (`read_card`). It identifies training images among `X`, which are
        excluded from the scores.
    task : {"auto", "classification", "regression"}, default="auto"
        Task of a report on embeddings; "auto" is classification.
    cv : int >= 2, default=5
        Folds of the linear probe; fewer if a class or `groups` are too small.
    threshold, n_bootstrap
        As in `near_duplicates` and `metrics_report`; per-class intervals need no resamples.
    explain : bool, default=True
        Show the evidence for a model's prediction beside each mistake; see `explain`.
    title : str, default=None
        Page title.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Embedding store for a model that does not begin with an `ImageEmbedder`.
    random_state : int, default=0
        Seed of folds, resamples, subsets and the map.
    progress : callable, optional
        Called with a description of the current step.

    Returns
    -------
    dict (JSON)
        `scores`, `intervals`, `per_class`, `confusions`, `mistakes`, `label_errors`,
        `near_duplicates`, `leaks`, `learning_curve`, `failures`, `left_out` and more, with full
        names of images. For a multi-task model, `tasks` has such a dict for each task.

    Raises
    ------
    ParameterError, InputError
        If a parameter is invalid, lengths differ, `y` has a class that the model does not know, no
        image can be read, or the embeddings cannot be split into two folds.
    StoreError, FeatureTLError
        If the page cannot be written, or matplotlib or Jinja2 is not installed.

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
    check_number(_OWNER, "threshold", threshold, "(0, 1]")
    check_option(_OWNER, "task", task, ("auto", "classification", "regression"))
    random_generator(_OWNER, random_state)
    report_step = progress or (lambda step: None)
    if is_model(model):
        count = lambda n: report_step(f"Predicted {n:,} of {len(X):,} images")  # noqa: E731
        options = (card or {}, cache, cv, random_state, count)
        subjects = _subjects_of_model(model, X, y, groups, train, *options)
    else:
        if train is not None:
            raise parameter_error(_OWNER, "train", "None for a report on embeddings", "images")
        report_step("Cross-validating")
        is_regression = task == "regression"
        subject = subject_of_embeddings(model, X, y, groups, is_regression, cv, random_state)
        subjects = {"": subject}
    parts = {
        name: examine(subject, random_state, threshold, n_bootstrap, report_step)
        for name, subject in subjects.items()
    }
    context = _context(parts, card or {}, model, explain, random_state, report_step)
    main = _main_of(parts)[1].subject
    kind = main.title if "" in parts else type(model).__name__
    page = template.render(title=printable(title or f"{kind} on {len(main):,} images"), **context)
    with write_errors_as(StoreError, "The report", target):
        replace_file(target, lambda partial: partial.write_bytes(as_utf8(page).encode()))
    return {**_facts_of(parts), "left_out": context["left_out"]}


def _facts_of(parts: dict[str, Examination]) -> dict[str, Any]:
    """Return all findings as JSON; for a multi-task model by task."""
    facts = {name: facts_of(found) for name, found in parts.items()}
    if "" in facts:
        return facts[""]
    failures = [{"path": f.name, "error": f.message} for f in _failures(parts)]
    return {"task": "several", "tasks": facts, "failures": failures}


def _subjects_of_model(
    model: Any, images: Any, y: Any, groups: Any, train: Any, *options: Any
) -> dict[str, Subject]:
    """Return the subject of each task of a model; its name is "" for a model of one task."""
    fitted = Fitted.of_images(model)
    tasks = fitted.tasks
    if tasks is None:
        return {"": subject_of_model(model, images, y, groups, train, *options)}
    images = as_images(images, _OWNER)
    group = read_groups(_OWNER, or_files(groups, images), len(images))
    training = {} if train is None else known_tasks(fitted, train[1], len(train[0]), _OWNER)
    subjects = {}
    for name, (rows, labels) in known_tasks(fitted, y, len(images), _OWNER).items():
        own_train = None
        if name in training:
            training_rows, training_y = training[name]
            own_train = [train[0][i] for i in training_rows], training_y
        own = [images[i] for i in rows], labels, subset(group, rows), own_train
        with in_column(name):
            subjects[name] = subject_of_model(tasks[name].model, *own, *options)
    return subjects


def _main_of(parts: dict[str, Examination]) -> tuple[str, Examination]:
    """Return the task with the most labelled images, which the map and the pairs show."""
    return max(parts.items(), key=lambda part: len(part[1].subject))


def _failures(parts: dict[str, Examination]) -> list[Failure]:
    """Return the unreadable images of all tasks without repetition."""
    return list({f.name: f for part in parts.values() for f in part.subject.failures}.values())


def _template() -> Any:
    """Return the template of the page. Raises FeatureTLError without Jinja2."""
    jinja2 = import_extra("jinja2", "A report needs Jinja2", "report")
    # Names are untrusted: everything except Markup is escaped.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((_HERE / "template.html.j2").read_text(encoding="utf-8"))


def _context(
    parts: dict[str, Examination], card: Card, source: Any, explain: bool, seed: int,
    progress: Callable[[str], Any],
) -> dict[str, Any]:  # fmt: skip
    """Return the context of the template; its `left_out` says what the page omits."""
    from markupsafe import Markup

    script = (_HERE / "map.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    main_name, main = _main_of(parts)
    progress("Drawing the map")
    embedding_map, left_out = map_section(main, seed)
    progress("Drawing the figures")
    shown = []
    for number, (name, found) in enumerate(parts.items()):
        part, more_left_out = _part(name, found, card, source, explain, found is main)
        shown.append({**part, "ending": f"-{number + 1}" if name else ""})
        left_out += [f"{part['heading']}{line}" for line in more_left_out]
    if "" not in parts:
        embedding_map["words"] += f" Colours and mistakes are those of {printable(main_name)}."
    return {
        "sections": _sections(shown),
        "subtitle": _subtitle(parts, card),
        "parts": shown,
        "map": embedding_map,
        "about": about(main.subject, card),
        "failures": _failures(parts),
        "left_out": left_out,
        "version": featuretl.__version__,
        # Both are files of this package without untrusted text.
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # nosec B704
        "script": Markup(script),  # nosec B704
        "script_hash": f"sha256-{digest}",
    }


def _part(
    name: str, found: Examination, card: Card, source: Any, explain: bool, is_main: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the sections of a task, and sentences on what they omit."""
    subject = found.subject
    made = getattr(subject.model, "decision_", None)
    made = getattr(source, "decisions_", {}).get(name) if name else made
    shown, left_out = galleries(found, subject.model if explain else None, pairs=is_main)
    return {
        "name": printable(name),
        "heading": f"{printable(name)}: " if name else "",
        "warnings": [printable(warning) for warning in subject.warnings],
        "tiles": tiles(found),
        "scores_are": printable(subject.scores_are.rstrip(".")),
        "decision": decision(made, {} if name else card),
        "residuals": residuals(found),
        "classes": class_section(found),
        "curves": curves(found),
        "galleries": shown,
    }, left_out


def _subtitle(parts: dict[str, Examination], card: Card) -> str:
    subject = _main_of(parts)[1].subject
    words = [f"{len(subject):,} images"]
    if "" not in parts:
        words.append(f"{len(parts)} tasks")
    elif subject.classes is not None:
        words.append(f"{len(subject.classes):,} classes")
    if card.get("backbone"):
        words.append(printable(card["backbone"]))
    words.append(time.strftime("%d %B %Y", time.gmtime()).lstrip("0"))
    return " · ".join(words)


def _sections(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return anchors and names for the navigation: sections, or the tasks of a multi-task model."""
    if parts[0]["name"]:
        tasks = [(f"task{part['ending']}", part["name"]) for part in parts]
        return [("summary", "Summary"), ("map", "Map"), *tasks, ("about", "About")]
    (part,) = parts
    first = [("decision", "Decision")] if part["decision"] else []
    optional = {"residuals": "Residuals", "classes": "Classes", "curves": "Curves"}
    return [
        ("summary", "Summary"),
        *first,
        ("map", "Map"),
        *((anchor, name) for anchor, name in optional.items() if part[anchor]),
        *((gallery.anchor, gallery.short) for gallery in part["galleries"]),
        ("about", "About"),
    ]
