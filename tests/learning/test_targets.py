"""X, y, class weights and sample weights as estimators are fitted on them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.datasets import load_iris
from sklearn.utils.class_weight import compute_sample_weight

from featuretl import LinearProbeClassifier, NearestMeanClassifier
from featuretl._learning.targets import (
    Targets,
    as_matrix,
    loss_weight,
    read_matrix,
    read_targets,
    read_weight,
)
from featuretl.exceptions import InputError, ParameterError

X, SPECIES = (part[::5] for part in load_iris(return_X_y=True))  # 30 rows, 10 of each species
HEAD = LinearProbeClassifier()


def test_partial_fit_reads_labels_too():
    for head in (LinearProbeClassifier(), NearestMeanClassifier()):
        y = pd.Series(SPECIES, dtype="Int64")
        head.partial_fit(X, y, classes=pd.Series([0, 1, 2], dtype="Int64"))
        assert head.classes_.dtype == head.partial_fit(X, list(y)).predict(X).dtype == np.int64
        with pytest.raises(InputError, match="2 of 30 rows"):
            head.partial_fit(X, [None, None, *SPECIES[2:].tolist()])
        with pytest.raises(InputError, match="did not announce"):
            head.partial_fit(X, SPECIES + 1)
        with pytest.raises(InputError, match=r"classes of .* has no label in 1 of 3"):
            type(head)().partial_fit(X, SPECIES, classes=[0, 1, None])


@pytest.mark.parametrize(
    "of", [np.asarray, csr_array, pd.DataFrame, pa.table, "polars", list, "null"]
)
def test_indicators(of):
    indicator = np.column_stack([SPECIES == 0, SPECIES > 0, SPECIES == 2]).astype(int)
    columns = dict(zip("abc", indicator.T.astype(bool), strict=True))
    y = {
        pd.DataFrame: lambda: pd.DataFrame(columns).astype("boolean"),
        pa.table: lambda: pa.table(columns),
        "polars": lambda: pytest.importorskip("polars").DataFrame(columns),
        list: lambda: indicator.tolist(),
        "null": lambda: [[row[0], None, row[2]] for row in indicator.tolist()],
    }.get(of, lambda: of(indicator))()
    head = LinearProbeClassifier()
    if of == "null":
        with pytest.raises(InputError, match="no label in 30 of 30 rows"):
            head.fit(X, y)
        return
    np.testing.assert_array_equal(
        head.fit(X, y).coef_, LinearProbeClassifier().fit(X, indicator).coef_
    )
    assert head.score(X, y) == (head.predict(X) == indicator).all(axis=1).mean()


def test_indicators_hold_0_and_1_and_lists_hold_labels():
    for y in (np.array([[1, -1]] * 15 + [[-1, 1]] * 15), [[1, 2]] * 15 + [[2, 1]] * 15):
        with pytest.raises(InputError, match="must hold 0 and 1"):
            LinearProbeClassifier().fit(X, y)
    with pytest.raises(InputError, match="empty lists only"):
        LinearProbeClassifier().fit(X, [[]] * 30)
    with pytest.raises(InputError, match="1 of 30 rows, such as row 29"):
        LinearProbeClassifier().fit(X, [*[["a"], ["b", "a"]] * 14, ["a"], None])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_float_matrix_is_not_copied(dtype):
    matrix = X.astype(dtype)
    assert np.shares_memory(read_matrix(HEAD, matrix), matrix)
    assert read_matrix(HEAD, matrix.tolist()).dtype == np.float64


def test_tensors_are_matrices_also_with_gradients_and_in_bfloat16():
    tensor = torch.from_numpy(X)
    np.testing.assert_array_equal(as_matrix(HEAD, tensor.requires_grad_()), X)
    half = as_matrix(HEAD, torch.ones((2, 3), dtype=torch.bfloat16))
    assert (half.dtype, half.tolist()) == (np.float32, [[1, 1, 1]] * 2)


def test_classes_are_sorted_and_labels_are_columns():
    classes, codes = read_targets(HEAD, ["b", "a", "b"], 3)
    assert (classes.tolist(), codes.tolist()) == (["a", "b"], [1, 0, 1])
    several = read_targets(HEAD, [["b"], ["a", "b"], []], 3)
    assert (several.classes.tolist(), several.codes.tolist()) == (
        ["a", "b"],
        [[0, 1], [1, 1], [0, 0]],
    )
    assert several.multilabel
    for labels in ([["b"], ["a", "b"], []], [[0, 1], [1, 1], [0, 0]]):
        with pytest.raises(InputError, match="one class per row"):
            read_targets(HEAD, labels, 3, multilabel=False)
    with pytest.raises(InputError, match=r"at least 2 classes .* 'a'"):
        read_targets(HEAD, ["a", "a"], 2)
    with pytest.raises(InputError, match="got 2 for 3"):
        read_targets(HEAD, ["a", "b"], 3)
    with pytest.raises(InputError, match="must hold classes"):
        read_targets(HEAD, [0.5, 1.5], 2)


def test_announced_classes_are_kept():
    head = LinearProbeClassifier()
    with pytest.raises(InputError, match="needs classes"):
        head.partial_fit(X, SPECIES)
    with pytest.raises(InputError, match="at least 2 classes"):
        head.partial_fit(X, SPECIES * 0, classes=[0])
    head.partial_fit(X, SPECIES, classes=[2, 1, 0])
    head.partial_fit(X, SPECIES, classes=[0, 1, 2, 2])
    with pytest.raises(InputError, match=r"not the same .* \[0, 1, 2\]"):
        head.partial_fit(X, SPECIES, classes=[0, 1])
    with pytest.raises(InputError, match="3 classes; got 2"):
        head.partial_fit(X, np.eye(3, dtype=int)[SPECIES][:, :2])


def test_weights_are_one_for_each_row():
    assert read_weight(HEAD, None, 3).tolist() == [1, 1, 1]
    assert read_weight(HEAD, 2, 3).tolist() == [2, 2, 2]
    assert read_weight(HEAD, [0, 1, 0.5], 3).tolist() == [0, 1, 0.5]


@pytest.mark.parametrize(
    "weight", [[1, 2], [[1], [2], [3]], [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1], [0, 0, 0]]
)
def test_other_weights_are_refused(weight):
    with pytest.raises(InputError, match=r"[sS]ample.weight"):
        read_weight(HEAD, weight, 3)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5, 2: 1}, {1: 3}])
def test_class_weights_are_those_of_scikit_learn(class_weight):
    codes = np.repeat([0, 1, 2], [2, 3, 5])
    found = loss_weight(HEAD, class_weight, Targets(np.arange(3), codes), np.ones(10))
    np.testing.assert_allclose(found[:, 0], compute_sample_weight(class_weight, codes))


def test_balanced_classes_and_labels_weigh_the_same():
    weight = np.array([1, 1, 0, 3.0])
    found = loss_weight(HEAD, "balanced", Targets(np.arange(3), np.array([0, 1, 2, 1])), weight)
    assert found[:, 0].tolist() == [2.5, 0.625, 0, 1.875]  # 2.5 for each class; the third has none
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]])
    found = loss_weight(HEAD, "balanced", Targets(np.arange(3), labels), np.ones(3))
    assert found[:, 0].tolist() == [1.5, 0.75, 0.75]
    assert found[:, 1:].tolist() == [[1, 1]] * 3  # of constant labels
    with pytest.raises(InputError, match="multi-label; got"):
        loss_weight(HEAD, {0: 1}, Targets(np.arange(3), labels), np.ones(3))


@pytest.mark.parametrize(
    "class_weight", ["even", [1, 2], {0: -1}, {0: np.inf}, {0: True}, {0: "1"}, {7: 1}]
)
def test_other_class_weights_are_refused(class_weight):
    targets = Targets(np.arange(2), np.array([0, 1]))
    with pytest.raises(ParameterError, match="'class_weight' parameter of LinearProbeClassifier"):
        loss_weight(HEAD, class_weight, targets, np.ones(2))


def test_one_class_of_positive_weight_is_enough_for_a_portion_only():
    targets = Targets(np.arange(2), np.array([0, 1]))
    with pytest.raises(InputError, match="positive sample_weight"):
        loss_weight(HEAD, None, targets, np.array([1.0, 0.0]))
    assert loss_weight(HEAD, None, targets, np.array([1.0, 0.0]), portion=True).shape == (2, 1)
