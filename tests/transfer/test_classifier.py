"""TransferClassifier: the candidates, the choice, and the independence of the outer score."""

import dataclasses
import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer

from featuretl import FineTuneClassifier, TransferClassifier, list_backbones, load_model
from featuretl._core.statistics import Gain
from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.finetune.loop import Trainer
from featuretl.transfer import search
from featuretl.transfer.decision import verdict
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import Search, Trial
from featuretl.transfer.targets import classification_targets

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def verdicts(model):
    return model.decision_.candidates.set_index("strategy")["verdict"]


def test_three_images_of_two_classes_are_not_compared(chooser, few, photos, labels):
    model = chooser().fit(*few)
    assert model.strategy_ == "linear"
    assert model.score(photos, labels) == 1.0
    told = model.decision_.explain()
    assert "6 images, 3 in the median class: the linear probe on" in told
    assert "With 5 images per class strategies could be compared, with 20 fine-tuning" in told
    assert verdicts(model)["nearest-mean"].startswith("not tried: with 3 images per class")
    assert verdicts(model)["fine-tune"].startswith("not tried: 3 images per class")


def test_one_image_per_class_is_learnt_and_not_scored(chooser, photos):
    model = chooser().fit([photos[0], photos[-1]], ["a", "b"])
    assert model.strategy_ == "linear"
    assert model.decision_.outer.images == 0
    assert "It has no outer score" in model.decision_.explain()
    assert model.predict([photos[0], photos[-1]]).tolist() == ["a", "b"]


@pytest.fixture(scope="module")
def watched(photos, labels, shared_cache):
    """A model chosen from 24 photographs, and the images that each choice saw and was scored on."""
    looked_at, scored = [], []
    run, evaluate = Search.run, Experiment.evaluate

    def note_rows(self):
        looked_at.append(set(self._rows))
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Experiment, "evaluate", evaluate)
            return run(self)

    def note_scored(self, model, strategy, rows, backbone):
        scored.append(set(rows))
        return evaluate(self, model, strategy, rows, backbone)

    with pytest.MonkeyPatch.context() as outer:
        outer.setattr(Search, "run", note_rows)
        outer.setattr(Experiment, "evaluate", note_scored)
        model = TransferClassifier(cv=3, random_state=0, cache=shared_cache).fit(photos, labels)
    return model, looked_at, scored


def test_some_images_give_heads_compared_on_the_same_folds(watched, photos):
    model = watched[0]
    decision = model.decision_
    frame = decision.candidates
    assert frame["strategy"].tolist() == ["linear", "nearest-mean", "svm", "fine-tune"]
    assert frame["images"].tolist() == [24, 24, 0, 0]
    assert frame["gain"][0] == 0
    assert (frame["bytes"][:2] == 24 * 1280 * 4).all()
    assert decision.outer.images == 24
    assert "repeated on the rest of each of 10 folds" in decision.outer.how
    assert decision.outer.low < decision.outer.score <= 1.0
    proba = model.predict_proba(photos)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (model.classes_[proba.argmax(axis=1)] == model.predict(photos)).all()


def test_the_outer_images_have_no_part_in_the_choice(watched):
    _, looked_at, scored = watched
    assert len(scored) == 10
    for seen, held_out in zip(looked_at, scored, strict=False):
        assert seen | held_out == set(range(24))
        assert not seen & held_out
    assert looked_at[10] == set(range(24))


def test_the_decision_is_a_table_and_sentences(chooser, photos, labels):
    names = ["<b>temple</b>" if label == "temple" else label for label in labels]
    decision = chooser("linear", test_size=0.5).fit(photos, names).decision_
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(decision)
    assert "accuracy" in console.export_text()
    assert str(decision) == decision.explain()
    html = decision._repr_html_()
    assert "<table" in html
    assert "<p>24 images, 12 in the median class" in html


def test_fine_tuning_is_tried_where_images_suffice(chooser, photos, labels, monkeypatch):
    monkeypatch.setattr(search, "MANY", 10)
    monkeypatch.setattr("featuretl.transfer.decision.MANY", 10)
    monkeypatch.setattr(search, "_FEWEST_ERRORS", 0)
    model = chooser().fit(photos, labels)
    row = model.decision_.candidates.set_index("strategy").loc["fine-tune"]
    assert 4 <= row["images"] <= 8  # the first of three inner folds
    assert row["bytes"] > 0
    assert model.decision_.outer.images == 5
    assert "made on the other 19" in model.decision_.outer.how


def test_what_is_easy_is_not_fine_tuned(chooser, photos, labels, monkeypatch):
    monkeypatch.setattr(search, "MANY", 10)
    model = chooser(test_size=None).fit(photos, labels)
    assert "24 images: nothing to gain" in verdicts(model)["fine-tune"]
    assert model.decision_.outer.images == 0


def test_fine_tuning_on_request(chooser, photos, labels):
    model = chooser("fine-tune", test_size=0.25).fit(photos, labels)
    assert isinstance(model.estimator_, FineTuneClassifier)
    assert model.estimator_.learning_rate != "auto"
    assert model.decision_.outer.images == 6
    assert "fine-tuning 3 blocks at rate" in model.decision_.explain()
    assert "The linear probe: for comparison." in model.decision_.explain()
    assert model.score(photos, labels) == 1.0


def test_a_gain_must_exceed_its_error(chooser, photos, labels, monkeypatch):
    experiment = Experiment(chooser(), photos, labels, None, classification_targets)
    choice = Search(experiment, np.arange(24), ["tf_efficientnet_lite0"], "auto", 4)
    base, other = (choice._trial("linear", "x", ""), choice._trial("svm", "x", ""))
    base.scores[:], other.scores[:] = 0.0, 0.0
    other.scores[:3] = 1.0  # 12.5 +- 6.9 points
    assert choice._better(other, than=base) is other
    assert (base.outcome, base.better) == ("beaten", "svm")
    assert verdict(base, choice.trials) == "beaten by the SVM"
    assert (other.rival, other.gain.images) == ("linear", 24)
    assert other.gain.mean == pytest.approx(0.125)
    other.scores[1:] = 0.0  # 4.2 +- 4.2
    base.losses[:], other.losses[:] = 1.0, 1.0
    assert choice._better(other, than=base) is base
    assert other.outcome == "rejected"
    assert "less than one standard error" in verdict(other, choice.trials)
    other.losses[:] -= np.linspace(0.1, 0.3, 24)  # clear in the log-loss, and no worse in the score
    assert choice._better(other, than=base) is other
    other.scores[:] = 0.0
    assert choice._better(other, than=base) is base
    assert "right about the same images" in verdict(other, choice.trials)
    other.scores[:], base.scores[:] = 0.0, 1.0
    assert choice._better(other, than=base) is base
    assert verdict(other, choice.trials).startswith("rejected, as it lost 100.0 +- 0.0 points")
    assert verdict(other, choice.trials, brief=True) == "rejected"


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


def test_of_several_backbones_the_best_probe_is_taken(chooser, photos, labels):
    names = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    model = chooser(backbone=names, test_size=None).fit(photos, labels)
    frame = model.decision_.candidates
    probes = frame[frame["strategy"] == "linear"].set_index("backbone")
    assert set(probes.index) == set(names)
    assert probes["score"].idxmax() == model.backbone_
    other = next(name for name in names if name != model.backbone_)
    assert probes["verdict"][other] == f"{model.backbone_} scored higher"
    model = chooser("linear", backbone="auto", test_size=None).fit(photos, labels)
    installed = [info.name for info in list_backbones() if info.available]
    assert sorted(model.decision_.candidates["backbone"]) == sorted(installed)


def test_the_same_seed_gives_the_same(chooser, photos, labels):
    one, two = (chooser().fit(photos[6:18], labels[6:18]) for _ in range(2))
    columns = [c for c in one.decision_.candidates if c != "seconds"]
    pd.testing.assert_frame_equal(
        one.decision_.candidates[columns], two.decision_.candidates[columns]
    )
    np.testing.assert_array_equal(one.predict_proba(photos), two.predict_proba(photos))


def test_every_image_is_embedded_once(cache, photos, labels, forwards):
    model = TransferClassifier(test_size=0.5, random_state=0).fit(photos, labels)
    assert len(forwards) == 24
    model.predict(photos)
    assert len(forwards) == 24


def test_a_time_budget_leaves_out_what_does_not_fit(chooser, photos, labels, monkeypatch):
    monkeypatch.setattr(search, "MANY", 10)
    monkeypatch.setattr(search, "_FEWEST_ERRORS", 0)
    model = chooser(time_budget=0.01, test_size=None).fit(photos, labels)
    assert model.strategy_ != "fine-tune"
    assert "of the time budget are left" in verdicts(model)["fine-tune"]
    assert verdicts(model)["svm"] == "not tried: half of the time budget is spent"


def test_it_is_a_scikit_learn_estimator(chooser, photos, labels):
    model = chooser("linear", test_size=None)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        model.predict(photos)
    with pytest.raises(NotFittedError):
        model.classes_  # noqa: B018
    assert cross_val_score(model, np.array(photos), labels, cv=3).mean() > 0.8
    fitted = pickle.loads(pickle.dumps(model.fit(photos, labels)))
    np.testing.assert_array_equal(fitted.predict_proba(photos), model.predict_proba(photos))
    assert fitted.decision_.explain() == model.decision_.explain()


def test_a_decision_is_data_and_a_file_of_an_earlier_version_still_reads():
    """Files of earlier versions contain the verdict of each trial as a sentence, newer ones as data."""
    files = Path(__file__).parents[1] / "formats/files/v1/models"
    old = load_model(files / "transfer.featuretl").decision_
    assert (old.trials[0].outcome, old.trials[0].verdict) == (None, "chosen")
    assert old.explain().splitlines()[0] == (
        "24 images, 12 in the median class: the linear probe on tf_efficientnet_lite0 was chosen."
    )
    scores = np.linspace(0, 1, 24).round()
    old.trials.append(
        dataclasses.replace(old.trials[0], strategy="svm", verdict="rejected, as: so")
    )
    assert old.explain().splitlines()[1] == "The SVM: rejected, as: so."
    assert old.candidates["verdict"].tolist() == ["chosen", "rejected, as: so"]
    assert verdict(old.trials[1], old.trials, brief=True) == "rejected"
    gain, loss = Gain(0.125, 0.0625, 24), Gain(0.5, 0.25, 24)
    probe, svm, tuned = (
        Trial(strategy, "net", "why", np.arange(24), scores, scores)
        for strategy in ("linear", "svm", "fine-tune")
    )
    told = [
        (probe, {"outcome": "beaten", "better": "svm"}, "beaten by the SVM"),
        (probe, {"outcome": "outscored", "better": "other"}, "other scored higher"),
        (probe, {"outcome": "compared"}, "for comparison"),
        (probe, {"outcome": "chosen"}, "chosen"),
        (tuned, {"outcome": "skipped"}, "not tried: why"),
        (tuned, {"outcome": "failed"}, "rejected: too little time was left for one epoch"),
        (svm, {"outcome": "chosen", "rival": "linear", "gain": gain, "loss_gain": loss},
         "chosen: it gained 12.5 +- 6.2 points (log-loss -0.500 +- 0.250) against the linear probe "
         "on 24 held-out images"),
        (svm, {"outcome": "rejected", "rival": "linear", "gain": Gain(np.nan, np.inf, 0), "loss_gain": loss},
         "rejected, as it could not be compared with the linear probe: no image could be held out"),
    ]  # fmt: skip
    for trial, facts, sentence in told:
        assert verdict(dataclasses.replace(trial, **facts), [probe, svm, tuned]) == sentence


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strategy": "finetune"}, "'fine-tune'"),
        ({"backbone": []}, "'backbone' parameter .* name, a list"),
        ({"backbone": ["a", "a"]}, "'backbone' parameter"),
        ({"backbone": ["a", "b"], "weights": "file"}, "'weights' parameter"),
        ({"cv": 1}, "'cv' parameter"),
        ({"cv": [([0], [1])]}, "an int >= 2 or a splitter"),
        ({"test_size": 0.7}, "'test_size' parameter"),
        ({"test_size": True}, "'test_size' parameter"),
        ({"time_budget": 0}, "'time_budget' parameter"),
    ],
)
def test_parameters_are_checked(few, parameters, message):
    with pytest.raises(ParameterError, match=message):
        TransferClassifier(**parameters).fit(*few)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 6, "at least 2 classes"),
        (["a", "b"], "one entry per row"),
        (np.eye(2, dtype=int)[[0, 1, 0, 1, 0, 1]] * 0 + 1, "one class per image"),
        (None, "requires y"),
    ],
)
def test_targets_are_checked(few, y, message):
    with pytest.raises(InputError, match=message):
        TransferClassifier().fit(few[0], y)


def test_groups_are_checked(few):
    with pytest.raises(InputError, match="groups"):
        TransferClassifier().fit(*few, groups=[1, 2])


def test_the_last_fit_says_how_many_folds_it_made(chooser, few):
    with pytest.warns(FeatureTLWarning, match="LinearProbeClassifier uses 3 folds") as caught:
        chooser("linear", test_size=None).fit(*few)
    assert len(caught) == 1


def test_an_interrupt_ends_it(chooser, photos, labels, monkeypatch):
    def interrupt(self, rows, x):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chooser("fine-tune", test_size=None).fit(photos, labels)


def test_a_splitter_makes_the_inner_folds(chooser, photos, labels):
    folds = KFold(4, shuffle=True, random_state=0)
    model = chooser("linear", cv=folds, test_size=None).fit(photos, labels)
    assert model.decision_.folds == "4 folds."
    assert model.decision_.candidates["images"].tolist() == [24]


def kinds_and_halves(photos, as_numbers=False):
    """Tags of the crops: the object, and whether the crop is from the upper half."""
    tags = [[path.split("/")[-2]] + ["upper"] * (i % 12 < 6) for i, path in enumerate(photos)]
    tags[0] = []
    names = ["flower", "temple", "upper"]
    return [[names.index(tag) for tag in row] for row in tags] if as_numbers else tags


@pytest.mark.parametrize("form", ["lists", "indicator", "numbers"])
def test_several_labels_per_image(form, photos, shared_cache):
    tags = kinds_and_halves(photos, as_numbers=form == "numbers")
    indicator = MultiLabelBinarizer().fit_transform(tags)
    model = TransferClassifier(
        "linear", backbone="test_resnet", weights="random", cache=shared_cache, cv=3, test_size=0.5,
        random_state=0,
    ).fit(photos, indicator if form == "indicator" else tags)  # fmt: skip
    assert model.classes_.tolist() == {"lists": ["flower", "temple", "upper"]}.get(form, [0, 1, 2])
    assert model.predict(photos).shape == (24, 3)
    outer, text = model.decision_.outer, model.decision_.explain()
    assert (model.decision_.score_name, outer.images) == ("f1_samples", 12)
    assert 0 <= outer.low < outer.score < outer.high
    assert "fine-tuning" not in text


def test_the_score_of_labels_is_scikit_learns(photos):
    tags = kinds_and_halves(photos)
    indicator = MultiLabelBinarizer().fit_transform(tags)
    X = np.random.default_rng(0).normal(size=(24, 5)) + indicator @ np.ones((3, 5))
    task = classification_targets(TransferClassifier("linear"), tags, 24)
    rows = np.arange(0, 24, 2)
    for train in (np.arange(1, 24, 2), np.arange(12)):  # the second without a temple
        head = task.head("linear", len(train), True, True, 0).fit(X[train], task.y[train])
        predicted = np.zeros((12, 3), int)
        predicted[:, [["flower", "temple", "upper"].index(tag) for tag in head.classes_]] = (
            head.predict(X[rows])
        )
        expected = f1_score(indicator[rows], predicted, average="samples", zero_division=1)
        assert task.evaluate(head, X[rows], rows, True)[0].mean() == pytest.approx(expected)


def test_several_labels_per_image_have_one_strategy(photos):
    with pytest.raises(InputError, match="strategy='linear'"):
        TransferClassifier(cache=None).fit(photos, kinds_and_halves(photos))
