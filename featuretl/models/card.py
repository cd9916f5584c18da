"""Model cards: descriptions of models and their scores, readable without loading the model."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

import featuretl
from featuretl.images.inputs import file_of, key_of, read
from featuretl.models.fitted import Fitted
from featuretl.runtimes.choice import versions
from featuretl.store.store import EmbeddingStore

Card = dict[str, Any]

_SHORT = 8  # bytes of each sha256 in the card, enough to distinguish ten million images


def card_of(model: Any) -> Card:
    """Return the card of a fitted estimator; `featuretl.read_card` describes its entries."""
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
    fitted = Fitted.of(model)
    if fitted.tuned is not None:
        card |= {"backbone": fitted.tuned.spec.name, "weights": fitted.tuned.tensors}
    elif fitted.embedder is not None:
        backbone = fitted.embedder.recipe()["backbone"]
        card |= {"backbone": backbone["name"], "weights": backbone["tensors"]}
    if fitted.novelty is not None:
        card["novelty"] = {"references": len(fitted.novelty[-1].references_)}
    if fitted.tasks is not None:
        card |= {"decision": str(decision or fitted.head.decision_), "tasks": _tasks(fitted)}
    elif fitted.classes is not None:
        card["classes"] = [str(name) for name in fitted.classes]
    return card


def data_of(images: Sequence[Any], y: Sequence[Any], store: EmbeddingStore | None = None) -> Card:
    """Return a card's `data` for n images and labels; files that `store` knows are not read."""
    digest = hashlib.sha256()
    keys = []
    for image, key, label in zip(images, _keys(images, store), y, strict=True):
        keys.append(key or read(image).key)
        digest.update(keys[-1])
        digest.update(f"{label}\n".encode("utf-8", "surrogateescape"))
    contents = base64.b64encode(b"".join(sorted(key[:_SHORT] for key in keys))).decode("ascii")
    data: Card = {"images": len(images), "sha256": digest.hexdigest(), "contents": contents}
    per_image = (labels if isinstance(labels, (list, tuple)) else [labels] for labels in y)
    named = [label for labels in per_image for label in labels]
    if all(isinstance(label, str) for label in named):
        data["per_class"] = dict(sorted(Counter(named).items()))
    return data


def trained_on(card: Card, keys: Any) -> np.ndarray | None:
    """Return which of `keys`, sha256 S32 (n,), an unvalidated card lists: bool (n,), or None."""
    data = card.get("data")
    try:
        contents = base64.b64decode(data["contents"], validate=True)  # type: ignore[index]
        known = np.frombuffer(contents, f"V{_SHORT}")
    except (KeyError, TypeError, ValueError):
        return None
    short = {bytes(key) for key in known}
    return np.array([bytes(key).ljust(32, b"\0")[:_SHORT] in short for key in keys], bool)


def _keys(images: Sequence[Any], store: EmbeddingStore | None) -> list[bytes | None]:
    """Return the sha256 of each file that is unchanged since `store` saw it; None for others."""
    keys: list[bytes | None] = [None] * len(images)
    if store is not None:
        paths = {i: path for i, one in enumerate(images) if (path := file_of(one)) is not None}
        known = store.memo.digests(list(paths.values()))
        for i, digest in zip(paths, known, strict=True):
            keys[i] = digest and key_of(images[i], digest)
    return keys


def _tasks(fitted: Fitted) -> Card:
    """Return the entry `tasks` of a card."""
    decisions = getattr(fitted.model, "decisions_", {})
    tasks: Card = {}
    for name, kind in fitted.head.tasks_.items():
        if name in fitted.classes:
            tasks[name] = {"task": kind, "classes": [str(c) for c in fitted.classes[name]]}
        else:
            tasks[name] = {"task": kind, "range": list(fitted.head.ranges_[name])}
        if name in decisions:
            tasks[name]["metrics"] = _metrics(decisions[name])
    return tasks


def _metrics(decision: Any) -> Card | None:
    outer = decision.outer
    if math.isnan(outer.score):
        return None
    interval = {name: getattr(outer, name) for name in ("score", "low", "high")}
    finite = {name: value if math.isfinite(value) else None for name, value in interval.items()}
    return {"name": decision.score_name, **finite, "images": outer.images}
