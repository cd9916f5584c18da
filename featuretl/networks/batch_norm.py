"""Batch-norm statistics of other images: a backbone for a domain that looks different."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from featuretl._validation import check_int, printable
from featuretl.backbones.backbone import Backbone, load_backbone
from featuretl.exceptions import BackboneError, ImageError, InputError, ParameterError
from featuretl.images.inputs import read

_FEWEST = 16


def reestimate_batch_norm(
    images: Sequence[Any],
    output: str | os.PathLike[str],
    backbone: str = "tf_efficientnet_lite0",
    *,
    weights: str = "auto",
    batch_size: int = 64,
    device: str = "auto",
) -> Path:
    """Write a backbone's weights with the batch-norm statistics of `images`.

    Everything else stays as it is; no label is needed (Li et al. 2018, AdaBN,
    doi:10.1016/j.patcog.2018.03.005). Use the file as `weights` of anything that takes a backbone:
    other weights are another recipe, so the store keeps both kinds of embeddings apart.

    A head should learn from embeddings of the labelled images made with statistics of these, and
    predict from those of the new images made with theirs: each domain has a file of its own. Try
    `DomainAdapter` first, which costs nothing and gained more (benchmarks/README.md).

    Parameters
    ----------
    images : sequence of n images
        Paths, bytes, PIL images or uint8 arrays; 16 at least, better some hundreds of all classes.
    output : path
        Ends in ``.safetensors``; replaced if it is there.
    backbone : str, default="tf_efficientnet_lite0"
        A timm model name; one with batch norm, such as ResNets and EfficientNets.
    weights : str, default="auto"
        As in `load_backbone`.
    batch_size : int >= 16, default=64
        Images that pass at once; statistics are means over equally large batches.
    device : str, default="auto"
        A torch device.

    Returns
    -------
    output : Path

    Raises
    ------
    ParameterError
        If a parameter has a value that is not accepted.
    InputError
        If there are fewer than 16 images; ImageError if one cannot be read.
    BackboneError
        If the backbone cannot be loaded, has no batch norm, or would prepare images otherwise when
        it is loaded from a file.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl import ImageEmbedder, reestimate_batch_norm
    >>> photos = [image[:200, i * 20 : i * 20 + 200] for image in load_sample_images().images
    ...           for i in range(8)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = reestimate_batch_norm(photos, f"{folder}/here.safetensors")
    ...     ImageEmbedder(weights=str(file), cache=None).transform(photos[:2]).shape
    (2, 1280)
    """
    check_int("reestimate_batch_norm", "batch_size", batch_size, _FEWEST)
    output = Path(output)
    if output.suffix != ".safetensors" or not output.parent.is_dir():
        raise ParameterError(
            f"The output {printable(os.fspath(output))!r} must be a .safetensors file in a folder that "
            "exists."
        )
    if len(images) < _FEWEST:
        raise InputError(f"Batch norm needs {_FEWEST} images at least; got {len(images)}.")
    loaded = load_backbone(backbone, weights=weights, device=device)
    model = copy.deepcopy(loaded.model)
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise BackboneError(
            f"The backbone {backbone!r} has no batch norm, whose statistics could be estimated."
        )
    with torch.no_grad():
        update_bn(_batches(loaded, images, batch_size), model)
    _save(model, output)
    if load_backbone(backbone, weights=str(output)).preprocessing != loaded.preprocessing:
        output.unlink()
        raise BackboneError(
            f"{backbone!r} from a file would prepare images otherwise than the packaged one."
        )
    return output


def _batches(backbone: Backbone, images: Sequence[Any], batch_size: int) -> Iterator[torch.Tensor]:
    """Yield the network's input in equally large batches, but for one image."""
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // batch_size)):
        inputs = []
        for row in rows:
            try:
                inputs.append(backbone.prepare(read(images[row]).pixels()))
            except ImageError as error:
                raise ImageError(
                    f"Image {row} cannot be used: {str(error).rstrip('.')}."
                ) from error
        yield backbone.batch(inputs)


def _save(model: Any, output: Path) -> None:
    from safetensors.torch import save_file

    partial = output.with_name(f"{output.name}.{os.urandom(4).hex()}.partial")
    try:
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, partial)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
