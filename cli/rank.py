"""``featuretl rank``: compare backbones on labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options
from .labels import check_classes, groups_of, labels_of
from .options import option
from .printing import print_json, print_table

if TYPE_CHECKING:
    import pandas as pd


@options.command()
@options.photos_argument
@option("--backbones", group="Model", default="auto", metavar="auto|NAME,..",
    callback=options.one_or_list,
    help="timm models to rank; auto ranks the installed packaged ones.")  # fmt: skip
@option("--method", group="Model", type=click.Choice(["probe", "knn", "logme"]), default="probe",
    help="Cross-validated score of a linear probe or nearest neighbours, or LogME.")  # fmt: skip
@options.task_option
@options.manifest_options(
    label_column=options.label_column_option, group_column=options.groups_option
)
@options.cv_option
@option("--finalists", group="Model", rare=True, type=click.IntRange(min=1), metavar="N", default=4,
    help="Backbones to score on all images; samples eliminate the others.")  # fmt: skip
@options.seed_option
@options.runtime_options
@options.output_option("OUT.csv", "Table of the ranking.", required=False)
@options.store_options
@options.json_option
def rank(
    photos: tuple[str, ...],
    columns: dict[str, Any],
    backbones: str | list[str],
    machine: dict[str, Any],
    store: Any,
    output: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank backbones by the scores of their embeddings on PHOTOS.

    PHOTOS are as in "featuretl extract"; class folders or --label-column give the labels.
    """
    from featuretl._core.files import check_output
    from featuretl.images.sources import find_images

    if output is not None:
        check_output(output, (".csv",))
    images = find_images(photos, **columns)
    y = labels_of(images, given["task"] == "regression", columns["label_column"])
    check_classes(y, columns["label_column"])
    from featuretl.ranking.rank import rank_backbones  # after all that can be wrong

    frame = rank_backbones(
        images.images,
        y,
        [backbones] if isinstance(backbones, str) and backbones != "auto" else backbones,
        groups=groups_of(images),
        cache=store,
        verbose=1,
        **given,
        **machine,
    )
    if output is not None:
        frame.to_csv(output, index=False)
    if as_json:
        print_json({"method": given["method"], "backbones": frame.to_dict(orient="records")})
    else:
        _show(frame, given["method"])


def _show(frame: pd.DataFrame, method: str) -> None:
    from rich.table import Table

    right = ("score", "95% interval", "behind", "images", "embedding", "images/s", "ms/image",
             "cache MB", "parameters")  # fmt: skip
    table = Table("backbone", title=f"by {method}; = marks a tie with the best")
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
