"""Parameter checks: limits, and errors that name the parameter and its owner."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import Ridge

from featuretl._core.parameters import (
    as_path,
    axes_or_new,
    check_bool,
    check_estimator_parameter,
    check_int,
    check_number,
    check_option,
    check_seconds,
    import_pyplot,
    is_word,
    random_generator,
)
from featuretl._core.text import did_you_mean
from featuretl.exceptions import FeatureTLError, ParameterError

NAN, INF = float("nan"), float("inf")


def test_an_option_that_is_misspelled_is_suggested():
    message = r"'pooling' parameter of ImageEmbedder .* 'avg', 'max' \(did you mean 'avg'\?\); got"
    with pytest.raises(ParameterError, match=message):
        check_option("ImageEmbedder", "pooling", "average", ("avg", "max"))
    assert did_you_mean("x", ("avg", "max")) == ""
    assert is_word("cv", "cv")
    assert not is_word(["cv"], "cv")


def test_paths_and_urls():
    assert as_path("a\0b") is as_path("") is None
    assert as_path(3) is None
    assert as_path("~no_such_user/a") is None
    assert as_path("~") == Path.home()
    assert as_path(b"a") == Path.cwd() / "a"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda *a: check_int(*a, 2), [2, np.int64(3), 10**30], [1, 2.0, "2", True, None, NAN]),
        (check_seconds, [1e-9, 1, np.float32(2), threading.TIMEOUT_MAX], [0, -1, INF, NAN, True, "1"]),
        (check_bool, [True, False, np.bool_(True)], [0, 1, "yes", None, np.array([True])]),
        (lambda *a: check_number(*a, "[0, inf)"), [0, 1.5, 10**9], [-1e-9, NAN, INF, True, "0"]),
        (lambda *a: check_number(*a, "(0, 0.5]"), [0.5, 1e-9, np.float32(0.1)], [0, 0.51, NAN]),
        (lambda *a: check_number(*a, "[0, 1)", None), [0, 0.99, None], [1, 1.0, True, "None"]),
        (lambda *a: check_number(*a, "(0, inf)", "cv"), ["cv", 1], [0, "loo", None, [1.0], ["cv"]]),
    ],
)  # fmt: skip
def test_numbers_within_the_limits_pass_and_others_are_named(check, good, bad):
    for value in good:
        check("Owner", "size", value)
    for value in bad:
        with pytest.raises(ParameterError, match="'size' parameter of Owner must be") as caught:
            check("Owner", "size", value)
        assert f"got {value!r}" in str(caught.value)


def test_an_error_lists_the_limits():
    with pytest.raises(ParameterError, match=r"a number in \(0, 0\.5\] or 'auto' or None; got 7"):
        check_number("X", "p", 7, "(0, 0.5]", "auto", None)


def test_a_seed_is_none_a_number_or_a_random_state():
    state = np.random.RandomState(3)
    assert random_generator("X", state) is state
    assert random_generator("X", 3).randint(10**6) == np.random.RandomState(3).randint(10**6)
    for value in (-1, 2**32, "3", 1.5):
        with pytest.raises(ParameterError, match="'random_state' parameter of X"):
            random_generator("X", value)


def test_an_estimator_is_an_instance():
    check_estimator_parameter("X", "estimator", None)
    check_estimator_parameter("X", "estimator", Ridge())
    for value in (Ridge, "ridge", object()):
        with pytest.raises(ParameterError, match="'estimator' parameter of X"):
            check_estimator_parameter("X", "estimator", value)


def test_a_figure_is_made_only_if_no_axes_are_passed():
    ax = axes_or_new(None)
    assert axes_or_new(ax) is ax
    plt.close(ax.figure)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FeatureTLError, match=r"featuretl\[plot\]"):
        import_pyplot()
