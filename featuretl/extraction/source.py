"""Source: an encoder paired with the part of the store that caches its embeddings."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from featuretl.extraction.image_encoder import ImageEncoder
from featuretl.extraction.medium_encoder import MediumEncoder
from featuretl.media.medium import is_medium
from featuretl.runtimes.choice import versions
from featuretl.store.keys import Recipe, canonical_json
from featuretl.store.memo import file_state
from featuretl.store.space import Space
from featuretl.store.store import EmbeddingStore


class Source:
    """An encoder of a BackboneSpec, Backbone or Medium, and the space of its embeddings.

    The store's memo caches the recipe, so that torch is imported only if images are to be embedded.
    """

    def __init__(
        self,
        backbone: Any,
        store: EmbeddingStore | None,
        device: Any = "auto",
        runtime: str = "torch",
        n_images: int = 0,
    ) -> None:
        self.store = store
        self.encoder: ImageEncoder | MediumEncoder
        if is_medium(backbone):
            self.encoder = MediumEncoder(backbone)
        else:
            self.encoder = ImageEncoder(backbone, store, device, runtime, n_images)

    def recipe(self) -> Recipe:
        """Return the recipe; the encoder is loaded only if the memo lacks it."""
        return self._remembered_recipe() or self.encoder.recipe

    def remembered(self) -> tuple[Space, Recipe] | None:
        """Return the space and its recipe if both are known without loading the encoder."""
        recipe = self._remembered_recipe()
        if self.store is None or recipe is None:
            return None
        with self.store.optionally():
            space = self.store.find_space(recipe)
            return None if space is None else (space, recipe)
        return None

    def held(self) -> AbstractContextManager[None]:
        """Return a context in which no other process frees space in the store."""
        return nullcontext() if self.store is None else self.store.locked_shared()

    def open(self, few: bool = False) -> tuple[Space, Recipe]:
        """Return the space for new rows and its recipe, after comparing the golden embedding.

        For `few` images PyTorch is not imported if a graph of the network can be used instead.
        """
        if few and isinstance(self.encoder, ImageEncoder):
            self.encoder.use_graph(self._remembered_recipe())
        recipe, golden = self.encoder.recipe, self.encoder.golden
        if self.store is not None:
            with self.store.optionally():
                space = self.store.open_space(recipe, golden, versions())
                if (key := self._memo_key()) and (files := self.encoder.files) is not None:
                    states = [file_state(file) for file in files]
                    self.store.memo.put(key, {"recipe": recipe, "files": states})
                return space, recipe
        return Space(recipe["output"]["n_features"]), recipe

    def _memo_key(self) -> str | None:
        facts = self.encoder.memo_facts
        return None if facts is None else "recipe " + canonical_json(facts)

    def _remembered_recipe(self) -> Recipe | None:
        key = self._memo_key()
        if key is None:
            return self.encoder.recipe
        known = self.store and self.store.memo.get(key)
        if not known or any(file_state(state[0]) != state for state in known.get("files", [[""]])):
            return None
        return known["recipe"]
