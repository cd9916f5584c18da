"""LinearProblem: its objective, its folds, and the approximate inverse Hessian."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax

import featuretl.heads._solver.problem as problem_module
from featuretl._learning.losses import binary_cross_entropy, softmax_cross_entropy
from featuretl._learning.rows import Rows, Workers
from featuretl.heads._solver.problem import LinearProblem, RowSpaceProblem, Spectrum, rescaled
from featuretl.heads.linear import LinearProbeClassifier

N, D, CLASSES = 60, 5, 3


@pytest.fixture
def raw():
    """Rows, their classes, weights, and folds, -1 for rows that are never held out."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % CLASSES
    X = rng.standard_normal((N, D)) * [1, 2, 3, 4, 5] + 7 + 3 * np.eye(CLASSES, D)[y]
    return X, y, rng.uniform(0.5, 2, N), np.arange(N) // 3 % 4 - 1


def multinomial(X, y, weight, fold=None, scaling="features"):
    rows = Rows(X, weight, Workers(), scaling)
    return LinearProblem(rows, y, softmax_cross_entropy, CLASSES, weight[:, None], fold)


def binary(X, y, weight, fold=None):
    """One problem per class; the classes weigh differently."""
    target = (y[:, None] == np.arange(CLASSES)).astype(np.uint8)
    per_label = weight[:, None] * [1.0, 2.0, 3.0]
    rows = Rows(X, weight, Workers(), "features")
    return LinearProblem(rows, target, binary_cross_entropy, CLASSES, per_label, fold)


def test_the_value_is_the_documented_objective(raw):
    X, y, weight, fold = raw
    problem = multinomial(X, y, weight, fold)
    x = np.random.default_rng(1).standard_normal(problem.start().shape)
    l2 = np.array([0.1, 0.2, 0.3])
    values = problem.evaluate(x, np.arange(3), l2)[0]
    for k in range(3):
        train = fold != k
        mean = np.average(X[train], axis=0, weights=weight[train])
        scale = np.sqrt(np.average((X[train] - mean) ** 2, axis=0, weights=weight[train]))
        coef, intercept = np.split(x[k].reshape(CLASSES, D + 1), [D], axis=1)
        logits = (X[train] - mean) / scale @ coef.T + intercept.T
        losses = -log_softmax(logits, axis=1)[np.arange(train.sum()), y[train]]
        expected = np.average(losses, weights=weight[train]) + l2[k] / 2 * np.square(coef).sum()
        assert values[k] == pytest.approx(expected)
        assert problem.total[k] == pytest.approx(weight[train].sum())


@pytest.mark.parametrize("make", [multinomial, binary])
def test_the_gradient_is_the_slope_of_the_value(make, raw):
    X, y, weight, fold = raw
    problem = make(X, y, weight, fold)
    x = 0.3 * np.random.default_rng(1).standard_normal(problem.start().shape)
    which = np.array([len(x) - 1, 0])  # a part of the problems
    l2 = np.array([0.1, 0.2])
    gradient = problem.evaluate(x[which], which, l2)[1]
    for k in range(2):

        def value(one, k=k):
            return problem.evaluate(one[None], which[k : k + 1], l2[k : k + 1])[0][0]

        np.testing.assert_allclose(gradient[k], approx_fprime(x[which[k]], value), atol=1e-5)


@pytest.mark.parametrize("make", [multinomial, binary])
def test_a_fold_is_a_fit_to_its_training_rows(make, raw):
    X, y, weight, fold = raw
    problem = make(X, y, weight, fold)
    folds = problem.solve(0.1, problem.start(), 1e-14, 1000)
    held_out = problem.held_out_logits(folds.x)
    for k in range(3):
        train, test = fold != k, fold == k
        alone = make(X[train], y[train], weight[train])
        found = alone.solve(0.1, alone.start(), 1e-14, 1000)
        coef, intercept = alone.unscaled(found.x)
        expected, logits = X[test] @ coef.T + intercept, held_out[test]
        if make is multinomial:  # a constant added to all intercepts changes nothing
            expected, logits = (of - of.mean(axis=1, keepdims=True) for of in (expected, logits))
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_few_rows_have_no_sample_to_start_from(raw):
    problem = multinomial(*raw[:3])
    start = problem.start_from_sample(0.1, 1e-6, 100)
    assert start.shape == (1, CLASSES * (D + 1))
    assert not start.any()


def test_the_preconditioner_is_exact_where_the_spectrum_has_all_directions(raw):
    X, _, weight, _ = raw
    rows = Rows(X, weight, Workers(), "features")
    Z = (X - rows.mean_) / rows.scale_
    gram = Z.T @ (weight[:, None] * Z) / weight.sum()
    q = np.random.default_rng(1).standard_normal((2, D))
    curvature, l2 = np.array([0.25, 0.1]), np.array([0.01, 1.0])
    found = Spectrum.of(rows).solve(q, curvature, l2)
    for k in range(2):
        expected = np.linalg.solve(curvature[k] * gram + l2[k] * np.eye(D), q[k])
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)


def test_a_direction_without_variance_gets_no_step_of_its_own(raw):
    X = np.c_[raw[0], raw[0][:, 0]]  # two equal columns: a direction of variance 0
    spectrum = Spectrum.of(Rows(X, raw[2], Workers(), "features"))
    assert spectrum.values.min() == pytest.approx(1e-6 * spectrum.values.max())


def test_rescaling_makes_the_variance_of_a_fold_1_and_leaves_constants_alone():
    scale = np.array([2.0, 2.0, 2.0])
    variance = np.array([4.0, 1e-7, 1.0])  # of rows that were divided by `scale`
    divisor = rescaled(variance, scale, "features")
    np.testing.assert_allclose(variance[[0, 2]] / divisor[[0, 2]] ** 2, 1)
    assert divisor[1] * scale[1] == 1  # a feature that is constant in the fold


@pytest.mark.parametrize("classes", [2, 4])
def test_many_rows_start_from_a_sample_and_end_at_the_same_place(classes, monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 20_000)
    X = (rng.standard_normal((20_000, 8)) + 0.5 * np.eye(classes, 8)[y]).astype(np.float32)
    weight = rng.uniform(0, 2, 20_000)
    warm = LinearProbeClassifier(0.01, tol=1e-9).fit(X, y, weight)
    monkeypatch.setattr("featuretl.heads._solver.problem._FEWEST_SAMPLED", 10**9)
    cold = LinearProbeClassifier(0.01, tol=1e-9).fit(X, y, weight)
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-4)
    assert not np.array_equal(warm.coef_, cold.coef_)


def test_a_strong_penalty_does_not_end_the_fit_before_it_begins():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 50)
    X = rng.standard_normal((150, 20)) + 2 * np.eye(3, 20)[y]
    head = LinearProbeClassifier(1e-6).fit(X, y)
    assert head.score(X, y) >= 0.8


def wide(n=24, d=60, dtype=np.float64):
    """Fewer rows than half of the columns: one twice, one of weight zero."""
    rng = np.random.default_rng(3)
    y = np.arange(n) % CLASSES
    X = (rng.standard_normal((n, d)) + np.eye(CLASSES, d)[y]).astype(dtype)
    X[1], X[:, 5] = X[4], 7.0
    weight = rng.uniform(0.5, 2, n)
    weight[2] = 0
    return X, y, weight, np.arange(n) // 3 % 4 - 1


@pytest.mark.parametrize("make", [multinomial, binary])
def test_few_rows_have_the_same_minimum_in_the_space_that_they_span(make):
    X, y, weight, fold = wide()
    for folds in (fold, None):
        whole = make(X, y, weight, folds)
        few = make(X, y, weight).on_folds(folds)
        assert isinstance(few, RowSpaceProblem)
        assert few.start().size < whole.start().size / 2
        exact, found = (
            problem.solve(0.3, problem.start(), 1e-12, 1000) for problem in (whole, few)
        )
        np.testing.assert_allclose(found.value, exact.value, rtol=1e-9)
        logits = [p.held_out_logits(s.x) for p, s in ((whole, exact), (few, found))]
        # A number added to the intercepts of all classes changes nothing.
        level = [of.mean(axis=1, keepdims=True) * (make is multinomial) for of in logits]
        np.testing.assert_allclose(logits[0] - level[0], logits[1] - level[1], atol=1e-4)
    coefs = [p.unscaled(s.x)[0] for p, s in ((whole, exact), (few, found))]
    np.testing.assert_allclose(*coefs, atol=1e-4)
    np.testing.assert_allclose(X @ coefs[1].T + few.unscaled(found.x)[1], logits[1], atol=1e-9)


def test_the_gradient_in_row_space_is_the_slope_of_the_value():
    X, y, weight, fold = wide()
    problem = multinomial(X, y, weight).on_folds(fold)
    x = 0.3 * np.random.default_rng(1).standard_normal(problem.start().shape)
    l2 = np.full(3, 0.1)
    gradient = problem.evaluate(x, np.arange(3), l2)[1]
    for k in range(3):
        own = np.array([k])
        slope = approx_fprime(
            x[k], lambda p, own=own: problem.evaluate(p[None], own, l2[own])[0][0]
        )
        np.testing.assert_allclose(gradient[k], slope, atol=1e-5)


def test_many_rows_or_folds_stay_in_the_space_of_features(monkeypatch):
    X, y, weight, _ = wide()
    with monkeypatch.context() as patch:
        patch.setattr(problem_module, "_MOST_PRODUCTS", 24**3 - 1)
        assert type(multinomial(X, y, weight).on_folds(np.arange(24))) is LinearProblem
    X, y, weight, _ = wide(n=40)
    assert type(multinomial(X, y, weight).on_folds()) is LinearProblem


def test_rows_that_are_all_equal_have_no_space_and_predict_the_class_shares():
    head = LinearProbeClassifier(1.0).fit(np.ones((6, 20), np.float32), [0, 0, 0, 0, 1, 1])
    assert head.predict_proba(np.ones((1, 20), np.float32))[0, 1] == pytest.approx(1 / 3, abs=1e-3)
