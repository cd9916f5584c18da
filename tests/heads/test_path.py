"""The choice of C: ties, few rows, groups, copies of rows; and the path by itself."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut
from sklearn.utils import Bunch

from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.heads._solver.path import Path, check_grid, fold_means, search
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.svm import SVMProbeClassifier

HEADS = {
    "log-loss": LinearProbeClassifier("cv", calibrate=True, random_state=0),
    "accuracy": LinearProbeClassifier("cv", scoring="accuracy", random_state=0),
    "svm": SVMProbeClassifier(random_state=0),
    "rbf": SVMProbeClassifier(kernel="rbf", gamma="scale", random_state=0),
}


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param].__class__(**HEADS[request.param].get_params())


def blobs(y, seed=0, spread=1.2, d=10):
    rng = np.random.default_rng(seed)
    means = spread * np.random.default_rng(99).standard_normal((4, d))
    return means[y] + rng.standard_normal((len(y), d))


def test_no_digit_against_the_rest_is_a_constant(head):
    X, y = load_digits(return_X_y=True)
    accuracies = []
    for digit in range(10):
        head.fit(X[:300], y[:300] == digit)
        assert head.predict(X[300:]).any()
        accuracies.append(head.score(X[300:], y[300:] == digit))
    assert np.mean(accuracies) > 0.96


def test_of_machines_that_are_as_right_none_that_always_says_the_same():
    # One of ten rows has class 1; models that find some of these also have false positives.
    rng = np.random.default_rng(5)
    y = (np.arange(100) % 10 == 0).astype(int)
    X = rng.standard_normal((100, 3)) + 1.2 * y[:, None]
    for scoring in ("accuracy", "log_loss"):
        head = LinearProbeClassifier("cv", scoring=scoring, random_state=0).fit(X, y)
        assert head.C_ > 1e-3


@pytest.mark.parametrize("seed", range(2))
def test_a_class_in_a_single_group_does_not_decide(head, seed):
    y = np.random.default_rng(seed).integers(0, 4, 300)
    groups = np.random.default_rng(seed).integers(0, 12, 300)
    groups[y == 3] = 99
    test = np.arange(800) % 4
    alone = head.fit(blobs(y, seed), y).score(blobs(test, 7), test)
    with pytest.warns(FeatureTLWarning, match="single group") as caught:
        head.fit(blobs(y, seed), y, groups=groups)
    assert len(caught) == 1
    assert head.C_ > 1e-4
    assert head.score(blobs(test, 7), test) > alone - 0.02
    if hasattr(head, "calibration_"):
        assert head.calibration_.temperature < 2
        assert head.calibration_.error_after < 0.1


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
@pytest.mark.parametrize("held", [1, 2])
def test_a_class_in_one_or_two_of_twelve_groups(head, held, seed):
    groups = np.arange(120) % 12
    y = (groups < held).astype(int)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head.fit(blobs(y, seed), y, groups=groups)
    assert len(caught) == (held == 1)
    test = np.arange(400) % 2
    assert head.score(blobs(test, 7), test) > 0.85
    if held == 1:
        assert "class 0" in str(caught[0].message)


def test_splitters_have_the_same_protections(head):
    y, groups = np.arange(120) % 3, np.arange(120) // 3 % 6
    groups[y == 2] = 9
    head.set_params(cv=LeaveOneGroupOut())
    with pytest.warns(FeatureTLWarning, match="split"):
        head.fit(blobs(y), y, groups=groups)
    assert head.score(blobs(y, 1), y) > 0.9
    with pytest.raises(InputError, match=r"cv of .*class 0"):
        head.fit(blobs(y % 2), y % 2, groups=np.where(y % 2, 9, groups))


def test_a_fold_whose_rows_weigh_nothing_does_not_count(head):
    y, groups = np.arange(120) % 3, np.arange(120) % 5
    weight = np.where(groups == 2, 0.0, 1.0)
    for cv in (5, GroupKFold(5)):
        with_rows = head.set_params(cv=cv)
        if cv == 5:
            with pytest.warns(FeatureTLWarning, match="4 folds"):
                with_rows.fit(blobs(y), y, sample_weight=weight, groups=groups)
        else:
            with_rows.fit(blobs(y), y, sample_weight=weight, groups=groups)
        assert head.path_.accuracy.shape[1] == 4
        assert np.isfinite(head.path_.accuracy).all()
        assert head.score(blobs(y, 1), y) > 0.9


def test_equal_rows_do_not_help_noise_to_be_learnt(head):
    X = np.random.default_rng(0).standard_normal((60, 40))
    coin = np.random.default_rng(1).integers(0, 2, 120)
    head.fit(np.vstack([X, X]), coin)
    assert head.path_.accuracy.mean(axis=1).max() < 0.65


class Parabola:
    """A stand-in for `LinearProblem`: the solution at C is C, and the score peaks at `peak`."""

    def __init__(self, peak):
        self.peak, self.starts = peak, {}

    def start(self):
        return None

    def solve(self, C, start, tol, max_iter):
        self.starts[C] = start
        return Bunch(x=C)

    def held_out_logits(self, x):
        return x

    def scores(self, C):
        return {"score": np.array([-((np.log10(C / self.peak)) ** 2)])}

    def walk(self, Cs):
        return search(self, Cs, self.scores, "score", 1e-4, 100)


def test_auto_stops_two_decades_above_the_peak_and_refines_around_it():
    problem = Parabola(10**-2.8)
    path = problem.walk("auto")
    fine = np.array([-2 / 3, -1 / 3, 1 / 3, 2 / 3]) - 3
    expected = np.sort(np.r_[np.arange(-5, 0), fine])  # 1 and 10 are not tried
    np.testing.assert_allclose(np.log10(path.C), expected, atol=1e-9)
    assert np.log10(path.best) == pytest.approx(-3 + 1 / 3)
    assert path.best == path.C[path.score[:, 0].argmax()] == path.logits


def test_every_fit_starts_from_the_solution_of_the_next_smaller_C():
    problem = Parabola(1e-3)
    path = problem.walk("auto")
    tried = list(problem.starts)
    for number, (C, start) in enumerate(problem.starts.items()):
        below = [c for c in tried[:number] if c < C]
        assert start == (max(below) if below else None)
    assert sorted(tried) == path.C.tolist()


def test_a_list_of_Cs_is_tried_in_full_from_small_to_large():
    problem = Parabola(1e-4)
    path = problem.walk([10, 1, 1e-4, 100])
    assert list(problem.starts) == path.C.tolist() == [1e-4, 1, 10, 100]
    assert path.best == 1e-4


def test_ties_go_to_the_other_scores_and_then_to_the_smaller_C():
    table = {1.0: (0.5, 0.1), 2.0: (0.5, 0.3), 4.0: (0.5, 0.3 + 1e-14), 8.0: (0.4, 0.9)}
    path = Path(lambda C: dict(zip("ab", np.array(table[C])[:, None], strict=True)), "a")
    for C in (8.0, 4.0, 1.0, 2.0):
        path.add(C, C)
    assert path.best == 2.0  # 4.0 scores the same, apart from rounding
    assert path.rank(8.0) == (0.4, 0.9)
    result = path.result()
    assert result.C.tolist() == [1, 2, 4, 8]
    assert result.a.shape == (4, 1)
    assert (result.logits, result.rank) == (2.0, (0.5, 0.3))
    other = Path(lambda C: dict(zip("ab", np.array(table[C])[:, None], strict=True)), "b")
    for C in table:
        other.add(C, C)
    assert (other.best, other.rank(8.0)) == (8.0, (0.9, 0.4))


def test_fold_means_are_weighted_and_skip_rows_that_no_fold_holds_out():
    values = np.array([1.0, 0.0, 1.0, 0.0])
    means = fold_means(values, np.array([0, 0, 1, -1]), np.array([3.0, 1.0, 2.0, 9.0]))
    assert means.tolist() == [0.75, 1.0]


@pytest.mark.parametrize("grid", ["cv", [], [0.1, 0], [[0.1]], 0.1, [0.1, np.nan], ["1"], None])
def test_a_grid_of_Cs_is_auto_or_positive_numbers(grid):
    with pytest.raises(ParameterError, match="'Cs' parameter of Head"):
        check_grid("Head", "Cs", grid)
    check_grid("Head", "Cs", "auto")
    check_grid("Head", "Cs", np.logspace(-3, 3, 4))
