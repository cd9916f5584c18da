"""From image files to a matrix: featuretl against other tools, side by side.

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers.txt
    python benchmarks/peers.py --python .peers/bin/python [--images 400] [--repeats 5]

The tools are used as their documentation shows, in processes of their own (peer_loops.py), all with
the same network and weights. Protocol as in extract.py; featuretl runs cold, with hashing and
committing included.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from extract import Contenders, measure, options, plot
from heads import show
from peer_loops import PEERS


@click.command(help=__doc__)
@options
@click.option("--python", required=True, help="Python of the peers' environment.")
def main(
    images: int, repeats: int, backbone: str, as_json: bool, plot_file: str | None, python: str
) -> None:
    """Run the benchmark and print it."""
    script = str(Path(__file__).with_name("peer_loops.py"))
    with tempfile.TemporaryDirectory() as folder:
        these = Contenders(Path(folder), images, backbone)
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
