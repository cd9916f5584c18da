"""The device under test: a GPU, or what FEATURETL_TEST_DEVICE names, to rehearse these tests."""

import os

import numpy as np
import pytest
import torch

from featuretl import load_backbone
from featuretl.runtimes.choice import least_cosine


@pytest.fixture(scope="session")
def device():
    name = os.environ.get("FEATURETL_TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("there is no GPU; FEATURETL_TEST_DEVICE=cpu rehearses these tests")
    return name


@pytest.fixture(scope="session")
def on_gpu(device):
    return device.startswith("cuda")


@pytest.fixture(scope="session", params=["test_resnet", "test_vit"])
def backbone(request, device):
    """A small network with random weights on the device."""
    return load_backbone(request.param, weights="random", device=device)


@pytest.fixture(scope="session")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="session")
def same():
    """Assert that two matrices hold the same embeddings, up to the order of additions."""

    def check(found, expected, tolerance=1e-4):
        assert least_cosine(expected, found) >= 0.9999
        np.testing.assert_allclose(found, expected, 0, tolerance * np.abs(expected).max())

    return check
