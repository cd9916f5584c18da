"""ImageEmbedder is a scikit-learn transformer and embeds every image once."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from featuretl import (
    EmbeddingStore,
    ImageEmbedder,
    NearestMeanClassifier,
    explain,
    extract,
    load_image_folder,
    load_model,
    save_model,
)
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import (
    FeatureTLWarning,
    ImageError,
    InputError,
    ModelError,
    ParameterError,
)
from featuretl.heads import ViewPooling

SKLEARN = tuple(int(number) for number in sklearn.__version__.split(".")[:2])


def tiny(**parameters):
    return ImageEmbedder("test_resnet", weights="random", **parameters)


@pytest.fixture
def data(photo_folder):
    return load_image_folder(photo_folder)


def test_init_only_assigns_and_parameters_round_trip():
    parameters = list(inspect.signature(ImageEmbedder).parameters)
    sentinels = {name: object() for name in parameters}
    embedder = ImageEmbedder(**sentinels)
    assert vars(embedder) == sentinels
    assert embedder.get_params() == sentinels
    defaults = ImageEmbedder()
    assert clone(defaults).get_params() == defaults.get_params()
    assert defaults.set_params(pooling="max").pooling == "max"
    assert repr(defaults) == "ImageEmbedder(pooling='max')"


def test_transform_needs_no_fit_and_equals_extract(data):
    rows = tiny().transform(data.data)
    expected = extract(data.data, BackboneSpec.of("t", "test_resnet", weights="random")).to_numpy()
    np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-5)
    assert rows.dtype == np.float32
    assert rows.flags.writeable
    np.testing.assert_array_equal(tiny().fit(data.data).transform(data.data), rows)
    np.testing.assert_array_equal(tiny().fit_transform(data.data, data.target), rows)


def test_fit_opens_no_image_and_learns_nothing(tmp_path):
    embedder = tiny().fit([str(tmp_path / "missing.jpg")])
    assert embedder.n_features_in_ == 1
    assert not hasattr(embedder, "feature_names_in_")
    embedder.fit(pd.DataFrame({"photo": ["missing.jpg"]}))
    assert embedder.feature_names_in_.tolist() == ["photo"]
    embedder.fit(["missing.jpg"])
    assert not hasattr(embedder, "feature_names_in_")


def test_every_kind_of_collection_gives_the_same_rows(data):
    paths = list(data.data)
    frame = pd.DataFrame({"path": paths}, index=range(7, 7 + len(paths)))
    expected = tiny().transform(paths)
    kinds = [
        tuple(paths),
        np.array(paths),
        np.array(paths, dtype=object),
        np.array(paths, dtype=object)[:, None],
        frame["path"],
        frame,
        [Path(path) for path in paths],
        [Path(path).read_bytes() for path in paths],
    ]
    for kind in kinds:
        np.testing.assert_array_equal(tiny().transform(kind), expected)
    images = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(image) for image in images])
    for kind in (images, list(arrays), arrays):
        np.testing.assert_allclose(tiny().transform(kind), expected, rtol=1e-3, atol=1e-5)


def test_feature_names_and_set_output(data):
    embedder = tiny(cache=None).set_output(transform="pandas")
    frame = embedder.fit_transform(pd.Series(data.data, index=np.arange(24) * 2))
    assert list(frame.columns) == list(embedder.get_feature_names_out())
    assert frame.columns[0] == "imageembedder0"
    if SKLEARN >= (1, 8):  # earlier ones take the index of frames only
        assert frame.index.tolist() == list(np.arange(24) * 2)
    assert (frame.dtypes == np.float32).all()
    assert tiny().get_feature_names_out().tolist() == list(frame.columns)  # without a transform


def test_pickles_without_weights(data):
    embedder = tiny()
    rows = embedder.fit_transform(data.data)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(data.data), rows)
    store = EmbeddingStore()
    assert pickle.loads(pickle.dumps(tiny(cache=store))).cache.path == store.path


def test_a_pipeline_in_cross_validation_forwards_every_image_once(data, forwards):
    pipe = make_pipeline(tiny(), StandardScaler(), LogisticRegression())
    scores = cross_val_score(pipe, data.data, data.target, cv=4, error_score="raise")
    assert scores.mean() > 0.7  # a random network separates temples and flowers
    assert len(forwards) == len(set(forwards)) == 24


def test_a_grid_search_forwards_every_image_once_per_recipe(data, forwards):
    pipe = make_pipeline(tiny(), KNeighborsClassifier())
    grid = {"imageembedder__pooling": ["avg", "max"], "kneighborsclassifier__n_neighbors": [1, 3]}
    search = GridSearchCV(pipe, grid, cv=3).fit(data.data, data.target)
    assert search.best_score_ > 0.7
    assert len(forwards) == 48
    assert search.predict(data.data[:3]).shape == (3,)
    assert len(forwards) == 48


def test_parallel_folds_share_the_work(data, cache):
    pipe = make_pipeline(tiny(), StandardScaler(), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1, 10]}
    with joblib.parallel_config("loky", n_jobs=2):
        search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(data.data, data.target)
    assert search.best_score_ > 0.7
    (info,) = EmbeddingStore(cache).info()
    assert info.rows == 24  # two processes embedded each image once


def test_in_a_feature_union(data):
    union = FeatureUnion([("avg", tiny(pooling="avg")), ("max", tiny(pooling="max"))])
    rows = union.fit_transform(data.data)
    parts = [tiny(pooling=pooling).transform(data.data) for pooling in ("avg", "max")]
    np.testing.assert_array_equal(rows, np.concatenate(parts, axis=1))
    assert union.get_feature_names_out()[0] == "avg__imageembedder0"


@pytest.mark.parametrize("column", ["path", ["path"]])
def test_in_a_column_transformer(data, column):
    frame = pd.DataFrame({"path": data.data, "camera": ["a", "b"] * 12})
    columns = ColumnTransformer([("photo", tiny(), column), ("other", OneHotEncoder(), ["camera"])])
    rows = columns.fit_transform(frame)
    np.testing.assert_array_equal(rows[:, :-2], tiny().transform(data.data))
    assert list(columns.get_feature_names_out())[-2:] == ["other__camera_a", "other__camera_b"]


def test_bad_images_raise_or_are_nan_and_named(data, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    images = [data.data[0], tmp_path / "bad.jpg", data.data[1]]
    with pytest.raises(ImageError, match=r"1 of 3 images .*bad\.jpg: empty: 0 bytes"):
        tiny().transform(images)
    with pytest.warns(FeatureTLWarning, match=r"bad\.jpg"):
        rows = tiny(on_error="nan").transform(images)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "mean"}, "'pooling' parameter of ImageEmbedder must be one of"),
        ({"on_error": "skip"}, "'on_error' parameter of ImageEmbedder must be one of"),
        (
            {"batch_size": -1},
            "'batch_size' parameter of ImageEmbedder must be an int >= 1 or 'auto'; got -1",
        ),
        ({"batch_size": 2.5}, "'batch_size' parameter of ImageEmbedder"),
        ({"cache": 1}, "'cache' parameter of ImageEmbedder"),
        ({"backbone": 1}, "'backbone' parameter of ImageEmbedder"),
        ({"n_jobs": 0}, "'n_jobs' parameter of ImageEmbedder"),
        ({"device": 3}, "'device' parameter"),
    ],
)
def test_bad_parameters_are_named_when_they_are_used(data, parameters, message):
    embedder = clone(ImageEmbedder("test_resnet", weights="random")).set_params(**parameters)
    with pytest.raises(ParameterError, match=message):
        embedder.fit(data.data).transform(data.data[:2])


@pytest.mark.parametrize("X", ["photo.jpg", b"bytes", np.zeros((3, 4)), 7, {"a": 1}])
def test_what_is_no_sequence_of_images_is_refused(X):
    for method in (tiny().fit, tiny().transform):
        with pytest.raises(InputError, match="X of ImageEmbedder must be"):
            method(X)


def test_an_unfitted_pipeline_still_says_so(data):
    with pytest.raises(NotFittedError):
        make_pipeline(tiny(), StandardScaler()).transform(data.data)


def test_a_progress_bar_goes_to_stderr(data, capsys):
    tiny(verbose=1).transform(data.data)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "24/24" in captured.err


def test_views_stand_side_by_side_and_are_cached(data, tmp_path):
    images = [np.asarray(Image.open(path).convert("RGB")) for path in data.data[:3]]
    plain = tiny(cache=None).transform(images)
    d = plain.shape[1]
    two = tiny(views="flip", cache=tmp_path)
    rows = two.transform(images)
    assert rows.shape == (3, 2 * d)
    assert len(two.fit(images).get_feature_names_out()) == 2 * d
    np.testing.assert_allclose(rows[:, :d], plain, rtol=1e-3, atol=1e-5)
    mirrored = tiny(cache=None).transform([image[:, ::-1] for image in images])
    np.testing.assert_allclose(rows[:, d:], mirrored, rtol=1e-3, atol=1e-5)
    again = tiny(views=2, cache=tmp_path).extract(images)  # the same recipe
    assert (again.statistics.cached, again.shape) == (3, (3, 2 * d))
    np.testing.assert_array_equal(again.to_numpy(), rows)
    assert "views" not in tiny().recipe()["preprocess"]


@pytest.mark.parametrize("views", [4, "ten-crop", "3x4"])
def test_views_do_not_depend_on_the_batch(data, views):
    images = data.data[::4]
    one = tiny(views=views, cache=None, batch_size=1, n_jobs=1).transform(images)
    many = tiny(views=views, cache=None, batch_size=4).transform(images)
    np.testing.assert_allclose(one, many, rtol=1e-3, atol=1e-4)
    assert len(np.unique(one.reshape(len(one), -1, tiny()._n_features_out), axis=1)[0]) > 1


def test_models_of_views_are_kept_and_predict_and_are_not_explained(data, tmp_path):
    pipe = make_pipeline(tiny(views="2x2", cache=None), ViewPooling(5), NearestMeanClassifier())
    pipe.fit(data.data, data.target)
    save_model(pipe, tmp_path / "views.featuretl")
    loaded = load_model(tmp_path / "views.featuretl", weights=None)
    assert loaded.predict(data.data).tolist() == pipe.predict(data.data).tolist()
    with pytest.raises(ModelError, match=r"5 views"):
        explain(pipe, data.data[:1])
