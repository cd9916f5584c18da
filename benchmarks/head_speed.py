"""Speed and memory of the linear head compared with scikit-learn.

    python benchmarks/head_speed.py fit         one fit, 50,000 x 1,280; also LogisticRegression
    python benchmarks/head_speed.py path        10 values of C x 5 folds; also scikit-learn
    python benchmarks/head_speed.py memory      2,000,000 x 1,280 float16 as a memory map
    python benchmarks/head_speed.py memory --rows 100000 --classes 1000
    python benchmarks/head_speed.py few         C="cv" on few rows; seconds of ours only

`--json` prints one JSON list instead of a table. Contenders of `fit` and `path` alternate in one
process; seconds are medians over the repeats. scikit-learn receives standardised float32 features,
which is not timed; the time of our heads includes standardisation.
"""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import DATA, show
from PIL import Image
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

import featuretl
from featuretl import LinearProbeClassifier

ROWS, COLUMNS, CLASSES = 50_000, 1280, 10


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""
    warnings.simplefilter("ignore")


@main.command()
@click.option("--data", type=click.Choice(["synthetic", "real"]), default="synthetic")
@click.option("--c", "C", default=0.01, show_default=True, help="C for all contenders.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fit(data: str, C: float, repeats: int, as_json: bool) -> None:
    """Compare single fits: seconds and objective, relative to the best objective."""
    X, y = _many_rows(data)
    Z = StandardScaler().fit_transform(X)

    def ours() -> tuple[Any, Any]:
        return _on_standardised(LinearProbeClassifier(C, scaling="features").fit(X, y), X)

    def ours_tight() -> tuple[Any, Any]:
        head = LinearProbeClassifier(C, scaling="features", tol=1e-6).fit(X, y)
        return _on_standardised(head, X)

    def plain() -> tuple[Any, Any]:
        head = LogisticRegression(C=C).fit(Z, y)
        return head.coef_, head.intercept_

    def tight() -> tuple[Any, Any]:
        with _one_scipy_thread():
            head = LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(Z, y)
        return head.coef_, head.intercept_

    contenders = {
        "LinearProbeClassifier()": ours,
        "LinearProbeClassifier(tol=1e-6)": ours_tight,
        "LogisticRegression()": plain,
        "LogisticRegression(tol=1e-6), one scipy thread": tight,
    }
    seconds, results = _alternate(contenders, repeats)
    objective = {name: _objective(Z, y, C, *results[name]) for name in contenders}
    best = min(objective.values())
    table = [
        {
            "data": data,
            "contender": name,
            "seconds": float(np.median(seconds[name])),
            "times ours": float(np.median(seconds[name]) / np.median(seconds[next(iter(seconds))])),
            "objective": objective[name],
            "relative excess": objective[name] / best - 1,
        }
        for name in contenders
    ]
    show(table, as_json)


@main.command()
@click.option("--data", type=click.Choice(["synthetic", "real"]), default="synthetic")
@click.option("--rows", default=ROWS, show_default=True)
@click.option("--repeats", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def path(data: str, rows: int, repeats: int, as_json: bool) -> None:
    """Compare searches for C: seconds, the chosen C and its cross-validated accuracy."""
    X, y = (array[:rows] for array in _many_rows(data))
    Z = StandardScaler().fit_transform(X)
    Cs = np.logspace(-5, -0.5, 10)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))

    def ours() -> tuple[float, float]:
        ours = {"cv": folds, "scoring": "accuracy", "scaling": "features"}
        head = LinearProbeClassifier("cv", Cs=Cs, **ours).fit(X, y)
        return head.C_, head.path_.accuracy.mean(axis=1).max()

    def logistic_cv() -> tuple[float, float]:
        with _one_scipy_thread():
            head = LogisticRegressionCV(
                Cs=Cs, cv=folds, scoring="accuracy", l1_ratios=(0,), use_legacy_attributes=False
            ).fit(Z, y)
        return float(head.C_), float(head.scores_.mean(axis=0).max())

    def grid() -> tuple[float, float]:
        search = GridSearchCV(LogisticRegression(), {"C": Cs}, cv=folds, n_jobs=2).fit(Z, y)
        return search.best_params_["C"], search.best_score_

    contenders = {
        "LinearProbeClassifier('cv')": ours,
        "LogisticRegressionCV, one scipy thread": logistic_cv,
        "GridSearchCV(LogisticRegression(), n_jobs=2)": grid,
    }
    seconds, results = _alternate(contenders, repeats)
    table = [
        {
            "data": data,
            "rows": rows,
            "contender": name,
            "seconds": float(np.median(seconds[name])),
            "times ours": float(np.median(seconds[name]) / np.median(seconds[next(iter(seconds))])),
            "C": float(results[name][0]),
            "accuracy": float(results[name][1]),
        }
        for name in contenders
    ]
    show(table, as_json)


@main.command()
@click.option("--rows", default=2_000_000, show_default=True)
@click.option("--classes", default=CLASSES, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def memory(rows: int, classes: int, as_json: bool) -> None:
    """Fit on a float16 memory map; the peak memory includes mapped pages of the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "X.npy"
        X = np.lib.format.open_memmap(file, "w+", np.float16, (rows, COLUMNS))
        y = np.empty(rows, int)
        for start, block, codes in _synthetic_blocks(rows, classes):
            X[start : start + len(block)] = block
            y[start : start + len(block)] = codes
        X.flush()
        del X
        mapped = np.load(file, mmap_mode="r")
        began = time.perf_counter()
        head, peak = _peak_mib(lambda: LinearProbeClassifier(1e-3).fit(mapped, y))
        row = {
            "rows": rows,
            "classes": classes,
            "file MiB": mapped.nbytes / 2**20,
            "peak MiB": peak,
            "seconds": time.perf_counter() - began,
            "passes": head.n_iter_,
        }
    show([row], as_json)


@main.command()
@click.option("--repeats", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def few(repeats: int, as_json: bool) -> None:
    """Search for C on real embeddings of a few photographs of 2 and of 10 signs."""
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    X, y = featuretl.ImageEmbedder().transform(signs.data), np.asarray(signs.target)
    table = []
    for rows, classes in ((100, 2), (300, 2), (300, 10), (600, 10)):
        known = np.flatnonzero(np.isin(y, np.unique(y)[:classes]))
        some = np.random.default_rng(0).choice(known, rows, replace=False)
        search = LinearProbeClassifier("cv", random_state=0)
        seconds, _ = _alternate({"": partial(search.fit, X[some], y[some])}, repeats)
        row = {"rows": rows, "classes": classes, "seconds": float(np.median(seconds[""]))}
        table.append(row | {"values of C": len(search.path_.C)})
    show(table, as_json)


def _many_rows(data: str) -> tuple[Any, Any]:
    """Return 50,000 x 1,280 float32: views of sign-digits, or Gaussians with decaying spectrum."""
    if data == "real":
        return _views_of_signs()
    blocks = list(_synthetic_blocks(ROWS))
    return np.concatenate([b for _, b, _ in blocks]), np.concatenate([c for *_, c in blocks])


def _views_of_signs() -> tuple[Any, Any]:
    """Return embeddings of rotated and cropped views (the first is the photograph itself)."""
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    images = [Image.open(path).convert("RGB") for path in signs.data]
    embedder = featuretl.ImageEmbedder()
    views = -(-ROWS // len(images))
    X = [
        embedder.transform([_view(image, i, v) for i, image in enumerate(images)])
        for v in range(views)
    ]
    return np.concatenate(X)[:ROWS], np.tile(signs.target, views)[:ROWS]


def _view(image: Any, number: int, view: int) -> Any:
    if view == 0:
        return image
    rng = np.random.default_rng([number, view])
    turned = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    width, height = image.size
    part = rng.uniform(0.8, 1)
    left, top = rng.uniform(0, 1 - part, 2) * (width, height)
    box = (left, top, left + part * width, top + part * height)
    return turned.resize(image.size, Image.Resampling.BILINEAR, box=box)


def _synthetic_blocks(rows: int, classes: int = CLASSES) -> Iterator[tuple[int, Any, Any]]:
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, COLUMNS + 1, dtype=np.float32) ** -0.5
    basis = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS), dtype=np.float32))[0]
    weights = rng.standard_normal((COLUMNS, classes), dtype=np.float32)
    for start in range(0, rows, 10_000):
        size = min(10_000, rows - start)
        block = (rng.standard_normal((size, COLUMNS), dtype=np.float32) * spectrum) @ basis.T
        logits = block @ weights
        yield start, block, (3 * logits / logits.std() + rng.gumbel(size=logits.shape)).argmax(1)


def _alternate(
    contenders: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run the contenders alternately, `repeats` times; return seconds and the last results."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def _one_scipy_thread() -> Any:
    """Limit SciPy's BLAS pool, which competes with NumPy's; scikit-learn is fastest this way."""
    controller = ThreadpoolController()
    own = [lib.filepath for lib in controller.lib_controllers if "scipy.libs" in lib.filepath]
    return controller.select(filepath=own).limit(limits=1)


def _on_standardised(head: Any, X: Any) -> tuple[Any, Any]:
    """Return the coefficients and intercepts of `head` in terms of standardised features."""
    mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    coef = head.coef_.astype(np.float64)
    return coef * scale, head.intercept_ + coef @ mean


def _objective(Z: Any, y: Any, C: float, coef: Any, intercept: Any) -> float:
    """Return scikit-learn's objective divided by C n, in float64."""
    total = 0.0
    for start in range(0, len(Z), 5000):
        logits = Z[start : start + 5000].astype(np.float64) @ coef.T + intercept
        true = logits[np.arange(len(logits)), y[start : start + 5000]]
        top = logits.max(axis=1)
        total += (np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - true).sum()
    return float(total / len(Z) + np.square(coef).sum() / (2 * C * len(Z)))


def _peak_mib(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `run` and the growth of peak resident memory in MiB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_mib("VmRSS")
    result = run()
    return result, _status_mib("VmHWM") - before


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
