"""Text: safe to print, reasons of errors, sizes with a unit, JSON."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

SIZE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


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


def reason_of(error: BaseException) -> str:
    r"""Return why a call failed, in one line safe to print.

    >>> reason_of(ValueError("a\nb")), reason_of(KeyboardInterrupt())
    ('a', 'KeyboardInterrupt')
    """
    said = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return printable(said.splitlines()[0][:200])


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return " (did you mean ..?)" for a near miss, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {near[0]!r}?)" if near else ""


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


def plain_json(value: Any) -> Any:
    """Return a value as JSON takes it: lists for tuples and arrays, None for NaN and infinity.

    >>> plain_json({1: (0.5, float("nan"))})
    {'1': [0.5, None]}
    """
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
