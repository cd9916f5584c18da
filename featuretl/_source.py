"""Source: where an extraction's embeddings come from and go to, by recipe."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np

from featuretl._runtime import RuntimeChoice, versions
from featuretl.backbones.spec import BackboneSpec
from featuretl.images.decode import DECODE_POLICY, golden_pixels
from featuretl.store.keys import Recipe, canonical_json
from featuretl.store.memo import file_state
from featuretl.store.space import MemorySpace, Space
from featuretl.store.store import EmbeddingStore

RECIPE_VERSION = 1


class Source:
    """The backbone and the space of its embeddings; the backbone is loaded only when needed.

    What is cheaper to remember than to find out, the recipe of a backbone whose weights file has
    not changed, is kept in the store's memo: a run that finds every image never imports torch.

    Parameters
    ----------
    backbone : BackboneSpec or Backbone
    store : EmbeddingStore or None
        None keeps embeddings in memory.
    device : str
        Where a backbone that is not loaded yet will run.
    runtime : {"auto", "torch", "onnx"}, default="torch"
    """

    def __init__(
        self, backbone: Any, store: EmbeddingStore | None, device: str, runtime: str = "torch"
    ) -> None:
        self.store = store
        self._wanted_runtime = runtime
        self._runtime: Any = None
        self._wanted = backbone
        self._device = device

    @cached_property
    def backbone(self) -> Any:
        """The loaded backbone."""
        if not isinstance(self._wanted, BackboneSpec):
            return self._wanted
        return self._wanted.load(self._device)

    def remembered(self) -> tuple[Space, Recipe] | None:
        """Return the space, and its recipe, as far as they are known without the backbone."""
        recipe = self._remembered_recipe()
        space = self.store.find_space(recipe) if self.store and recipe else None
        return (space, recipe) if space and recipe else None

    def open(self) -> tuple[Space, Recipe]:
        """Return the space that rows may be added to, its golden image compared."""
        recipe = self._recipe()
        if self.store is None:
            return MemorySpace(recipe["output"]["n_features"]), recipe
        golden = self.backbone.embed([self.backbone.prepare(golden_pixels())])[0]
        space = self.store.open_space(recipe, golden, versions())
        self._remember_recipe(recipe)
        return space, recipe

    def forward(self, batch: Any) -> np.ndarray:
        """Return the embeddings (n, d) of the network's input."""
        return (self._runtime or self.backbone.forward)(batch)

    def choose_runtime(self, pool: ThreadPoolExecutor, n_images: int) -> tuple[str, float | None]:
        """Settle what embeds `n_images` images in the threads of `pool`.

        Returns its name, and the least cosine of its embeddings to float32 ones where it computes
        in less.
        """
        if not hasattr(self.backbone, "embedding"):
            return "torch", None
        choice = RuntimeChoice(self.backbone, self.store)
        name, self._runtime = choice.make(self._wanted_runtime, pool, n_images)
        return name, choice.agreement()

    @staticmethod
    def one_thread_each(pool: ThreadPoolExecutor, n_threads: int) -> AbstractContextManager[None]:
        """Let each of the threads of `pool` run networks in that thread alone."""
        from featuretl.backbones._threads import one_thread_each

        return one_thread_each(pool, n_threads)

    def n_features(self) -> int:
        """Return the size of an embedding."""
        recipe = self._remembered_recipe() or self._recipe()
        return recipe["output"]["n_features"]

    def _recipe(self) -> Recipe:
        return {"version": RECIPE_VERSION, "decode": DECODE_POLICY, **self.backbone.recipe}

    def _memo_key(self) -> str:
        facts = {
            "spec": dataclasses.asdict(self._wanted),
            "versions": versions(),
            "recipe": [RECIPE_VERSION, DECODE_POLICY],
        }
        return "recipe " + canonical_json(facts)

    def _remembered_recipe(self) -> Recipe | None:
        if not isinstance(self._wanted, BackboneSpec):
            return self._recipe()
        known = self.store and self.store.memo.get(self._memo_key())
        if not known or (known["file"] and file_state(known["file"][0]) != known["file"]):
            return None
        return known["recipe"]

    def _remember_recipe(self, recipe: Recipe) -> None:
        file = self.backbone.weights_file
        if self.store and isinstance(self._wanted, BackboneSpec):
            if file is not None or self._wanted.weights == "random":
                state = file_state(file) if file else None
                self.store.memo.put(self._memo_key(), {"recipe": recipe, "file": state})
