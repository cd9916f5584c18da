"""``featuretl extract``: images to cached embeddings, and a file of them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AutoOrInt,
    IntOrText,
    cache_options,
    devices_option,
    json_option,
    one_or_list,
    resolve_cache,
    runtime_option,
)
from .sharded import engine_options, extract_on_engine

if TYPE_CHECKING:
    from featuretl.extraction.engine import Statistics
    from featuretl.extraction.extraction import Extraction
    from featuretl.images.sources import ImageList
    from featuretl.store.store import EmbeddingStore


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--backbone", default="tf_efficientnet_lite0", show_default=True, help="A timm model."
)
@click.option(
    "--weights", default="auto", show_default=True, metavar="auto|FILE|random",
    help="Packaged or from timm's hub; a local .safetensors or .pth file; or none.",
)  # fmt: skip
@click.option(
    "--layers", default="pre_logits", show_default=True, metavar="LAYER,..", callback=one_or_list,
    help="'pre_logits', or a layer's number or name; several, with commas, side by side.",
)  # fmt: skip
@click.option("--pooling", default="auto", show_default=True, help="auto, avg, max, cls, avg+max, cls+avg, gem or flatten.")  # fmt: skip
@click.option("--normalize", is_flag=True, help="Scale every embedding to length 1.")
@click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16", "int8"]),
    default="auto", show_default=True,
    help="Of the computation; auto is float32, bfloat16 and int8 give other embeddings.",
)  # fmt: skip
@click.option(
    "--views", type=IntOrText(), default=1, show_default=True, metavar="N|flip|ten-crop|RxC",
    help="Views of each image, side by side: with its mirror image, N - 2 random crops, four corners, "
    "or tiles of large images.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="OUT.npy|.npz|.parquet",
    help="Write the embeddings, paths, labels and metadata to a file; with another engine, "
    "OUT.parquet or a folder.",
)  # fmt: skip
@click.option(
    "--on-error", type=click.Choice(["raise", "skip", "nan"]), default="raise", show_default=True,
    help="What bad images are: a failed run (good ones are still kept), rows left out, or NaN rows.",
)  # fmt: skip
@click.option("--path-column", help="Column of a manifest that holds the paths.")
@click.option("--label-column", help="Column of a manifest that holds the labels.")
@devices_option
@runtime_option
@click.option(
    "--batch-size", type=AutoOrInt(), default="auto", show_default=True,
    help="Images per forward pass; auto grows while that is faster.",
)  # fmt: skip
@click.option(
    "--n-jobs",
    type=int,
    help="Threads.  [default: one per core; of each worker of another engine, one]",
)
@click.option(
    "--decode-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="Decode in child processes, an image in so many seconds at most: what crashes or stalls "
    "the decoder is a bad image.  [default: decode in this process]",
)  # fmt: skip
@click.option("--profile", is_flag=True, help="Show where the processor's time went.")
@engine_options
@cache_options
@json_option
def extract(
    photos: tuple[str, ...],
    output: str | None,
    on_error: str,
    path_column: str | None,
    label_column: str | None,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
    profile: bool,
    engine: str,
    engine_settings: dict[str, Any],
    **options: Any,
) -> None:
    """Embed PHOTOS, each image once, and keep the embeddings.

    PHOTOS are folders (class folders give labels), image files, glob patterns, .csv or .parquet
    manifests, or .txt lists. What is embedded already is not embedded again; an interrupted run
    goes on where it was.

    Beyond one machine: --engine loky or dask embeds shards (also tar files in WebDataset layout,
    Parquet files of images, and URLs) in many processes, into a shared store.
    """
    if engine != "threads":
        if cache is not None or no_cache:
            raise click.UsageError(
                f"--cache and --no-cache go with --engine threads, --store with {engine}."
            )
        columns = {"path_column": path_column, "label_column": label_column}
        settings = {**engine_settings, **columns, **_resolve_backbone(options)}
        extract_on_engine(photos, engine, output, on_error, as_json, profile, **settings)
        return
    from featuretl.extraction.outputs import check_output, save_embeddings
    from featuretl.images.sources import find_images

    from .tables import print_costs, print_failures

    if output is not None:
        check_output(output)
    images = find_images(photos, path_column=path_column, label_column=label_column)
    store = resolve_cache(cache, no_cache)
    extraction = _extract(images, store, **options)
    print_failures(extraction.failures, "images without an embedding")
    if extraction.failures and on_error == "raise":
        output = None
    if output is not None:
        save_embeddings(output, extraction, images, skip_failures=on_error == "skip")
    _show_summary(extraction, images, _kept_in(store), output, as_json)
    if profile and not as_json:
        print_costs(extraction.statistics)
    if extraction.failures and on_error == "raise":
        raise click.exceptions.Exit(1)


def _resolve_backbone(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those of the backbone as one spec."""
    from featuretl.backbones.spec import BackboneSpec

    rest = dict(options)
    names = ("weights", "layers", "pooling", "normalize", "precision", "views")
    output = {name: rest.pop(name) for name in names}
    layers = output["layers"]
    named = [layers] if isinstance(layers, str) else layers
    output["layers"] = [int(name) if re.fullmatch(r"-?\d+", name) else name for name in named]
    return {**rest, "backbone": BackboneSpec.of("featuretl extract", rest["backbone"], **output)}


def _extract(images: ImageList, store: EmbeddingStore | None, **options: Any) -> Extraction:
    from featuretl.extraction.extraction import extract
    from featuretl.extraction.progress import embedding_bar

    last: list[Statistics] = []
    try:
        with embedding_bar(len(images)) as show:

            def progress(statistics: Statistics) -> None:
                last[:] = [statistics]
                show(statistics)

            return extract(
                images.paths,
                store=store,
                on_error="nan",
                progress=progress,
                **_resolve_backbone(options),
            )
    except KeyboardInterrupt:
        embedded = last[0].embedded if last else 0
        kept = "are kept: run the command again to go on" if _kept_in(store) else "are not kept"
        click.echo(f"Interrupted. {embedded} new embeddings {kept}.", err=True)
        raise


def _kept_in(store: EmbeddingStore | None) -> Path | None:
    return store.path if store is not None and store.keeps else None


def _show_summary(
    extraction: Extraction,
    images: ImageList,
    cache: Path | None,
    output: str | None,
    as_json: bool,
) -> None:
    statistics = extraction.statistics
    facts: dict[str, Any] = {
        **dataclasses.asdict(statistics),
        "images_per_second": statistics.images_per_second,
        "backbone": extraction.recipe["backbone"]["name"],
        "n_features": extraction.shape[1],
        "classes": len(images.class_names or ()),
        "cache": None if cache is None else str(cache),
        "output": output,
    }
    if as_json:
        failures = [
            {"index": failure.index, "path": images.paths[failure.index], "error": failure.message}
            for failure in extraction.failures
        ]
        click.echo(json.dumps({**facts, "failures": failures}))
        return
    from .tables import print_summary

    print_summary(facts, statistics)
