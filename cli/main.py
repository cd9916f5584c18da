"""``featuretl``: the group of commands, and how errors and signals end one."""

from __future__ import annotations

import os
import platform
import signal
import sys
import warnings
from importlib import metadata
from types import FrameType
from typing import Any

import click

from featuretl import __version__
from featuretl.exceptions import FeatureTLError, FeatureTLWarning, NoColumnsError, is_out_of_memory

from .backbones import backbones
from .cache import cache
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .export import export
from .extract import extract
from .options import write_section
from .predict import predict
from .rank import rank
from .report import report
from .suggest import suggest
from .train import train

DEBUG_VARIABLE = "FEATURETL_DEBUG"
COMMANDS: dict[str, tuple[click.Command, ...]] = {
    "Embed images": (extract, backbones, rank),
    "Train and use models": (train, evaluate, predict, export),
    "Look at images and models": (suggest, explain, report),
    "Cache and machine": (cache, demo),
}
_LIBRARIES = ("torch", "timm", "scikit-learn", "numpy", "onnxruntime")
# The options that set the parameters named in a NoColumnsError.
_OPTIONS = {
    "path_column": "--path-column",
    "label_column": "--label-column, or --target,",
    "task_columns": "--label-column, or --target,",
    "label_separator": "--label-separator",
    "group_column": "--groups",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class _Group(click.Group):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, grouped by purpose, and the options."""
        width = max(map(len, self.commands))
        for title, commands in COMMANDS.items():
            rows = [(str(one.name), one.get_short_help_str(formatter.width)) for one in commands]
            write_section(formatter, title, rows, width)
        click.Command.format_options(self, ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            ctx.exit(128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT))
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except NoColumnsError as error:
            parameter, _, rest = str(error).partition(" ")
            raise click.UsageError(f"{_OPTIONS.get(parameter, parameter)} {rest}") from error
        except FeatureTLError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, ImportError):
                raise click.ClickException(
                    f"Out of memory, or a library is damaged ({error}); free memory, raise its "
                    "limit (ulimit -v), or reinstall featuretl."
                ) from error
            if os.environ.get(DEBUG_VARIABLE):
                raise
            raise click.ClickException(
                f"Unexpected {type(error).__name__}: {error} (this is a bug in featuretl; "
                f"set {DEBUG_VARIABLE}=1 for the traceback)"
            ) from error


def _print_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions that a bug report needs, without importing the libraries."""
    if not value:
        return
    versions = [f"Python {platform.python_version()}"]
    for library in _LIBRARIES:
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{library} not installed")
    click.echo(f"featuretl {__version__}\n{', '.join(versions)}")
    ctx.exit()


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit status: 0 done; 1 the run failed, an image did under --on-error raise, or
"cache verify" found damage; 2 wrong usage; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM).""",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
    callback=_print_versions,
    help="Show the versions of featuretl, Python and the main libraries.")  # fmt: skip
def cli() -> None:
    """Transfer learning on images, with cached embeddings of pretrained backbones.

    For the options of a command, run: featuretl COMMAND --help
    """


for commands in COMMANDS.values():
    for command in commands:
        cli.add_command(command)


def main() -> None:
    """Run the command line, the entry point of ``featuretl``."""
    signal.signal(signal.SIGTERM, _terminate)
    if not os.environ.get(DEBUG_VARIABLE):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", FeatureTLWarning)
        warnings.showwarning = _show_warning
    cli()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
