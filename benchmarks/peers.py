"""From image files to a matrix: featuretl compared with other tools.

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers.txt
    python benchmarks/peers.py --python .peers/bin/python [--images 400] [--repeats 5]

Each tool runs in its own process (peer_loops.py), as its documentation shows, with the same
network and weights. The protocol is that of extract.py; featuretl starts from an empty store, and
its time includes hashing and committing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from common import show
from extract import Contenders, measure, options, plot, write_photographs
from peer_loops import PEERS


@click.command(help=__doc__)
@options
@click.option(
    "--python", required=True, help="Python executable of the environment with the other tools."
)
def main(
    images: int, repeats: int, backbone: str, as_json: bool, plot_file: str | None, python: str
) -> None:
    """Run the benchmark and print it."""
    script = str(Path(__file__).with_name("peer_loops.py"))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder, "photographs"), images)
        these = Contenders(Path(folder), paths, backbone)
        contenders: dict[str, Callable[[str], float]] = {
            peer: lambda key: these.script(key, python, script, key) for peer in PEERS
        }
        for runtime in ("torch", "onnx"):
            contenders[f"cold, {runtime}"] = partial(these.cold, runtime=runtime)
        table = measure(these, contenders, repeats)
    show(table, as_json)
    if plot_file:
        plot(table, plot_file)


if __name__ == "__main__":
    main()
