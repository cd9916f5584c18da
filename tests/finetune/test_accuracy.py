"""The accuracy of fine-tuning on real photographs; training takes minutes, so these tests are slow."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import FineTuneClassifier, ImageEmbedder, LinearProbeClassifier

pytestmark = pytest.mark.slow


def test_hymenoptera_is_not_worse_than_the_probe(shared_data, shared_cache):
    folder = shared_data / "hymenoptera"
    train, val = (featuretl.load_image_folder(folder / part) for part in ("train", "val"))
    embedder = ImageEmbedder(cache=shared_cache)
    probe = LinearProbeClassifier("cv", random_state=0)
    probe.fit(embedder.transform(train.data), train.target)
    before = probe.score(embedder.transform(val.data), val.target)
    model = FineTuneClassifier(cache=shared_cache, random_state=0).fit(train.data, train.target)
    error = np.sqrt(before * (1 - before) / len(val.data))
    assert model.score(val.data, val.target) >= before - error


def test_sign_digits_of_signers_held_out(shared_data, shared_cache):
    signs = featuretl.load_image_folder(shared_data / "sign-digits")
    number = np.array([int(re.findall(r"\d+", Path(p).stem)[-1]) for p in signs.data])
    order = np.lexsort((signs.target, number))
    starts = np.diff(signs.target[order].astype(int), prepend=10) <= 0
    starts |= np.diff(number[order], prepend=0) > 20
    groups = np.empty(len(order), int)
    groups[order] = np.cumsum(starts)
    paths, y = np.array(signs.data), signs.target
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0).split(paths, y, groups)
    train, test = next(split)
    embedder = ImageEmbedder(cache=shared_cache)
    probe = LinearProbeClassifier("cv", random_state=0)
    probe.fit(embedder.transform(paths[train]), y[train], groups=groups[train])
    before = probe.score(embedder.transform(paths[test]), y[test])
    model = FineTuneClassifier(cache=shared_cache, random_state=0)
    model.fit(paths[train].tolist(), y[train], groups=groups[train])
    after = model.score(paths[test].tolist(), y[test])
    print(model.decision_)
    assert model.fine_tuned_
    assert after >= max(0.975, before + 0.015)
