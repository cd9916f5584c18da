"""The search, the checkpoint and the regressor."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from featuretl import FineTuneRegressor
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.finetune.checkpoint import Checkpoint
from featuretl.finetune.loop import Evaluation, Trainer
from featuretl.finetune.search import RATES, Candidate, Choice
from featuretl.finetune.training import Training

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


def test_groups_stay_on_one_side_of_the_inner_split(quick, photos, labels):
    groups = np.repeat(np.arange(12), 2)
    fitting = quick(learning_rate="auto")._begin(photos, labels, None, groups, None)
    train, held_out = fitting._inner_split()
    assert not set(groups[train]) & set(groups[held_out])
    assert len(train) + len(held_out) == 24
    assert {labels[i] for i in train} == set(labels)


def test_too_few_images_to_hold_out(quick, photos, labels):
    with pytest.raises(InputError, match=r"(cannot hold out|needs at least 2 folds)"):
        quick(learning_rate="auto").fit([photos[0], photos[-1]], [labels[0], labels[-1]])


def test_a_search_judges_by_what_is_held_out(quick, photos, labels):
    model = quick(learning_rate="auto")
    found = model.search(photos, labels, held_out=[20, 3, 4])
    assert found.held_out.tolist() == [3, 4, 20]
    assert found.learning_rate in RATES["sgd"]
    assert found.n_blocks == 1
    assert found.losses.shape == found.scores.shape == found.probe_scores.shape == (3,)
    assert not hasattr(model, "classes_")
    again = model.search(photos, labels, held_out=[3, 4, 20])
    np.testing.assert_array_equal(found.losses, again.losses)
    assert len(model.search(photos, labels).held_out) == 5


def test_an_interrupt_in_the_search_keeps_the_probe(quick, photos, labels, monkeypatch):
    def interrupt(self, rows, x):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupt)
    model = quick(learning_rate="auto").fit(photos, labels)
    assert not model.fine_tuned_
    assert model.stopped_ == "interrupted"
    assert model.score(photos, labels) == 1.0


@pytest.mark.parametrize("average", ["none", "ema"])
def test_killed_and_resumed_is_uninterrupted(quick, photos, labels, tmp_path, monkeypatch, average):
    common = {
        "epochs": 4,
        "augment": "light",
        "training": Training(average=average, optimizer="adamw"),
    }
    whole = quick(**common).fit(photos, labels).predict_proba(photos)
    model = quick(**common, checkpoint=tmp_path / "checkpoint")
    save = Checkpoint.save

    def save_and_die(self, training):
        save(self, training)
        if training["trainer"]["state"]["epoch"] == 2:
            raise MemoryError("killed")

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    with pytest.raises(MemoryError):
        model.fit(photos, labels)
    monkeypatch.undo()
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *a: steps.append(1) or step(*a))
    resumed = clone(model).fit(photos, labels)
    assert len(steps) == 2 * 3  # two epochs of three batches were left
    np.testing.assert_array_equal(resumed.predict_proba(photos), whole)
    assert resumed.history_["epoch"].tolist() == [1, 2, 3, 4]


def test_a_checkpoint_of_another_fit_is_refused(quick, photos, labels, tmp_path):
    quick(epochs=1, checkpoint=tmp_path).fit(photos, labels)
    with pytest.raises(InputError, match="belongs to a fit"):
        quick(epochs=1, checkpoint=tmp_path, training=Training(weight_decay=0.1)).fit(
            photos, labels
        )
    with pytest.raises(InputError, match="belongs to a fit"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels[::-1])
    with pytest.raises(InputError, match="labels or groups"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels, groups=np.arange(24) // 2)
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match=r"cannot be read .* delete it"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels)


def test_a_number_without_weight_changes_nothing(quick, photos, light):
    weight, other = np.ones(24), light.copy()
    weight[0], other[0] = 0, 1e4
    model, same = (
        quick(FineTuneRegressor).fit(photos, y, sample_weight=weight) for y in (light, other)
    )
    np.testing.assert_allclose(model.predict(photos), same.predict(photos), atol=1e-4)


def test_a_search_counts_held_out_scores_by_their_weights():
    better = Evaluation(np.zeros(3), np.array([1.0, 1.0, 0.0]))
    start = Evaluation(np.ones(3), np.array([1.0, 0.0, 1.0]))
    candidate = Candidate(0.1, 1)
    choices = [
        Choice(candidate, start, better, [], False, np.array([1.0, one, other]))
        for one, other in ((2, 1), (1, 2), (1, 0))
    ]
    assert [choice.worthwhile for choice in choices] == [True, False, True]


def test_regression(quick, photos, light):
    model = quick(FineTuneRegressor, epochs=3).fit(photos, light)
    assert model.predict(photos).shape == (24,)
    assert model.predict(photos).dtype == np.float32
    assert model.score(photos, light) > 0.8
    assert np.isfinite(cross_val_score(quick(FineTuneRegressor), photos, light, cv=2)).all()
    several = quick(FineTuneRegressor).fit(photos, np.c_[light, -light])
    assert several.predict(photos).shape == (24, 2)
    assert several.transform(photos).shape == (24, 1280)
    model.partial_fit(photos, light)
    assert model.history_["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    searched = quick(FineTuneRegressor, learning_rate="auto").fit(photos, light)
    assert searched.decision_


@pytest.mark.parametrize("bad", [[np.nan] * 24, [1.0] * 3, None])
def test_targets_of_regression_are_checked(quick, photos, bad):
    with pytest.raises(ValueError, match=r"(finite number|one entry per row|requires y)"):
        quick(FineTuneRegressor).fit(photos, bad)


def test_memory_and_disk_decide_about_the_cache(quick, photos, labels, monkeypatch):
    model = quick(cache=None, cache_trunk="auto").fit(photos, labels)
    assert model.cache_trunk_.cached
    assert "fit in memory" in model.cache_trunk_.why
    monkeypatch.setattr("featuretl.finetune.planning.MOST_MEMORY", 1000)
    data = photos, labels, None, None, None
    plan = quick(cache=None, cache_trunk="auto")._begin(*data).plan
    assert not plan.cached
    assert "more than 1,000 in memory" in plan.why
    plan = quick(cache_trunk="auto", augment="strong")._begin(*data).plan
    assert re.match("2 epochs .* 6 views", plan.why)


def test_a_callable_sees_every_image_every_time(quick, photos, labels):
    seen = []

    def augment(image):
        seen.append(image.size)
        return image.transpose(0)

    with pytest.warns(FeatureTLWarning, match="augment is a function"):
        model = quick(augment=augment, cache_trunk=True).fit(photos, labels)
    assert len(seen) == 2 * 24
    assert not model.cache_trunk_.cached


def test_the_strong_views_are_cached(quick, photos, labels):
    model = quick(augment="strong", epochs=7, cache_trunk="auto").fit(photos[6:18], labels[6:18])
    assert model.cache_trunk_.views == 6
    assert model.score(photos, labels) == 1.0


@pytest.mark.parametrize("head", ["linear", ("mlp", 16)])
def test_heads_that_start_at_random(quick, photos, labels, head):
    model = quick(head=head, epochs=6, learning_rate=0.01).fit(photos, labels)
    assert model.score(photos, labels) >= 0.9


def test_bfloat16_is_close(quick, photos, labels):
    half = quick(training=Training(precision="bfloat16")).fit(photos, labels).predict_proba(photos)
    single = quick(training=Training(precision="float32")).fit(photos, labels).predict_proba(photos)
    np.testing.assert_allclose(half, single, atol=0.05)


def test_cached_trunks_are_spaces_of_the_store(quick, photos, labels, cache):
    model = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    result = CliRunner().invoke(cli, ["cache", "info", "--cache", str(cache)])
    assert result.exit_code == 0, result.output
    assert "blocks.6.0" in result.output
    assert "48 embeddings" in result.output
    before = model.predict_proba(photos)
    result = CliRunner().invoke(cli, ["cache", "gc", "--max-size", "0kB", "--cache", str(cache)])
    assert "2 recipes" in result.output
    np.testing.assert_allclose(model.predict_proba(photos), before, atol=1e-5)
    again = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    np.testing.assert_allclose(again.predict_proba(photos), before, atol=1e-5)


def test_copies_of_an_image_are_judged_with_it(quick, photos, labels):
    fitting = quick(learning_rate="auto")._begin(
        [*photos, *photos], [*labels, *labels], None, None, None
    )
    train, held_out = fitting._inner_split()
    assert set(train % 24).isdisjoint(held_out % 24)
    assert 8 <= len(held_out) <= 16
