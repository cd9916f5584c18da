"""``featuretl``: the group of commands, and how errors, warnings and signals end one."""

from __future__ import annotations

import os
import signal
import sys
import warnings
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
from .predict import predict
from .rank import rank
from .report import report
from .suggest import suggest
from .train import train

DEBUG_VARIABLE = "FEATURETL_DEBUG"

_OPTIONS = {
    "path_column": "--path-column",
    "label_column": "--label-column, or --target,",
    "task_columns": "--label-column, or --target,",
    "label_separator": "--label-separator",
    "group_column": "--groups",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends work as Ctrl-C does."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            ctx.exit(128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT))
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except NoColumnsError as error:
            parameter, _, rest = str(error).partition(" ")
            raise click.UsageError(f"{_OPTIONS.get(parameter, parameter)} {rest}") from error
        except FeatureTLError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, ImportError):
                raise click.ClickException(
                    f"Memory does not suffice, or a library is not whole ({error}); free memory or "
                    "raise the limit on it (ulimit -v), or install featuretl again."
                ) from error
            if os.environ.get(DEBUG_VARIABLE):
                raise
            raise click.ClickException(
                f"Unexpected {type(error).__name__}: {error} (this is a bug in featuretl; "
                f"{DEBUG_VARIABLE}=1 shows where)"
            ) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="featuretl")
def cli() -> None:
    """Transfer learning on images: embeddings of pretrained networks, computed once."""


for command in (
    train,
    evaluate,
    predict,
    report,
    explain,
    export,
    extract,
    rank,
    suggest,
    backbones,
    cache,
    demo,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
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
