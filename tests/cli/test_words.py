"""Options have the names of the Python parameters that they set."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from featuretl_cli.digits import write_digits
from featuretl_cli.main import cli

from featuretl import (
    EmbeddingStore,
    TransferClassifier,
    evaluate_model,
    explain,
    export_model,
    extract,
    extract_shards,
    load_model,
    predict_to_file,
    rank_backbones,
    save_shards,
    suggest_labels,
    write_report,
)
from featuretl.backbones.spec import BackboneSpec
from featuretl.explanation.explanation import save_overlays
from featuretl.images.sources import find_images
from featuretl.labelling import AccuracyForecast
from featuretl.prediction.predict import use_machine
from featuretl.scaleout.cluster import dask_workers
from featuretl.store.collect import collect

# Arguments of the command line alone: files, printing, and --no-cache for cache=None.
SHELL = {"photos", "output", "as_json", "no_cache", "cache", "help", "model"}
CALLED = {
    "train": [TransferClassifier, TransferClassifier.fit, BackboneSpec, find_images],
    "evaluate": [load_model, find_images, evaluate_model, use_machine],
    "predict": [load_model, find_images, predict_to_file, use_machine],
    "extract": [extract, extract_shards, save_shards, dask_workers, BackboneSpec, find_images],
    "rank": [rank_backbones, find_images],
    "suggest": [suggest_labels, AccuracyForecast.labels_needed, extract, BackboneSpec, find_images],
    "explain": [explain, load_model, find_images, save_overlays],
    "export": [export_model, load_model, find_images],
    "report": [write_report, load_model, find_images],
    "demo": [write_digits],
    "gc": [collect, EmbeddingStore],
}
OWN = {
    "train": {"target"},  # the column of y for TransferRegressor
    # --profile prints Extraction.statistics.costs; --engine selects extract or extract_shards.
    "extract": {"profile", "engine"},
    # X in Python, and in report the model or the embeddings.
    "explain": {"images"},
    "report": {"source"},
}
OF_THE_MACHINE = {"device", "n_jobs"}  # parameters of fitted models, which use_machine sets


@pytest.mark.parametrize("name", CALLED)
def test_options_are_parameters(name: str) -> None:
    commands: dict[str, Any] = {**cli.commands["cache"].commands, **cli.commands}
    words: set[str] = set()
    for function in CALLED[name]:
        words |= set(inspect.signature(function).parameters)
    options = {parameter.name for parameter in commands[name].params}
    assert options - SHELL - OF_THE_MACHINE <= words | OWN.get(name, set())
    assert all(
        "_" not in option for p in commands[name].params for option in p.opts if "--" in option
    )
