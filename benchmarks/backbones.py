"""Compare backbones on folders of images: speed, memory, accuracy and LogME.

    python benchmarks/backbones.py [FOLDER ..] [--backbones NAME,NAME] [--repeats 3]
                                   [--json] [--csv FILE] [--plot FILE]

Takes any timm models and any folders with one subfolder per class; by default the packaged
backbones and the data sets in ../shared/data. Each folder is split into as many parts as there are
repeats. Each backbone embeds each part in its own process, into one store; the backbones
alternate. "images/s" is the median over the parts and includes reading, hashing and committing,
but not the first 16 images. "setup s" is the additional time of a backbone's first process to
load, export and compare runtimes; "peak MiB" is the largest peak memory of its processes. "probe"
and "knn" are accuracies on all images over five folds, with half of their 95% intervals
(sign-digits grouped by signer); LogME uses all images as well. The second table compares the time
to rank all backbones by one method with the time to embed. The plot shows the probe's accuracy
against images per second, and the Pareto front: the backbones that no other one beats in both.
Missing weights are never downloaded.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import DATA, show, signers
from finetune import in_own_process, peak_mib

from featuretl import EmbeddingStore, extract, load_image_folder, rank_backbones
from featuretl.backbones.catalog import PACKAGED
from featuretl.backbones.listing import describe_backbones
from featuretl.exceptions import FeatureTLWarning

METHODS = ("probe", "knn", "logme")
SETS = (DATA / "sign-digits", DATA / "hymenoptera" / "train")
Table = list[dict[str, Any]]

_WARM_UP = 16


def embed(paths: list[str], backbone: str, folder: str, runtime: str) -> dict[str, float]:
    """Embed into the store at `folder`; the first 16 images are a warm-up."""
    store = EmbeddingStore(folder)
    began = time.perf_counter()
    extract(paths[:_WARM_UP], backbone, store=store, runtime=runtime)
    warm = time.perf_counter()
    extract(paths[_WARM_UP:], backbone, store=store, runtime=runtime)
    seconds = time.perf_counter() - warm
    peak = peak_mib()
    return {"once": warm - began, "s": seconds, "n": len(paths) - _WARM_UP, "MiB": peak}


def measure(folder: Path, names: list[str], repeats: int, runtime: str) -> tuple[Table, Table]:
    """Return a row for each backbone, and one for each ranking method."""
    photos = load_image_folder(folder)
    paths, y = list(photos.data), photos.target
    groups = signers(paths, y) if folder.name == "sign-digits" else None
    parts = np.array_split(np.random.default_rng(0).permutation(len(paths)), repeats)
    runs: dict[str, Table] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as store:
        for part in parts:
            for name in names:
                chosen = [paths[i] for i in part]
                runs[name].append(in_own_process(embed, chosen, name, store, runtime))
        rank_backbones(
            paths, y, names, method="knn", cache=store
        )  # measures the speed of each backbone, once
        ranking: Table = []
        frames = {}
        embedding = sum(run["s"] / run["n"] for name in names for run in runs[name])
        embedding *= len(paths) / repeats
        for method in METHODS:
            began = time.perf_counter()
            frame = rank_backbones(
                paths, y, names, method=method, groups=groups, finalists=len(names), cache=store
            )
            seconds = time.perf_counter() - began
            ranking.append(
                {
                    "data": folder.name if folder.name != "train" else folder.parent.name,
                    "method": method,
                    "ranking s": seconds,
                    "embedding s": embedding,
                    "fraction": seconds / embedding,
                    "order": " > ".join(frame["backbone"]),
                    "tied with the best": ", ".join(frame["backbone"][frame["tied"]]) or "-",
                }
            )
            frames[method] = frame.set_index("backbone")
    data = ranking[0]["data"]
    return [_row(data, name, runs[name], frames) for name in names], ranking


def _row(data: str, name: str, runs: Table, frames: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the row of a backbone."""
    probe, knn = frames["probe"].loc[name], frames["knn"].loc[name]
    return {
        "data": data,
        "images": int(probe["images"]),
        "backbone": name,
        "images/s": statistics.median(run["n"] / run["s"] for run in runs),
        "setup s": runs[0]["once"],
        "peak MiB": max(run["MiB"] for run in runs),
        "embedding": int(probe["n_features"]),
        "parameters": int(probe["n_parameters"]),
        "probe": float(probe["score"]),
        "probe +-": float(probe["high"] - probe["low"]) / 2,
        "knn": float(knn["score"]),
        "knn +-": float(knn["high"] - knn["low"]) / 2,
        "LogME": float(frames["logme"]["score"][name]),
    }


def pareto_front(table: Table) -> Table:
    """Return the rows that no other row beats in both speed and accuracy, fastest first."""
    front: Table = []
    for row in sorted(table, key=lambda row: (-row["images/s"], -row["probe"])):
        if not front or row["probe"] > front[-1]["probe"]:
            front.append(row)
    return front


def plot(table: Table, file: str) -> None:
    """Plot accuracy against images per second, with the Pareto front; one panel per data set."""
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(row["data"] for row in table))
    figure, panels = plt.subplots(
        1, len(sets), figsize=(4.6 * len(sets), 3.4), layout="constrained", squeeze=False
    )
    for name, axes in zip(sets, panels[0], strict=True):
        rows = [row for row in table if row["data"] == name]
        front = pareto_front(rows)
        axes.plot(
            [row["images/s"] for row in front], [row["probe"] for row in front], "--",
            color="#7f7f7f", zorder=1, label="Pareto front",
        )  # fmt: skip
        for row in rows:
            colour = "#d95f02" if row in front else "#7f7f7f"
            at = row["images/s"], row["probe"]
            axes.errorbar(*at, yerr=row["probe +-"], fmt="o", color=colour, capsize=3)
            axes.annotate(row["backbone"], at, (5, 5), textcoords="offset points", fontsize=8)
        axes.set(title=name, xlabel="images per second, from files", ylabel="accuracy of the probe")
        axes.margins(x=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left", fontsize=8)
    figure.savefig(file)


def check_available(names: list[str]) -> None:
    """Raise ClickException if any weights are missing."""
    for info in describe_backbones(names):
        if not info.available:
            raise click.ClickException(f"weights of {info.name} not found: {info.note}.")


@click.command(help=__doc__)
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--backbones", default=",".join(PACKAGED), show_default=True, metavar="NAME,NAME,..")
@click.option("--repeats", default=3, show_default=True)
@click.option(
    "--runtime",
    default="onnx",
    show_default=True,
    help="Inference runtime, as in featuretl extract.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "csv_file", help="Write the first table to a CSV file.")
@click.option("--plot", "plot_file", help="Write the plot to a file.")
def main(
    folders: tuple[Path, ...],
    backbones: str,
    repeats: int,
    runtime: str,
    as_json: bool,
    csv_file: str | None,
    plot_file: str | None,
) -> None:
    """Run the benchmark and print it."""
    warnings.simplefilter("ignore", FeatureTLWarning)  # the table has a column for ties
    if not folders and not all(folder.is_dir() for folder in SETS):
        raise click.ClickException(f"data folder not found: {DATA}; pass a FOLDER")
    names = backbones.split(",")
    check_available(names)
    table: Table = []
    ranking: Table = []
    for folder in folders or SETS:
        rows, ranked = measure(folder, names, repeats, runtime)
        table += rows
        ranking += ranked
    if as_json:
        click.echo(json.dumps({"backbones": table, "ranking": ranking}, indent=1))
    else:
        show(table, as_json)
        click.echo()
        show(ranking, as_json)
    if csv_file:
        pd.DataFrame(table).to_csv(csv_file, index=False)
    if plot_file:
        plot(table, plot_file)


if __name__ == "__main__":
    main()
