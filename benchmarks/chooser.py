"""Compare TransferClassifier with the probe and with the best strategy in hindsight.

    python benchmarks/chooser.py run                 all draws; resumes where it stopped
    python benchmarks/chooser.py show                the table of the draws so far

Every draw holds out a fifth of the signers of sign-digits as a test set and takes 5, 20 or 50 of
the others' photographs per digit, or all. `auto` and the probe are trained on these. From 20
photographs per digit on, fine-tuning is also trained where `auto` did not choose it, so that the
best strategy in hindsight is known.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import joblib
import numpy as np
import pandas as pd
from common import DATA, show, signers
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    NearestMeanClassifier,
    TransferClassifier,
)

SIZES = ("5", "20", "50", "all")
# The sizes for which the best strategy in hindsight includes fine-tuning.
TUNED = ("20", "50", "all")
RESULTS = Path("chooser.jsonl")

results_option = click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    show_default=True,
    help="JSON Lines file with one line per draw.",
)


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


@main.command()
@results_option
@click.option("--draws", default=20, show_default=True, help="Number of draws per size.")
@click.option("--sizes", default=",".join(SIZES), show_default=True)
@click.option(
    "--workers",
    default=2,
    show_default=True,
    help="Number of draws that run in parallel, with one thread each.",
)
def run(results: Path, draws: int, sizes: str, workers: int) -> None:
    """Run the missing draws and append a line for each."""
    done = set()
    if results.exists():
        done = {(row["size"], row["draw"]) for row in _rows(results)}
    left = [
        (size, draw)
        for size in sizes.split(",")
        for draw in range(draws)
        if (size, draw) not in done
    ]
    ImageEmbedder(verbose=1).transform(featuretl.load_image_folder(DATA / "sign-digits").data)
    with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered")
        for row in parallel(joblib.delayed(one_draw)(*item) for item in left):
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            click.echo(json.dumps(row), err=True)


@main.command(name="show")
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_results(results: Path, as_json: bool) -> None:
    """Summarise the draws."""
    frame = pd.DataFrame(_rows(results))
    show([_summary(size, frame[frame["size"] == size]) for size in frame["size"].unique()], as_json)


def one_draw(size: str, draw: int) -> dict[str, Any]:
    """Return the test accuracy of `auto` and of each strategy considered in hindsight."""
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    paths, y = np.array(signs.data), np.asarray(signs.target)
    groups = signers(signs.data, signs.target)
    train, test = draw_split(y, groups, size, draw)
    began = time.perf_counter()
    auto = TransferClassifier(random_state=draw, n_jobs=1)
    auto.fit(paths[train], y[train], groups=groups[train])
    seconds = time.perf_counter() - began
    X = ImageEmbedder(n_jobs=1).transform(paths[np.r_[train, test]])
    seen, unseen = X[: len(train)], X[len(train) :]
    probe = LinearProbeClassifier("cv", random_state=draw).fit(seen, y[train], groups=groups[train])
    hindsight = {
        "linear": probe.score(unseen, y[test]),
        "nearest-mean": NearestMeanClassifier().fit(seen, y[train]).score(unseen, y[test]),
    }
    score = auto.score(paths[test], y[test])
    hindsight[auto.strategy_] = score
    if size in TUNED and "fine-tune" not in hindsight:
        tuned = FineTuneClassifier(learning_rate=0.01, random_state=draw, n_jobs=1)
        hindsight["fine-tune"] = tuned.fit(paths[train], y[train]).score(paths[test], y[test])
    outer = auto.decision_.outer
    return {
        "size": size,
        "draw": draw,
        "images": len(train),
        "untouched": len(test),
        "strategy": auto.strategy_,
        "auto": score,
        "outer": outer.score,
        "outer_error": (outer.high - outer.low) / (2 * 1.96),
        "seconds": seconds,
        **{f"{name} score": value for name, value in hindsight.items()},
    }


def draw_split(y: Any, groups: Any, size: str, draw: int) -> tuple[Any, Any]:
    """Return the training rows, and the test rows of the held-out signers."""
    split = GroupShuffleSplit(1, test_size=0.2, random_state=draw).split(y, groups=groups)
    train, test = next(split)
    if size != "all":
        rng = np.random.default_rng(draw)
        by_class = (rng.permutation(train[y[train] == c])[: int(size)] for c in np.unique(y))
        train = np.sort(np.concatenate(list(by_class)))
    return train, test


def _summary(size: str, rows: pd.DataFrame) -> dict[str, Any]:
    scores = rows[[c for c in rows if c.endswith(" score")]]
    probe, best = rows["linear score"], scores.max(axis=1)
    gain, bias = rows["auto"] - probe, rows["outer"] - rows["auto"]
    possible = (best - probe).mean()
    return {
        "per class": size,
        "draws": len(rows),
        "probe": probe.mean(),
        "auto": rows["auto"].mean(),
        "best in hindsight": best.mean(),
        "fraction of that gain": gain.mean() / possible if possible > 0 else np.nan,
        "worst loss, in standard errors of the outer score": (-gain / rows["outer_error"]).max(),
        "outer score": rows["outer"].mean(),
        "standard error": rows["outer_error"].mean(),
        "outer - test": bias.mean(),
        "standard error of outer - test": bias.std(ddof=1) / np.sqrt(len(rows)),
        "root mean square of outer - test": np.sqrt((bias**2).mean()),
        "chosen": ", ".join(f"{k} {v}" for k, v in rows["strategy"].value_counts().items()),
        "median s": rows["seconds"].median(),
    }


def _rows(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()]


if __name__ == "__main__":
    main()
