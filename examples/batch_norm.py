"""
Batch-norm statistics of another domain (AdaBN)
===============================================

Embeddings of darker images, from weights whose batch-norm statistics were estimated on such images.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from example_data import digits
from PIL import Image, ImageEnhance
from safetensors.torch import save_file
from torch.optim.swa_utils import update_bn

from featuretl import ImageEmbedder, LinearProbeClassifier, load_backbone


def reestimate(images, output, batch_size=64):
    """Write the default weights with the batch-norm statistics of `images`."""
    backbone = load_backbone("tf_efficientnet_lite0")
    inputs = [backbone.prepare(np.asarray(image)) for image in images]
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():  # batches are equally large: their statistics are averaged
        n_batches = -(-len(inputs) // batch_size)
        batches = np.array_split(np.arange(len(inputs)), n_batches)
        update_bn((backbone.batch([inputs[i] for i in rows]) for rows in batches), model)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, output)
    return output


if __name__ == "__main__":
    paths, others, y, y_others = digits()
    upright = [Image.open(path).convert("RGB") for path in paths]
    dark = [ImageEnhance.Contrast(Image.open(path).convert("RGB")).enhance(0.2) for path in others]
    embedder = ImageEmbedder()
    probe = LinearProbeClassifier().fit(embedder.transform(upright), y)
    print(f"on darker images: {probe.score(embedder.transform(dark), y_others):.3f}")
    # Each domain is embedded with statistics of its own, and no label of the new one is needed.
    own = ImageEmbedder(weights=reestimate(upright, "upright.safetensors"))
    probe = LinearProbeClassifier().fit(own.transform(upright), y)
    there = ImageEmbedder(weights=reestimate(dark, "dark.safetensors"))
    print(f"with statistics of each: {probe.score(there.transform(dark), y_others):.3f}")

    _, axes = plt.subplots(1, 6, figsize=(8, 1.8), layout="constrained")
    for ax, image in zip(axes, [*upright[:3], *dark[:3]], strict=True):
        ax.imshow(image)
        ax.set_axis_off()
