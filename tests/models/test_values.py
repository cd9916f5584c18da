"""Values of models as JSON and tensors: the same values come back, and no others are taken."""

import json

import numpy as np
import pytest
from sklearn.utils import Bunch

from featuretl.models.values import NotPlainError, Packer, unpack


def no_object(*args):
    return None


def there_and_back(value):
    packer = Packer(no_object)
    text = json.dumps(packer.pack(value), allow_nan=False)
    return unpack(json.loads(text), packer.tensors, no_object)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**70,
        -0.0,
        np.inf,
        -np.inf,
        "\ud800 \x00 \n",
        [],
        (),
        {},
        [1, [2.5, ("a", None)], {"b": (False,)}],
        {1: "int", "1": "text", (1, "a"): [2], None: {}},
        Bunch(C=0.1, path=Bunch(best=(1, 2))),
        np.float32(1.5),
        np.int64(-3),
        np.bool_(True),
    ],
    ids=repr,
)
def test_values_come_back_with_their_types(value):
    found = there_and_back(value)
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_nan_is_kept_in_lists_and_scalars():
    found = there_and_back([np.nan, np.float64("nan")])
    assert np.isnan(found).all()
    assert [type(value) for value in found] == [float, np.float64]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12)[::-2],
        np.arange(24).reshape(2, 3, 4).T,
        np.zeros((0, 3), np.float32),
        np.array(7, np.int32),
        np.array([True, False]),
        np.array(["a", "\u00e9", ""]),
        np.array(["a", "bc"], object),
        np.array([], str),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}{array.flags.f_contiguous}",
)
def test_arrays_come_back_with_their_order_in_memory(array):
    found = there_and_back(array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    if array.flags.f_contiguous:
        assert found.flags.f_contiguous


def test_arrays_of_the_other_byte_order_are_kept_in_that_of_the_machine():
    packer = Packer(no_object)
    swapped = np.arange(3, dtype=np.dtype(np.int64).newbyteorder())
    assert not swapped.dtype.isnative
    packer.pack([swapped, swapped[0]])
    for tensor in packer.tensors.values():
        assert tensor.dtype.isnative
    assert packer.tensors["0"].tolist() == [0, 1, 2]


def test_arrays_are_copied():
    array = np.arange(3.0)
    packer = Packer(no_object)
    packed = packer.pack([array, array, array[:2]])
    array[:] = 9
    assert packed == [{"array": "0"}, {"array": "1"}, {"array": "2"}]
    assert [tensor.tolist() for tensor in packer.tensors.values()] == [[0, 1, 2], [0, 1, 2], [0, 1]]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({1, 2}, "a set"),
        (1j, "a complex"),
        (print, "a builtin_function_or_method"),
        ({"a": [b"bytes"]}, "a bytes"),
        (np.array([None, "a"]), "an array of objects"),
        (np.array([["a"]]), "an array of objects"),
        (np.array([1j]), "an array of complex128"),
        (np.array(["2020-01-01"], "datetime64[D]"), "an array of datetime64"),
        (np.datetime64("2020-01-01"), "an array of datetime64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_values_are_named(value, name):
    with pytest.raises(NotPlainError, match=f"^{name}"):
        Packer(no_object).pack(value)


def test_objects_are_packed_by_name_and_made_again():
    class Point:
        pass

    packer = Packer(lambda value: ("Point", {"x": packer.pack(1.5)}))
    packed = packer.pack((Point(),))
    assert packed == {"tuple": [{"class": "Point", "state": {"x": 1.5}}]}
    assert unpack(packed, {}, lambda name, state: (name, state)) == (("Point", {"x": 1.5}),)


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"set": [1]},
        {"order": "F", "array": "0"},
        {"array": "1"},
        {"array": []},
        {"scalar": "1"},
        {"float": "1e999"},
        {"float": 1},
        {"tuple": 5},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"bunch": []},
        {"strings": ["a", 1], "dtype": "U"},
        {"strings": ["a"], "dtype": "S"},
        {"class": "os", "state": []},
        [{"pickle": "gASV"}],
    ],
    ids=str,
)
def test_other_json_is_refused(packed):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        unpack(packed, {"0": np.zeros(2)}, no_object)
