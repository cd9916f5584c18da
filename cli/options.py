"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featuretl._core.parameters import as_path
from featuretl._core.text import parse_quantity, printable

if TYPE_CHECKING:
    from featuretl.store.store import EmbeddingStore

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


class FilePath(click.Path):
    """A path that the system can have; click asks the system about others, which raises ValueError."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what click makes of it; fail if no file can have that name."""
        if as_path(value) is None:
            self.fail(f"'{printable(value)}' cannot be the path of a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


seed_option = click.option(
    "--random-state",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of all random draws.",
)

cache_option = click.option(
    "--cache",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Where embeddings are kept.  [default: $FEATURETL_CACHE, or the user's cache directory]",
)


class Quantity(click.ParamType):
    """A number with a unit, e.g. "20GB"; the value is an int in the unit of 1.

    Parameters
    ----------
    name : str
        What the help shows in its place.
    units : dict of str to int
    example : str
    """

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name, self._units, self._example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return what `value` means; fail unless it is a number >= 0 and a unit."""
        if isinstance(value, int):
            return value
        try:
            return parse_quantity(value, self._units, self._example)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AutoOrInt(click.ParamType):
    """An int of at least 1, or "auto"."""

    name = "auto|INTEGER"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return what `value` means; fail unless it is "auto" or an int >= 1."""
        if value == "auto":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


class IntOrText(click.ParamType):
    """An int, or text."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return what `value` means."""
        return int(value) if str(value).isdecimal() else value


def one_or_list(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | list[str] | None:
    """Return what an option was given: one value, or a list where there are commas."""
    return value.split(",") if value is not None and "," in value else value


devices_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=one_or_list,
    help="A torch device, or several: cuda is every GPU, cuda:0,cuda:1 are two.",
)
runtime_option = click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "onnx", "openvino", "compile"]),
    default="auto",
    show_default=True,
    help="What computes; auto is the fastest.",
)


model_argument = click.argument("model", type=FilePath(dir_okay=False))
weights_option = click.option(
    "--weights",
    type=FilePath(dir_okay=False),
    metavar="FILE",
    help="The backbone's weights, where the model was trained on a local file of them.",
)


def model_options(command: F) -> F:
    """Add MODEL and PHOTOS, and how both are read."""
    for option in (
        click.option("--n-jobs", type=int, help="Threads.  [default: one per core]"),
        click.option("--device", default="auto", show_default=True, help="A torch device."),
        click.option("--path-column", help="Column of a manifest that holds the paths."),
        weights_option,
        click.argument("photos", nargs=-1, required=True),
        model_argument,
    ):
        command = option(command)
    return command


def one_or_tasks(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> str | list[str] | tuple[str, ...] | None:
    """Return what --label-column was given: a column, a list of 0/1 columns, or a tuple of tasks."""
    if len(values) < 2:
        return one_or_list(ctx, param, values[0] if values else None)
    if any("," in value for value in values) or len(set(values)) < len(values):
        raise click.BadParameter(
            "given several times, each is one column, a task of its own, and no column twice.",
            ctx,
            param,
        )
    return values


def label_options(command: F) -> F:
    """Add --label-column and --label-separator."""
    columns = click.option(
        "--label-column",
        metavar="COLUMN,..",
        multiple=True,
        callback=one_or_tasks,
        help="Column of a manifest that holds the labels; several columns of 0 and 1, with commas, "
        "are labels that an image may have together. Given several times, each column is a task of "
        "its own, of classes or of numbers, and may have gaps.",
    )
    separator = click.option(
        "--label-separator",
        metavar="TEXT",
        help='What divides the labels of an image that may have several, such as ";".',
    )
    return columns(separator(command))


def cache_options(command: F) -> F:
    """Add --cache and --no-cache."""
    no_cache = click.option("--no-cache", is_flag=True, help="Keep no embeddings.")
    return cache_option(no_cache(command))


def resolve_cache(cache: str | None, no_cache: bool) -> EmbeddingStore | None:
    """Return the store that --cache and --no-cache mean."""
    from featuretl.store.store import resolve_store

    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other.")
    return resolve_store(None if no_cache else "auto" if cache is None else cache, "featuretl")
