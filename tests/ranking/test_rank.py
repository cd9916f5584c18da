"""Ranking real images: scores, halving and ties; no image is embedded twice."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    load_backbone,
    load_image_folder,
    rank_backbones,
)
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ImageError, InputError, ParameterError
from featuretl.ranking import log_me
from featuretl.ranking.methods import FoldedTargets
from featuretl.ranking.rank import _place_in_samples

DIGITS = load_digits()
IMAGES = (DIGITS.images[:120] * 15).astype(np.uint8)[..., None].repeat(3, axis=3)
VALUES = DIGITS.target[:120]
FEW = slice(0, 80)
MEASURED = ["images_per_second", "ms_per_image"]


def tiny(**how: Any) -> BackboneSpec:
    return BackboneSpec.of("test", "test_resnet", weights="random", **how)


def rank(*args: Any, **kwargs: Any) -> pd.DataFrame:
    """Rank without the warning of ties."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatureTLWarning)
        return rank_backbones(*args, **kwargs)


@pytest.fixture(autouse=True)
def _untimed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing takes seconds for each backbone; a single test does it, on few images."""
    monkeypatch.setattr("featuretl.ranking.speed._IMAGES_PER_THREAD", 2)
    if request.node.name != "test_photographs_are_ranked_and_nothing_is_embedded_again":
        monkeypatch.setattr("featuretl.ranking.speed.time_extraction", lambda *args, **how: 100.0)


@pytest.fixture
def layers() -> dict[str, BackboneSpec]:
    """Four candidates of one small network."""
    return {
        "avg": tiny(),
        "max": tiny(pooling="max"),
        "layer 0": tiny(layers=0),
        "layer 1": tiny(layers=1),
    }


def test_photographs_are_ranked_and_nothing_is_embedded_again(photo_folder: Path, forwards):
    photos = load_image_folder(photo_folder)
    names = ["tf_efficientnet_lite1", "tf_efficientnet_lite0"]
    with pytest.warns(FeatureTLWarning, match="'tf_efficientnet_lite1' over 'tf_efficientnet_l"):
        first = rank_backbones(photos.data, photos.target, names)
    assert first["backbone"].tolist() == names
    assert (first["low"] < first["score"]).all()
    assert (first["score"] > 0.9).all()
    assert (first["high"] <= 1).all()
    assert first["n_parameters"].tolist() == [4135680, 3371008]
    assert first["cache_bytes"].tolist() == [24 * (4 * 1280 + 32)] * 2
    assert (first["images_per_second"] * first["ms_per_image"]).tolist() == pytest.approx(
        [1000] * 2
    )
    assert len(forwards) == 48
    forwards.clear()
    for method in ("probe", "knn", "logme"):
        again = rank(photos.data, photos.target, names, method=method)
        assert again.set_index("backbone")[MEASURED].equals(
            first.set_index("backbone")[MEASURED].loc[again["backbone"]]
        )
    assert not forwards


def test_scores_are_those_of_the_heads_and_functions(layers):
    X, y = IMAGES[FEW], VALUES[FEW] % 3
    embeddings = {name: embed(spec, X) for name, spec in layers.items()}
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    for method, score in {
        "probe": lambda Z: cross_val_score(LinearProbeClassifier(), Z, y, cv=folds).mean(),
        "logme": lambda Z: log_me(Z, y),
    }.items():
        frame = rank(X, y, layers, method=method, random_state=7)
        expected = {name: score(Z) for name, Z in embeddings.items()}
        assert frame.set_index("backbone")["score"].to_dict() == pytest.approx(expected, rel=1e-5)
        assert frame["score"].is_monotonic_decreasing
        assert (frame["low"] <= frame["score"]).all()
        assert (frame["score"] <= frame["high"]).all()
        assert frame["behind"].tolist() == pytest.approx(frame["score"][0] - frame["score"])


def embed(spec: BackboneSpec, X: Any) -> np.ndarray:
    embedder = ImageEmbedder(
        spec.name, weights=spec.weights, layers=list(spec.layers), pooling=spec.pooling
    )
    return embedder.transform(X)


def test_numbers_are_ranked_by_r2_and_evidence(layers):
    X, y = IMAGES[FEW], VALUES[FEW]
    folds = [(np.arange(40), np.arange(40, 80)), (np.arange(40, 80), np.arange(40))]
    how = {"cv": folds, "task": "regression"}
    neighbours = make_pipeline(Normalizer(), KNeighborsRegressor())
    frame = rank(X, y, layers, method="knn", **how).set_index("backbone")
    for name, spec in layers.items():
        Z = embed(spec, X)
        predicted = np.zeros(80)
        for train, test in folds:
            predicted[test] = neighbours.fit(Z[train], y[train]).predict(Z[test])
        r2 = 1 - np.square(predicted - y).sum() / np.square(y - y.mean()).sum()
        assert frame["score"][name] == pytest.approx(r2)
    for method in ("probe", "logme"):
        assert np.isfinite(rank(X, y + 0.5, layers, method=method, cv=2)["score"]).all()


def test_the_field_is_halved_on_samples_that_double(layers, forwards, tmp_path, monkeypatch):
    monkeypatch.setattr("featuretl.ranking.rank._MIN_IMAGES", 30)
    frame = rank(IMAGES, VALUES, layers, method="logme", finalists=1, cache=tmp_path / "a")
    assert frame["round"].tolist() == [3, 2, 1, 1]
    assert frame["images"].tolist() == [120, 60, 30, 30]
    assert len(forwards) == 120 + 60 + 2 * 30
    assert frame["behind"][0] == 0
    assert (frame["behind"][1:] > 0).all()
    again = rank(IMAGES, VALUES, layers, method="logme", finalists=1, cache=tmp_path / "b")
    pd.testing.assert_frame_equal(again, frame)


def test_samples_grow_by_whole_groups_with_each_class_at_its_share():
    y = np.repeat([0, 1], [300, 100])
    alone = FoldedTargets(y, np.zeros(400, int), np.arange(400))
    place = _place_in_samples(alone, 0)
    assert sorted(place) == list(range(400))
    for size in (40, 100, 200):
        assert y[place < size].sum() == pytest.approx(size / 4, abs=1)
    grouped = FoldedTargets(y, np.zeros(400, int), np.arange(400) // 10)
    place = _place_in_samples(grouped, 0)
    for size in (40, 105, 200):
        chosen = grouped.groups[place < size]
        assert len(chosen) == 10 * len(np.unique(chosen)) == -(-size // 10) * 10
        assert y[place < size].mean() == pytest.approx(0.25, abs=0.06)
    assert (_place_in_samples(grouped, 0) == place).all()
    assert (_place_in_samples(grouped, 1) != place).any()


def test_images_of_one_group_do_not_help_each_other_nor_do_copies():
    like = IMAGES[:60].copy()
    like[:, 0, 0] ^= 1  # nearly equal, so that only groups identify them
    y, groups = np.tile(VALUES[:60] % 2, 2), np.tile(np.arange(60), 2)
    X, candidates = np.concatenate([IMAGES[:60], like]), {"one": tiny()}
    apart, grouped = rank(X, y, candidates), rank(X, y, candidates, groups=groups)
    copied = rank(np.concatenate([IMAGES[:60]] * 2), y, candidates)
    assert max(copied["score"][0], grouped["score"][0]) < apart["score"][0]
    width = {"apart": apart, "grouped": grouped, "copied": copied}
    width = {name: (f["high"] - f["low"])[0] for name, f in width.items()}
    assert width["apart"] < 0.8 * min(width["grouped"], width["copied"])


def test_a_clear_winner_is_no_warning_and_a_tie_is_one(store):
    X, y = IMAGES[:80], VALUES[:80]
    lite0 = load_backbone()
    frame = rank_backbones(X, y, {"trained": lite0, "random": tiny()}, cache=store)
    assert frame["backbone"].tolist() == ["trained", "random"]
    assert frame["tied"].tolist() == [False, False]
    with pytest.warns(FeatureTLWarning, match="'one' over 'the other'"):
        frame = rank_backbones(X, y, {"one": lite0, "the other": lite0}, cache=store)
    assert frame["tied"].tolist() == [False, True]
    assert frame["behind"].tolist() == [0, 0]


def test_without_a_cache_rounds_still_share_embeddings(layers, forwards, cache, monkeypatch):
    monkeypatch.setattr("featuretl.ranking.rank._MIN_IMAGES", 60)
    rank(IMAGES, VALUES, layers, method="knn", finalists=2, cache=None)
    assert len(forwards) == 2 * 120 + 2 * 60
    assert not cache.exists()


def test_bad_images_are_named(photos, tmp_path: Path):
    (tmp_path / "bad.jpg").write_text("<html>")
    with pytest.raises(ImageError, match=r"bad\.jpg: "):
        rank_backbones([*photos, tmp_path / "bad.jpg"], [0, 1] * 12 + [1], {"a": tiny()})


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"method": "log_me"}, ParameterError, "did you mean 'logme'"),
        ({"backbones": "resnet18"}, ParameterError, "'auto', a list of backbones or a dict of names"),
        ({"backbones": []}, ParameterError, r"'auto', a list of .*; got \[\]"),
        ({"backbones": [3]}, ParameterError, "names of timm models or backbones; got 3"),
        ({"backbones": {"a": None}}, ParameterError, "names of timm models or backbones; got None"),
        ({"backbones": ["a", "b", "a"]}, ParameterError, "distinct names, or a dict"),
        ({"finalists": 0}, ParameterError, "'finalists' .* must be an int >= 1; got 0"),
        ({"cv": 1}, ParameterError, "'cv' parameter of rank_backbones"),
        ({"n_jobs": 0}, ParameterError, "'n_jobs' parameter of rank_backbones"),
        ({"task": "clustering"}, ParameterError, "'task' parameter of rank_backbones"),
        ({"y": [0, 1]}, InputError, "y must have one entry per row of X; got 2 for 10 rows"),
        ({"y": [1] * 10}, InputError, "at least 2 classes"),
        ({"groups": [1]}, InputError, "groups must have one entry per row"),
        ({"groups": [1] * 10}, InputError, "groups has 1 different values"),
        ({"X": "photos/"}, InputError, "must be a sequence of images"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(how, error, message):
    how = {"X": IMAGES[:10], "y": VALUES[:10] % 2, "backbones": {"a": tiny()}, **how}
    with pytest.raises(error, match=message):
        rank_backbones(**how)


def test_ants_and_bees(shared_data: Path, shared_cache: Path):
    photos = load_image_folder(shared_data / "hymenoptera" / "val")
    paths, y = photos.data[::4], photos.target[::4]
    candidates = {"trained": load_backbone(), "random": tiny()}
    for method in ("probe", "logme"):
        frame = rank(paths, y, candidates, method=method, cache=shared_cache)
        assert frame["backbone"][0] == "trained"
        assert not frame["tied"][1]
