"""The decision: its sentences and table, and the independence of the outer score."""

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from featuretl import TransferClassifier, load_model
from featuretl._core.statistics import Gain, error_of_mean
from featuretl.transfer.decision import Decision, Outer, _outer_folds, verdict
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import Search, Trial

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


@pytest.fixture(scope="module")
def watched(photos, labels, shared_cache):
    """A model chosen from 24 photographs, and the images that each choice saw and was scored on."""
    looked_at, scored = [], []
    run, evaluate = Search.run, Experiment.evaluate

    def note_rows(self, **options):
        looked_at.append(set(self._rows))
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Experiment, "evaluate", evaluate)
            return run(self, **options)

    def note_scored(self, model, trial, rows):
        scored.append(set(rows))
        return evaluate(self, model, trial, rows)

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


def trial(strategy, scores, outcome, backbone="net", **facts):
    scores = np.asarray(scores, float)
    losses = np.full(len(scores), np.nan)
    return Trial(
        strategy, backbone, "why", np.arange(len(scores)), scores, losses, outcome, **facts
    )


def decision(trials, **facts):
    defaults = {
        "strategy": "linear", "backbone": "net", "outer": Outer(how="test_size=None"),
        "seconds": 1.0, "n_images": len(trials[0].rows), "per_class": 30, "folds": "5 folds.",
        "score_name": "accuracy", "proportion": True, "groups": None,
    }  # fmt: skip
    return Decision(trials=trials, **(defaults | facts))


def test_gains_are_relative_to_the_probe_on_the_chosen_backbone():
    scores = np.arange(12) % 3 > 0
    trials = [
        trial("linear", np.zeros(12), "outscored", "other", better="net"),
        trial("linear", scores, "chosen"),
        trial("svm", np.r_[np.ones(6), np.full(6, np.nan)], "rejected"),
        trial("fine-tune", np.full(12, np.nan), "skipped"),
    ]
    frame = decision(trials).candidates
    assert frame["gain"][:3].tolist() == pytest.approx([-2 / 3, 0, 1 / 3])
    assert frame["gain_error"][2] == pytest.approx(error_of_mean(1.0 - scores[:6]))
    assert frame["images"].tolist() == [12, 12, 6, 0]
    assert frame["score"][:3].tolist() == pytest.approx([0, 2 / 3, 1])
    assert np.isnan(frame[["score", "low", "high", "gain"]].iloc[3]).all()
    assert frame["why"].tolist() == ["why", "why", "why", ""]  # the verdict says why it was skipped
    grouped = decision(trials, groups=np.arange(12) // 6).candidates
    assert grouped["high"][1] - grouped["low"][1] > frame["high"][1] - frame["low"][1]
    # Without a probe on the chosen backbone, gains are relative to the first candidate.
    alone = decision(trials[2:], strategy="svm").candidates
    assert alone["gain"][0] == 0


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        ({"per_class": 3}, "With 5 images per class strategies could be compared, with 20"),
        ({"per_class": 19}, "With 20 images per class fine-tuning"),
        ({"per_class": 20}, ""),
        ({"per_class": 0, "score_name": "r2"}, "With 200 images fine-tuning"),
        ({"per_class": 0, "score_name": "r2", "n_images": 200}, ""),
        ({"per_class": 0, "score_name": "f1_samples"}, ""),
    ],
)
def test_advice_is_given_where_more_images_would_allow_more(facts, advice):
    text = decision([trial("linear", np.ones(12), "chosen")], **facts).explain()
    last = text.splitlines()[-1]
    assert last.startswith(advice) if advice else last.startswith("It has no outer score")


def test_the_sentences_name_other_backbones_and_the_outer_images():
    trials = [
        trial("linear", np.ones(12), "chosen"),
        trial("linear", np.zeros(12), "outscored", "other", better="net"),
    ]
    outer = Outer(0.9, 0.8, 0.95, 1200, "how")
    lines = decision(trials, outer=outer, n_images=6000).explain().splitlines()
    assert lines[0] == "6,000 images, 30 in the median class: the linear probe on net was chosen."
    assert lines[1] == "The linear probe on other: net scored higher."
    assert lines[3].startswith("accuracy 0.900 (95% interval 0.800 to 0.950) on 1,200 images")
    assert lines[3].endswith("how. Then it was fitted again to all 6,000.")
    assert "no interval" in Outer(1.0, -np.inf, 1.0, 3, "how").explain("r2")


@pytest.mark.parametrize(
    ("n", "per_class", "strategy", "test_size", "held_out"),
    [
        (24, 12, "auto", None, []),
        (50, 12, "auto", "auto", [5] * 10),
        (305, 12, "auto", "auto", [61]),
        (100, 20, "auto", "auto", [20]),  # fine-tuning could be tried
        (25, 12, "fine-tune", "auto", [5]),
        (24, 12, "auto", 0.5, [12]),
        (24, 12, "auto", 0.34, [8]),  # a third
        (240, 0, "auto", "auto", [48]),  # regression
    ],
)
def test_how_many_images_are_held_out(n, per_class, strategy, test_size, held_out):
    def folds(rows, k):
        return np.arange(n) * k // n, ""

    experiment = SimpleNamespace(n=n, folds=folds, targets=SimpleNamespace(per_class=per_class))
    fold, how = _outer_folds(experiment, strategy, test_size)
    sizes = np.bincount(fold + 1)[1:].tolist()
    assert sizes == held_out
    if len(held_out) == 1:
        assert f"the other {n - held_out[0]}" in how
