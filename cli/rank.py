"""``featuretl rank``: which backbone suits these images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .labels import groups_of, labels_of
from .options import (
    cache_options,
    devices_option,
    json_option,
    one_or_list,
    resolve_cache,
    runtime_option,
    seed_option,
)

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--backbones", default="auto", show_default=True, metavar="auto|NAME,..", callback=one_or_list,
    help="timm models; auto is the packaged ones that are installed.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["probe", "knn", "logme"]),
    default="probe", show_default=True,
    help="Held-out accuracy (R2 for numbers) of a linear probe or of neighbours, or LogME.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(["auto", "classification", "regression"]),
    default="auto", show_default=True, help="regression: the labels are numbers.",
)  # fmt: skip
@click.option("--path-column", help="Column of a manifest that holds the paths.")
@click.option("--label-column", help="Column of a manifest that holds the labels.")
@click.option(
    "--groups", metavar="COLUMN",
    help="Column of a manifest; images of one group are held out together.",
)  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help="Folds.")
@click.option(
    "--finalists", type=click.IntRange(min=1), default=4, show_default=True,
    help="How many see all images; more backbones are halved on samples first.",
)  # fmt: skip
@seed_option
@devices_option
@runtime_option
@click.option("--n-jobs", type=int, help="Threads.  [default: one per core]")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), metavar="OUT.csv",
    help="Write the ranking to a file.",
)  # fmt: skip
@cache_options
@json_option
def rank(
    photos: tuple[str, ...],
    backbones: str | list[str],
    method: str,
    task: str,
    path_column: str | None,
    label_column: str | None,
    groups: str | None,
    cv: int,
    finalists: int,
    random_state: int,
    device: str | list[str],
    runtime: str,
    n_jobs: int | None,
    output: str | None,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Rank backbones by how well their frozen embeddings suit PHOTOS, best first.

    PHOTOS are as in "featuretl extract"; class folders or --label-column give the labels.
    Embeddings that there are already are used.
    """
    from featuretl.extraction.outputs import check_output
    from featuretl.images.sources import find_images
    from featuretl.ranking.rank import rank_backbones

    if output is not None:
        check_output(output, (".csv",))
    images = find_images(
        photos, path_column=path_column, label_column=label_column, group_column=groups
    )
    frame = rank_backbones(
        images.paths,
        labels_of(images, task == "regression", label_column),
        [backbones] if isinstance(backbones, str) and backbones != "auto" else backbones,
        method=method,
        groups=groups_of(images),
        task=task,
        cv=cv,
        finalists=finalists,
        device=device,
        runtime=runtime,
        n_jobs=n_jobs,
        cache=resolve_cache(cache, no_cache),
        random_state=random_state,
        verbose=1,
    )
    if output is not None:
        frame.to_csv(output, index=False)
    if as_json:
        click.echo(json.dumps(frame.to_dict(orient="records")))
    else:
        _show(frame, method)


def _show(frame: pd.DataFrame, method: str) -> None:
    from rich.table import Table

    from .tables import print_table

    right = ("score", "95% interval", "behind", "images", "embedding", "images/s", "ms/image",
             "cache MB", "parameters")  # fmt: skip
    table = Table("backbone", title=f"by {method}; = is tied with the best")
    for name in right:
        table.add_column(name, justify="right")
    for row in frame.itertuples():
        table.add_row(
            row.backbone,
            f"{row.score:.4g}",
            f"{row.low:.4g} to {row.high:.4g}",
            f"{row.behind:.3g}{' =' if row.tied else ''}",
            f"{row.images:,}",
            f"{row.n_features}",
            f"{row.images_per_second:,.1f}",
            f"{row.ms_per_image:,.1f}",
            f"{row.cache_bytes / 1e6:,.1f}",
            f"{row.n_parameters / 1e6:.1f} M",
        )
    print_table(table)
