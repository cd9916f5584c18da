"""The training loop, on the cached activations of the 24 crops, and its learning rates."""

import dataclasses

import numpy as np
import pytest
import torch

from featuretl.finetune.loop import Run, Trainer, evaluate, rate_factor
from featuretl.finetune.network import snapshot
from featuretl.finetune.training import SCHEDULES, Training


def moved(before, network):
    after = network.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_only_the_named_blocks_and_the_head_move(begun):
    task, training = begun(n_blocks=3)
    task.blocks = task.blocks[-1:]
    before = snapshot(task.network)
    Trainer(task, training).run()
    names = {name.removeprefix("top.model.") for name in moved(before, task.network)}
    assert names - {"head.weight", "head.bias"} <= task.blocks[0]
    assert {"blocks.6.0.conv_pw.weight", "conv_head.weight", "bn2.weight", "head.weight"} <= names


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_batch_norm_statistics(begun, batch_norm):
    task, training = begun(n_blocks=3)
    task.blocks = task.blocks[-1:]
    before = snapshot(task.network)
    Trainer(task, dataclasses.replace(training, batch_norm=batch_norm)).run()
    statistics = {name for name in moved(before, task.network) if "running" in name}
    if batch_norm == "frozen":
        assert not statistics
    else:
        assert statistics
        assert all("blocks.6.0" in name or "top.model.bn2" in name for name in statistics)


def test_the_head_learns_alone_first(begun):
    task, training = begun()
    before = snapshot(task.network)
    alone = dataclasses.replace(training, epochs=4, head_epochs=2, unfrozen_rate=0.1)
    seen = []

    def look(trainer):
        seen.append((moved(before, task.network), trainer.optimizer.param_groups[0]["lr"]))

    Trainer(task, dataclasses.replace(alone, schedule="constant", warmup=0.0), look).run()
    assert seen[1][0] == {"head.weight", "head.bias"}
    assert len(seen[2][0]) > 2
    assert seen[2][1] == pytest.approx(seen[1][1] / 10)


def test_layer_decay_gives_each_block_its_rate(begun):
    task, training = begun(n_blocks=3)
    trainer = Trainer(task, dataclasses.replace(training, layer_decay=0.5))
    rates = {group["distance"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {0: 0.003, 1: 0.0015, 2: 0.00075, 3: 0.000375}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam", "rmsprop"])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_every_optimizer_lowers_the_loss(begun, optimizer, schedule):
    task, training = begun(head="linear")
    rate = 0.01 if optimizer == "sgd" else 0.0003
    how = dataclasses.replace(
        training, optimizer=optimizer, schedule=schedule, learning_rate=rate, epochs=4
    )
    records = Trainer(task, how).run().records
    assert records[-1]["loss"] < records[0]["loss"]


def test_the_moving_average_is_not_the_last_epoch(begun):
    task, training = begun()
    seen = []
    how = dataclasses.replace(training, average="ema", epochs=3)
    Trainer(task, how, lambda trainer: seen.append(snapshot(task.network))).run()
    assert not torch.equal(task.network.state_dict()["head.weight"], seen[-1]["head.weight"])


def test_early_stopping_keeps_the_best_epoch(begun):
    task, training = begun()
    task.rows, task.held_out = np.arange(0, 24, 2), np.arange(1, 24, 2)
    how = dataclasses.replace(training, early_stopping=1, epochs=30, schedule="constant")
    how = dataclasses.replace(how, learning_rate=0.03)
    seen = []
    trainer = Trainer(task, how, lambda trainer: seen.append(snapshot(task.network)))
    state = trainer.run()
    assert state.stopped == "early_stopping"
    assert state.epoch == state.best_epoch + 1
    best = seen[state.best_epoch - 1]["head.weight"]
    torch.testing.assert_close(task.network.state_dict()["head.weight"], best, rtol=0, atol=0)
    losses, _ = evaluate(task.network, task, task.held_out, how)
    assert losses.mean() == pytest.approx(state.best_loss, rel=1e-5)


def test_an_interrupt_ends_training_and_keeps_the_weights(begun):
    task, training = begun()

    def interrupt():
        raise KeyboardInterrupt

    state = Trainer(task, training, on_batch=interrupt).run()
    assert state.stopped == "interrupted"
    assert state.records == []
    assert not task.network.training


def test_the_time_budget_ends_training(begun):
    task, training = begun()
    state = Trainer(task, dataclasses.replace(training, epochs=10_000, seconds=0.5)).run()
    assert state.stopped == "time_budget"
    assert state.epoch < 10_000
    assert state.elapsed < 20


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_factors_lie_between_0_and_1(schedule, warmup):
    training = Run(schedule=schedule, warmup=warmup, learning_rate=1.0, epochs=10)
    values = [rate_factor(training, t) for t in np.linspace(0, 1, 101)]
    assert min(values) >= 0
    assert max(values) <= 1 + 1e-12
    assert max(values) == pytest.approx(1.0, abs=0.05)


def test_known_values():
    def factors(*progress, schedule, epochs=10, warmup=0.0, **settings):
        run = Run(schedule=schedule, epochs=epochs, learning_rate=1.0, warmup=warmup, **settings)
        return [rate_factor(run, t) for t in progress]

    approx = pytest.approx
    assert factors(0, 0.5, 1, schedule="cosine") == approx([1, 0.5, 0])
    assert factors(0.5, schedule="inverse-time", decay_rate=0.3, epochs=12) == approx([1 / 2.8])
    assert factors(0.5, 0.7, 0.9, schedule="step") == approx([1, 0.1, 0.01])
    assert factors(0, 0.25, 1, schedule="one-cycle") == approx([1 / 25, 1, 1e-5])
    assert factors(0.25, schedule="constant", warmup=0.5) == approx([0.5])


def test_bfloat16_is_close(quick, photos, labels):
    half = quick(training=Training(precision="bfloat16")).fit(photos, labels).predict_proba(photos)
    single = quick(training=Training(precision="float32")).fit(photos, labels).predict_proba(photos)
    np.testing.assert_allclose(half, single, atol=0.05)
