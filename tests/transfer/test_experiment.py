"""Experiment: folds that divide no group, embeddings made once, and the time that is left."""

import time

import numpy as np
import pytest

from featuretl import LinearProbeClassifier, TransferClassifier
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import Trial
from featuretl.transfer.targets import RegressionTargets, classification_targets

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_groups_stay_on_one_side(chooser, photos, labels):
    groups = np.arange(24) // 3
    experiment = Experiment(chooser(), photos, labels, groups, classification_targets)
    rows = np.arange(24)
    for cv in (2, 4):
        fold, _ = experiment.folds(rows, cv)
        assert all(len(set(fold[groups == g])) == 1 for g in groups)
    model = chooser(test_size=0.25).fit(photos, labels, groups=groups)
    assert model.score(photos, labels) == 1.0


def test_copies_stay_on_one_side(chooser, photos):
    coin = np.random.default_rng(0).integers(0, 2, 48)
    decision = chooser("linear", novelty=False).fit([*photos, *photos], coin).decision_
    assert decision.outer.images == 48
    assert 0.25 < decision.outer.score < 0.7
    assert "24 of 48 images are copies; copies share a fold" in decision.explain()


def test_a_class_in_a_single_group_has_no_outer_score(chooser, photos, labels):
    kinds = np.array(labels, object)
    kinds[:6] = "bud"
    groups = np.where(kinds == "bud", 99, np.arange(24) // 2)
    with pytest.warns(FeatureTLWarning, match="single group"):
        decision = (
            chooser("linear", novelty=False).fit(photos, kinds.tolist(), groups=groups).decision_
        )
    assert decision.outer.images == 18
    assert decision.outer.score > 0.5
    groups = np.r_[[0] * 12, np.arange(1, 13)]
    only = chooser("linear", novelty=False).fit(photos, labels, groups=groups)
    assert only.decision_.outer.images == 0
    assert "Only class 'temple' can be held out" in only.decision_.explain()
    assert only.score(photos, labels) == 1.0


def test_every_image_is_embedded_once(cache, photos, labels, forwards):
    model = TransferClassifier(test_size=0.5, random_state=0).fit(photos, labels)
    assert len(forwards) == 24
    model.predict(photos)
    assert len(forwards) == 24


def test_the_last_fit_says_how_many_folds_it_made(chooser, few):
    with pytest.warns(FeatureTLWarning, match="LinearProbeClassifier uses 3 folds") as caught:
        chooser("linear", test_size=None).fit(*few)
    assert len(caught) == 1


def experiment_on(X, labels, groups=None, **parameters):
    """An experiment on given embeddings `X`; its images are never read."""
    images = [f"{number}.jpg" for number in range(len(X))]
    model = TransferClassifier(backbone="net", cache=None, random_state=0, **parameters)
    embeddings = {"net": X}
    return Experiment(model, images, labels, groups, classification_targets, embeddings)


@pytest.fixture
def rows():
    """Thirty rows of three classes."""
    y = np.arange(30) % 3
    return 2 * np.eye(3, 4)[y] + np.random.default_rng(0).standard_normal((30, 4)), y


def test_copies_join_their_groups(rows):
    X, y = rows
    X = X.copy()
    X[[7, 20]] = X[2]
    experiment = experiment_on(X, y)
    experiment.keep_copies_together("net")
    assert experiment.n_copies == 2
    assert len(set(experiment.groups)) == 28
    assert len(set(experiment.groups[[2, 7, 20]])) == 1
    grouped = experiment_on(X, y, np.arange(30) // 10)
    grouped.keep_copies_together("net")
    assert set(grouped.groups[:10]) == set(grouped.groups[20:])  # these groups share an image
    assert len(set(grouped.groups)) == 2
    plain = experiment_on(rows[0], y)
    plain.keep_copies_together("net")
    assert (plain.n_copies, plain.groups) == (0, None)


def test_folds_are_those_of_the_rows_and_say_what_was_reduced(rows):
    X, y = rows
    y = np.where(np.arange(30) < 3, 0, 1 + y % 2)
    experiment = experiment_on(X, y)
    chosen = np.arange(0, 30, 2)
    fold, how = experiment.folds(chosen, 5)
    assert fold.shape == (15,)
    assert how.startswith(f"{fold.max() + 1} folds.")
    assert "class 0" in how
    with pytest.raises(InputError, match="class 1"):
        one = np.flatnonzero(y == 1)[:5]
        experiment.folds(np.r_[0, one], 5)


def test_a_head_is_cross_validated_only_if_its_rows_can_be_split(rows):
    experiment = experiment_on(*rows)
    assert experiment.new_head("linear", np.arange(30)).C == "cv"
    assert experiment.new_head("linear", np.arange(3)).C == LinearProbeClassifier().C


def test_heads_that_take_groups_get_those_of_their_rows(rows, monkeypatch):
    given = []
    fit = LinearProbeClassifier.fit

    def spy(self, X, y, sample_weight=None, groups=None):
        given.append(groups)
        return fit(self, X, y, sample_weight, groups)

    monkeypatch.setattr(LinearProbeClassifier, "fit", spy)
    experiment = experiment_on(*rows, groups=np.arange(30) // 3)
    experiment.head("linear", np.arange(0, 30, 2), "net")
    experiment.head("nearest-mean", np.arange(30), "net")
    assert [groups.tolist() for groups in given] == [(np.arange(0, 30, 2) // 3).tolist()]


def test_scores_are_those_of_the_rows_that_are_evaluated(rows):
    X, y = rows
    experiment = experiment_on(X, y)
    train, test = np.arange(20), np.arange(20, 30)
    linear, svm = (Trial(name, "net", "", train, train, train) for name in ("linear", "svm"))
    model = experiment.fit(linear, train)
    scores, losses = experiment.evaluate(model, linear, test)
    assert scores.tolist() == (model.predict(X[test]) == y[test]).tolist()
    proba = model.predict_proba(X[test])[np.arange(10), y[test]]
    np.testing.assert_allclose(losses, -np.log(proba), rtol=1e-5)
    machine = experiment.fit(svm, train)
    assert np.isnan(experiment.evaluate(machine, svm, test)[1]).all()


def test_the_time_that_is_left_counts_from_the_start(rows):
    assert experiment_on(*rows).seconds_left() == np.inf
    experiment = experiment_on(*rows, time_budget=100)
    time.sleep(0.02)
    assert experiment.seconds_left() == pytest.approx(100 - experiment.seconds(), abs=1)
    assert experiment.seconds_left() <= 99.98


def test_many_images_are_fine_tuned_for_fewer_epochs(rows, monkeypatch):
    monkeypatch.setattr("featuretl.transfer.experiment._EPOCHS", (6, 12))
    experiment = experiment_on(*rows)
    assert experiment.fine_tune("net").epochs == 12
    assert experiment.fine_tune("net").time_budget is None
    monkeypatch.setattr(experiment, "n", 700)
    assert experiment.fine_tune("net", 5.0).epochs == 9
    assert experiment.fine_tune("net", 5.0).time_budget == 5
    monkeypatch.setattr(experiment, "n", 10_000)
    model = experiment.fine_tune("net", -1.0, learning_rate=0.01)
    assert (model.epochs, model.time_budget, model.learning_rate) == (6, 0.1, 0.01)
    assert (model.backbone, model.cache, model.random_state) == ("net", None, experiment.seed)


def test_subsets_keep_images_targets_and_groups_together(rows):
    X, _ = rows
    y = np.linspace(0, 1, 30)
    images = [f"{number}.jpg" for number in range(30)]
    experiment = Experiment(TransferClassifier(), images, y, None, RegressionTargets, {"net": X})
    chosen = np.array([4, 0, 29])
    part, targets, groups = experiment.subset(chosen)
    assert part == ["4.jpg", "0.jpg", "29.jpg"]
    assert targets.tolist() == y[chosen].tolist()
    assert groups is None
