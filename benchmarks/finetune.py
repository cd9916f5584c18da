"""Fine-tuning: accuracy on held-out images beside the probe, and speed beside a plain loop.

    python benchmarks/finetune.py speed           one epoch and ten, cached, uncached and by hand
    python benchmarks/finetune.py accuracy        probe and fine-tuned (needs ../shared/data)

`--json` prints one JSON list instead of a table. In `speed` every contender has a process of its
own, trains the same blocks and head of the same network with the same optimizer on the same photographs, and
mirrors half of them; the plain loop is what one writes by hand with PIL, timm's transform and
PyTorch, the lower blocks frozen and batch-norm in evaluation.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from extract import write_photographs
from heads import DATA, show, signers
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import FineTuneClassifier, ImageEmbedder, LinearProbeClassifier

RATE, BATCH, CLASSES = 0.003, 32, 10


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


@main.command()
@click.option("--images", default=320, show_default=True)
@click.option("--blocks", default=3, show_default=True, help="Top blocks that learn.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def speed(images: int, blocks: int, epochs: int, repeats: int, as_json: bool) -> None:
    """Seconds of an epoch (medians), and of a whole training with the trunk pass."""
    contenders: dict[str, Callable[..., dict[str, float]]] = {
        "cached trunk": cached,
        "uncached": uncached,
        "plain PyTorch loop": plain,
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), images)
        for _ in range(repeats):
            for name, run in contenders.items():
                found[name].append(_in_own_process(run, paths, blocks, epochs))
    table: list[dict[str, Any]] = []
    for name, runs in found.items():
        epoch, whole = (float(np.median([r[key] for r in runs])) for key in ("epoch", "whole"))
        table.append({"contender": name, "epoch s": epoch, f"{epochs} epochs s": whole})
    for row in table:
        for key in ("epoch s", f"{epochs} epochs s"):
            row[f"{key}, to cached"] = row[key] / table[0][key]
    show(table, as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def accuracy(as_json: bool) -> None:
    """Accuracy on held-out images: the probe, and after fine-tuning with the defaults."""
    table = []
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    groups = signers(signs.data, signs.target)
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0).split(groups, groups=groups)
    train, test = next(split)
    paths = np.array(signs.data)
    table.append(_compared("sign-digits", paths, signs.target, groups, train, test))
    parts = [featuretl.load_image_folder(DATA / "hymenoptera" / part) for part in ("train", "val")]
    paths = np.array([*parts[0].data, *parts[1].data])
    y = np.concatenate([part.target for part in parts])
    rows = np.arange(len(paths))
    first = len(parts[0].data)
    table.append(_compared("hymenoptera", paths, y, None, rows[:first], rows[first:]))
    show(table, as_json)


def cached(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Train on the activations of a cached trunk."""
    return _featuretl(paths, blocks, epochs, True)


def uncached(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Train on the images, each through the whole network in every epoch."""
    return _featuretl(paths, blocks, epochs, False)


def plain(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Train as one would by hand; nothing of featuretl runs here but the path of the weights."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from featuretl.backbones.catalog import PACKAGED, packaged_file

    name = "tf_efficientnet_lite0"
    model: Any = timm.create_model(name, num_classes=CLASSES)
    file = packaged_file(name)
    assert file is not None
    state = list(torch.load(file, map_location="cpu", weights_only=True).values())
    own = model.state_dict()
    for key, tensor in zip(own, state, strict=True):
        if not key.startswith("classifier"):
            own[key].copy_(tensor)
    config = {**timm.data.resolve_model_data_config(model), **PACKAGED[name].preprocess}
    transform = timm.data.create_transform(**config, is_training=False)
    flat = [block for stage in model.blocks for block in stage]
    model.requires_grad_(False)
    for module in (*flat[-blocks:], model.conv_head, model.bn2, model.classifier):
        module.requires_grad_(True)
    model.eval()  # batch-norm as it was; there is no dropout

    class Photographs(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> Any:
            x = transform(Image.open(paths[i]).convert("RGB"))
            return (x.flip(2) if torch.rand(()) < 0.5 else x), i % CLASSES

    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    began = time.perf_counter()
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for x, y in DataLoader(Photographs(), BATCH, shuffle=True):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {"epoch": float(np.median(seconds)), "whole": time.perf_counter() - began}


def _featuretl(paths: list[str], blocks: int, epochs: int, cache_trunk: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        model = FineTuneClassifier(
            n_blocks=blocks,
            head="linear",
            learning_rate=RATE,
            epochs=epochs,
            batch_size=BATCH,
            cache_trunk=cache_trunk,
            cache=cache,
            random_state=0,
        )
        began = time.perf_counter()
        model.fit(paths, [i % CLASSES for i in range(len(paths))])
        whole = time.perf_counter() - began
    return {"epoch": float(model.history_["seconds"].median()), "whole": whole}


def _in_own_process(run: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run, *arguments).result()


def _compared(
    name: str, paths: Any, y: Any, groups: Any, train: Any, test: Any
) -> dict[str, float | str]:
    """Return the row of a data set."""
    of_train = None if groups is None else groups[train]
    embed = ImageEmbedder().transform
    probe = LinearProbeClassifier("cv", random_state=0)
    probe.fit(embed(paths[train]), y[train], groups=of_train)
    began = time.perf_counter()
    model = FineTuneClassifier(random_state=0).fit(paths[train].tolist(), y[train], groups=of_train)
    seconds = time.perf_counter() - began
    score = probe.score(embed(paths[test]), y[test])
    return {
        "data": name,
        "trained on": len(train),
        "held out": len(test),
        "probe": score,
        "its standard error": float(np.sqrt(score * (1 - score) / len(test))),
        "fine-tuned": model.score(paths[test].tolist(), y[test]),
        "rate": model.learning_rate_,
        "blocks": model.n_blocks_,
        "fit s": seconds,
    }


if __name__ == "__main__":
    main()
