"""``featuretl demo``: the whole way on handwritten digits, command by command."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from featuretl._core.text import printable

from .options import cache_options, json_option


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False), default="featuretl-demo", show_default=True,
    help="Where images, model and report are written.",
)  # fmt: skip
@cache_options
@json_option
@click.pass_context
def demo(ctx: click.Context, folder: str, cache: str | None, no_cache: bool, as_json: bool) -> None:
    """Go the whole way on 1,797 handwritten digits, in about two minutes.

    Every command is shown before it runs: give it again with pictures of your own. With --json,
    each prints its JSON on a line.
    """
    from featuretl.demo import write_digits

    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    report = Path(folder, "report.html")
    if not as_json:
        click.echo(f"The report will be {printable(report)}.")
    digits = write_digits(Path(folder, "digits"))
    kept = [*(["--cache", cache] if cache else []), *(["--no-cache"] if no_cache else [])]
    for name, *arguments in _commands(Path(folder), digits, kept):
        if not as_json:
            click.secho(f"\n$ {printable(shlex.join(['featuretl', name, *arguments]))}", bold=True)
        command = group.commands[name]
        shown = ["--json"] if as_json else []
        command.main([*arguments, *shown], f"featuretl {name}", standalone_mode=False)


def _commands(folder: Path, digits: Path, kept: list[str]) -> list[list[str]]:
    """Return name and arguments of every command."""
    train, test = str(digits / "train"), str(digits / "test")
    model = str(folder / "digits.featuretl")
    few = [str(min((digits / "test" / digit).iterdir())) for digit in "0358"]
    to = {
        name: ["-o", str(folder / name)]
        for name in ("predictions.csv", "evidence.png", "digits.onnx", "report.html")
    }
    return [
        ["train", train, "-o", model, "--time-budget", "60", *kept],
        ["evaluate", model, test, *kept],
        ["predict", model, test, *to["predictions.csv"], "--top", "3", "--threshold", "0.9", *kept],
        ["explain", model, *few, *to["evidence.png"]],
        ["export", model, *to["digits.onnx"]],
        ["report", model, test, "--train", train, *to["report.html"], *kept],
    ]
