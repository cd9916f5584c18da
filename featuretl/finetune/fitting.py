"""One fit, from images to a tuned network: divide, cache, start from the probe, search, train."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cached_property
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
from featuretl.finetune.activations import Activations, FreshActivations, divided
from featuretl.finetune.checkpoint import Checkpoint, restore, state_of
from featuretl.finetune.loop import Record, Run, Task, Trainer, judge, outputs_of
from featuretl.finetune.network import Split, Tuned, TunedNetwork, new_head, set_head, split
from featuretl.finetune.objective import Objective, Problem
from featuretl.finetune.planning import Plan, cached, plan, resolve_augment, trunks_of
from featuretl.finetune.search import (
    RATES,
    Candidate,
    Choice,
    Judged,
    choose,
    rungs,
    verdict_of,
)
from featuretl.finetune.training import Training
from featuretl.finetune.trunk import activation_shape
from featuretl.images.inputs import contents_of
from featuretl.store.store import resolve_store

_MOST_BLOCKS = 3
_SEARCH_SHARE = 0.5


class Fitting:
    """One fit of `estimator` on `images`.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        All images.
    plan : Plan
        Whether the trunk is cached.
    records : list of dict
        One per epoch of the search and of the training.
    decision : str
        One sentence.
    """

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
        self._owner = type(p).__name__
        self._settings = p.training or Training()
        self._groups = read_groups(self._owner, groups, len(images))
        self._began = time.monotonic()
        self.rows = np.arange(len(images))
        self.seed = int(random_generator(self._owner, p.random_state).randint(2**31 - 1))
        self._store = resolve_store(p.cache, self._owner)
        self._n_jobs = joblib.effective_n_jobs(-1 if p.n_jobs is None else p.n_jobs)
        self.backbone = load_spec(spec, p.device)
        n_blocks = p.n_blocks
        if p.n_blocks == "auto":
            n_blocks = min(_MOST_BLOCKS, len(self.backbone.blocks))
        self.split: Split = split(self.backbone, n_blocks)
        self.records: list[Record] = []
        self.decision = ""
        self.fine_tuned = True
        self.learning_blocks = len(self.split.blocks)
        self.learning_rate = p.learning_rate
        self.stopped = ""
        if self.split.why_not_cut:
            self._warn(f"{self.split.why_not_cut} It is trained uncached.")
        if self._settings.batch_norm == "train":
            self._warn(
                "batch_norm='train' re-estimates the statistics from small batches, which usually "
                "costs accuracy; 'frozen' keeps those of pretraining."
            )

    def run(self) -> Tuned:
        """Fit, and return what was learnt."""
        p = self._p
        checkpoint = Checkpoint(p.checkpoint, self._identity()) if p.checkpoint else None
        saved = checkpoint.load() if checkpoint else None
        self.seed = saved["seed"] if saved else self.seed
        network = self.start()
        embeddings = self._embeddings(network) if p.head == "probe" else None
        strength = None
        if p.learning_rate == "auto":
            found = saved["search"] if saved else self._search(network, embeddings)
            strength = self._take_over(found)
            if checkpoint and not saved:
                checkpoint.save({"seed": self.seed, "search": found, "trainer": None})
        rows = self._final_split()[0] if self.fine_tuned else self.rows
        if embeddings is not None:
            strength = self._set_probe(network, embeddings, rows, strength)
        if embeddings is not None and self.fine_tuned:
            self._set_probe(network, embeddings, rows, self._problem.soften(strength))
        if self.fine_tuned:
            search = found if p.learning_rate == "auto" else None
            self._train(network, checkpoint, search, saved and saved["trainer"])
        if p.verbose and self.decision:
            print(self.decision, file=sys.stderr)
        return Tuned(self.backbone, self.split, self.n_cut, p.head, network)

    def go_on(self, tuned: Tuned, learning_rate: float) -> Tuned:
        """Train what was learnt before on; return what it is then."""
        network = self.start()
        network.load_state_dict(tuned.live(self._p.device)[2].state_dict())
        self.learning_rate = learning_rate
        self._train(network, None, None, None)
        return Tuned(self.backbone, self.split, self.n_cut, self._p.head, network)

    @property
    def n_cut(self) -> Any:
        """Below how many blocks the backbone was cut."""
        return self._p.n_blocks if self._p.n_blocks == "all" else len(self.split.blocks)

    def start(self) -> TunedNetwork:
        """Return the pretrained network with a new head."""
        d, outputs = self.split.n_features, self._problem.n_outputs
        network = TunedNetwork(self.split.top, new_head(self._p.head, d, outputs, self.seed))
        return network.to(self.backbone.device)

    @cached_property
    def _contents(self) -> list[bytes]:
        return contents_of(self._images)

    @cached_property
    def _units(self) -> np.ndarray | None:
        """Numbers (n,) of images that no split may part: of a group, or with the same content."""
        return joined(self._groups, equal_ones(self._contents))

    @cached_property
    def plan(self) -> Plan:
        """Whether the trunk's activations are cached, and why."""
        p, trunk = self._p, self.split.trunk
        size = None
        if trunk is not None:
            size = 2 * int(np.prod(activation_shape(self.backbone, trunk)))
        augment = resolve_augment(p.augment)
        planned = plan(
            len(self._images),
            size,
            augment,
            p.epochs,
            p.cache_trunk,
            self._store,
            self.split.why_not_cut,
        )
        if (
            (p.cache_trunk != "auto" and p.cache_trunk)
            and not planned.cached
            and not self.split.why_not_cut
        ):
            self._warn(f"The trunk is not cached, because {planned.why}.")
        if p.verbose:
            kept = "kept" if planned.cached else "not kept"
            print(f"Activations of the frozen blocks are {kept}: {planned.why}.", file=sys.stderr)
        return planned

    @cached_property
    def activations(self) -> Activations:
        """What the learning part is fed with."""
        p, augment = self._p, resolve_augment(self._p.augment)
        if not self.plan.cached or not isinstance(augment, Strength):
            return self._fresh(augment)
        trunks = trunks_of(self.backbone, self.split, len(self.split.blocks), augment)
        how = (augment.noise, self._store, p.batch_size, self._n_jobs, bool(p.verbose))
        try:
            return cached(self._images, trunks, *how)
        except BackboneError as error:  # numbers too large for float16
            if p.cache_trunk != "auto" and p.cache_trunk:
                raise
            self._warn(f"{error} It is trained uncached.")
            self.plan = Plan(False, 0, 0, "its activations do not fit into float16")
            return self._fresh(augment)

    def _fresh(self, augment: Any) -> Activations:
        trunk = self.split.trunk
        return FreshActivations(self._images, self.backbone, trunk, augment, self._n_jobs)

    def task(self, network: TunedNetwork, rows: np.ndarray, held_out: Any = None) -> Task:
        """Return the task of training `network` on `rows`."""
        problem = self._problem
        objective = Objective(problem.kind, problem.target, problem.weight, self.backbone.device)
        return Task(network, self.split.blocks, self.activations, objective, rows, held_out)

    def training(self, learning_rate: float) -> Run:
        """Return how to train."""
        p = self._p
        return Run(
            **dataclasses.asdict(self._settings),
            learning_rate=float(learning_rate),
            epochs=p.epochs,
            batch_size=p.batch_size,
            early_stopping=p.early_stopping,
            bfloat16=self._is_bfloat16(),
            seed=self.seed,
            seconds=self._seconds_left(),
        )

    def search(self, held_out: np.ndarray | None) -> tuple[Choice, np.ndarray]:
        """Only search, judging by `held_out` (None: an inner split); return these rows, too."""
        network = self.start()
        embeddings = self._embeddings(network) if self._p.head == "probe" else None
        if held_out is None:
            split = self._inner_split()
        else:
            split = np.setdiff1d(self.rows, held_out), held_out
        return self._choose(network, embeddings, *split)[0], split[1]

    def _search(self, network: TunedNetwork, embeddings: np.ndarray | None) -> dict[str, Any]:
        """Choose rate and blocks on an inner split; return what was found, as plain values."""
        choice, strength = self._choose(network, embeddings, *self._inner_split())
        # A head that starts from nothing has nothing to go back to.
        worthwhile = choice.worthwhile or (embeddings is None and choice.candidate is not None)
        rate, blocks = choice.candidate or self._candidates()[0]
        return {
            "learning_rate": float(rate),
            "n_blocks": int(blocks),
            "fine_tuned": bool(worthwhile and not choice.interrupted),
            "strength": None if strength is None else float(strength),
            "records": choice.records,
            "decision": verdict_of(choice),
            "stopped": "interrupted" if choice.interrupted else "",
        }

    def _choose(
        self,
        network: TunedNetwork,
        embeddings: np.ndarray | None,
        train: np.ndarray,
        held_out: np.ndarray,
    ) -> tuple[Choice, Any]:
        """Return the choice and the strength of the probe that was fitted to `train`."""
        candidates = self._candidates()
        training = self.training(candidates[0].learning_rate)
        if training.seconds is not None:
            training = dataclasses.replace(training, seconds=_SEARCH_SHARE * training.seconds)
        task = self.task(network, train, held_out)
        strength = None
        if embeddings is not None:
            strength = self._set_probe(network, embeddings, train, None)
        base = Judged(*judge(network, task, held_out, training))
        if embeddings is not None:
            self._set_probe(network, embeddings, train, self._problem.soften(strength))
        with self._bar("Searching", self._search_batches(len(candidates), len(train))) as step:
            return choose(task, candidates, training, base, step), strength

    def _take_over(self, found: dict[str, Any]) -> float | None:
        self.learning_rate, self.fine_tuned = found["learning_rate"], found["fine_tuned"]
        self.records, self.decision = list(found["records"]), found["decision"]
        self.stopped = found["stopped"]
        self.learning_blocks = found["n_blocks"]
        return found["strength"]

    def _train(
        self,
        network: TunedNetwork,
        checkpoint: Checkpoint | None,
        search: dict[str, Any] | None,
        saved: dict[str, Any] | None,
    ) -> None:
        rows, held_out = self._final_split()
        task = self.task(network, rows, held_out)
        task.blocks = task.blocks[-self.learning_blocks :]
        training = self.training(self.learning_rate)
        batches = self._p.epochs * len(divided(rows, training.batch_size))

        def keep(trainer: Trainer) -> None:
            if checkpoint:
                progress = {"search": search, "trainer": state_of(trainer)}
                checkpoint.save({"seed": self.seed, **progress})

        with self._bar("Fine-tuning", batches) as step:
            trainer = Trainer(task, training, keep, step)
            if saved:
                restore(trainer, saved)
            state = trainer.run()
        common = {"stage": "fit", "learning_rate": training.learning_rate}
        common["n_blocks"] = len(task.blocks)
        self.records += [record | common for record in state.records]
        self.stopped = state.stopped
        if state.stopped == "interrupted":
            self._warn(
                f"Training was interrupted in epoch {state.epoch + 1}; the best weights stay."
            )

    def _final_split(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of the final training, and those that may end it."""
        return (self.rows, None) if self._p.early_stopping is None else self._inner_split()

    def _set_probe(
        self, network: TunedNetwork, embeddings: np.ndarray, rows: np.ndarray, strength: Any
    ) -> Any:
        coef, intercept, strength = self._problem.probe(
            embeddings, rows, None if self._units is None else self._units[rows], strength
        )
        set_head(network.head, coef, intercept)
        return strength

    def _embeddings(self, network: TunedNetwork) -> np.ndarray:
        """Return the pretrained embeddings (n, d) of all images."""
        out = np.empty((len(self.rows), self.split.n_features), np.float32)
        parts = divided(self.rows, self._p.batch_size)
        outputs = outputs_of(network.top, self.activations, parts)
        with self._bar("Embedding", len(parts)) as step:
            for part, embeddings in zip(parts, outputs, strict=True):
                out[part] = embeddings.cpu().numpy()
                step()
        return out

    def _candidates(self) -> list[Candidate]:
        p = self._p
        rates: tuple[float, ...] = RATES[self._settings.optimizer]
        rates = rates if self.plan.cached else rates[1:2]
        most = len(self.split.blocks)
        depths = sorted({1, most}) if p.n_blocks == "auto" and self.plan.cached else [most]
        return [Candidate(rate, depth) for rate in rates for depth in depths]

    def _inner_split(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows to train on and rows to judge by; groups and copies stay on one side."""
        share, n = self._settings.validation_fraction, len(self.rows)
        try:
            return hold_out(n, self._problem.strata, self._units, share, self.seed)
        except ValueError as error:
            raise InputError(
                f"{self._owner} cannot hold out {share:g} of {n} images to judge by ({error}); give a "
                "number as learning_rate and early_stopping=None, or more data."
            ) from error

    def _search_batches(self, candidates: int, rows: int) -> int:
        first, second = rungs(self._p.epochs)
        parts = -(-rows // self._p.batch_size)
        return parts * (candidates * first + max(1, candidates // 2) * second)

    def _bar(self, label: str, total: int) -> Any:
        return progress_bar(label, total, shown=bool(self._p.verbose))

    def _is_bfloat16(self) -> bool:
        if self._settings.precision != "auto":
            return self._settings.precision == "bfloat16"
        return self.backbone.device.type == "cuda" and torch.cuda.is_bf16_supported()

    def _seconds_left(self) -> float | None:
        budget = self._p.time_budget
        return None if budget is None else max(0.1, budget - (time.monotonic() - self._began))

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint of this fit depends on."""
        ignored = {"checkpoint", "verbose", "n_jobs", "cache", "time_budget"}
        parameters = self._p.get_params(deep=False)
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
