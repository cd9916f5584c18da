"""partial_fit: one pass over portions comes close to a fit of all rows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from featuretl import LinearProbeClassifier, load_model, save_model
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads._solver.problem import LinearProblem


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    return X[:1400], y[:1400], X[1400:], y[1400:]


def streamed(head: LinearProbeClassifier, X, y, portions: int, classes, **options):
    weight = options.get("sample_weight")
    for rows in np.array_split(np.arange(len(X)), portions):
        part = [y[i] for i in rows] if isinstance(y, list) else y[rows]
        of_rows = None if weight is None else weight[rows]
        head.partial_fit(X[rows], part, classes, sample_weight=of_rows)
    return head


@pytest.mark.parametrize("kind", ["classes", "two", "indicator", "lists"])
@pytest.mark.parametrize("scaling", ["floored", "features", "common"])
def test_one_portion_is_a_fit(digits, kind, scaling):
    X, y = digits[0][:300], digits[1][:300]
    weight = np.random.default_rng(0).uniform(0.2, 2, len(y))
    classes, class_weight = np.arange(10), {3: 2.0}
    if kind == "two":
        y, classes = np.array(["even", "odd"])[y % 2], ["odd", "even"]
        class_weight = {"odd": 2.0}
    if kind in ("indicator", "lists"):
        class_weight = None
        y = [{int(code), 10 + int(code) % 2} for code in y]
        classes = list(range(12))
    if kind == "indicator":
        y = np.array([[code in labels for code in classes] for labels in y], int)
    head = LinearProbeClassifier(0.1, scaling=scaling, class_weight=class_weight, tol=1e-9)
    whole = clone(head).fit(X, y, sample_weight=weight)
    once = streamed(head, X, y, 1, classes, sample_weight=weight)
    np.testing.assert_array_equal(once.classes_, whole.classes_)
    assert once.C_ == 0.1
    np.testing.assert_allclose(once.predict_proba(X), whole.predict_proba(X), atol=2e-3)
    np.testing.assert_array_equal(once.predict(X), whole.predict(X))


@pytest.mark.parametrize("portions", [4, 14])
def test_one_pass_over_portions_is_close_to_a_fit_of_all_rows(digits, portions):
    X, y, X_test, y_test = digits
    whole = LinearProbeClassifier().fit(X, y)
    passed = streamed(LinearProbeClassifier(), X, y, portions, np.arange(10))
    assert passed.score(X_test, y_test) >= whole.score(X_test, y_test) - 0.015
    losses = [log_loss(y_test, head.predict_proba(X_test)) for head in (passed, whole)]
    assert losses[0] <= losses[1] + 0.02
    first = LinearProbeClassifier().fit(X[: 1400 // portions], y[: 1400 // portions])
    assert passed.score(X_test, y_test) > first.score(X_test, y_test) + 0.02


def test_labels_come_in_portions_too(digits):
    X, y, X_test, y_test = digits
    labels = np.column_stack([y % 2 == 0, y > 4, y == 3]).astype(int)
    truth = np.column_stack([y_test % 2 == 0, y_test > 4, y_test == 3]).astype(int)
    whole = LinearProbeClassifier().fit(X, labels)
    passed = streamed(LinearProbeClassifier(), X, labels, 5, range(3))
    assert passed.score(X_test, truth) >= whole.score(X_test, truth) - 0.02


def test_rows_may_come_class_by_class(digits):
    X, y, X_test, y_test = digits
    order = np.argsort(y, kind="stable")  # each of the first portions has a single class
    passed = streamed(LinearProbeClassifier(), X[order], y[order], 10, np.arange(10))
    assert passed.score(X_test, y_test) >= 0.88


def test_a_large_offset_and_constant_features_do_no_harm(digits):
    X, y, X_test, _ = digits
    plain = streamed(LinearProbeClassifier(), X, y, 4, np.arange(10))
    moved = streamed(LinearProbeClassifier(), X.astype(float) * 10 - 1e4, y, 4, np.arange(10))
    same = moved.predict(X_test.astype(float) * 10 - 1e4) == plain.predict(X_test)
    assert same.mean() > 0.99


def test_it_goes_on_from_a_pickle_in_other_precision(digits):
    X, y, _, _ = digits
    head = streamed(LinearProbeClassifier(), X[:700], y[:700], 2, np.arange(10))
    again = pickle.loads(pickle.dumps(head))
    for one in (head, again):
        one.partial_fit(X[700:].astype(np.float16), y[700:])
    np.testing.assert_array_equal(head.coef_, again.coef_)
    assert head.coef_.dtype == np.float32


def test_what_cannot_go_on_says_why(digits):
    X, y, _, _ = digits
    with pytest.raises(InputError, match="partial_fit of LinearProbeClassifier"):
        LinearProbeClassifier().partial_fit(X, y)
    with pytest.raises(InputError, match="at least 2 classes"):
        LinearProbeClassifier().partial_fit(X, y, [1])
    head = streamed(LinearProbeClassifier(), X[:500], y[:500], 1, np.arange(10))
    with pytest.raises(InputError, match="is not the same as on last call"):
        head.partial_fit(X, y, classes=range(9))
    with pytest.raises(InputError, match="10"):
        head.partial_fit(X[:1], [10])
    with pytest.raises(InputError, match="10 classes; got 3"):
        head.partial_fit(X[:2], [[0, 1, 1], [1, 0, 0]])
    bad = X[:50].copy()
    bad[7, 3] = np.nan
    before = head.coef_.copy()
    with pytest.raises(InputError, match="1 of 50 rows with NaN"):
        head.partial_fit(bad, y[:50])
    np.testing.assert_array_equal(before, head.coef_)


def test_after_fit_and_files_it_begins_anew_and_says_so(digits, tmp_path):
    X, y, _, _ = digits
    head = streamed(LinearProbeClassifier(), X[:500], y[:500], 1, np.arange(10))
    save_model(head, tmp_path / "head.featuretl")
    loaded = load_model(tmp_path / "head.featuretl")
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))
    for one in (loaded, LinearProbeClassifier().fit(X, y)):
        with pytest.warns(FeatureTLWarning, match="partial_fit"):
            one.partial_fit(X[:500], y[:500])
        np.testing.assert_array_equal(one.coef_, head.coef_)
        one.partial_fit(X[500:], y[500:])  # continues from these rows


def test_another_C_counts_from_the_next_portion_on(digits):
    X, y, _, _ = digits
    head = streamed(LinearProbeClassifier(1e-5), X[:700], y[:700], 1, np.arange(10))
    small = np.abs(head.coef_).sum()
    head.set_params(C=1.0).partial_fit(X[700:], y[700:])
    assert head.C_ == 1.0
    assert np.abs(head.coef_).sum() > 3 * small


def test_an_interrupted_portion_can_come_again(digits, monkeypatch):
    X, y, _, _ = digits
    whole = streamed(LinearProbeClassifier(), X, y, 2, np.arange(10))
    head = streamed(LinearProbeClassifier(), X[:700], y[:700], 1, np.arange(10))

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LinearProblem, "held_out_logits", interrupt)
        head.partial_fit(X[700:], y[700:])
    head.partial_fit(X[700:], y[700:])
    np.testing.assert_array_equal(head.coef_, whole.coef_)


def test_C_is_chosen_on_the_first_portion(digits):
    X, y, X_test, y_test = digits
    head = streamed(LinearProbeClassifier("cv", random_state=0), X, y, 4, np.arange(10))
    assert head.C_ == LinearProbeClassifier("cv", random_state=0).fit(X[:350], y[:350]).C_
    assert head.score(X_test, y_test) > 0.95


def test_what_needs_all_rows_has_no_partial_fit():
    assert not hasattr(LinearProbeClassifier(calibrate=True), "partial_fit")
    assert not hasattr(LinearProbeClassifier(class_weight="balanced"), "partial_fit")


def test_a_stream_begins_without_the_path_of_a_search():
    X, y = load_digits(return_X_y=True)
    head = LinearProbeClassifier("cv", cv=2).fit(X[:200], y[:200])
    with pytest.warns(match="partial_fit"):
        head.set_params(C=1.0).partial_fit(X[200:400], y[200:400])
    assert not hasattr(head, "path_")
