"""Parameter checks: one sentence with the parameter, its owner, what is accepted and what came."""

from __future__ import annotations

import difflib
import json
import numbers
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featuretl.exceptions import FeatureTLError, ParameterError

SIZE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parameter_error(owner: str, name: str, expected: str, got: Any) -> ParameterError:
    """Return the error every check raises.

    >>> print(parameter_error("ImageEmbedder", "batch_size", "an int >= 1", 0))
    The 'batch_size' parameter of ImageEmbedder must be an int >= 1; got 0.
    """
    return ParameterError(f"The '{name}' parameter of {owner} must be {expected}; got {got!r}.")


def check_option(owner: str, name: str, value: Any, options: Sequence[str]) -> None:
    """Raise ParameterError unless `value` is one of `options`; a near miss is named.

    >>> check_option("ImageEmbedder", "pooling", "average", ("avg", "max"))
    Traceback (most recent call last):
    ...
    featuretl.exceptions.ParameterError: The 'pooling' parameter of ImageEmbedder must be one of \
'avg', 'max' (did you mean 'avg'?); got 'average'.
    """
    if isinstance(value, str) and value in options:
        return
    expected = "one of " + ", ".join(map(repr, options))
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    if near:
        expected += f" (did you mean {near[0]!r}?)"
    raise parameter_error(owner, name, expected, value)


def check_int(owner: str, name: str, value: Any, minimum: int) -> None:
    """Raise ParameterError unless `value` is an integer (bool excluded) of at least `minimum`."""
    if (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and int(value) >= minimum
    ):
        return
    raise parameter_error(owner, name, f"an int >= {minimum}", value)


def check_seconds(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is a number of seconds that a clock can be set to."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if 0 < float(value) <= threading.TIMEOUT_MAX:
            return
    raise parameter_error(owner, name, "a number of seconds > 0", value)


def check_share(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is a number in (0, 1]."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < float(value) <= 1:
        return
    raise parameter_error(owner, name, "a number in (0, 1]", value)


def is_word(value: Any, *words: str) -> bool:
    """Return whether `value` is one of these words; arrays are none.

    >>> is_word("cv", "cv"), is_word(["cv"], "cv")
    (True, False)
    """
    return isinstance(value, str) and value in words


def is_bool(value: Any) -> bool:
    """Return whether `value` is True or False, or numpy's."""
    return type(value).__name__ in ("bool", "bool_")


def random_generator(owner: str, random_state: Any) -> Any:
    """Return scikit-learn's generator of a `random_state`; raises ParameterError for what is none."""
    from sklearn.utils import check_random_state

    try:
        return check_random_state(random_state)
    except (ValueError, TypeError) as error:
        expected = "None, an int from 0 to 2**32 - 1, or a numpy.random.RandomState"
        raise parameter_error(owner, "random_state", expected, random_state) from error


def check_estimator_parameter(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is an estimator, with `fit` and `get_params`, or None."""
    is_estimator = hasattr(value, "fit") and hasattr(value, "get_params")
    if value is not None and (not is_estimator or isinstance(value, type)):
        raise parameter_error(owner, name, "a scikit-learn estimator or None", value)


def check_bool(owner: str, name: str, value: Any) -> None:
    """Raise ParameterError unless `value` is True or False, or numpy's."""
    if not is_bool(value):
        raise parameter_error(owner, name, "True or False", value)


def as_path(value: Any) -> Path | None:
    r"""Return a path as an absolute one, or None if the system cannot have a file of that name.

    >>> as_path("a\0b"), as_path("")
    (None, None)
    """
    try:
        path = Path(os.fsdecode(value)).expanduser().absolute()
        return path if value and b"\0" not in os.fsencode(path) else None
    except (TypeError, ValueError, RuntimeError, OSError):  # RuntimeError: no such user's home
        return None


def parse_quantity(text: str, units: dict[str, int], example: str) -> int:
    """Return what a number with a unit means, in the unit of 1.

    Raises ValueError, in one sentence, unless `text` is a number >= 0 and one of `units`, in
    letters of either case.

    >>> parse_quantity("1.5 kb", SIZE_UNITS, "20GB")
    1500
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if not found or found[2] not in factors:
        raise ValueError(
            f"{text!r} is not a number and a unit ({', '.join(units)}), as in {example}."
        )
    return round(float(found[1]) * factors[found[2]])


def printable(text: object) -> str:
    r"""Return `text` safe for a terminal: control, bidirectional and surrogate characters escaped.

    >>> print(printable("a\n\x1b[31mb\u202ec"))
    a\n\x1b[31mb\u202ec
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def as_utf8(text: str) -> str:
    r"""Return `text` as it can be written in UTF-8: surrogates, bytes that were none, escaped.

    >>> print(as_utf8("a\udcff"))
    a\udcff
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """Return what JSON means. Raises ValueError if it is none, or nested too deep for Python."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error


def import_pyplot() -> Any:
    """Return matplotlib.pyplot; raises FeatureTLError where there is none."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise FeatureTLError(
            "Figures need matplotlib; install it with pip install 'featuretl[plot]'."
        ) from error
    return plt
