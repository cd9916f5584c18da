"""Accuracy of the heads on real photographs, with the packaged backbone."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_limits

import featuretl
from featuretl import LinearProbeClassifier, SVMProbeClassifier
from featuretl._learning.metrics import metrics_report


@pytest.fixture(scope="module")
def signs(shared_data, shared_cache):
    """Embeddings (112 averages of block 10, then 1,280 pre-logits), digits and signers."""
    folder = featuretl.load_image_folder(shared_data / "sign-digits")
    number = np.array([int(re.findall(r"\d+", Path(p).stem)[-1]) for p in folder.data])
    digit = folder.target.astype(int)
    order = np.lexsort((digit, number))
    # The file numbers of one signer are consecutive and ordered by digit.
    starts = np.diff(digit[order], prepend=10) <= 0
    starts |= np.diff(number[order], prepend=0) > 20
    groups = np.empty(len(order), int)
    groups[order] = np.cumsum(starts)
    embedder = featuretl.ImageEmbedder(layers=[3, "pre_logits"], cache=shared_cache)
    return embedder.transform(folder.data), folder.target, groups


def grouped_accuracy(head, X, y, groups):
    """Return the accuracy on the first of 5 outer folds; no fold splits a signer."""
    train, test = next(GroupKFold(5, shuffle=True, random_state=0).split(X, y, groups))
    return head.fit(X[train], y[train], groups=groups[train]).score(X[test], y[test])


@pytest.mark.slow
def test_sign_digits(signs):
    X, y, groups = signs
    assert len(np.unique(groups)) == 220
    X = X[:, 112:]
    linear = LinearProbeClassifier("cv", random_state=0)
    assert grouped_accuracy(linear, X, y, groups) >= 0.93
    svm = SVMProbeClassifier(random_state=0)
    assert grouped_accuracy(svm, X, y, groups) >= 0.92


@pytest.mark.slow
def test_sign_digits_with_the_averages_of_block_10(signs):
    X, y, groups = signs
    assert X.shape[1] == 1392
    linear = LinearProbeClassifier("cv", random_state=0)
    assert grouped_accuracy(linear, X, y, groups) >= 0.94


def test_hymenoptera(shared_data, shared_cache):
    folder = shared_data / "hymenoptera"
    train, val = (featuretl.load_image_folder(folder / part) for part in ("train", "val"))
    embedder = featuretl.ImageEmbedder(cache=shared_cache)
    head = LinearProbeClassifier("cv", random_state=0)
    head.fit(embedder.transform(train.data), train.target)
    assert head.score(embedder.transform(val.data), val.target) >= 0.94


def out_of_fold_report(head, X, y, splits):
    y_pred, proba = np.empty_like(y), None
    for train, test in splits:
        head.fit(X[train], y[train])
        score = head.predict_proba(X[test])
        proba = np.empty((len(y), score.shape[1])) if proba is None else proba
        y_pred[test], proba[test] = head.predict(X[test]), score
    return metrics_report(y, y_pred, proba, n_bootstrap=0).scores


@pytest.mark.slow
def test_emoji_beats_logistic_regression_as_it_comes(shared_data, shared_cache):
    folder = featuretl.load_image_folder(shared_data / "emoji" / "google")
    X = featuretl.ImageEmbedder(cache=shared_cache).transform(folder.data)
    with (shared_data / "emoji" / "tags.csv").open(encoding="utf-8") as file:
        tags = {row["image"]: row["tags"].split() for row in csv.DictReader(file)}
    names = sorted({tag for row in tags.values() for tag in row})
    rows = [tags[Path(path).name] for path in folder.data]
    Y = np.array([[tag in row for tag in names] for row in rows]).astype(int)
    rival = OneVsRestClassifier(LogisticRegression())
    categories = LinearProbeClassifier("cv", random_state=0)
    several = LinearProbeClassifier(0.03, scaling="common", class_weight="balanced")
    cases = [
        (folder.target, StratifiedKFold, ["accuracy", "f1_macro"], categories),
        (Y, KFold, ["f1_macro", "average_precision"], several),
    ]
    for y, folds, names_of_scores, head in cases:
        splits = list(folds(5, shuffle=True, random_state=0).split(X, folder.target))
        ours = out_of_fold_report(head, X, y, splits)
        # Competing BLAS thread pools would make the rival ten times slower.
        with threadpool_limits(1, user_api="blas"):
            theirs = out_of_fold_report(rival, X, y, splits)
        for name in names_of_scores:
            assert ours[name] > theirs[name], name
