"""Parameter checks; errors name the parameter, its owner, the accepted and the given value."""

from __future__ import annotations

import numbers
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featuretl._core.lazy import import_extra
from featuretl._core.text import did_you_mean
from featuretl.exceptions import ParameterError


def parameter_error(owner: str, name: str, expected: str, got: Any) -> ParameterError:
    """Return the error of all checks; `expected` follows "must be"."""
    return ParameterError(f"The '{name}' parameter of {owner} must be {expected}; got {got!r}.")


def check_option(owner: str, name: str, value: Any, options: Sequence[str]) -> None:
    """Raise ParameterError unless `value` is one of `options`; it suggests the most similar one."""
    if isinstance(value, str) and value in options:
        return
    near = did_you_mean(str(value), options, cutoff=0.5)
    raise parameter_error(owner, name, f"one of {', '.join(map(repr, options))}{near}", value)


def check_int(owner: str, name: str, value: Any, minimum: int, *others: str | None) -> None:
    """Raise ParameterError unless `value` is an int >= `minimum`, no bool, or one of `others`."""
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int or int(value) < minimum:
        _check_among(owner, name, value, f"an int >= {minimum}", others)


def is_number(value: Any, interval: str) -> bool:
    """Return whether `value` is a real number, no bool, in an interval such as "(0, inf)"."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    low, high = map(float, interval[1:-1].split(","))
    number = float(value)
    is_above = low < number if interval.startswith("(") else low <= number
    return is_above and (number < high if interval.endswith(")") else number <= high)


def check_number(owner: str, name: str, value: Any, interval: str, *others: str | None) -> None:
    """Raise ParameterError unless `value` is a number in `interval`, or one of `others`."""
    if not is_number(value, interval):
        _check_among(owner, name, value, f"a number in {interval}", others)


def _check_among(owner: str, name: str, value: Any, expected: str, others: Sequence[Any]) -> None:
    if not isinstance(value, str | None) or value not in others:
        raise parameter_error(owner, name, " or ".join([expected, *map(repr, others)]), value)


def check_seconds(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is a number in (0, `threading.TIMEOUT_MAX`]."""
    if not is_number(value, f"(0, {threading.TIMEOUT_MAX}]"):
        raise parameter_error(owner, name, "a number of seconds > 0", value)


def is_word(value: Any, *words: str) -> bool:
    """Return whether `value` is a str and one of `words`; False for arrays."""
    return isinstance(value, str) and value in words


def is_same(value: Any, default: Any) -> bool:
    """Return whether a parameter has its default value; False for arrays."""
    return type(value) is type(default) and bool(value == default)


def is_bool(value: Any) -> bool:
    """Return whether `value` is a bool of Python or NumPy."""
    return type(value).__name__ in ("bool", "bool_")


def random_generator(owner: str, random_state: Any) -> Any:
    """Return the RandomState of a `random_state`; raises ParameterError if it is invalid."""
    from sklearn.utils import check_random_state

    try:
        return check_random_state(random_state)
    except (ValueError, TypeError) as error:
        expected = "None, an int from 0 to 2**32 - 1, or a numpy.random.RandomState"
        raise parameter_error(owner, "random_state", expected, random_state) from error


def check_estimator_parameter(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is None or an instance with `fit` and `get_params`."""
    is_estimator = hasattr(value, "fit") and hasattr(value, "get_params")
    if value is not None and (not is_estimator or isinstance(value, type)):
        raise parameter_error(owner, name, "a scikit-learn estimator or None", value)


def check_bool(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is a bool of Python or NumPy."""
    if not is_bool(value):
        raise parameter_error(owner, name, "True or False", value)


def as_path(value: Any) -> Path | None:
    """Return the absolute path, with ``~`` expanded, or None if `value` cannot be a path."""
    try:
        path = Path(os.fsdecode(value)).expanduser().absolute()
        return path if value and b"\0" not in os.fsencode(path) else None
    except (TypeError, ValueError, RuntimeError, OSError):  # RuntimeError: no such user's home
        return None


def import_pyplot() -> Any:
    """Return matplotlib.pyplot; raises FeatureTLError if it is not installed."""
    return import_extra("matplotlib.pyplot", "Figures need matplotlib", "plot")


def axes_or_new(ax: Any) -> Any:
    """Return `ax`, or the axes of a new figure if it is None."""
    return import_pyplot().subplots()[1] if ax is None else ax
