"""TODO"""

import numpy as np
import pytest

from featuretl.finetune.loop import Evaluation, Trainer
from featuretl.finetune.search import RATES, Candidate, Choice

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_the_search_shows_what_it_tried(quick, photos, labels):
    model = quick(learning_rate="auto", epochs=4).fit(photos, labels)
    history = model.history_
    search = history[history["stage"] == "search"]
    assert set(search["learning_rate"]) == set(RATES["sgd"])
    assert model.decision_.endswith(("fine-tuned.", "the probe is kept."))
    assert model.fine_tuned_ == model.decision_.endswith("fine-tuned.")
    if model.fine_tuned_:
        assert (history["stage"] == "fit").sum() == 4
        assert model.learning_rate_ in RATES["sgd"]
    else:
        assert model.n_blocks_ == 0
    assert model.score(photos, labels) == 1.0


def test_the_search_tries_one_and_three_blocks(quick, photos, labels):
    model = quick(n_blocks="auto", learning_rate="auto").fit(photos[6:18], labels[6:18])
    search = model.history_[model.history_["stage"] == "search"]
    assert set(search["n_blocks"]) == {1, 3}
    assert model.n_blocks_ in (0, 1, 3)


def test_the_probe_is_kept_when_training_makes_things_worse(quick, photos, labels, monkeypatch):
    def spoil(self, rows, x):
        for parameter in self.task.network.head.parameters():
            parameter.data.neg_()
        return 0.0

    monkeypatch.setattr(Trainer, "step", spoil)
    model = quick(learning_rate="auto", epochs=2).fit(photos, labels)
    assert not model.fine_tuned_
    assert "the probe is kept" in model.decision_
    assert model.score(photos, labels) == 1.0


def test_an_interrupt_in_the_search_keeps_the_probe(quick, photos, labels, monkeypatch):
    def interrupt(self, rows, x):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupt)
    model = quick(learning_rate="auto").fit(photos, labels)
    assert not model.fine_tuned_
    assert model.stopped_ == "interrupted"
    assert model.score(photos, labels) == 1.0


def test_a_search_counts_held_out_scores_by_their_weights():
    better = Evaluation(np.zeros(3), np.array([1.0, 1.0, 0.0]))
    start = Evaluation(np.ones(3), np.array([1.0, 0.0, 1.0]))
    candidate = Candidate(0.1, 1)
    choices = [
        Choice(candidate, start, better, [], False, np.array([1.0, one, other]))
        for one, other in ((2, 1), (1, 2), (1, 0))
    ]
    assert [choice.worthwhile for choice in choices] == [True, False, True]
