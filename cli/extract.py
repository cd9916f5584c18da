"""``featuretl extract``: embed images into the cache and, with -o, a file."""

from __future__ import annotations

import re
from typing import Any

import click

from . import options
from .extraction import cached_in, finish, run_extraction
from .options import option
from .sharded import engine_options, extract_on_engine

_BACKBONE = {
    "backbone": options.backbone_option,
    "weights": options.backbone_weights_option,
    "layers": option("--layers", group="Model", default="pre_logits", metavar="LAYER,..",
        callback=options.one_or_list, help="Layers to concatenate, by name or number."),
    "pooling": option("--pooling", group="Model", metavar="NAME", default="auto",
        help="avg, max, cls, avg+max, cls+avg, gem, flatten or grid."),
    "normalize": option("--normalize", group="Model", is_flag=True,
        help="Scale each embedding to unit length."),
    "precision": option("--precision", group="Model", rare=True, default="auto", metavar="NAME",
        type=click.Choice(["auto", "float32", "bfloat16", "int8"]),
        help="float32 (auto); bfloat16 and int8 change results."),
    "views": option(
        "--views", group="Model", rare=True, default="1", metavar="N|flip|ten-crop|RxC",
        callback=lambda ctx, param, value: int(value) if value.isdecimal() else value,
        help="Augmented views or tiles per image, concatenated.",
    ),
    "image_size": options.image_size_option,
    "crop_pct": options.crop_pct_option,
    "in_chans": option("--in-chans", group="Model", rare=True, type=click.IntRange(min=1),
        default=3, metavar="N", help="Channels of the images; 1 takes their luminance."),
    "decode": options.decode_option,
}  # fmt: skip


@options.command()
@options.photos_argument
@options.collected("recipe", _BACKBONE)
@options.output_option(
    "OUT.npy|.npz|.parquet",
    "Embeddings with metadata; loky and dask: .parquet or a folder.",
    required=False,
    folder=True,
)
@options.manifest_options(label_column=options.label_column_option)
@option("--on-error", group="Input", type=click.Choice(["raise", "skip", "nan"]), default="raise",
    help="Unreadable images: fail the run, leave them out, or write NaN rows.")  # fmt: skip
@options.devices_option
@options.runtime_option
@option("--batch-size", group="Machine", metavar="N", default="auto",
    type=options.WordOr({"auto": "auto"}, click.IntRange(min=1)),
    help="Images per forward pass; auto adapts it.")  # fmt: skip
@option("--n-jobs", group="Machine", type=int, metavar="N",
    show_default="one per core; in workers: one", help="Number of threads.")  # fmt: skip
@option("--decode-timeout", group="Input", rare=True, type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS", help="Decode in child processes, each image within this time.")  # fmt: skip
@option("--profile", group="Output", is_flag=True, help="Also print the time of each stage.")
@engine_options
@options.cache_options
@options.json_option
def extract(
    photos: tuple[str, ...],
    output: str | None,
    columns: dict[str, Any],
    recipe: dict[str, Any],
    cache: str | None,
    no_cache: bool,
    engine: str,
    engine_settings: dict[str, Any],
    on_error: str,
    as_json: bool,
    profile: bool,
    **given: Any,
) -> None:
    """Embed PHOTOS, each image once, and cache the embeddings.

    PHOTOS are folders (class folders give labels), image files, glob patterns, .csv or .parquet
    manifests, or .txt lists. Cached images are not embedded again, so the same command resumes an
    interrupted run. With --engine loky or dask, worker processes fill a shared store, and PHOTOS
    may also be URLs, tar files in WebDataset layout, or Parquet files of images.
    """
    from featuretl._core.files import check_output
    from featuretl.extraction.extraction import extract
    from featuretl.extraction.outputs import ENDINGS, save_embeddings
    from featuretl.images.sources import find_images

    shown: dict[str, Any] = {"on_error": on_error, "as_json": as_json, "profile": profile}
    given["backbone"] = _spec(recipe)
    if engine != "threads":
        if columns.pop("box_columns"):
            raise click.UsageError("--box-columns requires --engine threads; drop one of them.")
        if cache is not None or no_cache:
            raise click.UsageError(
                f"--cache and --no-cache require --engine threads; with {engine} use --store."
            )
        extract_on_engine(photos, engine, output, shown, **engine_settings, **columns, **given)
        return
    if output is not None:
        check_output(output, ENDINGS)
    images = find_images(photos, **columns)
    store = options.resolve_cache(cache, no_cache)
    extraction = run_extraction(extract, images.images, store, **given)
    facts = {
        "n_features": extraction.recipe["output"]["n_features"],
        "classes": len(images.class_names or ()),
        "cache": cached_in(store),
        "output": output,
    }
    failures = [
        {"index": one.index, "path": images.paths[one.index], "error": one.message}
        for one in extraction.failures
    ]

    def save() -> None:
        assert output is not None  # nosec B101
        save_embeddings(output, extraction, images, skip_failures=on_error == "skip")

    finish(extraction, save, facts, failures, what="images without an embedding", **shown)


def _spec(recipe: dict[str, Any]) -> Any:
    """Return the BackboneSpec that the options of `_BACKBONE` describe."""
    from featuretl.backbones.spec import BackboneSpec

    layers = recipe["layers"]
    named = [layers] if isinstance(layers, str) else layers
    layers = [int(name) if re.fullmatch(r"-?\d+", name) else name for name in named]
    rest = {name: value for name, value in recipe.items() if name != "backbone"}
    return BackboneSpec.of("featuretl extract", recipe["backbone"], **{**rest, "layers": layers})
