"""Embed image files with a loop written by hand: PIL, timm's transform and eager PyTorch.

    python benchmarks/usual_loop.py < settings.json

extract.py runs this script in a separate process. The script does not import featuretl, so
featuretl's process settings (allocator, threads) do not apply. It uses batches of 32, writes the
embeddings to `output` and prints the seconds, excluding imports and loading.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image


def main(
    paths: list[str],
    name: str,
    file: str | None,
    preprocess: dict[str, Any],
    output: str,
    device: str = "cpu",
) -> float:
    """Embed the images; return the seconds."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name).eval()
    if file is not None:
        state = list(torch.load(file, map_location="cpu", weights_only=True).values())
        for tensor, found in zip(model.state_dict().values(), state, strict=True):
            tensor.copy_(found)
    model = model.to(device)
    config = {**timm.data.resolve_model_data_config(model), **preprocess}
    transform = timm.data.create_transform(**config, is_training=False)

    def embed(part: list[str]) -> np.ndarray:
        batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in part])
        with torch.inference_mode():
            features = model.forward_features(batch.to(device))
            return model.forward_head(features, pre_logits=True).cpu().numpy()

    embed(paths[:32])
    began = time.perf_counter()
    rows = np.concatenate([embed(paths[start : start + 32]) for start in range(0, len(paths), 32)])
    seconds = time.perf_counter() - began
    np.save(output, rows)
    return seconds


if __name__ == "__main__":
    print(main(**json.load(sys.stdin)))
