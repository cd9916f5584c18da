"""The candidates, and which of them replaces which."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.model_selection import KFold

from featuretl._core.statistics import gain_of
from featuretl.transfer import search
from featuretl.transfer.decision import verdict
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import Search, Trial
from featuretl.transfer.targets import classification_targets

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def verdicts(model):
    return model.decision_.candidates.set_index("strategy")["verdict"]


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


def test_a_gain_must_exceed_its_error(chooser, photos, labels, monkeypatch):
    experiment = Experiment(chooser(), photos, labels, None, classification_targets)
    experiment.cv = 4
    choice = Search(experiment, np.arange(24), "auto")
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


def test_a_time_budget_leaves_out_what_does_not_fit(chooser, photos, labels, monkeypatch):
    monkeypatch.setattr(search, "MANY", 10)
    monkeypatch.setattr(search, "_FEWEST_ERRORS", 0)
    model = chooser(time_budget=0.01, test_size=None).fit(photos, labels)
    assert model.strategy_ != "fine-tune"
    assert "of the time budget are left" in verdicts(model)["fine-tune"]
    assert verdicts(model)["svm"] == "not tried: half of the time budget is spent"


def test_a_splitter_makes_the_inner_folds(chooser, photos, labels):
    folds = KFold(4, shuffle=True, random_state=0)
    model = chooser("linear", cv=folds, test_size=None).fit(photos, labels)
    assert model.decision_.folds == "4 folds."
    assert model.decision_.candidates["images"].tolist() == [24]


def test_three_images_of_two_classes_are_not_compared(chooser, few, photos, labels):
    model = chooser().fit(*few)
    assert model.strategy_ == "linear"
    assert model.score(photos, labels) == 1.0
    told = model.decision_.explain()
    assert "6 images, 3 in the median class: the linear probe on" in told
    assert "With 5 images per class strategies could be compared, with 20 fine-tuning" in told
    assert verdicts(model)["nearest-mean"].startswith("not tried: with 3 images per class")
    assert verdicts(model)["fine-tune"].startswith("not tried: 3 images per class")


class Scored:
    """A stand-in for `Experiment`, in which candidates have the given scores of 40 images."""

    groups, budget, embeddings = (
        None,
        np.inf,
        {"net": np.zeros((40, 2)), "other": np.zeros((40, 2))},
    )

    def __init__(self, per_class=20, n=40, **scores):
        self.scores, self.n = scores, n
        self.targets = SimpleNamespace(
            per_class=per_class, proportion=True, evaluation_of=lambda found, rows: found.evaluation
        )
        self.found = SimpleNamespace(
            interrupted=False, cache_trunk=SimpleNamespace(bytes=7), learning_rate=None
        )
        self.embeddings = type(self).embeddings.__getitem__

    def folds(self, rows, cv):
        return np.arange(len(rows)) % 2, "2 folds."

    def head(self, strategy, rows, backbone):
        return None

    def evaluate(self, model, trial, rows):
        of_strategy = self.scores.get(trial.strategy, np.zeros(40))
        scores = self.scores.get(f"{trial.strategy}_{trial.backbone}", of_strategy)
        return scores[rows], np.full(len(rows), np.nan)

    def seconds_left(self):
        return np.inf

    def subset(self, rows):
        return rows, rows, None

    def fine_tune(self, backbone, seconds):
        return SimpleNamespace(search=lambda *args, **kwargs: self.found)

    def search(self, strategy="auto", backbones=("net",)):
        self.backbones, self.cv = list(backbones), 2
        return Search(self, np.arange(40), strategy)


def first(n):
    """Scores of 40 images, of which n are predicted correctly."""
    return (np.arange(40) < n).astype(float)


def outcomes(choice):
    return {trial.strategy: trial.outcome for trial in choice.trials}


def test_a_challenger_is_compared_with_the_one_that_leads():
    choice = Scored(linear=first(10), **{"nearest-mean": first(20), "svm": first(21)}).search()
    winner = choice.run()
    assert winner.strategy == "nearest-mean"
    told = {trial.strategy: (trial.outcome, trial.rival, trial.better) for trial in choice.trials}
    assert told == {
        "linear": ("beaten", "", "nearest-mean"),
        "nearest-mean": ("chosen", "linear", ""),
        "svm": ("rejected", "nearest-mean", ""),  # one image is no clear gain
        "fine-tune": ("failed", "", ""),  # no time for one epoch
    }
    assert choice.trials[-1].bytes == 7


@pytest.mark.parametrize("n_right", [38, 37])
def test_few_errors_leave_nothing_to_gain(n_right):
    choice = Scored(linear=first(n_right)).search()
    choice.run()
    assert outcomes(choice)["fine-tune"] == ("skipped" if n_right == 38 else "failed")


def test_fine_tuning_that_gains_replaces_the_probe():
    scored = Scored(linear=first(10))
    scored.found = SimpleNamespace(
        interrupted=False, cache_trunk=SimpleNamespace(bytes=7), learning_rate=0.01, n_blocks=3,
        held_out=np.arange(0, 40, 2), evaluation=(np.ones(20), np.full(20, np.nan)),
    )  # fmt: skip
    choice = scored.search()
    winner = choice.run()
    assert winner.settings == {"learning_rate": 0.01, "n_blocks": 3}
    assert winner.gain.images == 20  # the first fold
    assert outcomes(choice) == {
        "linear": "beaten", "nearest-mean": "rejected", "svm": "rejected", "fine-tune": "chosen"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("per_class", "n", "skipped", "absent"),
    [
        (4, 40, ["nearest-mean", "svm", "fine-tune"], []),
        (19, 40, ["svm", "fine-tune"], []),
        (51, 40, [], ["nearest-mean"]),
        (0, 199, ["svm", "fine-tune"], ["nearest-mean"]),  # regression
        (0, 200, [], ["nearest-mean"]),
    ],
)
def test_what_the_number_of_images_allows(per_class, n, skipped, absent):
    choice = Scored(per_class, n).search()
    assert choice.run().strategy == "linear"
    found = outcomes(choice)
    assert [name for name, outcome in found.items() if outcome == "skipped"] == skipped
    assert [name for name in ("nearest-mean", "svm") if name not in found] == absent


def test_an_svm_is_not_tried_on_many_images(monkeypatch):
    monkeypatch.setattr(search, "MOST_FOR_SVM", 39)
    choice = Scored().search()
    choice.run()
    assert outcomes(choice)["svm"] == "skipped"
    assert choice.run().strategy == "linear"


def test_the_backbone_of_the_best_probe_is_used():
    scored = Scored(linear_net=first(10), linear_other=first(12))
    choice = scored.search(backbones=["net", "other"])
    winner = choice.run()
    assert (winner.strategy, winner.backbone) == ("linear", "other")
    assert (choice.trials[0].outcome, choice.trials[0].better) == ("outscored", "other")
    assert {trial.backbone for trial in choice.trials[1:]} == {"other"}
    unscored = Scored(linear=np.full(40, np.nan)).search("linear", ["net", "other"])
    assert unscored.run().backbone == "net"


def test_a_requested_strategy_is_the_only_candidate_but_for_the_probe_of_fine_tuning():
    choice = Scored().search("svm")
    assert choice.run().strategy == "svm"
    assert outcomes(choice) == {"svm": "chosen"}
    choice = Scored(linear=first(39)).search("fine-tune")
    assert choice.run().strategy == "fine-tune"
    assert outcomes(choice) == {"linear": "compared", "fine-tune": "chosen"}


def test_the_score_of_a_trial_is_that_of_the_images_evaluated():
    scores = np.array([1.0, np.nan, 0.0, 1.0])
    trial = Trial("fine-tune", "net", "", np.arange(4), scores, scores)
    assert trial.score == pytest.approx(2 / 3)
    assert trial.name == "fine-tuning"
    trial.settings = {"learning_rate": 0.003, "n_blocks": 1}
    assert trial.name == "fine-tuning 1 block at rate 0.003"
    assert np.isnan(Trial("svm", "net", "", np.arange(4), np.full(4, np.nan), scores).score)


def test_one_image_more_is_never_a_clear_gain():
    """It is exactly one standard error, which rounding took for more with 10 or 40 images."""
    for n in range(2, 400):
        one_more = gain_of((np.arange(n) < 1).astype(float), np.zeros(n))
        assert one_more.mean == pytest.approx(one_more.error)
        assert not one_more.is_clear
    assert gain_of((np.arange(40) < 2).astype(float), np.zeros(40)).is_clear
