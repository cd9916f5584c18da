"""A fitted model of images as one network: backbone, embedding and head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from featuretl._core.precision import full_precision
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.backbones.backbone import Backbone, load_spec
from featuretl.backbones.embedding import Embedding
from featuretl.backbones.views import n_views
from featuretl.exceptions import ModelError
from featuretl.images.inputs import read
from featuretl.models.fitted import Fitted
from featuretl.networks.heads import Head, head_of, tuned_head


@dataclass(frozen=True)
class Network:
    """A fitted model as a network in float32.

    `backbone` prepares images, with its tensors from before fine-tuning; `embedding` maps the
    input, float32 (n, 3, height, width), to embeddings (n, d); `head` maps these to values.
    """

    backbone: Backbone
    embedding: Embedding
    head: Head
    tuned: bool = False

    def values(self, batch: torch.Tensor) -> Array:
        """Return the values, float32 (n, k), of the network for an input; see `Head`."""
        with torch.no_grad(), full_precision():
            return self.head(self.embedding(batch)).cpu().numpy()

    def batch(self, images: Sequence[Any]) -> torch.Tensor:
        """Return the input, float32 (n, 3, height, width), of images; raises ImageError."""
        n = self.backbone.preprocessing.least_side
        prepared = [self.backbone.prepare(read(i).pixels(least_side=n)) for i in images]
        return self.backbone.batch(prepared)


def network_of(model: Any, device: str = "auto") -> Network:
    """Return a fitted model as a network on a torch device; raises ModelError if it is none."""
    fitted = Fitted.of_images(model)
    if fitted.tasks is not None:
        raise ModelError(
            f"The model has several tasks ({printable(', '.join(fitted.tasks))}); explain and "
            "export_model take a single one; select it: task_models(model)[NAME] is a model of "
            "its own, which save_model saves, too."
        )
    after = [step for _, step in fitted.steps[1:]]
    if fitted.tuned is not None:
        backbone, tuned, layers = fitted.tuned.whole(device)
        head = head_of(after) if after else tuned_head(fitted, layers)
        embedding = Embedding(tuned, [None], "auto", False)
        return Network(backbone, embedding, head.to(backbone.device), tuned=True)
    check_is_fitted(fitted.head)
    spec = fitted.embedder._spec()
    if spec.views != 1:
        raise ModelError(
            f"The model was trained on {n_views(spec.views)} views per image, but explain and "
            "export_model need a network of a single view; train it with views=1."
        )
    head = head_of(after)
    if spec.precision != "float32":
        raise ModelError(
            f"The model was trained on {spec.precision} embeddings, but explain and export_model "
            "need float32; train it with precision='float32'."
        )
    backbone = load_spec(spec, device)
    return Network(backbone, copy.deepcopy(backbone.embedding), head.to(backbone.device))
