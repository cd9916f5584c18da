"""``featuretl demo``: every step of the workflow on handwritten digits."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from importlib.util import find_spec
from pathlib import Path

import click

from featuretl._core.text import printable

from .options import cache_options, command, json_option, option
from .printing import print_json


@command()
@option("--folder", group="Output", type=click.Path(file_okay=False), default="featuretl-demo",
    metavar="DIR", help="Folder for images, model and report.")  # fmt: skip
@cache_options
@json_option
@click.pass_context
def demo(ctx: click.Context, folder: str, cache: str | None, no_cache: bool, as_json: bool) -> None:
    """Run the workflow on 1,797 handwritten digits, in about two minutes.

    Each command is printed before it runs; repeat it with your own images. With --json, the object
    holds the JSON of each command by its name.
    """
    from .digits import write_digits

    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    report = Path(folder, "report.html")
    can_report = all(map(find_spec, ("jinja2", "matplotlib")))
    if not as_json and can_report:
        click.echo(f"The report will be {printable(report)}.")
    digits = write_digits(Path(folder, "digits"))
    cached = [*(["--cache", cache] if cache else []), *(["--no-cache"] if no_cache else [])]
    facts = {}
    for name, *arguments in _commands(Path(folder), digits, cached):
        if name == "report" and not can_report:
            click.echo("\nNo report: it needs pip install 'featuretl[report]'.", err=True)
            continue
        captured = io.StringIO()
        if as_json:
            arguments.append("--json")
        else:
            click.secho(f"\n$ {printable(shlex.join(['featuretl', name, *arguments]))}", bold=True)
        with contextlib.redirect_stdout(captured) if as_json else contextlib.nullcontext():
            group.commands[name].main(arguments, f"featuretl {name}", standalone_mode=False)
        if as_json:
            facts[name] = json.loads(captured.getvalue())
    if as_json:
        print_json(facts)


def _commands(folder: Path, digits: Path, cached: list[str]) -> list[list[str]]:
    """Return the name and the arguments of each command."""
    train, test = str(digits / "train"), str(digits / "test")
    model = str(folder / "digits.featuretl")
    few = [str(min((digits / "test" / digit).iterdir())) for digit in "0358"]
    to = {
        name: ["-o", str(folder / name)]
        for name in ("predictions.csv", "evidence.png", "digits.onnx", "report.html")
    }
    return [
        ["train", train, "-o", model, "--time-budget", "60", *cached],
        ["evaluate", model, test, *cached],
        [
            "predict",
            model,
            test,
            *to["predictions.csv"],
            "--top",
            "3",
            "--threshold",
            "0.9",
            *cached,
        ],
        ["explain", model, *few, *to["evidence.png"]],
        ["export", model, *to["digits.onnx"]],
        ["report", model, test, "--train", train, *to["report.html"], *cached],
    ]
