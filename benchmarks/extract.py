"""From image files to a matrix: featuretl against the usual loop, cold and warm, side by side.

    python benchmarks/extract.py [--images 400] [--repeats 5] [--json]

The usual loop is what users write by hand: PIL, timm's transform, batches of 32, eager PyTorch. The
two run in turn, each repeat on a cold store; the ratio is of medians. Warm runs find everything in
the store: by the files' state, and once more by hashing them, after the memo has been deleted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl import EmbeddingStore, extract, load_backbone


def write_photographs(folder: Path, n: int, size: tuple[int, int] = (500, 375)) -> list[str]:
    """Write n different JPEGs of `size` (width, height), cut from two real photographs."""
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        top, left = rng.integers(0, 427 - 330), rng.integers(0, 640 - 440)
        crop = Image.fromarray(photographs[i % 2][top : top + 330, left : left + 440])
        paths.append(str(folder / f"{i:06d}.jpg"))
        crop.resize(size, Image.Resampling.LANCZOS).save(paths[-1], quality=96, comment=str(i))
    return paths


def usual_loop(paths: list[str]) -> np.ndarray:
    """Embed as a script by hand would."""
    backbone = load_backbone()
    rows = []
    model = backbone.model.to(memory_format=torch.contiguous_format)
    for start in range(0, len(paths), 32):
        pixels = [np.asarray(Image.open(path).convert("RGB")) for path in paths[start : start + 32]]
        batch = torch.stack([backbone.prepare(image) for image in pixels])
        with torch.inference_mode():
            features = model.forward_features(batch)
            rows.append(model.forward_head(features, pre_logits=True).numpy())
    model.to(memory_format=torch.channels_last)
    return np.concatenate(rows)


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(n_images: int, repeats: int) -> dict[str, float]:
    """Return images per second (medians), ratios, and the agreement of the two matrices."""
    times: dict[str, list[float]] = {"usual loop": [], "cold": [], "warm": [], "warm by hash": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), n_images)
        time.sleep(2.1)  # files younger than 2 s are not remembered by their state
        reference = usual_loop(paths)
        for repeat in range(repeats):
            store = EmbeddingStore(Path(folder) / f"store{repeat}")
            times["usual loop"].append(seconds(lambda: usual_loop(paths)))
            times["cold"].append(seconds(lambda: extract(paths, store=store).to_numpy()))  # noqa: B023
            times["warm"].append(seconds(lambda: extract(paths, store=store).to_numpy()))  # noqa: B023
            (store.path / "memo.sqlite").unlink()
            fresh = EmbeddingStore(store.path)
            times["warm by hash"].append(seconds(lambda: extract(paths, store=fresh).to_numpy()))  # noqa: B023
        rows = extract(paths, store=store).to_numpy()
        size = statistics.mean(Path(path).stat().st_size for path in paths)
    cosine = (
        (rows * reference).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(reference, axis=1)
    )
    rates = {name: n_images / statistics.median(values) for name, values in times.items()}
    return {
        **{f"{name}, images/s": rate for name, rate in rates.items()},
        "cold / usual loop": rates["cold"] / rates["usual loop"],
        "warm / usual loop": rates["warm"] / rates["usual loop"],
        "least cosine to the usual loop": float(cosine.min()),
        "kB per JPEG": size / 1000,
    }


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.images, options.repeats)
    if options.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), **result}))
        return
    for name, value in result.items():
        print(f"{name:32}{value:12,.5g}")


if __name__ == "__main__":
    main()
