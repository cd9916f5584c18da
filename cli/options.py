"""Options that several commands share, each declared once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featuretl._core.parameters import as_path
from featuretl._core.text import parse_quantity, printable

if TYPE_CHECKING:
    from featuretl.store.store import EmbeddingStore

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]


class FilePath(click.Path):
    """A path that the system can have; click asks the system about others, which raises ValueError."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what click makes of it; fail if no file can have that name."""
        if as_path(value) is None:
            self.fail(f"'{printable(value)}' cannot be the path of a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


class Quantity(click.ParamType):
    """A number with a unit, e.g. "20GB"; the value is an int in the unit of 1.

    Parameters
    ----------
    name : str
        Its name in the help.
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


class WordOr(click.ParamType):
    """One of a few words, or a value of another type.

    Parameters
    ----------
    words : dict of str to object
        The value of each word.
    other : click.ParamType
    metavar : str
        The name of the other type in the help.
    """

    def __init__(self, words: dict[str, Any], other: click.ParamType, metavar: str) -> None:
        self._words, self._other = words, other
        self.name = "|".join([*words, metavar])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what `value` means; fail unless it is a word or converted by the other type."""
        if value in self._words:
            return self._words[value]
        return self._other.convert(value, param, ctx)


def one_or_list(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | list[str] | None:
    """Return what an option was given: one value, or a list where there are commas."""
    return value.split(",") if value is not None and "," in value else value


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


def grouped(name: str, options: dict[str, Option]) -> Callable[[F], F]:
    """Return a decorator that adds options, by their parameters; the command gets one dict, `name`."""

    def add(command: Any) -> Any:
        @functools.wraps(command)
        def collected(**values: Any) -> Any:
            group = {parameter: values.pop(parameter) for parameter in options}
            return command(**{name: group}, **values)

        for option in reversed(options.values()):
            collected = option(collected)
        return collected

    return add


def output_option(metavar: str, help: str, required: bool = True, folder: bool = False) -> Option:
    """Return -o, --output: a file, or with `folder` a folder, too."""
    kind = FilePath(dir_okay=folder)
    return click.option("-o", "--output", type=kind, required=required, metavar=metavar, help=help)


def task_option(help: str) -> Option:
    """Return --task."""
    tasks = click.Choice(["auto", "classification", "regression"])
    return click.option("--task", type=tasks, default="auto", show_default=True, help=help)


def cv_option(help: str) -> Option:
    """Return --cv."""
    return click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help=help)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
photos_argument = click.argument("photos", nargs=-1, required=True)
seed_option = click.option(
    "--random-state", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
    help="Seed of all random draws.",
)  # fmt: skip
n_bootstrap_option = click.option(
    "--n-bootstrap", type=click.IntRange(min=0), default=1000, show_default=True,
    help="Resamples for the intervals of log-loss and regression scores; 0: no intervals.",
)  # fmt: skip

# The model and its backbone
model_argument = click.argument("model", type=FilePath(dir_okay=False))
weights_option = click.option(
    "--weights", type=FilePath(dir_okay=False), metavar="FILE",
    help="The backbone's weights, where the model was trained on a local file of them.",
)  # fmt: skip
backbone_option = click.option(
    "--backbone", default="tf_efficientnet_lite0", show_default=True, help="A timm model."
)
backbone_weights_option = click.option(
    "--weights", default="auto", show_default=True, metavar="auto|FILE|random",
    help="Packaged or from timm's hub; a local .safetensors or .pth file; or none.",
)  # fmt: skip

# The columns of a manifest
path_column_option = click.option(
    "--path-column", help="Column of a manifest that holds the paths."
)
label_column_option = click.option(
    "--label-column", help="Column of a manifest that holds the labels."
)
label_columns_option = click.option(
    "--label-column", metavar="COLUMN,..", multiple=True, callback=one_or_tasks,
    help="Column of a manifest that holds the labels; several columns of 0 and 1, with commas, "
    "are labels that an image may have together. Given several times, each column is a task of "
    "its own, of classes or of numbers, and may have gaps.",
)  # fmt: skip
label_separator_option = click.option(
    "--label-separator", metavar="TEXT",
    help='Text between the labels of an image that may have several, such as ";".',
)  # fmt: skip
groups_option = click.option(
    "--groups", "group_column", metavar="COLUMN",
    help="Column of a manifest; images of one group stay on one side of every split, and count as "
    "one draw in all intervals.",
)  # fmt: skip


def manifest_options(**columns: Option) -> Callable[[F], F]:
    """Return a decorator that adds --path-column and other columns: `columns`, for `find_images`."""
    return grouped("columns", {"path_column": path_column_option, **columns})


# The machine
device_option = click.option("--device", default="auto", show_default=True, help="A torch device.")
devices_option = click.option(
    "--device", default="auto", show_default=True, callback=one_or_list,
    help="A torch device, or several: cuda is every GPU, cuda:0,cuda:1 are two.",
)  # fmt: skip
runtime_option = click.option(
    "--runtime", type=click.Choice(["auto", "torch", "onnx", "openvino", "compile"]),
    default="auto", show_default=True,
    help="Inference runtime; auto picks the fastest one whose embeddings match PyTorch.",
)  # fmt: skip
n_jobs_option = click.option("--n-jobs", type=int, help="Threads.  [default: one per core]")
machine_options = grouped("machine", {"device": device_option, "n_jobs": n_jobs_option})
runtime_options = grouped(
    "machine", {"device": devices_option, "runtime": runtime_option, "n_jobs": n_jobs_option}
)

# The store
cache_option = click.option(
    "--cache", type=FilePath(file_okay=False), metavar="DIR",
    help="Folder of cached embeddings.  [default: $FEATURETL_CACHE, or the user's cache directory]",
)  # fmt: skip
no_cache_option = click.option("--no-cache", is_flag=True, help="Cache no embeddings.")


def cache_options(command: F) -> F:
    """Add --cache and --no-cache."""
    return cache_option(no_cache_option(command))


def store_options(command: F) -> F:
    """Add --cache and --no-cache; the command gets the store that they mean, as `store`."""

    @functools.wraps(command)
    def resolved(cache: str | None, no_cache: bool, **values: Any) -> Any:
        return command(store=resolve_cache(cache, no_cache), **values)

    return cache_options(resolved)  # type: ignore[return-value]


def resolve_cache(cache: str | None, no_cache: bool = False) -> EmbeddingStore | None:
    """Return the store that --cache and --no-cache mean."""
    from featuretl.store.store import resolve_store

    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other.")
    return resolve_store(None if no_cache else "auto" if cache is None else cache, "featuretl")
