"""Schemas: the kinds of attributes, their sizes, and what is missing or unknown."""

import numpy as np
import pytest

from featuretl import LinearProbeClassifier, save_model
from featuretl.exceptions import ModelError
from featuretl.models.schema import IGNORED, ClassSchema, parameters


def test_an_attribute_that_is_not_known_is_refused(iris, tmp_path):
    model = LinearProbeClassifier().fit(*iris)
    model.extra_ = 1
    with pytest.raises(ModelError, match="'extra_'"):
        save_model(model, tmp_path / "model.featuretl")


class Head:
    """A class with parameters and attributes, as the schema of an estimator describes it."""

    def __init__(self, C, tol=1e-4):
        self.C, self.tol = C, tol

    def get_params(self):
        return vars(self)


SCHEMA = ClassSchema("module", "coef_=float[k,d] classes_=labels[k] d_?=int:d")
FITTED = {"C": 1, "coef_": np.zeros((2, 3)), "classes_": np.array(["a", "b"])}


def test_a_fitted_object_has_all_attributes_and_an_unfitted_one_has_none():
    assert parameters(Head)["tol"] == 1e-4
    assert SCHEMA.check(Head, FITTED)
    assert SCHEMA.check(Head, FITTED | {"d_": 3, "tol": "any plain value"})
    assert not SCHEMA.check(Head, {"C": 1})
    assert parameters(dict) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_": 1}, "'extra_', which is not allowed"),
        ({IGNORED[0]: 1}, f"'{IGNORED[0]}', which is not allowed"),
        ({"classes_": None}, "lacks the attribute 'classes_'"),
        ({"C": None}, "lacks the attribute 'C'"),  # it has no default
        ({"classes_": np.array(["a", "b", "c"])}, r"classes_ .* with {'k': 2}; got <U1 \(3,\)"),
        ({"classes_": ["a", "b"]}, r"labels\[k\].* got \['a', 'b'\]"),
        ({"coef_": np.zeros(6)}, r"coef_ of its Head must be float\[k,d\]; got float64 \(6,\)"),
        ({"coef_": np.zeros((2, 3), int)}, "coef_"),
        ({"d_": 4}, "d_ of its Head must be int:d"),
        ({"d_": True}, "d_"),
    ],
)
def test_what_differs_is_named(changes, message):
    state = {name: value for name, value in (FITTED | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        SCHEMA.check(Head, state)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("none|str", [None, "a"], [1, b"a"]),
        ("bool", [True], [1, np.array(True)]),
        ("int", [3, np.int64(3)], [True, 3.0, "3"]),
        ("float", [3, 3.5, np.nan, np.float32(1)], [True, "3", 1j]),
        ("int:d", [0, 2**24], [-1, 2**24 + 1, 1.0]),
        ("int32[s]", [np.zeros(2, np.int32)], [np.zeros(2, np.int64), np.zeros(2)]),
        ("int[s]", [np.zeros(2, np.uint8)], [np.zeros(2), np.zeros(2, bool)]),
        ("float[d,d]", [np.zeros((2, 2), np.float16)], [np.zeros((2, 3))]),
        ("float[0,0]|float[s,d]", [np.zeros((0, 0)), np.zeros((4, 2))], [np.zeros(0)]),
        ("float[]", [np.array(1.0)], [1.0, np.zeros(1)]),
        ("labels[c]", [np.array([True]), np.array(["a"], object)], [np.array([1j])]),
        ("tensors", [{}, {"a": np.zeros(2)}], [{"a": 1}, {1: np.zeros(2)}, []]),
        ("Head|ClassSchema", [Head(1), SCHEMA], [Head, 1]),
        ("plain", [None, object()], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds(kind, right, wrong):
    schema = ClassSchema("module", f"x_={kind}")
    for value in right:
        assert schema.check(dict, {"x_": value})
    for value in wrong:
        with pytest.raises(ValueError, match="x_ of its dict must be"):
            schema.check(dict, {"x_": value})


def test_the_first_kind_whose_sizes_agree_is_taken():
    schema = ClassSchema("module", "n_=int:d x_=float[d]|float[k,d]")
    assert schema.check(dict, {"n_": 3, "x_": np.zeros((2, 3))})
    assert schema.check(dict, {"n_": 3, "x_": np.zeros(3)})
    with pytest.raises(ValueError, match=r"\{'d': 3\}"):
        schema.check(dict, {"n_": 3, "x_": np.zeros(2)})


def test_attributes_that_do_not_fit_together_are_refused():
    schema = ClassSchema("module", fits=lambda made: len(made) > 1)
    schema.check_fit([1, 2])
    with pytest.raises(ValueError, match="its list do not fit together"):
        schema.check_fit([1])
