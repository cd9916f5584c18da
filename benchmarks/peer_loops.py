"""Embed image files with another tool, using the same network for every tool.

    .peers/bin/python benchmarks/peer_loops.py PEER < settings.json

peers.py runs this script in a separate environment (peers.txt); it does not import featuretl. Each
tool is used as its documentation shows, with the network and weights from the settings instead of
a download. The script writes the embeddings to `output` and prints the seconds, excluding imports
and loading.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

Embed = Callable[[list[str]], np.ndarray]


def timm_loader(model: Any, config: dict[str, Any], workers: int = 2) -> Embed:
    """Use timm's dataset and loader with worker processes; on a GPU also its prefetcher."""
    from timm.data import ImageDataset, create_loader

    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"

    def embed(paths: list[str]) -> np.ndarray:
        dataset = ImageDataset(str(Path(paths[0]).parent), load_bytes=False)
        dataset.reader.samples = [(path, 0) for path in paths]
        loader = create_loader(
            dataset,
            batch_size=32,
            is_training=False,
            use_prefetcher=on_gpu,
            pin_memory=on_gpu,
            device=device,
            num_workers=workers,
            persistent_workers=False,
            **{key: config[key] for key in _TRANSFORM},
        )
        with torch.inference_mode():
            return np.concatenate([model(batch.to(device)).cpu().numpy() for batch, _ in loader])

    return embed


def embetter(model: Any, config: dict[str, Any]) -> Embed:
    """Use embetter's ImageLoader and TimmEncoder, which embeds one image at a time."""
    from embetter.vision import ImageLoader, TimmEncoder  # type: ignore[import-not-found]

    create, timm.create_model = timm.create_model, lambda *_, **__: model
    encoder = TimmEncoder()
    timm.create_model = create
    encoder.transform_img = timm.data.create_transform(**config, is_training=False)
    loader = ImageLoader()
    return lambda paths: encoder.transform(loader.transform(paths))


def img2vec(model: Any, config: dict[str, Any]) -> Embed:
    """Use img2vec's get_vec on lists of 32 images, with its own transform."""
    from img2vec_pytorch import Img2Vec  # type: ignore[import-not-found]

    class OurNetwork(Img2Vec):
        def _get_model_and_layer(self, model_name: str, layer: str) -> tuple[Any, Any]:
            return model, model.global_pool

    # img2vec handles layers with flat outputs under the name "vgg".
    tool = OurNetwork(model="vgg", layer_output_size=model.num_features)

    def embed(paths: list[str]) -> np.ndarray:
        parts = [paths[start : start + 32] for start in range(0, len(paths), 32)]
        return np.concatenate(
            [tool.get_vec([Image.open(path).convert("RGB") for path in part]) for part in parts]
        )

    return embed


def imagededup(model: Any, config: dict[str, Any]) -> Embed:
    """Use imagededup's CNN.encode_images on a folder, with a custom model."""
    from imagededup.methods import CNN  # type: ignore[import-not-found]
    from imagededup.utils import CustomModel  # type: ignore[import-not-found]

    transform = timm.data.create_transform(**config, is_training=False)
    tool = CNN(verbose=False, model_config=CustomModel("ours", model, transform))

    def embed(paths: list[str]) -> np.ndarray:
        rows = tool.encode_images(str(Path(paths[0]).parent))
        return np.stack([rows[Path(path).name] for path in paths])

    return embed


PEERS: dict[str, Callable[..., Embed]] = {
    "timm loader": timm_loader,
    "embetter": embetter,
    "img2vec": img2vec,
    "imagededup": imagededup,
}
_TRANSFORM = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def main(
    peer: str,
    paths: list[str],
    name: str,
    file: str | None,
    preprocess: dict[str, Any],
    output: str,
    device: str = "cpu",
    **options: Any,
) -> float:
    """Embed the images; return the seconds. `options` are those of the peer."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name).eval().requires_grad_(False)
    if file is not None:
        state = list(torch.load(file, map_location="cpu", weights_only=True).values())
        for tensor, found in zip(model.state_dict().values(), state, strict=True):
            tensor.copy_(found)
    model.reset_classifier(0)
    model = model.to(device)
    config = {**timm.data.resolve_model_data_config(model), **preprocess}
    embed = PEERS[peer](model, config, **options)
    if peer != "imagededup":  # imagededup embeds a whole folder
        embed(paths[:32])
    began = time.perf_counter()
    rows = embed(paths)
    seconds = time.perf_counter() - began
    np.save(output, rows)
    return seconds


if __name__ == "__main__":
    print(main(sys.argv[1], **json.load(sys.stdin)))
