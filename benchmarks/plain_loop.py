"""Fine-tuning written by hand with PIL, timm's transform and PyTorch; run by finetune.py.

    python benchmarks/plain_loop.py < settings.json

The lower blocks are frozen and batch norm is in evaluation mode. The script does not import
featuretl, so featuretl's process settings (allocator, threads) do not apply. It prints the seconds
as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Photographs(Dataset[Any]):
    """Photographs with arbitrary labels in `classes` classes; a random half is mirrored."""

    def __init__(self, paths: list[str], transform: Any, classes: int) -> None:
        self.paths, self.transform, self.classes = paths, transform, classes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Any:
        x = self.transform(Image.open(self.paths[i]).convert("RGB"))
        return (x.flip(2) if torch.rand(()) < 0.5 else x), i % self.classes


def load(name: str, file: str, classes: int) -> Any:
    """Return timm's model `name` with the tensors of `file`, stored in timm's order."""
    model: Any = timm.create_model(name, num_classes=classes)
    state = list(torch.load(file, map_location="cpu", weights_only=True).values())
    own = model.state_dict()
    for key, tensor in zip(own, state, strict=True):
        if not key.startswith("classifier"):
            own[key].copy_(tensor)
    return model


def main(
    paths: list[str],
    name: str,
    file: str,
    preprocess: dict[str, Any],
    blocks: int,
    epochs: int,
    batch: int,
    rate: float,
    classes: int,
) -> dict[str, float]:
    """Train; return the median seconds per epoch and the total seconds."""
    model = load(name, file, classes)
    config = {**timm.data.resolve_model_data_config(model), **preprocess}
    transform = timm.data.create_transform(**config, is_training=False)
    flat = [block for stage in model.blocks for block in stage]
    model.requires_grad_(False)
    for module in (*flat[-blocks:], model.conv_head, model.bn2, model.classifier):
        module.requires_grad_(True)
    model.eval()  # keeps the batch-norm statistics; the network has no dropout
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    data = Photographs(paths, transform, classes)
    began = time.perf_counter()
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for x, y in DataLoader(data, batch, shuffle=True):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {"epoch": statistics.median(seconds), "whole": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(main(**json.load(sys.stdin))))
