"""The card of a model: what it is and how good, for people, readable without loading it."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import featuretl
from featuretl._runtime import versions
from featuretl.images.inputs import read
from featuretl.store.store import EmbeddingStore

Card = dict[str, Any]


def card_of(model: Any) -> Card:
    """Return what a fitted model says of itself (JSON).

    Parameters
    ----------
    model : estimator

    Returns
    -------
    dict
        `model`, its class; `created`, UTC; `versions`; where they are known `backbone`, `weights`
        (sha256 of its tensors), `strategy`, `classes` (as text), `decision` (sentences) and
        `metrics`: `name`, `score`, `low` and `high` (the 95% interval) and `images`, held out.
    """
    libraries = versions(("torch", "timm", "pillow", "scikit-learn", "numpy"))
    card: Card = {
        "model": type(model).__name__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"featuretl": featuretl.__version__, **libraries},
    }
    decision: Any = getattr(model, "decision_", None)
    if hasattr(decision, "outer"):
        card |= {"strategy": decision.strategy, "decision": decision.explain()}
        card["metrics"] = _metrics(decision)
    inner = getattr(model, "estimator_", model)
    if hasattr(inner, "_tuned"):
        card |= {"backbone": inner._tuned.spec.name, "weights": inner._tuned.tensors}
    embedder = inner.steps[0][1] if hasattr(inner, "steps") else inner
    if hasattr(embedder, "recipe"):
        backbone = embedder.recipe()["backbone"]
        card |= {"backbone": backbone["name"], "weights": backbone["tensors"]}
    if hasattr(model, "classes_"):
        card["classes"] = [str(name) for name in model.classes_]
    return card


def data_of(images: Sequence[Any], y: Sequence[Any], store: EmbeddingStore | None = None) -> Card:
    """Return what a card says of the data.

    Parameters
    ----------
    images : sequence of n images
    y : sequence of n labels, numbers or lists of labels
    store : EmbeddingStore, optional
        Where an extraction left the digests of files: these are not read again.

    Returns
    -------
    dict
        `images`, how many; `sha256` over the contents and labels, in order; `per_class`, images per
        label, where labels are text.
    """
    digest = hashlib.sha256()
    for image, key, label in zip(images, _keys(images, store), y, strict=True):
        digest.update(key or read(image).key)
        digest.update(f"{label}\n".encode("utf-8", "surrogateescape"))
    data: Card = {"images": len(images), "sha256": digest.hexdigest()}
    per_image = (labels if isinstance(labels, (list, tuple)) else [labels] for labels in y)
    named = [label for labels in per_image for label in labels]
    if all(isinstance(label, str) for label in named):
        data["per_class"] = dict(sorted(Counter(named).items()))
    return data


def _keys(images: Sequence[Any], store: EmbeddingStore | None) -> list[bytes | None]:
    """Return the sha256 of every file whose state is as a store remembers it, None of the others."""
    keys: list[bytes | None] = [None] * len(images)
    files = [i for i, image in enumerate(images) if isinstance(image, (str, os.PathLike))]
    if store is not None:
        paths = [os.fspath(images[i]) for i in files]
        for i, key in zip(files, store.memo.digests(paths), strict=True):
            keys[i] = key
    return keys


def _metrics(decision: Any) -> Card | None:
    outer = decision.outer
    if math.isnan(outer.score):
        return None
    interval = {name: getattr(outer, name) for name in ("score", "low", "high")}
    finite = {name: value if math.isfinite(value) else None for name, value in interval.items()}
    return {"name": decision.score_name, **finite, "images": outer.images}
