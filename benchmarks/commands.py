"""Processor time of the commands on a few images, whole process, with and without PyTorch.

    python benchmarks/commands.py TRAIN TEST [--repeat 3] [--json]

TRAIN and TEST have a folder of photographs for each class. Each command runs in a new process; its
figure is the least processor time of the repetitions, children included. "new" means an empty
store, "known" that it holds all embeddings. For the column "with PyTorch" the process imports timm
first, and with it PyTorch: new images are then embedded by a network that timm has built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from common import show


def processor_seconds(*command: str, first: str = "") -> float:
    """Return the processor time, user and system, of `featuretl` with these arguments."""
    before = os.times()
    script = f"{first}from featuretl_cli.main import main; main()"
    subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


def least(repeat: int, store: Path, new: bool, *command: str, first: str = "") -> float:
    """Return the least time of `repeat` runs; if `new`, each begins with an empty store."""
    seconds = []
    for _ in range(repeat):
        if new:
            shutil.rmtree(store, ignore_errors=True)
        seconds.append(processor_seconds(*command, first=first))
    return min(seconds)


@click.command()
@click.argument("train", type=click.Path(exists=True, file_okay=False))
@click.argument("test", type=click.Path(exists=True, file_okay=False))
@click.option("--repeat", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(train: str, test: str, repeat: int, as_json: bool) -> None:
    """Measure every command and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        store, model = Path(folder, "store"), f"{folder}/m.featuretl"
        os.environ["FEATURETL_CACHE"] = str(store)
        one = str(next(path for path in sorted(Path(test).rglob("*")) if path.is_file()))
        fit = ("train", train, "--strategy", "linear", "-o", model)
        commands = {
            "train --strategy linear": fit,
            "predict": ("predict", model, test, "-o", f"{folder}/p.csv"),
            "predict, one photograph": ("predict", model, one, "-o", f"{folder}/p.csv"),
            "evaluate": ("evaluate", model, test),
            "extract": ("extract", test, "-o", f"{folder}/e.npz"),
        }
        rows = []
        for name, command in commands.items():
            row = {
                "new": least(repeat, store, True, *command),
                "new, with PyTorch": least(repeat, store, True, *command, first="import timm; "),
                "known": least(repeat, store, False, *command),
            }
            rows.append({"command": name, **{what: round(s, 2) for what, s in row.items()}})
        for name, command in {
            "report": ("report", model, test, "-o", f"{folder}/r.html"),
            "explain": ("explain", model, one, "-o", f"{folder}/e.png"),
            "export": ("export", model, "-o", f"{folder}/m.onnx"),
        }.items():
            seconds = round(least(repeat, store, False, *command), 2)
            rows.append(dict.fromkeys(rows[0], "") | {"command": name, "known": seconds})
    show(rows, as_json)


if __name__ == "__main__":
    main()
