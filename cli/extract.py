"""``featuretl extract``: images to cached embeddings, and a file of them."""

from __future__ import annotations

import re
from typing import Any

import click

from . import options
from .extraction import cached_in, finish, run_extraction
from .sharded import engine_options, extract_on_engine

_BACKBONE = {
    "backbone": options.backbone_option,
    "weights": options.backbone_weights_option,
    "layers": click.option(
        "--layers", default="pre_logits", show_default=True, metavar="LAYER,..", callback=options.one_or_list,
        help="'pre_logits', or a layer's number or name; several, with commas, side by side.",
    ),
    "pooling": click.option(
        "--pooling", default="auto", show_default=True,
        help="auto, avg, max, cls, avg+max, cls+avg, gem or flatten.",
    ),
    "normalize": click.option("--normalize", is_flag=True, help="Scale every embedding to length 1."),
    "precision": click.option(
        "--precision", type=click.Choice(["auto", "float32", "bfloat16", "int8"]),
        default="auto", show_default=True,
        help="Precision of the computation; auto is float32, bfloat16 and int8 give other embeddings.",
    ),
    "views": click.option(
        "--views", default="1", show_default=True, metavar="N|flip|ten-crop|RxC",
        callback=lambda ctx, param, value: int(value) if value.isdecimal() else value,
        help="Views of each image, side by side: with its mirror image, N - 2 random crops, four corners, "
        "or tiles of large images.",
    ),
}  # fmt: skip


@click.command()
@options.photos_argument
@options.grouped("recipe", _BACKBONE)
@options.output_option(
    "OUT.npy|.npz|.parquet",
    "Write the embeddings, paths, labels and metadata to a file; with another engine, "
    "OUT.parquet or a folder.",
    required=False,
    folder=True,
)
@click.option(
    "--on-error", type=click.Choice(["raise", "skip", "nan"]), default="raise", show_default=True,
    help="Error policy for unreadable images: fail the run (the other images are still embedded and "
    "cached), leave out their rows, or give NaN rows.",
)  # fmt: skip
@options.manifest_options(label_column=options.label_column_option)
@options.devices_option
@options.runtime_option
@click.option(
    "--batch-size", type=options.WordOr({"auto": "auto"}, click.IntRange(min=1), "INTEGER"),
    default="auto", show_default=True,
    help="Images per forward pass; auto grows while that is faster.",
)  # fmt: skip
@click.option(
    "--n-jobs", type=int,
    help="Threads.  [default: one per core; of each worker of another engine, one]",
)  # fmt: skip
@click.option(
    "--decode-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="Decode in child processes, with a limit on the time for each image: one that crashes or "
    "stalls the decoder counts as unreadable.  [default: decode in this process]",
)  # fmt: skip
@click.option("--profile", is_flag=True, help="Show where the processor's time went.")
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
    manifests, or .txt lists. Cached images are not embedded again; an interrupted run resumes when the
    command is given again.

    Beyond one machine: --engine loky or dask embeds shards (also tar files in WebDataset layout,
    Parquet files of images, and URLs) in many processes, into a shared store.
    """
    from featuretl.extraction.extraction import extract
    from featuretl.extraction.outputs import check_output, save_embeddings
    from featuretl.images.sources import find_images

    shown: dict[str, Any] = {"on_error": on_error, "as_json": as_json, "profile": profile}
    given["backbone"] = _spec(recipe)
    if engine != "threads":
        if cache is not None or no_cache:
            raise click.UsageError(
                f"--cache and --no-cache go with --engine threads, --store with {engine}."
            )
        extract_on_engine(photos, engine, output, shown, **engine_settings, **columns, **given)
        return
    if output is not None:
        check_output(output)
    images = find_images(photos, **columns)
    store = options.resolve_cache(cache, no_cache)
    extraction = run_extraction(extract, images.paths, store, **given)
    facts = {
        "n_features": extraction.shape[1],
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
    """Return the BackboneSpec that the options of the backbone mean."""
    from featuretl.backbones.spec import BackboneSpec

    layers = recipe["layers"]
    named = [layers] if isinstance(layers, str) else layers
    layers = [int(name) if re.fullmatch(r"-?\d+", name) else name for name in named]
    rest = {name: value for name, value in recipe.items() if name != "backbone"}
    return BackboneSpec.of("featuretl extract", recipe["backbone"], **{**rest, "layers": layers})
