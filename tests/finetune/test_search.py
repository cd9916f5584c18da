"""The search among learning rates and numbers of blocks, and its choice."""

import dataclasses

import numpy as np
import pytest
import torch

from featuretl.finetune.loop import Evaluation, Trainer, evaluate
from featuretl.finetune.network import snapshot
from featuretl.finetune.search import RATES, Candidate, Choice, choose, rungs

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


@pytest.fixture
def to_search(begun):
    """A task with held-out rows, the settings of eight epochs, and the evaluation of the start."""
    task, training = begun()
    task.rows, task.held_out = np.arange(0, 24, 2), np.arange(1, 24, 2)
    training = dataclasses.replace(training, epochs=8)
    return task, training, evaluate(task.network, task, task.held_out, training)


def test_the_better_half_is_run_again_for_longer(to_search):
    task, training, base = to_search
    before = snapshot(task.network)
    candidates = [Candidate(rate, 1) for rate in (1e-6, 0.003, 1e30, 1e-7)]  # the third diverges
    choice = choose(task, candidates, training, base)
    runs = [
        (record["learning_rate"], record["stage"])
        for record in choice.records
        if record["epoch"] == 1
    ]
    assert runs[:4] == [(candidate.learning_rate, "search") for candidate in candidates]
    again = [rate for rate, _ in runs[4:]]
    assert len(again) == 2
    assert 1e30 not in again
    assert len(choice.records) == 4 * 2 + 2 * 4
    assert choice.candidate.learning_rate in again
    assert len(choice.gain) == 12
    after = task.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not task.network.training


def test_without_time_the_start_is_kept(to_search):
    task, training, base = to_search
    training = dataclasses.replace(training, seconds=1e-9)
    choice = choose(task, [Candidate(0.003, 1)], training, base)
    assert choice.candidate is None
    assert not choice.worthwhile
    assert not choice.interrupted
    assert choice.records == []
    assert "no candidate" in choice.explain()


def test_an_interrupt_ends_the_search(to_search):
    task, training, base = to_search
    batches = []

    def interrupt():
        batches.append(1)
        if len(batches) == 5:  # two epochs of two batches each belong to the first candidate
            raise KeyboardInterrupt

    choice = choose(task, [Candidate(0.003, 1), Candidate(0.01, 1)], training, base, interrupt)
    assert choice.interrupted
    assert len(choice.records) == 2
    assert choice.candidate in [Candidate(0.003, 1), Candidate(0.01, 1)]


def test_rungs_have_at_least_two_epochs():
    assert rungs(1) == rungs(4) == (2, 2)
    assert rungs(12) == (3, 6)
    assert rungs(40) == (10, 20)


def test_a_lower_loss_must_not_cost_score():
    def choice(losses, scores):
        base, best = (
            Evaluation(np.ones(4), np.ones(4)),
            Evaluation(np.array(losses), np.array(scores)),
        )
        return Choice(Candidate(0.1, 3), base, best, [], False, np.ones(4))

    better = choice([0.5, 0.5, 0.5, 1.5], [1.0] * 4)
    assert better.worthwhile
    assert (
        "3 blocks at rate 0.1 lowered the loss of 4 held-out images by 0.2500" in better.explain()
    )
    assert better.explain().endswith("fine-tuned.")
    worse = choice([0.5, 0.5, 0.5, 1.5], [1.0, 1.0, 1.0, 0.0])
    assert not worse.worthwhile
    assert worse.score_gain == -0.25
    assert worse.explain().endswith("the probe is kept.")
    assert not choice([1.0] * 4, [1.0] * 4).worthwhile
