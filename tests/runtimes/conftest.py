"""Fixtures: a tiny backbone, its exports, and the cosines of embeddings."""

import functools

import numpy as np
import pytest

from featuretl import load_backbone
from featuretl.runtimes import alternatives
from featuretl.runtimes import int8 as quantized


@pytest.fixture(scope="package")
def models():
    """The models exported by these tests, each exported only once."""
    return {}


@pytest.fixture(autouse=True)
def exports(monkeypatch, models):
    """The models exported by this test."""
    made, export = [], alternatives.export

    def export_once(module, size):
        made.append(module)
        name = module.model.pretrained_cfg["architecture"]
        key = (name, size, tuple(module.indices), module.pooling, module.normalize)
        if key not in models:
            models[key] = export(module, size)
        return models[key]

    monkeypatch.setattr(alternatives, "export", export_once)
    monkeypatch.setattr(quantized, "export", lambda *args: made.append(args) or export(*args))
    return made


@pytest.fixture(scope="package")
def tiny():
    """A function that loads a tiny backbone with random weights."""
    return functools.partial(load_backbone, "test_resnet", weights="random")


@pytest.fixture(scope="package")
def cosines():
    """A function of the rows of two arrays."""

    def cosines_of(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    return cosines_of
