"""NoveltyDetector: calibration, exact neighbours, and few false alarms, also in models of images."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image
from scipy.stats import betabinom, binomtest
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    NoveltyDetector,
    TransferClassifier,
    load_model,
    predict_to_file,
    read_card,
    save_model,
)
from featuretl.exceptions import InputError, ModelError, ParameterError
from featuretl.novelty.detector import Drift
from featuretl.prediction import files as files_module
from featuretl.prediction import predict as prediction_module
from featuretl.prediction.predict import predict_images, use_machine

CLEAR = Drift(images=1234, novel=200, expected=61.7, level=0.05, pvalue=2e-5, can_tell=True)
few_images = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


@parametrize_with_checks([NoveltyDetector(), NoveltyDetector(3)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def rows(n, seed, d=6):
    """Rows around one direction, so that cosines differ."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) + 2


def in_series(n_series, seed, each=10):
    """Rows in series; the rows of a series are similar."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n_series, 30)), each, axis=0)
    X = 2 * centres + rng.normal(size=centres.shape) + 1
    return X, np.repeat(np.arange(n_series), each)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_scores_are_those_of_leave_one_out(k, grouped):
    X = rows(60, 0)
    groups = np.arange(60) // 5 if grouped else None
    detector = NoveltyDetector(k, random_state=0).fit(X, groups=groups)
    group = np.arange(60) if groups is None else groups
    left_out = []
    for i in range(60):
        others = NoveltyDetector(k).fit(X[group != group[i]])
        left_out.append(others.score_samples(X[i : i + 1])[0])
    np.testing.assert_allclose(detector.calibration_, np.sort(left_out), rtol=0, atol=2e-3)
    new = rows(7, 1)
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    expected = np.sort(unit @ detector.references_.T.astype(float), axis=1)[:, -k]
    np.testing.assert_allclose(detector.score_samples(new), expected, atol=1e-6)


def test_novelty_is_the_share_of_training_images_that_are_less_novel():
    detector = NoveltyDetector(random_state=0).fit(rows(100, 0))
    new = np.vstack([rows(300, 1), -rows(5, 2)])
    scores = detector.score_samples(new)
    as_low = (detector.calibration_[None] <= scores[:, None]).sum(axis=1)
    novelty = detector.novelty(new)
    np.testing.assert_array_equal(novelty, 1 - (1 + as_low) / 101)
    assert (novelty[-5:] == 1 - 1 / 101).all()
    np.testing.assert_array_equal(detector.predict(new) == -1, detector.is_novel(novelty))
    np.testing.assert_array_equal(detector.predict(new) == -1, detector.decision_function(new) < 0)
    assert not hasattr(detector, "fit_predict")


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_of_images_like_the_training_ones_the_level_is_novel(level):
    shares = [
        (NoveltyDetector(level=level, random_state=s).fit(rows(300, s)).predict(rows(500, s + 100)) < 0).mean()
        for s in range(20)
    ]  # fmt: skip
    assert np.mean(shares) == pytest.approx(level, abs=0.2 * level + 0.003)


def test_of_many_rows_some_are_kept_and_calibrate_as_well():
    detector = NoveltyDetector(max_references=50, random_state=0).fit(rows(3000, 0))
    assert detector.references_.shape == (50, 6)
    assert detector.references_.dtype == np.float16
    assert len(detector.calibration_) == 3000
    assert (detector.predict(rows(3000, 1)) < 0).mean() == pytest.approx(0.05, abs=0.012)
    again = NoveltyDetector(max_references=50, random_state=0).fit(rows(3000, 0))
    np.testing.assert_array_equal(detector.references_, again.references_)


def test_new_series_are_novel_too_often_unless_groups_are_told():
    shares = {}
    for told in (False, True):
        of_seeds = []
        for seed in range(8):
            X, groups = in_series(40, seed)
            detector = NoveltyDetector(random_state=0).fit(X, groups=groups if told else None)
            of_seeds.append((detector.predict(in_series(40, seed + 100)[0]) < 0).mean())
        shares[told] = np.mean(of_seeds)
    assert shares[False] > 0.3
    assert shares[True] < 0.1
    assert 1 <= detector.calibration_worth_ < 200  # 400 rows, ten per series


def test_too_few_training_images_call_nothing_novel():
    detector = NoveltyDetector().fit(rows(18, 0))
    assert detector.offset_ == -np.inf
    assert (detector.predict(-rows(9, 1)) == 1).all()
    drift = detector.drift(-rows(9, 1))
    assert (drift.novel, drift.pvalue, drift.is_clear) == (0, 1.0, False)
    assert "to tell which images are novel at the 5% level" in str(drift)
    assert (NoveltyDetector().fit(rows(19, 0)).predict(-rows(9, 1)) == -1).all()


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"n_neighbors": 0}, "'n_neighbors' .* int >= 1; got 0"),
        ({"level": 0}, r"'level' .* number in \(0, 0.5\]; got 0"),
        ({"level": 0.6}, "got 0.6"),
        ({"max_references": 1}, "'max_references' .* int >= 2; got 1"),
    ],
)
def test_parameters_are_checked(parameters, named):
    with pytest.raises(ParameterError, match=named):
        NoveltyDetector(**parameters).fit(rows(20, 0))


def test_what_leaves_nothing_to_compare_with_is_refused():
    with pytest.raises(InputError, match=r"n_neighbors=1 .*got 0"):
        NoveltyDetector().fit(rows(20, 0), groups=["a"] * 20)
    with pytest.raises(InputError, match=r"n_neighbors=20 .*got 19"):
        NoveltyDetector(20).fit(rows(20, 0))
    with pytest.raises(InputError, match="groups must have one entry per row"):
        NoveltyDetector().fit(rows(20, 0), groups=[1, 2])


def test_a_change_is_seen():
    detector = NoveltyDetector(random_state=0).fit(rows(300, 0))
    drift = detector.drift(rows(100, 1) - 2)
    assert drift.is_clear
    assert drift.novel > 20
    assert "the images may have changed (p" in drift.explain()
    same = detector.drift(rows(100, 2))
    assert not same.is_clear
    assert "no clear sign" in str(same)
    assert same.expected == pytest.approx(5, abs=0.3)


def test_chance_is_that_of_an_estimated_threshold():
    """With few training images, a binomial test would have too many false positives."""
    detector = NoveltyDetector().fit(rows(59, 0))
    drift = detector.drift_of(1000, 90)
    assert drift.expected == 50
    assert drift.pvalue == pytest.approx(betabinom.sf(89, 1000, 3, 57))
    assert drift.pvalue > 0.05 > binomtest(90, 1000, 0.05).pvalue
    assert detector.drift_of(0, 0).pvalue == 1
    detector.calibration_worth_ = 20.0
    fewer = detector.drift_of(1000, 90)
    assert fewer.pvalue > drift.pvalue
    assert fewer.expected == pytest.approx(50)


def test_false_alarms_are_rare():
    """Of 100 samples of images like 60 training images, at most one is a false alarm."""
    alarms = 0
    for seed in range(100):
        detector = NoveltyDetector(random_state=0).fit(rows(60, seed))
        alarms += detector.drift(rows(100, seed + 1000)).is_clear
    assert alarms <= 1


def test_false_alarms_are_rare_with_few_groups():
    """Of the samples of 5 new series like the 5 training series, at most one is a false alarm."""
    alarms, worth = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.arange(100) // 20
        X, new = (
            rng.normal(size=(100, 16)) + 1.5 * rng.normal(size=(5, 16))[groups] + 2
            for _ in range(2)
        )
        detector = NoveltyDetector(random_state=0).fit(X, groups=groups)
        worth.append(detector.calibration_worth_)
        alarms += detector.drift(new).is_clear
    assert alarms <= 1
    assert 1 <= min(worth) and max(worth) <= 5


def test_images_of_one_group_are_one_draw():
    detector = NoveltyDetector(random_state=0).fit(rows(300, 0))
    other = rows(100, 1) - 4
    alone, together = detector.drift(other), detector.drift(other, groups=["a"] * 100)
    assert alone.is_clear and alone.can_tell
    assert together.novel == alone.novel
    assert not together.is_clear and not together.can_tell
    assert "too few" in str(together)
    assert detector.drift(other, groups=np.arange(100)) == alone
    with pytest.raises(InputError, match="groups must have one entry"):
        detector.drift(other, groups=[1])


def test_a_file_keeps_the_same_bits(tmp_path):
    detector = NoveltyDetector(random_state=0).fit(rows(80, 0), groups=np.arange(80) // 4)
    save_model(detector, tmp_path / "n.featuretl")
    twin = load_model(tmp_path / "n.featuretl")
    new = rows(30, 1)
    np.testing.assert_array_equal(twin.novelty(new), detector.novelty(new))
    np.testing.assert_array_equal(twin.predict(new), detector.predict(new))
    assert twin.drift(new) == detector.drift(new)
    few = NoveltyDetector().fit(rows(5, 0))
    save_model(few, tmp_path / "n.featuretl")
    assert load_model(tmp_path / "n.featuretl").offset_ == -np.inf


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("calibration_", np.arange(80.0)[::-1].copy()),
        ("calibration_", np.full(80, np.nan)),
        ("calibration_", np.zeros(0)),
        ("calibration_worth_", 0.0),
        ("calibration_worth_", 81.0),
        ("references_", np.full((80, 6), np.nan)),
        ("references_", np.zeros((80, 5))),
        ("offset_", float("nan")),
        ("n_neighbors", 81),
        ("n_neighbors", "1"),
        ("level", "0.05"),
        ("level", 2.0),
    ],
)
def test_what_a_detector_cannot_be_is_not_kept(attribute, value, tmp_path):
    detector = NoveltyDetector(random_state=0).fit(rows(80, 0))
    setattr(detector, attribute, value)
    with pytest.raises(ModelError):
        save_model(detector, tmp_path / "n.featuretl")


# --- models of images, in Python and on the command line ---


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Five files of handwritten digits, unlike temples and flowers."""
    folder = tmp_path_factory.mktemp("digits")
    for i, image in enumerate(load_digits().images[:5]):
        Image.fromarray((image * 15).astype(np.uint8)).resize((96, 96)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(photos, shared_cache, tmp_path_factory):
    """A model file of the packaged backbone, trained on all crops except for one of empty sky."""
    path = tmp_path_factory.mktemp("model") / "photos.featuretl"
    rows = [f"{p},{p.split('/')[-2]}" for p in photos if not p.endswith("temple/00.jpg")]
    manifest = path.with_suffix(".csv")
    manifest.write_text("\n".join(["path,label", *rows]))
    quick = ["--strategy", "linear", "--test-size", "none"]
    result = run("train", manifest, "-o", path, "--label-column", "label", "--cache", shared_cache, *quick)  # fmt: skip
    assert result.exit_code == 0, result.output
    return path


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@few_images
def test_digits_are_novel_to_a_model_of_photographs(
    model, photos, digits, shared_cache, tmp_path, monkeypatch
):
    assert read_card(model)["novelty"] == {"references": 23}
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    out, shared = tmp_path / "out.csv", ["--cache", shared_cache]
    result = run("predict", model, bad, *photos[:4], digits, "-o", out, "--novelty", *shared)
    assert result.exit_code == 0, result.output
    assert (
        "5 of 9 images are unlike the training images at the 5% level, where 0.4 are expected: "
        "the images may have changed (p = "
    ) in result.stdout.splitlines()[-1]
    novelty = {row["path"].rsplit("/")[-1]: row["novelty"] for row in csv_rows(out)}
    assert novelty["bad.jpg"] == ""
    assert [float(novelty[f"{i}.png"]) for i in range(5)] == [1 - 1 / 24] * 5
    assert max(float(row["novelty"]) for row in csv_rows(out)[1:5]) < 0.95
    for module in (prediction_module, files_module):
        monkeypatch.setattr(module, "BATCH", 4)
    facts = json.loads(
        run("predict", model, *photos[:4], digits, "-o", out, "--novelty", *shared, "--json").stdout
    )
    drift = facts["drift"]
    assert (drift["images"], drift["novel"], drift["level"]) == (9, 5, 0.05)
    assert drift["pvalue"] < 0.001
    assert drift["expected"] == pytest.approx(9 / 24)


@few_images
def test_python_says_the_same(model, photos, digits, shared_cache):
    loaded = load_model(model)
    use_machine(loaded, cache=shared_cache)
    images = [*photos[:3], *map(str, sorted(digits.iterdir()))]
    found = predict_images(loaded, images, novelty=True)
    X = ImageEmbedder(cache=shared_cache).transform(images)
    np.testing.assert_array_equal(found.novelty, loaded.novelty_[-1].novelty(X))
    assert loaded.novelty_.predict(images).tolist() == [1, 1, 1] + [-1] * 5
    np.testing.assert_array_equal(loaded.novelty_.score_samples(images) < loaded.novelty_[-1].offset_, loaded.novelty_.predict(images) < 0)  # fmt: skip
    assert predict_images(loaded, images).novelty is None


@few_images
def test_a_model_without_says_what_to_do(photos, photo_folder, shared_cache, tmp_path):
    tiny = ["--strategy", "linear", "--test-size", "none", "--backbone", "test_resnet", "--weights", "random"]  # fmt: skip
    path, out = tmp_path / "m.featuretl", tmp_path / "out.csv"
    shared = ["--cache", shared_cache]
    assert run("train", photo_folder, "-o", path, *tiny, *shared, "--no-novelty").exit_code == 0
    assert "novelty" not in read_card(path)
    result = run("predict", path, photos[0], "-o", out, "--novelty", *shared)
    assert result.exit_code == 1
    assert "no novelty detector; train it again" in result.stderr
    assert not out.exists()
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    pipe = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, [0] * 12 + [1] * 12)
    with pytest.raises(InputError, match="train it again"):
        predict_to_file(pipe, photos, out, novelty=True)
    with pytest.raises(ParameterError, match="'novelty' parameter of predict_to_file"):
        predict_to_file(pipe, photos, out, novelty="yes")


@few_images
def test_a_fine_tuned_model_knows_too(photos, shared_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("featuretl.transfer.experiment._EPOCHS", (1, 1))
    labels = [path.split("/")[-2] for path in photos]
    chooser = TransferClassifier(
        "fine-tune", backbone="test_resnet", weights="random", test_size=None, cv=2, time_budget=1,
        cache=shared_cache, random_state=0,
    ).fit(photos, labels)  # fmt: skip
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    found = predict_images(chooser, [str(bad), *photos[:3]], novelty=True)
    X = ImageEmbedder("test_resnet", weights="random", cache=shared_cache).transform(photos[:3])
    np.testing.assert_array_equal(found.novelty, chooser.novelty_[-1].novelty(X))
    assert len(predict_images(chooser, [str(bad)], novelty=True).novelty) == 0
    groups = ["one"] * 24  # nothing to hold out
    chooser.set_params(strategy="linear").fit(photos, labels, groups=groups)
    assert not hasattr(chooser, "novelty_")


def test_a_clear_drift_has_its_probability_by_chance():
    assert CLEAR.is_clear
    assert repr(CLEAR) == CLEAR.explain()
    assert "200 of 1,234 images" in str(CLEAR)
    assert "5% level, where 61.7 are expected" in str(CLEAR)
    assert "(p = 2e-05 for" in str(CLEAR)
    assert "(p < 1e-6 for" in str(replace(CLEAR, pvalue=9e-7))
    assert "0.1% level" in str(replace(CLEAR, level=0.001))


@pytest.mark.parametrize(("pvalue", "is_clear"), [(0.00099, True), (0.001, False), (1.0, False)])
def test_drift_is_clear_below_one_in_a_thousand(pvalue, is_clear):
    drift = replace(CLEAR, pvalue=pvalue)
    assert drift.is_clear == is_clear
    assert ("no clear sign" in str(drift)) != is_clear
    assert ("may have changed" in str(drift)) == is_clear


def test_what_cannot_be_told_says_so():
    few = replace(CLEAR, pvalue=1.0, can_tell=False)
    assert str(few).endswith("too few images or groups to tell whether the images have changed.")
    blind = replace(CLEAR, novel=0, expected=0.0, pvalue=1.0, can_tell=False)
    assert str(blind).startswith("There are too few training images")


def test_no_images_are_no_sign_of_a_change():
    none = Drift(images=0, novel=0, expected=0.0, level=0.05, pvalue=1.0, can_tell=False)
    assert str(none).startswith("0 of 0 images")
    assert "no clear sign" in str(none)
