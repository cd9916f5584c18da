"""The training loop over activations, its learning rates, and the evaluation of held-out rows."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from featuretl.finetune.activations import Activations, split_rows
from featuretl.finetune.network import TunedNetwork, snapshot
from featuretl.finetune.objective import Objective
from featuretl.finetune.training import Training

# Once the blocks move, the gradient of a probe that was fitted to fixed features can explode.
_LONGEST_GRADIENT = 5.0

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run(Training):
    """The settings of one training run; `seconds` limits its duration."""

    learning_rate: float
    epochs: int
    batch_size: int = 32
    early_stopping: int | None = None
    bfloat16: bool = False
    seed: int = 0
    seconds: float | None = None


@dataclass(eq=False)
class Task:
    """A network, its trainable blocks, and the images to train on."""

    network: TunedNetwork
    blocks: list[frozenset[str]]  # parameter names of each trainable block, from input to output
    activations: Activations
    objective: Objective
    rows: np.ndarray
    held_out: np.ndarray | None = None  # the rows that each epoch is evaluated on


@dataclass(eq=False)
class State:
    """The state of training after an epoch, which a checkpoint saves with the network."""

    epoch: int = 0
    records: list[Record] = field(default_factory=list)
    stopped: str = ""
    elapsed: float = 0.0
    best_loss: float = np.inf
    best_epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)


class Trainer:
    """Trains the network of a `Task`; calls `on_epoch` and `on_batch` after each epoch and batch."""

    def __init__(
        self,
        task: Task,
        training: Run,
        on_epoch: Callable[[Trainer], None] | None = None,
        on_batch: Callable[[], None] | None = None,
    ) -> None:
        self.task, self.training = task, training
        self.state = State()
        self._on_epoch, self._on_batch = on_epoch, on_batch
        task.network.train_blocks(task.blocks, training.batch_norm)
        self.optimizer = _optimizer(task, training)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average: AveragedModel | None = None
        if training.average == "ema":
            steps = max(1, len(task.rows) // training.batch_size) * 2.0  # two epochs
            decay = get_ema_multi_avg_fn(steps / (steps + 1))
            self.average = AveragedModel(task.network, multi_avg_fn=decay, use_buffers=True)

    def run(self) -> State:
        """Train until the last epoch, early stopping, the time limit or Ctrl-C; return the state."""
        self._began = time.monotonic() - self.state.elapsed
        try:
            while not self.state.stopped and self.state.epoch < self.training.epochs:
                self._epoch()
        except KeyboardInterrupt:
            self.state.stopped = "interrupted"
        self._restore_best()
        return self.state

    def _epoch(self) -> None:
        state, training = self.state, self.training
        began = time.monotonic()
        order = np.random.default_rng([training.seed, state.epoch]).permutation(self.task.rows)
        parts = split_rows(order, training.batch_size)
        loss = self._pass(parts)
        state.epoch += 1
        state.elapsed = time.monotonic() - self._began
        rate = self.optimizer.param_groups[0]["lr"]
        record: Record = {"epoch": state.epoch, "rate": rate, "loss": loss}
        if self.task.held_out is not None:
            losses, scores = evaluate(self._evaluated(), self.task, self.task.held_out, training)
            found = {"validation_loss": losses.mean(), "validation_score": scores.mean()}
            record |= {name: float(value) for name, value in found.items()}
            self.task.network.train_blocks(self.task.blocks, training.batch_norm)
        record["seconds"] = time.monotonic() - began
        state.records.append(record)
        self._track_best(record)
        if self._on_epoch:
            self._on_epoch(self)

    def _pass(self, parts: list[np.ndarray]) -> float:
        """Take one step per part; return the mean loss."""
        seed = [self.training.seed, self.state.epoch]
        total: Any = 0.0
        batches = self.task.activations.batches(parts, seed)
        with _seeded(seed, self.task.objective.device), contextlib.closing(batches):
            for number, (part, x) in enumerate(zip(parts, batches, strict=True)):
                self._set_rates(self.state.epoch + (number + 0.5) / len(parts))
                total += self.step(part, x) * len(part)
                if self._on_batch:
                    self._on_batch()
                limit = self.training.seconds
                if limit is not None and time.monotonic() - self._began >= limit:
                    self.state.stopped = "time_budget"
                    break
        return float(total) / sum(map(len, parts[: number + 1]))

    def step(self, rows: np.ndarray, x: torch.Tensor) -> torch.Tensor:
        """Take one step on the activations `x` of `rows`; return the loss before it, ()."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training.bfloat16):
            outputs = self.task.network(x)
        loss = self.task.objective.loss(outputs, rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learning, _LONGEST_GRADIENT)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.task.network)
        return loss.detach()  # a device computes on while the next batch is made

    def _set_rates(self, epoch: float) -> None:
        """Set the learning rates at a fractional epoch; freeze the blocks during `head_epochs`."""
        training = self.training
        progress = epoch / training.epochs
        if training.seconds:
            progress = max(progress, (time.monotonic() - self._began) / training.seconds)
        factor = rate_factor(training, min(progress, 1.0))
        alone = epoch < training.head_epochs
        if not alone and training.head_epochs:
            factor *= training.unfrozen_rate
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
            for parameter in group["params"]:
                parameter.requires_grad_(not alone or group["distance"] == 0)

    def _evaluated(self) -> nn.Module:
        """Return the network that is evaluated: the averaged one if there is one."""
        return self.average.module if self.average is not None else self.task.network

    def _track_best(self, record: Record) -> None:
        """Save the weights of the best epoch; stop when the loss has not fallen for long enough."""
        state, training = self.state, self.training
        loss = record.get("validation_loss", -float(state.epoch))  # without one, the latest is best
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch
            if training.early_stopping is not None:
                state.best = snapshot(self._evaluated())
        patience = training.early_stopping
        if patience is not None and state.epoch - state.best_epoch >= patience:
            state.stopped = "early_stopping"

    def _restore_best(self) -> None:
        self.task.network.load_state_dict(self.state.best or self._evaluated().state_dict())
        self.task.network.eval()


class Evaluation(NamedTuple):
    """The losses and scores of held-out rows, float64 (k,) each."""

    losses: np.ndarray
    scores: np.ndarray


def evaluate(network: nn.Module, task: Task, rows: np.ndarray, training: Run) -> Evaluation:
    """Return the losses and scores of `rows`; the network is left in evaluation mode."""
    losses, scores = [], []
    parts = split_rows(rows, training.batch_size)
    outputs = outputs_of(network, task.activations, parts, training.bfloat16)
    for part, output in zip(parts, outputs, strict=True):
        losses.append(task.objective.held_out_losses(output, part))
        scores.append(task.objective.scores(output, part))
    return Evaluation(np.concatenate(losses), np.concatenate(scores))


def outputs_of(
    network: nn.Module, activations: Activations, parts: list[np.ndarray], bfloat16: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the float32 outputs for each part, without augmentation and in evaluation mode."""
    network.eval()
    for x in activations.batches(parts):
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            outputs = network(x)
        yield outputs.float()


def _optimizer(task: Task, training: Run) -> torch.optim.Optimizer:
    """Return the optimizer, with one parameter group per distance from the head."""
    groups: dict[int, list[Any]] = {}
    for distance, parameter in task.network.distance_from_head(task.blocks):
        groups.setdefault(distance, []).append(parameter)
    rate, decay = training.learning_rate, training.layer_decay
    options: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate * decay**distance, "distance": distance}
        for distance, parameters in sorted(groups.items())
    ]
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
    }
    return kinds[training.optimizer](options, lr=rate, weight_decay=training.weight_decay)


def rate_factor(training: Run, t: float) -> float:
    """Return the factor on the learning rates at progress `t` in [0, 1].

    "cosine" is that of Loshchilov and Hutter 2017, "one-cycle" that of Smith and Topin 2018 as in
    fastai: along cosines from 1/25 to 1 in the first quarter, then down to 1e-5.
    """
    if t < training.warmup:
        return t / training.warmup
    t = (t - training.warmup) / (1 - training.warmup)
    if training.schedule == "cosine":
        return _cosine(1.0, 0.0, t)
    if training.schedule == "one-cycle":
        return _cosine(1 / 25, 1.0, 4 * t) if t < 0.25 else _cosine(1.0, 1e-5, (t - 0.25) / 0.75)
    if training.schedule == "inverse-time":
        return 1 / (1 + training.decay_rate * t * training.epochs)
    return 0.1 ** ((t >= 0.6) + (t >= 0.85)) if training.schedule == "step" else 1.0


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


@contextlib.contextmanager
def _seeded(seed: list[int], device: torch.device) -> Iterator[None]:
    """Seed the generators that dropout and a callable `augment` use; restore them afterwards."""
    number = int(np.random.default_rng(seed).integers(2**31))
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
