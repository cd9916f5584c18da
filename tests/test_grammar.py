"""scikit-learn settings, hostile parameters and NumPy scalars work or raise one-line errors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from click.testing import CliRunner
from featuretl_cli.main import cli
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from featuretl import (
    DomainAdaptedClassifier,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    MediaEmbedder,
    MultiTaskHead,
    NearestMeanClassifier,
    NoveltyDetector,
    SemiSupervisedProbeClassifier,
    SVMProbeClassifier,
    TransferClassifier,
    TransferMultiTask,
    explain,
    export_model,
    forecast_accuracy,
    load_model,
    rank_backbones,
    save_model,
    suggest_labels,
    write_report,
)
from featuretl.exceptions import FeatureTLError, InputError, ParameterError
from featuretl.heads import AttentionPoolingClassifier, ViewPooling, ViewsClassifier
from featuretl.report import EmbeddingMapDisplay

Y = np.repeat(["a", "b", "c"], 8)
X = np.random.default_rng(0).normal(size=(24, 4)) + np.eye(4)[np.repeat([0, 1, 2], 8)] * 3
HEADS = [
    LinearProbeClassifier(),
    LinearProbeRegressor(),
    SVMProbeClassifier(),
    DomainAdaptedClassifier(),
    NearestMeanClassifier(),
    SemiSupervisedProbeClassifier(),
    SemiSupervisedProbeClassifier(method="self-training"),
    MultiTaskHead(),
    NoveltyDetector(),
    ViewPooling(n_views=2),
    ViewsClassifier(n_views=2),
    AttentionPoolingClassifier(n_views=2),
]
HOSTILE = [
    None, "", "nope", float("nan"), float("inf"), -1, 0, 2**70, 1e-320, [], [1, 2], {}, object(),
    np.array([1, 2]), True, b"x", 1 + 2j, np.int64(3), np.float32(0.5), np.bool_(True),
]  # fmt: skip


def target_of(head):
    if isinstance(head, MultiTaskHead):
        return np.column_stack([Y, Y])
    return X[:, 0] if isinstance(head, LinearProbeRegressor) else Y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("head", "name"),
    [(head, name) for head in HEADS for name in head.get_params(deep=False)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_parameter_is_taken_or_refused_in_one_sentence(head, name):
    for value in HOSTILE:
        try:
            clone(head).set_params(**{name: value}).fit(X, target_of(head))
        except FeatureTLError as error:
            assert "\n" not in str(error)
        except TypeError as error:
            assert "clone" in str(error), f"{name}={value!r}: {error}"


@pytest.mark.parametrize("seed", [-1, 2**32, "0", np.random.default_rng(0)])
def test_what_seeds_nothing_is_one_sentence(seed):
    for use in (
        lambda: suggest_labels(X, 2, random_state=seed),
        lambda: forecast_accuracy(X, Y, random_state=seed),
        lambda: LinearProbeClassifier("cv", random_state=seed).fit(X, Y),
        lambda: NoveltyDetector(random_state=seed).fit(X),
    ):
        with pytest.raises(ParameterError, match="random_state"):
            use()


@pytest.mark.parametrize("command", ["train", "rank", "suggest", "report"])
def test_the_command_line_says_which_seeds_there_are(command, photo_folder):
    result = CliRunner().invoke(cli, [command, str(photo_folder), "--random-state", "-1"])
    assert result.exit_code == 2
    assert "--random-state" in result.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_as_output_change_nothing_inside(library, photos, shared_cache, tmp_path):
    pytest.importorskip(library)
    y = [path.split("/")[-2] for path in photos]
    own = {"cache": shared_cache, "random_state": 0, "test_size": None}
    kinds = [TransferClassifier("linear", cv=3, **own), TransferMultiTask(**own)]
    targets = [y, {"kind": y, "size": np.arange(24) / 7}]
    pipe = make_pipeline(ImageEmbedder(cache=shared_cache), LinearProbeClassifier())
    with sklearn.config_context(transform_output=library):
        for model, target in zip(kinds, targets, strict=True):
            found = clone(model).fit(photos, target).predict(photos)
            with sklearn.config_context(transform_output="default"):
                expected = clone(model).fit(photos, target).predict(photos)
            found, expected = (np.reshape(rows, (24, -1)) for rows in (found, expected))
            assert (found[:, 0] == expected[:, 0]).all()
            for rows in zip(found[:, 1:], expected[:, 1:], strict=True):
                np.testing.assert_allclose(*np.array(rows, float), rtol=1e-3, atol=1e-4)
        pipe.fit(photos, y)
        assert (pipe.predict(photos) == np.array(y)).all()
        save_model(pipe, tmp_path / "m.featuretl")
        assert (load_model(tmp_path / "m.featuretl").predict(photos) == np.array(y)).all()
        assert write_report(pipe, photos, y, tmp_path / "r.html", n_bootstrap=5)
        assert explain(pipe, photos[:1])
        EmbeddingMapDisplay.from_estimator(pipe[0], photos, y)
        assert len(
            rank_backbones(photos, y, ["tf_efficientnet_lite0"], method="knn", cache=shared_cache)
        )


DISPATCHED = """
import numpy as np, scipy, sklearn, torch
import tests_heads
can_dispatch = [int(n) for n in scipy.__version__.split(".")[:2]] >= [1, 14]  # as scikit-learn asks
for head, target in tests_heads.heads():
    X = torch.as_tensor(tests_heads.X)
    y = torch.as_tensor(target) if getattr(target, "dtype", None) == np.int64 else target
    for dispatch in (False, True)[: 1 + can_dispatch]:
        with sklearn.config_context(array_api_dispatch=dispatch):
            fitted = sklearn.base.clone(head).fit(X, y)
            for name in ("predict", "predict_proba", "decision_function", "transform"):
                if hasattr(fitted, name):
                    getattr(fitted, name)(X)
"""


def test_tensors_are_taken_with_and_without_array_api_dispatch(tmp_path):
    (tmp_path / "tests_heads.py").write_text(
        "import numpy as np, featuretl, featuretl.heads\n"
        "X = np.random.default_rng(0).normal(size=(24, 4)).astype('float32')\n"
        "y = np.arange(24) % 3\n"
        "def heads():\n"
        "    for name in ('LinearProbeClassifier', 'SVMProbeClassifier', 'NearestMeanClassifier',\n"
        "            'SemiSupervisedProbeClassifier'):\n"
        "        yield getattr(featuretl.heads, name)(), y\n"
        "    yield featuretl.NoveltyDetector(), y\n"
        "    yield featuretl.LinearProbeRegressor(), X[:, 0]\n"
        "    yield featuretl.MultiTaskHead(), np.column_stack([y, y])\n"
        "    for name in ('ViewPooling', 'ViewsClassifier', 'AttentionPoolingClassifier'):\n"
        "        yield getattr(featuretl.heads, name)(n_views=2), y\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DISPATCHED],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": path},
        check=True,
    )


def test_numpys_scalars_are_the_same_recipe_and_can_be_saved(photos, shared_cache, tmp_path):
    plain = ImageEmbedder(normalize=True, layers=[-1], views=2, cache=shared_cache)
    scalars = {"normalize": np.bool_(True), "layers": [np.int64(-1)], "views": np.int64(2)}
    same = clone(plain).set_params(**scalars, batch_size=np.int64(8))
    assert same.recipe() == plain.recipe()
    y = [path.split("/")[-2] for path in photos]
    for head in (ViewsClassifier(np.int64(2)), AttentionPoolingClassifier(np.int64(2))):
        model = make_pipeline(same, head).fit(photos, y)
        save_model(model, tmp_path / "m.featuretl")
        loaded = load_model(tmp_path / "m.featuretl")
        assert (loaded.predict(photos) == model.predict(photos)).all()


def test_what_takes_images_refuses_pipelines_of_other_media(tmp_path, photos):
    from featuretl.media import Text

    pipe = make_pipeline(MediaEmbedder(Text()), LinearProbeClassifier())
    for use in (
        lambda: explain(pipe, photos[:1]),
        lambda: export_model(pipe, tmp_path / "m.onnx"),
        lambda: write_report(pipe, photos, ["a"] * 24, tmp_path / "r.html"),
    ):
        with pytest.raises(InputError, match="MediaEmbedder"):
            use()


def test_an_adapter_names_what_is_no_estimator():
    with pytest.raises(ParameterError, match="estimator"):
        DomainAdaptedClassifier("svm").fit(X, Y, X_target=X + 1)


@pytest.mark.parametrize(
    "estimator",
    [FineTuneClassifier(), FineTuneRegressor(), TransferClassifier(), TransferMultiTask()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_parameters_of_estimators_of_images_are_checked_before_any_image_is_read(estimator):
    for name in estimator.get_params(deep=False):
        for value in HOSTILE:
            with contextlib.suppress(FeatureTLError):
                clone(estimator).set_params(**{name: value})._check_parameters()


def test_parameters_of_an_embedder_are_checked():
    for name in ImageEmbedder().get_params():
        for value in HOSTILE:
            with contextlib.suppress(FeatureTLError):
                ImageEmbedder(**{"cache": None, name: value}).fit([])
