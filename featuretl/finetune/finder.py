"""The learning-rate finder: a range test on the network that `fit` would start from."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl.finetune.activations import divided
from featuretl.finetune.fitting import Fitting
from featuretl.finetune.loop import Trainer

_LOWEST, _HIGHEST = 1e-6, 1.0
_SMOOTHING = 0.9
_EXPLODED = 4.0


def find_rate(fitting: Fitting, steps: int) -> Bunch:
    """Raise the rate from 1e-6 to 1 in `steps` batches; return rates, losses and a suggestion."""
    network = fitting.start_at_probe()
    task = fitting.task(network, fitting.rows)
    rates = np.geomspace(_LOWEST, _HIGHEST, steps)
    trainer = Trainer(task, fitting.training(1.0))
    order = np.random.default_rng(fitting.seed)
    parts: list[Any] = []
    while len(parts) < steps:
        parts += divided(order.permutation(fitting.rows), trainer.training.batch_size)
    losses: list[float] = []
    mean = 0.0
    with contextlib.closing(task.activations.batches(parts[:steps], [fitting.seed])) as batches:
        for number, (part, x) in enumerate(zip(parts, batches, strict=False)):
            for group in trainer.optimizer.param_groups:
                group["lr"] = rates[number]
            loss = trainer.step(part, x)
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            losses.append(mean / (1 - _SMOOTHING ** (number + 1)))
            if not np.isfinite(loss) or losses[-1] > _EXPLODED * min(losses):
                break
    smooth = np.array(losses)
    rates = rates[: len(smooth)]
    slope = np.gradient(smooth, np.log(rates)) if len(smooth) > 1 else np.zeros(1)
    falling = slice(0, max(1, int(np.nanargmin(smooth)) + 1))
    suggestion = float(rates[falling][np.nanargmin(slope[falling])])
    return Bunch(rate=rates, loss=smooth, suggestion=suggestion)
