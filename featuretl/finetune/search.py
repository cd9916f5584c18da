"""The search for a learning rate and a number of blocks, by successive halving."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from featuretl._core.statistics import error_of_mean
from featuretl.finetune.loop import Evaluation, Record, Run, Task, Trainer, evaluate
from featuretl.finetune.network import snapshot

RATES = {
    "sgd": (0.003, 0.01, 0.03),
    "adamw": (3e-5, 1e-4, 3e-4),
    "adam": (3e-5, 1e-4, 3e-4),
    "rmsprop": (1e-5, 3e-5, 1e-4),
}


class Candidate(NamedTuple):
    """A learning rate and a number of blocks to try."""

    learning_rate: float
    n_blocks: int


class Choice(NamedTuple):
    """The result of a search."""

    candidate: Candidate | None  # the best one; None if time ran out before the first run
    base: Evaluation  # of the start, which is the probe
    best: Evaluation  # of the candidate; without one, of the start
    records: list[Record]  # the epochs of all runs
    interrupted: bool
    weight: np.ndarray  # (k,), of the held-out rows; the losses already contain the weights

    @property
    def gain(self) -> np.ndarray:
        """The decrease in the loss of each held-out row, float64 (k,)."""
        return self.base.losses - self.best.losses

    @property
    def score_gain(self) -> float:
        """The increase in the weighted mean score."""
        gain = self.weight * (self.best.scores - self.base.scores)
        return float(gain.sum() / max(self.weight.sum(), 1e-300))

    @property
    def worthwhile(self) -> bool:
        """Whether the best candidate lowered the loss without lowering the score."""
        return bool(self.candidate is not None and self.gain.mean() > 0 and self.score_gain >= 0)

    def explain(self) -> str:
        """Return the decision in one sentence."""
        if self.candidate is None:
            return "no candidate could be tried in the given time: the probe is kept."
        gain, error = self.gain.mean(), error_of_mean(self.gain)
        decision = "fine-tuned" if self.worthwhile else "the probe is kept"
        return (
            f"{self.candidate.n_blocks} blocks at rate {self.candidate.learning_rate:g} lowered "
            f"the loss of {len(self.gain)} held-out images by {gain:.4f} +- {error:.4f} and raised "
            f"the score by {self.score_gain:.4f}: {decision}."
        )


def choose(
    task: Task,
    candidates: list[Candidate],
    training: Run,
    base: Evaluation,
    on_batch: Callable[[], None] | None = None,
) -> Choice:
    """Train `candidates` on ``task.rows``, evaluate them on ``task.held_out``, compare with `base`.

    The network's weights are restored afterwards. ``training.seconds`` limits the whole search.
    """
    start = snapshot(task.network)
    assert task.held_out is not None  # every search holds out rows  # nosec B101
    records: list[Record] = []
    deadline = time.monotonic() + (training.seconds or np.inf)
    interrupted = False
    left, weight = candidates, task.objective.weights(task.held_out)
    for epochs in rungs(training.epochs):
        results: dict[Candidate, Evaluation] = {}
        for candidate in left:
            if interrupted or time.monotonic() >= deadline:
                break
            how = _short_run(training, candidate, epochs, deadline)
            blocks = task.blocks[-candidate.n_blocks :]
            trainer = Trainer(dataclasses.replace(task, blocks=blocks), how, on_batch=on_batch)
            state = trainer.run()
            common = {"stage": "search", **candidate._asdict()}
            records += [record | common for record in state.records]
            interrupted = state.stopped == "interrupted"
            evaluation = evaluate(task.network, task, task.held_out, training)
            losses = np.nan_to_num(evaluation.losses, nan=np.inf)
            results[candidate] = evaluation._replace(losses=losses)
            task.network.load_state_dict(start)
        if not results:
            break
        left = sorted(results, key=lambda c: results[c].losses.mean())
        best, evaluation = left[0], results[left[0]]
        left = left[: max(1, len(candidates) // 2)]
    task.network.eval()
    if not records:
        return Choice(None, base, base, records, interrupted, weight)
    return Choice(best, base, evaluation, records, interrupted, weight)


def rungs(epochs: int) -> tuple[int, int]:
    """Return the lengths of the runs: of all candidates, and then of the better half."""
    return max(2, round(0.25 * epochs)), max(2, round(0.5 * epochs))


def _short_run(training: Run, candidate: Candidate, epochs: int, deadline: float) -> Run:
    seconds = None if training.seconds is None else max(0.1, deadline - time.monotonic())
    limits: dict[str, Any] = {"epochs": epochs, "seconds": seconds, "early_stopping": None}
    return dataclasses.replace(training, learning_rate=candidate.learning_rate, **limits)
