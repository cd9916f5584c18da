"""The training loop: epochs over activations, nothing hidden."""

from __future__ import annotations

import contextlib
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
from featuretl.finetune.schedules import rate_factor
from featuretl.finetune.training import Training

# A probe's gradient on features that it never saw move is rarely, but then much, longer.
_LONGEST_GRADIENT = 5.0
_EMA_EPOCHS = 2.0

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run(Training):
    """One run of training: its settings and what else decides it."""

    learning_rate: float
    epochs: int
    batch_size: int = 32
    early_stopping: int | None = None
    bfloat16: bool = False
    seed: int = 0
    seconds: float | None = None


@dataclass(eq=False)
class Task:
    """What to train, and the images to train on."""

    network: TunedNetwork
    # Names of the parameters of each block that learns, from input to output.
    blocks: list[frozenset[str]]
    activations: Activations
    objective: Objective
    rows: np.ndarray
    # The rows that judge each epoch.
    held_out: np.ndarray | None = None


@dataclass(eq=False)
class State:
    """Where training stands after an epoch: what a checkpoint holds besides the network."""

    epoch: int = 0
    records: list[Record] = field(default_factory=list)
    stopped: str = ""
    elapsed: float = 0.0
    best_loss: float = np.inf
    best_epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)


class Trainer:
    """Trains a `Task` epoch by epoch, and calls `on_epoch` and `on_batch` after each."""

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
        task.network.learn(task.blocks, training.batch_norm)
        self.optimizer = _optimizer(task, training)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._factor = rate_factor(
            training.schedule, training.warmup, training.decay_rate, training.epochs
        )
        self.average: AveragedModel | None = None
        if training.average == "ema":
            steps = max(1, len(task.rows) // training.batch_size) * _EMA_EPOCHS
            decay = get_ema_multi_avg_fn(steps / (steps + 1))
            self.average = AveragedModel(task.network, multi_avg_fn=decay, use_buffers=True)

    def run(self) -> State:
        """Train until the epochs, the time or the patience end, or Ctrl-C; keep the best weights."""
        self._began = time.monotonic() - self.state.elapsed
        try:
            while not self.state.stopped and self.state.epoch < self.training.epochs:
                self._epoch()
        except KeyboardInterrupt:
            self.state.stopped = "interrupted"
        self._keep_the_best()
        return self.state

    def _epoch(self) -> None:
        state, training = self.state, self.training
        began = time.monotonic()
        order = np.random.default_rng([training.seed, state.epoch]).permutation(self.task.rows)
        parts = split_rows(order, training.batch_size)
        loss = self._pass(parts)
        state.epoch += 1
        state.elapsed = time.monotonic() - self._began
        record: Record = {"epoch": state.epoch, "rate": self.optimizer.param_groups[0]["lr"]}
        record["loss"] = loss
        if self.task.held_out is not None:
            record |= self._judge(self.task.held_out)
        record["seconds"] = time.monotonic() - began
        state.records.append(record)
        self._remember(record)
        if self._on_epoch:
            self._on_epoch(self)

    def _pass(self, parts: list[np.ndarray]) -> float:
        """Take one step per part; return the mean loss."""
        seed = [self.training.seed, self.state.epoch]
        total = 0.0
        batches = self.task.activations.batches(parts, seed)
        with _random_state(seed), contextlib.closing(batches):
            for number, (part, x) in enumerate(zip(parts, batches, strict=True)):
                self._set_rates(self.state.epoch + (number + 0.5) / len(parts))
                total += self.step(part, x) * len(part)
                if self._on_batch:
                    self._on_batch()
                if self._is_out_of_time():
                    self.state.stopped = "time_budget"
                    break
        return total / sum(map(len, parts[: number + 1]))

    def step(self, rows: np.ndarray, x: torch.Tensor) -> float:
        """Take one step on the activations `x` of `rows`; return the loss before it."""
        with _autocast(x.device, self.training.bfloat16):
            outputs = self.task.network(x)
        loss = self.task.objective.loss(outputs, rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learning, _LONGEST_GRADIENT)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.task.network)
        return float(loss.detach())

    def _set_rates(self, epoch: float) -> None:
        """Set the rates for a moment in training; blocks wait until the head's own epochs end."""
        training = self.training
        progress = epoch / training.epochs
        if training.seconds:
            progress = max(progress, (time.monotonic() - self._began) / training.seconds)
        factor = self._factor(min(progress, 1.0))
        alone = epoch < training.head_epochs
        if not alone and training.head_epochs:
            factor *= training.unfrozen_rate
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
            for parameter in group["params"]:
                parameter.requires_grad_(not alone or group["distance"] == 0)

    def _judge(self, rows: np.ndarray) -> Record:
        losses, scores = judge(self._current(), self.task, rows, self.training)
        self.task.network.learn(self.task.blocks, self.training.batch_norm)
        return {"validation_loss": float(losses.mean()), "validation_score": float(scores.mean())}

    def _current(self) -> nn.Module:
        """Return the network whose weights count: the averaged one, or the trained one."""
        return self.average.module if self.average is not None else self.task.network

    def _remember(self, record: Record) -> None:
        """Keep the tensors that may be wanted at the end, and stop when nothing gets better."""
        state, training = self.state, self.training
        loss = record.get("validation_loss", -float(state.epoch))  # unjudged: the latest is best
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch
            if training.early_stopping is not None:
                state.best = snapshot(self._current())
        patience = training.early_stopping
        if patience is not None and state.epoch - state.best_epoch >= patience:
            state.stopped = "early_stopping"

    def _keep_the_best(self) -> None:
        network, state = self.task.network, self.state
        if state.best:
            network.load_state_dict(state.best)
        elif self.average is not None:
            network.load_state_dict(snapshot(self.average.module))
        network.eval()

    def _is_out_of_time(self) -> bool:
        limit = self.training.seconds
        return limit is not None and time.monotonic() - self._began >= limit


class Judgement(NamedTuple):
    """The loss and the score of each held-out row, float64 (k,)."""

    losses: np.ndarray
    scores: np.ndarray


def judge(network: nn.Module, task: Task, rows: np.ndarray, training: Run) -> Judgement:
    """Return the losses and scores of `rows` by a network in evaluation."""
    losses, scores = [], []
    parts = split_rows(rows, training.batch_size)
    outputs = outputs_of(network, task.activations, parts, training.bfloat16)
    for part, output in zip(parts, outputs, strict=True):
        losses.append(task.objective.held_out_losses(output, part))
        scores.append(task.objective.scores(output, part))
    return Judgement(np.concatenate(losses), np.concatenate(scores))


def outputs_of(
    network: nn.Module, activations: Activations, parts: list[np.ndarray], bfloat16: bool = False
) -> Iterator[torch.Tensor]:
    """Yield what a network in evaluation gives for each part, float32, without augmentation."""
    network.eval()
    for x in activations.batches(parts):
        with torch.no_grad(), _autocast(x.device, bfloat16):
            outputs = network(x)
        yield outputs.float()


def _optimizer(task: Task, training: Run) -> torch.optim.Optimizer:
    """Return the optimizer, one group of parameters per distance from the head."""
    groups: dict[int, list[Any]] = {}
    for distance, parameter in task.network.distance_from_head(task.blocks):
        groups.setdefault(distance, []).append(parameter)
    options: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": training.learning_rate * training.layer_decay**distance,
            "distance": distance,
        }
        for distance, parameters in sorted(groups.items())
    ]
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
    }
    return kinds[training.optimizer](
        options, lr=training.learning_rate, weight_decay=training.weight_decay
    )


def _autocast(device: torch.device, bfloat16: bool) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


@contextlib.contextmanager
def _random_state(seed: list[int]) -> Iterator[None]:
    """Seed torch for dropout, and put its generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**31)))
        yield
