"""Fine-tuning: held-out accuracy compared with the probe, and speed with a plain PyTorch loop.

    python benchmarks/finetune.py speed           one epoch and ten: cached, uncached, plain loop
    python benchmarks/finetune.py accuracy        probe and fine-tuned (needs ../shared/data)
    python benchmarks/finetune.py memory          peak memory with 50,000 images

`--json` prints one JSON list instead of a table. In `speed` every contender runs in its own process
and trains the same blocks and head of the same network with the same optimizer on the same
photographs, half of them mirrored. The plain loop (plain_loop.py) is one written by hand.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import DATA, show, signers
from extract import write_photographs
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import FineTuneClassifier, ImageEmbedder, LinearProbeClassifier
from featuretl.backbones.catalog import PACKAGED, packaged_file

RATE, BATCH, CLASSES = 0.003, 32, 10


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


@main.command()
@click.option("--images", default=320, show_default=True)
@click.option("--blocks", default=3, show_default=True, help="Number of top blocks to train.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def speed(images: int, blocks: int, epochs: int, repeats: int, as_json: bool) -> None:
    """Compare seconds per epoch (medians) and per training run, including the trunk pass."""
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
                found[name].append(in_own_process(run, paths, blocks, epochs))
    table: list[dict[str, Any]] = []
    for name, runs in found.items():
        epoch, whole = (float(np.median([r[key] for r in runs])) for key in ("epoch", "whole"))
        table.append({"contender": name, "epoch s": epoch, f"{epochs} epochs s": whole})
    for row in table:
        for key in ("epoch s", f"{epochs} epochs s"):
            row[f"{key}, relative to cached"] = row[key] / table[0][key]
    show(table, as_json)


@main.command()
@click.option("--images", default=50_000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def memory(images: int, as_json: bool) -> None:
    """Measure the peak memory of a fit on many small images, including mapped file pages."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), images, (120, 90))
        show([{"images": images, **in_own_process(fit_many, paths)}], as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def accuracy(as_json: bool) -> None:
    """Compare the held-out accuracy of the probe and of fine-tuning with the defaults."""
    table = []
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    groups = signers(signs.data, signs.target)
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0).split(groups, groups=groups)
    train, test = next(split)
    paths = np.array(signs.data)
    table.append(_evaluate("sign-digits", paths, signs.target, groups, train, test))
    parts = [featuretl.load_image_folder(DATA / "hymenoptera" / part) for part in ("train", "val")]
    paths = np.array([*parts[0].data, *parts[1].data])
    y = np.concatenate([part.target for part in parts])
    rows = np.arange(len(paths))
    first = len(parts[0].data)
    table.append(_evaluate("hymenoptera", paths, y, None, rows[:first], rows[first:]))
    show(table, as_json)


def cached(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Train on cached trunk activations."""
    return _featuretl(paths, blocks, epochs, True)


def uncached(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Train on the images, passing each through the whole network in every epoch."""
    return _featuretl(paths, blocks, epochs, False)


def plain(paths: list[str], blocks: int, epochs: int) -> dict[str, float]:
    """Run plain_loop.py."""
    name = "tf_efficientnet_lite0"
    settings = {
        "paths": paths,
        "name": name,
        "file": str(packaged_file(name)),
        "preprocess": PACKAGED[name].preprocess,
        "blocks": blocks,
        "epochs": epochs,
        "batch": BATCH,
        "rate": RATE,
        "classes": CLASSES,
    }
    script = Path(__file__).with_name("plain_loop.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def fit_many(paths: list[str]) -> dict[str, float]:
    """Train one epoch on a cached trunk, starting from the probe."""
    with tempfile.TemporaryDirectory() as cache:
        model = FineTuneClassifier(
            learning_rate=RATE, epochs=1, augment="none", cache_trunk=True, cache=cache
        )
        began = time.perf_counter()
        model.fit(paths, [i % CLASSES for i in range(len(paths))])
        seconds = time.perf_counter() - began
        stored = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    return {"peak MiB": peak_mib(), "activations MiB": stored / 2**20, "fit s": seconds}


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


def peak_mib() -> float:
    """Return the peak memory of this process in MiB (Linux)."""
    # Unlike ru_maxrss, VmHWM does not start from the parent's memory.
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 2**10


def in_own_process(run: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a newly spawned process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run, *arguments).result()


def _evaluate(
    name: str, paths: Any, y: Any, groups: Any, train: Any, test: Any
) -> dict[str, float | str]:
    """Return the table row of a data set."""
    train_groups = None if groups is None else groups[train]
    embed = ImageEmbedder().transform
    probe = LinearProbeClassifier("cv", random_state=0)
    probe.fit(embed(paths[train]), y[train], groups=train_groups)
    began = time.perf_counter()
    model = FineTuneClassifier(random_state=0).fit(
        paths[train].tolist(), y[train], groups=train_groups
    )
    seconds = time.perf_counter() - began
    score = probe.score(embed(paths[test]), y[test])
    return {
        "data": name,
        "trained on": len(train),
        "held out": len(test),
        "probe": score,
        "standard error": float(np.sqrt(score * (1 - score) / len(test))),
        "fine-tuned": model.score(paths[test].tolist(), y[test]),
        "rate": model.learning_rate_,
        "blocks": model.n_blocks_,
        "fit s": seconds,
    }


if __name__ == "__main__":
    main()
