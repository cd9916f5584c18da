"""Checkpoints: a killed fit resumes with the same result; others are refused."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.base import clone

from featuretl.exceptions import InputError
from featuretl.finetune.checkpoint import Checkpoint, restore, state_of
from featuretl.finetune.loop import Trainer
from featuretl.finetune.training import Training

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


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


def test_without_a_file_there_is_no_state_and_no_folder(tmp_path):
    assert Checkpoint(tmp_path / "new" / "folder", {}).load() is None
    assert not (tmp_path / "new").exists()


def test_the_order_of_the_identity_does_not_matter_and_its_values_do(tmp_path):
    training = {"seed": 3, "search": None, "trainer": {"x": torch.ones(2)}}
    Checkpoint(tmp_path, {"a": 1, "b": {"c": 2, "d": (3,)}}).save(training)
    found = Checkpoint(tmp_path, {"b": {"d": (3,), "c": 2}, "a": 1}).load()
    assert torch.equal(found.pop("trainer")["x"], torch.ones(2))
    assert found == {"seed": 3, "search": None}
    for other in ({}, {"a": 1, "b": {"c": 2, "d": (4,)}}):
        with pytest.raises(InputError, match="belongs to a fit"):
            Checkpoint(tmp_path, other).load()


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, {"a": 1})
    monkeypatch.setattr("featuretl.finetune.checkpoint._VERSION", 1)
    checkpoint.save({})
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        checkpoint.load()


def test_a_save_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, {"a": 1})
    checkpoint.save({"epoch": 1})

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load() == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_restored_trainer_takes_the_same_steps(begun, average, tmp_path):
    checkpoint = Checkpoint(tmp_path, {})
    task, training = begun()
    how = dataclasses.replace(training, average=average, optimizer="adam", epochs=2)
    first = Trainer(task, how, lambda t: t.state.epoch == 1 and checkpoint.save(state_of(t)))
    state = first.run()
    task_of_second = begun()[0]
    second = Trainer(task_of_second, how)
    restore(second, checkpoint.load())
    assert (second.state.epoch, len(second.state.records)) == (1, 1)
    found = second.run()
    assert [record["loss"] for record in found.records] == [r["loss"] for r in state.records]
    pairs = zip(*(t.network.state_dict().values() for t in (task, task_of_second)), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
