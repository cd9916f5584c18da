"""Options that several commands share, and the groups in which the help lists options."""

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
Decorator = Callable[[Any], Any]

GROUPS = ("Input", "Model", "Output", "Machine")
_NAMES_WIDTH = 28  # longer names stand on a line of their own


class Option(click.Option):
    """An option that belongs to one of `GROUPS`; the help shows its default.

    Parameters
    ----------
    group : {"Input", "Model", "Output", "Machine"}
    rare : bool
        List the option after the others of its group.
    """

    def __init__(self, *args: Any, group: str, rare: bool = False, **settings: Any) -> None:
        super().__init__(*args, **{"show_default": True, **settings})
        self.group, self.rare = group, rare


class Command(click.Command):
    """A command whose help lists the options by group; --help is the last one of Output."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group that has options."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in sorted(self.get_params(ctx), key=lambda one: getattr(one, "rare", True)):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                rows[getattr(parameter, "group", "Output")].append(record)
        width = max(len(name) for records in rows.values() for name, _ in records)
        for group, records in rows.items():
            if records:
                write_section(formatter, group, records, min(width, _NAMES_WIDTH))


def write_section(
    formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]], width: int
) -> None:
    """Write a titled section of a help text; the second column starts after `width` characters."""
    with formatter.section(title):
        formatter.write_dl([(name.ljust(width), text) for name, text in rows], col_max=width)


option = functools.partial(click.option, cls=Option)
command = functools.partial(click.command, cls=Command)


class FilePath(click.Path):
    """A path; a name that no file can have, for which click raises ValueError, is wrong usage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path that click.Path makes of `value`; fail if no file can have that name."""
        if as_path(value) is None:
            self.fail(f"'{printable(value)}' cannot be the path of a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


class Quantity(click.ParamType):
    """A number with a unit, e.g. "20GB", as an int; `units` maps each unit to its factor."""

    name = "quantity"

    def __init__(self, units: dict[str, int], example: str) -> None:
        self._units, self._example = units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` in the smallest unit; fail unless it is a number >= 0 and a unit."""
        if isinstance(value, int):
            return value
        try:
            return parse_quantity(value, self._units, self._example)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WordOr(click.ParamType):
    """One of several words, which `words` maps to their values, or a value of another type."""

    name = "value"

    def __init__(self, words: dict[str, Any], other: click.ParamType) -> None:
        self._words, self._other = words, other

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a word; let the other type convert anything else."""
        if value in self._words:
            return self._words[value]
        return self._other.convert(value, param, ctx)


def one_or_list(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | list[str] | None:
    """Return the value of an option; text with commas becomes a list."""
    return value.split(",") if value is not None and "," in value else value


def one_or_tasks(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> str | list[str] | tuple[str, ...] | None:
    """Return the value of --label-column: a column, a list of 0/1 columns, or a tuple of tasks."""
    if len(values) < 2:
        return one_or_list(ctx, param, values[0] if values else None)
    if any("," in value for value in values) or len(set(values)) < len(values):
        raise click.BadParameter(
            "if repeated, each must name one column, a different one for each task.", ctx, param
        )
    return values


def four_columns(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    """Return the columns in the value of --box-columns; [] without a value."""
    names = value.split(",") if value is not None else []
    if value is not None and (len(names) != 4 or not all(names)):
        message = f"must name four columns, such as x,y,w,h; got '{printable(value)}'."
        raise click.BadParameter(message, ctx, param)
    return names


def collected(name: str, options: dict[str, Decorator]) -> Callable[[F], F]:
    """Return a decorator that adds options; the command gets their values as a dict, `name`."""

    def add(function: Any) -> Any:
        @functools.wraps(function)
        def with_dict(**values: Any) -> Any:
            chosen = {parameter: values.pop(parameter) for parameter in options}
            return function(**{name: chosen}, **values)

        for add_option in reversed(options.values()):
            with_dict = add_option(with_dict)
        return with_dict

    return add


def output_option(
    metavar: str, help: str, required: bool = True, folder: bool = False
) -> Decorator:
    """Return -o, --output: a file or, with `folder`, a file or a folder."""
    return option("-o", "--output", group="Output", type=FilePath(dir_okay=folder),
        required=required, metavar=metavar, help=help)  # fmt: skip


task_option = option("--task", group="Input",
    type=click.Choice(["auto", "classification", "regression"]), default="auto",
    help="Task of the labels; auto is classification.")  # fmt: skip
cv_option = option("--cv", group="Model", type=click.IntRange(min=2), metavar="N", default=5,
    help="Number of cross-validation folds.")  # fmt: skip
json_option = option("--json", "as_json", group="Output", rare=True, is_flag=True,
    help="Print one JSON object to stdout, and nothing else.")  # fmt: skip
photos_argument = click.argument("photos", nargs=-1, required=True)
seed_option = option("--random-state", group="Model", rare=True, type=click.IntRange(0, 2**32 - 1),
    metavar="SEED", default=0, help="Seed of all random numbers.")  # fmt: skip
n_bootstrap_option = option("--n-bootstrap", group="Output", rare=True, type=click.IntRange(min=0),
    metavar="N", default=1000,
    help="Bootstrap resamples for intervals of log loss and regression scores.")  # fmt: skip

# The model and its backbone
model_argument = click.argument("model", type=FilePath(dir_okay=False))
weights_option = option("--weights", group="Model", rare=True, type=FilePath(),
    metavar="PATH", help="Backbone file or folder, if MODEL was trained on a local one.")  # fmt: skip
backbone_option = option("--backbone", group="Model", metavar="NAME",
    default="tf_efficientnet_lite0", help="timm model, hf-hub:ORG/MODEL or local-dir:FOLDER.")  # fmt: skip
image_size_option = option("--image-size", group="Model", rare=True, type=click.IntRange(min=1),
    metavar="PIXELS", help="Input size of the network; default: its own.")  # fmt: skip
crop_pct_option = option("--crop-pct", group="Model", rare=True, metavar="FRACTION",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the shorter side that the crop keeps; default: the network's.")  # fmt: skip
decode_option = option("--decode", group="Model", rare=True, default="full",
    type=click.Choice(["full", "reduced"]), help="Decode large JPEGs in full, or reduced.")  # fmt: skip
backbone_weights_option = option("--weights", group="Model", metavar="auto|FILE|random",
    default="auto", help="Pretrained weights, weights from a file, or random ones.")  # fmt: skip

# The columns of a manifest
path_column_option = option("--path-column", group="Input", metavar="COLUMN",
    help="Manifest column of image paths.")  # fmt: skip
label_column_option = option("--label-column", group="Input", metavar="COLUMN",
    help="Manifest column of labels.")  # fmt: skip
label_columns_option = option("--label-column", group="Input", metavar="COLUMN,..", multiple=True,
    callback=one_or_tasks,
    help="Label column; A,B: 0/1 columns of a multi-label task; repeatable for tasks.")  # fmt: skip
label_separator_option = option("--label-separator", group="Input", rare=True, metavar="TEXT",
    help='Separator of the labels of a multi-label image, such as ";".')  # fmt: skip
groups_option = option("--groups", "group_column", group="Input", metavar="COLUMN",
    help="Manifest column of groups, which splits keep together.")  # fmt: skip

box_columns_option = option("--box-columns", group="Input", metavar="X,Y,W,H",
    callback=four_columns,
    help="Manifest columns of boxes in pixels: each row is a crop; the file is its group.")  # fmt: skip


def manifest_options(**columns: Decorator) -> Callable[[F], F]:
    """Return a decorator that adds options of columns; the command gets the dict `columns`."""
    boxes = {"box_columns": box_columns_option}
    return collected("columns", {"path_column": path_column_option, **columns, **boxes})


# The machine
device_option = option("--device", group="Machine", metavar="NAME", default="auto",
    help="PyTorch device.")  # fmt: skip
devices_option = option("--device", group="Machine", metavar="NAME,..", default="auto",
    callback=one_or_list, help="Device; cuda is every GPU, cuda:0,cuda:1 are two.")  # fmt: skip
runtime_option = option("--runtime", group="Machine", default="auto",
    type=click.Choice(["auto", "torch", "onnx", "openvino", "compile"]),
    help="Inference runtime; auto is the fastest that matches PyTorch.")  # fmt: skip
n_jobs_option = option("--n-jobs", group="Machine", type=int, metavar="N",
    show_default="one per core", help="Number of threads.")  # fmt: skip
machine_options = collected("machine", {"device": device_option, "n_jobs": n_jobs_option})
runtime_options = collected(
    "machine", {"device": devices_option, "runtime": runtime_option, "n_jobs": n_jobs_option}
)

# The store
cache_option = option("--cache", group="Machine", type=FilePath(file_okay=False), metavar="DIR",
    show_default="$FEATURETL_CACHE, or the user's", help="Cache directory.")  # fmt: skip
no_cache_option = option("--no-cache", group="Machine", is_flag=True, help="Cache no embeddings.")


def cache_options(function: F) -> F:
    """Add --cache and --no-cache."""
    return cache_option(no_cache_option(function))


def store_options(function: F) -> F:
    """Add --cache and --no-cache, and pass the store that they select to the command as `store`."""

    @functools.wraps(function)
    def resolved(cache: str | None, no_cache: bool, **values: Any) -> Any:
        return function(store=resolve_cache(cache, no_cache), **values)

    return cache_options(resolved)  # type: ignore[return-value]


def resolve_cache(cache: str | None, no_cache: bool = False) -> EmbeddingStore | None:
    """Return the store that --cache and --no-cache select, None for --no-cache."""
    from featuretl.store.store import resolve_store

    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other; drop one of them.")
    return resolve_store(None if no_cache else "auto" if cache is None else cache, "featuretl")
