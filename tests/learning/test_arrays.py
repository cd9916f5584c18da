"""Tensors stay on their device under scikit-learn's array API dispatch, and change no result."""

import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from featuretl import NoveltyDetector, load_model, save_model
from featuretl._learning.arrays import exact_products, is_dispatched
from featuretl._learning.groups import copies_of
from featuretl.exceptions import InputError
from featuretl.heads import (
    LinearProbeClassifier,
    LinearProbeRegressor,
    NearestMeanClassifier,
    SVMProbeClassifier,
)

N, D = 300, 12
RNG = np.random.default_rng(0)
Y = np.arange(N) % 3
X = (RNG.normal(size=(N, D)) + 2 * np.eye(3, D)[Y]).astype(np.float32)
X[7] = X[4]
GROUPS, WEIGHT = np.arange(N) // 6, RNG.uniform(0.5, 2, N)
LABELS = (RNG.random((N, 4)) < 0.4).astype(int)
METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "novelty")
TIGHT = {"random_state": 0, "tol": 1e-8}
HEADS = [
    (LinearProbeClassifier(**TIGHT), Y, {}),
    (LinearProbeClassifier("cv", **TIGHT), Y, {"sample_weight": WEIGHT}),
    (LinearProbeClassifier("cv", calibrate=True, **TIGHT), Y % 2, {"groups": GROUPS}),
    (LinearProbeClassifier("cv", **TIGHT), LABELS, {}),
    (LinearProbeClassifier(class_weight="balanced", **TIGHT), np.array(list("abc"))[Y], {}),
    (LinearProbeRegressor(), X[:, 0] + Y, {"sample_weight": WEIGHT}),
    (LinearProbeRegressor(), np.column_stack([X[:, 0], Y]), {"groups": GROUPS}),
    (SVMProbeClassifier(**TIGHT), Y, {}),
    (SVMProbeClassifier(calibrate=True, **TIGHT), Y % 2, {"groups": GROUPS}),
    (NearestMeanClassifier(), Y, {"sample_weight": WEIGHT}),
    (NoveltyDetector(random_state=0), Y, {}),
    (NoveltyDetector(3, random_state=0), Y, {"groups": GROUPS}),
]
heads = pytest.mark.parametrize(("head", "y", "options"), HEADS)


class OnDevice(torch.Tensor):
    """A tensor that stands for one on a device, within `Device`."""


class Device(TorchFunctionMode):
    """A device that exists nowhere: it refuses what CUDA refuses, and computes on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, torch.Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        if here and func == torch.Tensor.device.__get__:
            return torch.device("cuda")
        if here and func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        if here and any(type(tensor) is torch.Tensor and tensor.ndim for tensor in tensors):
            raise RuntimeError("Expected all tensors to be on the same device.")
        created = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if created:
            kwargs["device"] = "cpu"
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs)
        if func is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if not here and not created:
            return found
        return tree_map(
            lambda v: v.as_subclass(OnDevice) if isinstance(v, torch.Tensor) else v, found
        )


@pytest.fixture(autouse=True)
def _dispatch(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        yield


def assert_same(fitted, expected, inputs):
    """Check that attributes are equal NumPy arrays, and that outputs are tensors of their type."""
    near = 1e-5 if inputs.dtype is torch.float64 else 1e-3
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(vars(fitted)[name], value, rtol=near, atol=near)
    for method in METHODS:
        if hasattr(expected, method):
            with sklearn.config_context(array_api_dispatch=False):
                outputs = getattr(expected, method)(inputs.cpu())
            found = getattr(fitted, method)(inputs)
            if outputs.dtype.kind in "iuf":
                assert type(found) is type(inputs), method
                found = found.cpu().numpy()
            assert (found.dtype, found.shape) == (outputs.dtype, outputs.shape)
            if outputs.dtype.kind == "f":
                np.testing.assert_allclose(found, outputs, rtol=near, atol=near)
            else:
                assert (found == outputs).mean() > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("head", "y", "options"), HEADS[::3])
def test_a_tensor_gives_the_head_of_its_array(head, y, options, dtype):
    inputs = torch.tensor(X).to(dtype)
    array = (inputs.float() if dtype is torch.bfloat16 else inputs).numpy()
    assert_same(clone(head).fit(inputs, y, **options), clone(head).fit(array, y, **options), inputs)


@heads
def test_a_tensor_never_leaves_its_device(head, y, options):
    expected = clone(head).fit(X, y, **options)
    with Device():
        inputs = torch.tensor(X, device="cuda")
        tensors = {name: torch.tensor(value, device="cuda") for name, value in options.items()}
        target = torch.tensor(y, device="cuda") if y.dtype.kind in "if" else y
        fitted = clone(head).fit(inputs, target, **tensors)
        assert_same(fitted, expected, inputs)
        if hasattr(head, "score"):
            assert fitted.score(inputs, target) == pytest.approx(expected.score(X, y), abs=1e-3)


@pytest.mark.parametrize(("head", "y", "options"), HEADS[1::3])
def test_a_head_fitted_on_tensors_is_saved_and_pickled_as_any_other(head, y, options, tmp_path):
    fitted = clone(head).fit(torch.tensor(X), y, **options)
    save_model(fitted, tmp_path / "m.featuretl")
    expected = np.asarray(fitted.predict(torch.tensor(X)))
    for loaded in (pickle.loads(pickle.dumps(fitted)), load_model(tmp_path / "m.featuretl")):
        found = loaded.predict(X)
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("head", [head for head, *_ in HEADS[::3]])
def test_a_tensor_with_nan_or_of_another_shape_is_an_error(head, bad):
    with pytest.raises(ValueError, match="Expected 2D array"):
        clone(head).fit(torch.tensor(X[0]), Y)
    fitted = clone(head).fit(torch.tensor(X), Y)
    with pytest.raises(ValueError, match="features"):
        fitted.predict(torch.tensor(X[:, :3]))
    inputs = torch.tensor(X)
    inputs[3, 2] = bad
    for call in (lambda: fitted.predict(inputs), lambda: clone(head).fit(inputs, Y)):
        with pytest.raises(InputError, match="of 300 rows with NaN"):
            call()


def test_equal_rows_of_a_tensor_are_those_of_its_array():
    rows = np.zeros((50, 4), np.float32)
    rows[:, 0] = RNG.integers(20, size=50)
    rows[::3, 1] = -0.0
    assert np.array_equal(copies_of(torch.tensor(rows)), copies_of(rows))
    assert copies_of(torch.arange(12.0).reshape(6, 2)) is None


def test_products_are_exact_whatever_the_settings_of_pytorch():
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    reference = LinearProbeClassifier(**TIGHT).fit(X, Y)
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            with exact_products(torch.tensor(X)):
                assert torch.get_float32_matmul_precision() == "highest"
            fitted = LinearProbeClassifier(**TIGHT).fit(torch.tensor(X), Y)
            values = fitted.decision_function(torch.tensor(X))
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(values, reference.decision_function(X), atol=1e-4)


def test_other_tensors_become_arrays():
    assert is_dispatched(torch.tensor(X))
    assert not is_dispatched(X)
    assert not is_dispatched(torch.tensor(X).to("meta"))
    with sklearn.config_context(array_api_dispatch=False):
        assert not is_dispatched(torch.tensor(X))
        fitted = LinearProbeClassifier().fit(torch.tensor(X), Y)
        assert isinstance(fitted.predict(torch.tensor(X)), np.ndarray)
    fitted = SVMProbeClassifier(kernel="rbf", C=1.0).fit(torch.tensor(X), Y)
    assert isinstance(fitted.predict(torch.tensor(X)), np.ndarray)
    streamed = LinearProbeClassifier().partial_fit(torch.tensor(X), Y, np.unique(Y))
    assert isinstance(streamed.predict(torch.tensor(X)), torch.Tensor)
