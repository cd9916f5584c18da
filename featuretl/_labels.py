"""What a label is: which values are gaps, and how a label reads as text, wherever it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_gap(value: Any) -> bool:
    """Return whether `value` stands for no label: None, NaN, NaT, pandas.NA or empty text.

    >>> [is_gap(value) for value in (None, float("nan"), "", "nan", 0, False)]
    [True, True, True, False, False, False]
    """
    if value is None or (isinstance(value, str) and not value):
        return True
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    try:
        return bool(value != value)  # NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return False


def label_text(value: Any) -> str | None:
    """Return the name of the class that a label of a file means; None for a gap.

    A number or a truth value reads as pandas writes it to CSV, so that a column gives the same
    classes from CSV, Parquet, JSON and data sets; text stays as it is.

    >>> [label_text(value) for value in (1, 1.0, np.float32(0.5), True, "007", " a", None, "")]
    ['1', '1.0', '0.5', 'True', '007', ' a', None, None]
    """
    if is_gap(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return str(value)
