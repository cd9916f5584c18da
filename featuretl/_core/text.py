"""Text: printable strings, reasons of errors, quantities with a unit, JSON."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

SIZE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_quantity(text: str, units: dict[str, int], example: str) -> int:
    """Return the value of a number >= 0 with one of `units`, such as "1.5 kB"; the case is ignored.

    Raises ValueError, whose message contains the `example`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if not found or found[2] not in factors:
        raise ValueError(
            f"{text!r} is not a number and a unit ({', '.join(units)}), as in {example}."
        )
    return round(float(found[1]) * factors[found[2]])


def printable(text: object) -> str:
    """Return `text` with control, bidirectional and surrogate characters escaped for a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name, as printable text."""
    said = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return printable(said.splitlines()[0][:200])


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return " (did you mean ..?)" with the most similar known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {near[0]!r}?)" if near else ""


def as_utf8(text: str) -> str:
    """Return `text` with surrogates, which UTF-8 cannot encode, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raises ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def plain_json(value: Any) -> Any:
    """Return `value` as JSON types: tuples and arrays as lists, NaN and infinity as None."""
    if hasattr(value, "tolist"):  # NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
