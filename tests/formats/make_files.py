"""Writes the files that `test_files.py` reads.

``PYTHONPATH=tests/reliability python tests/formats/make_files.py FOLDER`` made those of v1.

When a format changes, add a folder beside the earlier ones and keep those: files of every
released version must stay readable.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import known_rows
import numpy as np
from sklearn.datasets import load_iris, load_sample_images
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

import featuretl as ftl
from featuretl.extraction.outputs import save_embeddings
from featuretl.heads import svm
from featuretl.images.sources import ImageList
from featuretl.store.exchange import export_shared

N_ROWS = 20
NAMES = [f"{i}.png" for i in range(4)]


def rows() -> tuple[Any, Any]:
    """Return float32 (150, 4) and names of classes."""
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), np.array(["setosa", "versicolor", "virginica"])[y]


def two_views(X: Any) -> Any:
    """Return two views of each row, one after the other: (n, 8)."""
    return np.hstack([X, X + np.float32(0.1)])


def images() -> tuple[list[Any], list[str]]:
    """Return 24 crops of two photographs, by turns, and what they show."""
    photos = load_sample_images().images
    crops = [p[20 * i : 20 * i + 97, 25 * i : 25 * i + 120] for i in range(12) for p in photos]
    return crops, ["temple", "flower"] * 12


def heads() -> dict[str, Any]:
    """Return fitted models of embeddings."""
    X, y = rows()
    some = y.astype(object)
    some[::2] = None
    tags = np.c_[y == "setosa", y != "virginica"].astype(int)
    parts = two_views(X)
    table = {"species": y, "petal": X[:, 3]}
    found = {
        "linear": ftl.LinearProbeClassifier("cv", calibrate=True, random_state=0).fit(X, y),
        "labels": ftl.LinearProbeClassifier().fit(X, tags),
        "numbers": ftl.LinearProbeRegressor().fit(X, X[:, 2:]),
        "nearest-mean": ftl.NearestMeanClassifier().fit(X, y),
        "self-training": ftl.SemiSupervisedProbeClassifier(
            method="self-training", random_state=0
        ).fit(X, some),
        "semi-supervised": ftl.SemiSupervisedProbeClassifier(random_state=0).fit(X, some),
        "svm": ftl.SVMProbeClassifier(random_state=0).fit(X, y),
        "svm-rbf": ftl.SVMProbeClassifier(kernel="rbf", random_state=0).fit(X, y),
        "attention": ftl.heads.AttentionPoolingClassifier(2).fit(parts, y),
        "views": make_pipeline(ftl.heads.ViewPooling(2), ftl.LinearProbeClassifier()).fit(parts, y),
        "views-each": ftl.heads.ViewsClassifier(2).fit(parts, y),
        "several-tasks": ftl.MultiTaskHead().fit(X, table),
        "novelty": ftl.NoveltyDetector(random_state=0).fit(X),
        "logistic": make_pipeline(StandardScaler(), PCA(2), LogisticRegression()).fit(X, y),
        "svc": make_pipeline(StandardScaler(), SVC()).fit(X, y),
        "linear-svc": LinearSVC().fit(X, y),
        "ridge": Ridge().fit(X, X[:, 0]),
        "svr": SVR().fit(X, X[:, 0]),
    }
    svm._MOST_EXACT_ROWS = 100
    found["svm-approximated"] = ftl.SVMProbeClassifier(kernel="rbf", random_state=0).fit(X, y)
    return found


def small_network(path: Path) -> Path:
    """Write weights of timm's "test_resnet" that are the same on every machine."""
    import safetensors.numpy
    import timm

    random = np.random.default_rng(0)
    state = {}
    for name, tensor in timm.create_model("test_resnet").state_dict().items():
        values = random.normal(0, 0.1, tuple(tensor.shape)).astype(np.float32)
        is_scale = name.endswith("running_var") or (values.ndim == 1 and "weight" in name)
        state[name] = (1 + np.abs(values) if is_scale else values).astype(str(tensor.numpy().dtype))
    safetensors.numpy.save_file(state, path)
    return path


def image_models(weights: Path) -> dict[str, Any]:
    """Return fitted models of images; the tuned ones are of `small_network`."""
    crops, y = images()
    number = np.linspace(-1, 3, len(crops))
    tuned = {
        "backbone": "test_resnet",
        "weights": weights,
        "n_blocks": 1,
        "learning_rate": 0.003,
        "epochs": 2,
        "augment": "none",
    }
    chosen = {"cv": 3, "random_state": 0, "test_size": 0.5}
    return {
        "pipeline": make_pipeline(ftl.ImageEmbedder(), ftl.LinearProbeClassifier()).fit(crops, y),
        "transfer": ftl.TransferClassifier("linear", **chosen).fit(crops, y),
        "transfer-number": ftl.TransferRegressor("linear", **chosen).fit(crops, number),
        "transfer-tasks": ftl.TransferMultiTask(random_state=0, test_size=0.5).fit(
            crops, {"what": y, "number": number}
        ),
        "tuned": ftl.FineTuneClassifier(**tuned, random_state=0).fit(crops, y),
        "tuned-number": ftl.FineTuneRegressor(**tuned, random_state=0).fit(crops, number),
    }


def main(folder: Path) -> None:
    """Write all files."""
    warnings.simplefilter("ignore")
    (folder / "models").mkdir(parents=True)
    parts = two_views(rows()[0])
    expected = {}
    for name, model in heads().items():
        ftl.save_model(model, folder / "models" / f"{name}.featuretl")
        X = parts if name in ("attention", "views", "views-each") else rows()[0]
        expected[name] = output_of(model, X[::7])
    with tempfile.TemporaryDirectory() as weights:
        for name, model in image_models(small_network(Path(weights) / "w.safetensors")).items():
            ftl.save_model(model, folder / "models" / f"{name}.featuretl")
            expected[name] = output_of(model, images()[0][:6])
    np.savez_compressed(folder / "expected.npz", **expected)
    store = ftl.EmbeddingStore(folder / "store")
    known_rows.put(store, range(N_ROWS // 2))
    known_rows.put(store, range(N_ROWS // 2, N_ROWS))
    export_shared(store, ftl.store.SharedStore(folder / "shared"))
    with tempfile.TemporaryDirectory() as cache:
        crops, y = images()
        found = ftl.extract(crops[:4], store=ftl.EmbeddingStore(cache))
        for ending in ("npy", "npz", "parquet"):
            save_embeddings(folder / f"embeddings.{ending}", found, ImageList(NAMES, y[:4]))
    shutil.rmtree(folder / "store" / "claims", ignore_errors=True)


def output_of(model: Any, X: Any) -> Any:
    """Return probabilities, scores or numbers, whichever a model gives; of several tasks the first's."""
    given = (name for name in ("predict_proba", "decision_function") if hasattr(model, name))
    found = getattr(model, next(given, "predict"))(X)
    return next(iter(found.values())) if isinstance(found, dict) else found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
