"""The search for a learning rate, and for how many blocks to train: successive halving.

Short runs from the same start, judged on held-out rows; the better half goes on to a longer run.
The last one left is compared with the probe, which stays unless it is beaten.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from featuretl._core.statistics import error_of_mean
from featuretl.finetune.loop import Judgement, Record, Run, State, Task, Trainer, judge
from featuretl.finetune.network import snapshot

RATES = {
    "sgd": (0.003, 0.01, 0.03),
    "adamw": (3e-5, 1e-4, 3e-4),
    "adam": (3e-5, 1e-4, 3e-4),
    "rmsprop": (1e-5, 3e-5, 1e-4),
}


class Candidate(NamedTuple):
    """What is tried: a learning rate and a number of blocks."""

    learning_rate: float
    n_blocks: int


class Choice(NamedTuple):
    """What the search found."""

    # The best; None if nothing could be tried.
    candidate: Candidate | None
    # The start, and the candidate (the start where there is none), judged by the held-out rows.
    base: Judgement
    found: Judgement
    # The epochs of all runs.
    records: list[Record]
    interrupted: bool
    # Weights (k,) of the held-out rows, which are in the losses already.
    weight: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        """By how much the loss of each held-out row fell, float64 (k,)."""
        return self.base.losses - self.found.losses

    @property
    def score_gain(self) -> float:
        """By how much the weighted mean of the scores rose."""
        gain = self.weight * (self.found.scores - self.base.scores)
        return float(gain.sum() / max(self.weight.sum(), 1e-300))

    @property
    def worthwhile(self) -> bool:
        """Whether the best candidate beat the start, in the loss and not at the score's expense."""
        return bool(self.candidate is not None and self.gain.mean() > 0 and self.score_gain >= 0)


def choose(
    task: Task,
    candidates: list[Candidate],
    training: Run,
    base: Judgement,
    on_batch: Callable[[], None] | None = None,
) -> Choice:
    """Try `candidates` on ``task.rows``, judge them by ``task.held_out``, and compare with `base`.

    The network is left as it was. ``training.seconds`` limits the whole search.
    """
    start = snapshot(task.network)
    assert task.held_out is not None  # a search is not begun without  # nosec B101
    records: list[Record] = []
    results: dict[Candidate, Judgement] = {}
    deadline = time.monotonic() + (training.seconds or np.inf)
    interrupted = False
    left, weight = candidates, task.objective.weights(task.held_out)
    for epochs in rungs(training.epochs):
        results = {}
        for candidate in left:
            if interrupted or time.monotonic() >= deadline:
                break
            run = _run(task, candidate, _short(training, candidate, epochs, deadline), on_batch)
            records += run.records
            interrupted = run.stopped == "interrupted"
            judgement = judge(task.network, task, task.held_out, training)
            losses = np.nan_to_num(judgement.losses, nan=np.inf)
            results[candidate] = judgement._replace(losses=losses)
            task.network.load_state_dict(start)
        if not results:
            break
        left = sorted(results, key=lambda c: results[c].losses.mean())
        best, found = left[0], results[left[0]]
        left = left[: max(1, len(candidates) // 2)]
    task.network.eval()
    if not records:
        return Choice(None, base, base, records, interrupted, weight)
    return Choice(best, base, found, records, interrupted, weight)


def rungs(epochs: int) -> tuple[int, int]:
    """Return how long the runs are: of all candidates first, then of the better half."""
    return max(2, round(0.25 * epochs)), max(2, round(0.5 * epochs))


def _run(
    task: Task, candidate: Candidate, training: Run, on_batch: Callable[[], None] | None
) -> State:
    blocks = task.blocks[-candidate.n_blocks :]
    state = Trainer(dataclasses.replace(task, blocks=blocks), training, on_batch=on_batch).run()
    for record in state.records:
        record |= {"stage": "search", **candidate._asdict()}
    return state


def _short(training: Run, candidate: Candidate, epochs: int, deadline: float) -> Run:
    seconds = None if training.seconds is None else max(0.1, deadline - time.monotonic())
    return dataclasses.replace(
        training,
        learning_rate=candidate.learning_rate,
        epochs=epochs,
        seconds=seconds,
        early_stopping=None,
    )


def verdict_of(choice: Choice) -> str:
    """Return one sentence that says what the search decided."""
    if choice.candidate is None:
        return "nothing could be tried in the time given: the probe is kept."
    gain, error = choice.gain.mean(), error_of_mean(choice.gain)
    verdict = "fine-tuned" if choice.worthwhile else "the probe is kept"
    return (
        f"{choice.candidate.n_blocks} blocks at rate {choice.candidate.learning_rate:g} lowered "
        f"the loss of {len(choice.gain)} held-out images by {gain:.4f} +- {error:.4f} and raised "
        f"the score by {choice.score_gain:.4f}: {verdict}."
    )
