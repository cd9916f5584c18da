"""One fit: split the backbone, cache activations, fit the probe, search, and train."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import joblib
import numpy as np
import torch

from featuretl._core.parameters import random_generator
from featuretl._core.progress import progress_bar
from featuretl._learning.folds import hold_out
from featuretl._learning.groups import equal_ones, joined, read_groups
from featuretl.backbones.backbone import load_spec
from featuretl.backbones.spec import BackboneSpec
from featuretl.backbones.views import Strength
from featuretl.exceptions import BackboneError, FeatureTLWarning, InputError
from featuretl.finetune.activations import Activations, FreshActivations, split_rows
from featuretl.finetune.checkpoint import Checkpoint, restore, state_of
from featuretl.finetune.loop import Record, Run, Task, Trainer, evaluate, outputs_of
from featuretl.finetune.network import Split, Tuned, TunedNetwork, new_head, set_head, split
from featuretl.finetune.objective import Objective, Problem
from featuretl.finetune.planning import Plan, cache_activations, plan, resolve_augment, uncached
from featuretl.finetune.search import RATES, Candidate, Choice, choose, rungs
from featuretl.finetune.training import Training
from featuretl.images.crops import or_files
from featuretl.images.inputs import contents_of
from featuretl.store.store import resolve_store


class Fitting:
    """One fit of `estimator`; `records` has a dict for each epoch of the search and the training."""

    def __init__(
        self,
        estimator: Any,
        spec: BackboneSpec,
        images: Sequence[Any],
        problem: Problem,
        groups: Any = None,
    ) -> None:
        p = estimator
        self._p, self._images, self._problem = p, images, problem
        self._settings = p.training or Training()
        self._owner = type(p).__name__
        self._groups = read_groups(self._owner, or_files(groups, images), len(images))
        self._began = time.monotonic()
        self.rows = np.arange(len(images))
        self.seed = int(random_generator(self._owner, p.random_state).randint(2**31 - 1))
        self._must_cache = p.cache_trunk != "auto" and bool(p.cache_trunk)
        self._bar = partial(progress_bar, shown=bool(p.verbose))
        self._store = resolve_store(p.cache, self._owner)
        self._n_jobs = joblib.effective_n_jobs(-1 if p.n_jobs is None else p.n_jobs)
        self.backbone = load_spec(spec, p.device)
        n_blocks = min(3, len(self.backbone.blocks)) if p.n_blocks == "auto" else p.n_blocks
        self.split: Split = split(self.backbone, n_blocks)
        self.records: list[Record] = []
        self.decision = ""
        self.fine_tuned = True
        self.learning_blocks = len(self.split.blocks)
        self.learning_rate = p.learning_rate
        self.stopped = ""
        if self.split.why_not_cut:
            self._warn(f"{self.split.why_not_cut} Its activations are not cached.")
        if self._settings.batch_norm == "train":
            self._warn(
                "batch_norm='train' updates the statistics from small batches, which usually costs "
                "accuracy; use 'frozen' to keep those of pretraining."
            )

    def run(self) -> Tuned:
        """Fit and return the fine-tuned network."""
        p = self._p
        checkpoint = Checkpoint(p.checkpoint, self._identity()) if p.checkpoint else None
        saved = checkpoint.load() if checkpoint else None
        self.seed = saved["seed"] if saved else self.seed
        found = strength = None
        if p.learning_rate == "auto":
            found = saved["search"] if saved else self._search()
            self.learning_rate, self.fine_tuned = found["learning_rate"], found["fine_tuned"]
            self.records, self.decision = list(found["records"]), found["decision"]
            self.stopped, self.learning_blocks = found["stopped"], found["n_blocks"]
            strength = found["strength"]
            if checkpoint and not saved:
                checkpoint.save({"seed": self.seed, "search": found, "trainer": None})
        rows = self._final_split()[0] if self.fine_tuned else self.rows
        self._set_probe(rows, strength, soft=self.fine_tuned)
        if self.fine_tuned:
            self._train(checkpoint, found, saved and saved["trainer"])
        if p.verbose and self.decision:
            print(self.decision, file=sys.stderr)
        return self._tuned()

    def resume(self, tuned: Tuned, learning_rate: float) -> Tuned:
        """Continue training a fine-tuned network."""
        self.network.load_state_dict(tuned.live(self._p.device)[2].state_dict())
        self.learning_rate = learning_rate
        self._train()
        return self._tuned()

    def _tuned(self) -> Tuned:
        n_blocks = "all" if self._p.n_blocks == "all" else len(self.split.blocks)
        return Tuned(self.backbone, self.split, n_blocks, self._p.head, self.network)

    @cached_property
    def network(self) -> TunedNetwork:
        """The network to train: at first pretrained, with a new head."""
        d, outputs = self.split.n_features, self._problem.n_outputs
        network = TunedNetwork(self.split.top, new_head(self._p.head, d, outputs, self.seed))
        return network.to(self.backbone.device)

    @cached_property
    def _contents(self) -> list[bytes]:
        return contents_of(self._images)

    @cached_property
    def _units(self) -> np.ndarray | None:
        """Unit numbers (n,): a split never divides a group or images with the same content."""
        return joined(self._groups, equal_ones(self._contents))

    @cached_property
    def plan(self) -> Plan:
        """The decision whether to cache the trunk's activations."""
        found = plan(self._p, len(self._images), self.backbone, self.split, self._store)
        if self._must_cache and not found.cached and not self.split.why_not_cut:
            self._warn(f"The trunk is not cached, because {found.why}.")
        if self._p.verbose:
            are = "are" if found.cached else "are not"
            print(f"Activations of the frozen blocks {are} cached: {found.why}.", file=sys.stderr)
        return found

    @cached_property
    def activations(self) -> Activations:
        """The input of the trainable blocks."""
        p, augment = self._p, resolve_augment(self._p.augment)
        if self.plan.cached and isinstance(augment, Strength):
            source = self._images, self.backbone, self.split, augment, bool(p.verbose)
            limits = {"batch_size": p.batch_size, "n_jobs": self._n_jobs}
            try:
                return cache_activations(*source, store=self._store, **limits)
            except BackboneError as error:  # activations that do not fit into float16
                if self._must_cache:
                    raise
                self._warn(f"{error} They are not cached.")
                self.plan = uncached("its activations do not fit into float16")
        trunk = self.split.trunk
        return FreshActivations(self._images, self.backbone, trunk, augment, self._n_jobs)

    def task(self, rows: np.ndarray, held_out: Any = None) -> Task:
        """Return the task to train the network on `rows`."""
        objective = Objective(self._problem, self.backbone.device)
        return Task(self.network, self.split.blocks, self.activations, objective, rows, held_out)

    def training(self, learning_rate: float) -> Run:
        """Return the settings of a training run."""
        budget, bfloat16 = self._p.time_budget, self._settings.precision == "bfloat16"
        if self._settings.precision == "auto" and self.backbone.device.type == "cuda":
            bfloat16 = torch.cuda.is_bf16_supported()
        spent = time.monotonic() - self._began
        return Run(
            **dataclasses.asdict(self._settings),
            learning_rate=float(learning_rate),
            epochs=self._p.epochs,
            batch_size=self._p.batch_size,
            early_stopping=self._p.early_stopping,
            bfloat16=bfloat16,
            seed=self.seed,
            seconds=None if budget is None else max(0.1, budget - spent),
        )

    def search(self, held_out: np.ndarray | None) -> tuple[Choice, np.ndarray]:
        """Search with the rows `held_out` (None: of an inner split); return the held-out rows too."""
        if held_out is None:
            train, held_out = self._inner_split()
        else:
            train = np.setdiff1d(self.rows, held_out)
        return self._choose(train, held_out)[0], held_out

    def _search(self) -> dict[str, Any]:
        """Search on an inner split; return the result as plain values for a checkpoint."""
        choice, strength = self._choose(*self._inner_split())
        # Without a probe there is nothing to fall back to.
        worthwhile = choice.worthwhile or (self._p.head != "probe" and choice.candidate is not None)
        rate, blocks = choice.candidate or self._candidates()[0]
        return {
            "learning_rate": float(rate),
            "n_blocks": int(blocks),
            "fine_tuned": bool(worthwhile and not choice.interrupted),
            "strength": None if strength is None else float(strength),
            "records": choice.records,
            "decision": choice.explain(),
            "stopped": "interrupted" if choice.interrupted else "",
        }

    def _choose(self, train: np.ndarray, held_out: np.ndarray) -> tuple[Choice, Any]:
        """Return the choice and the strength of the probe that was fitted to `train`."""
        candidates = self._candidates()
        training = self.training(candidates[0].learning_rate)
        if training.seconds is not None:
            training = dataclasses.replace(training, seconds=training.seconds / 2)
        task = self.task(train, held_out)
        strength = self._set_probe(train, None, soft=False)
        base = evaluate(self.network, task, held_out, training)
        self._set_probe(train, strength, soft=True)
        first, second = rungs(self._p.epochs)
        n = len(candidates)
        batches = -(-len(train) // self._p.batch_size) * (n * first + max(1, n // 2) * second)
        with self._bar("Searching", batches) as step:
            return choose(task, candidates, training, base, step), strength

    def _train(
        self, checkpoint: Checkpoint | None = None, search: Any = None, saved: Any = None
    ) -> None:
        rows, held_out = self._final_split()
        task = self.task(rows, held_out)
        task.blocks = task.blocks[-self.learning_blocks :]
        training = self.training(self.learning_rate)
        batches = training.epochs * len(split_rows(rows, training.batch_size))

        def save(trainer: Trainer) -> None:
            if checkpoint:
                state = state_of(trainer)
                checkpoint.save({"seed": self.seed, "search": search, "trainer": state})

        with self._bar("Fine-tuning", batches) as step:
            trainer = Trainer(task, training, save, step)
            if saved:
                restore(trainer, saved)
            state = trainer.run()
        common = {"stage": "fit", "learning_rate": training.learning_rate}
        common["n_blocks"] = len(task.blocks)
        self.records += [record | common for record in state.records]
        self.stopped = state.stopped
        if state.stopped == "interrupted":
            where = f"in epoch {state.epoch + 1}"
            self._warn(f"Training was interrupted {where}; the best weights are kept.")

    def _final_split(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows to train on, and those for early stopping."""
        return (self.rows, None) if self._p.early_stopping is None else self._inner_split()

    def _set_probe(self, rows: np.ndarray, strength: Any, *, soft: bool) -> Any:
        """Fit the probe to `rows` and copy it into the head; return the strength before softening."""
        if self._p.head != "probe":
            return None
        inputs = self._embeddings, rows, None if self._units is None else self._units[rows]
        if strength is None or not soft:
            coef, intercept, strength = self._problem.probe(*inputs, strength)
        if soft:
            coef, intercept, _ = self._problem.probe(*inputs, strength * self._problem.softening)
        set_head(self.network.head, coef, intercept)
        return strength

    @cached_property
    def _embeddings(self) -> np.ndarray:
        """The pretrained embeddings of all images, float32 (n, d)."""
        out = np.empty((len(self.rows), self.split.n_features), np.float32)
        parts = split_rows(self.rows, self._p.batch_size)
        outputs = outputs_of(self.network.top, self.activations, parts)
        with self._bar("Embedding", len(parts)) as step:
            for part, embeddings in zip(parts, outputs, strict=True):
                out[part] = embeddings.cpu().numpy()
                step()
        return out

    def _candidates(self) -> list[Candidate]:
        rates: tuple[float, ...] = RATES[self._settings.optimizer]
        rates = rates if self.plan.cached else rates[1:2]
        most = len(self.split.blocks)
        depths = sorted({1, most}) if self._p.n_blocks == "auto" and self.plan.cached else [most]
        return [Candidate(rate, depth) for rate in rates for depth in depths]

    def _inner_split(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows to train on and held-out rows; groups and copies are not divided."""
        fraction, n = self._settings.validation_fraction, len(self.rows)
        try:
            return hold_out(n, self._problem.strata, self._units, fraction, self.seed)
        except ValueError as error:
            raise InputError(
                f"{self._owner} cannot hold out {fraction:g} of {n} images ({error}); pass a "
                "number as learning_rate and early_stopping=None, or add images."
            ) from error

    def _identity(self) -> dict[str, Any]:
        """Return everything that the result of this fit depends on."""
        ignored = {"checkpoint", "verbose", "n_jobs", "cache", "time_budget"}
        parameters = self._p.get_params(deep=False) | {"training": self._settings}
        digest = hashlib.sha256(np.ascontiguousarray(self._problem.target).tobytes())
        digest.update(np.ascontiguousarray(self._problem.weight).tobytes())
        for key in self._contents:
            digest.update(key)
        if self._units is not None:
            digest.update(np.asarray(self._units, np.int64).tobytes())
        return {
            "parameters": {k: repr(v) for k, v in parameters.items() if k not in ignored},
            "backbone": self.backbone.recipe["backbone"],
            "data": digest.hexdigest(),
        }

    def _warn(self, message: str) -> None:
        warnings.warn(message, FeatureTLWarning, stacklevel=4)
