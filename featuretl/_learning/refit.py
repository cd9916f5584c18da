"""Resetting an estimator before it is fitted again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def forget(estimator: Any, *private: str, keep: Sequence[str] = ()) -> None:
    """Delete the fitted attributes of an earlier `fit`, except `keep`, and the `private` ones."""
    if not hasattr(estimator, "n_features_in_"):
        return  # never fitted; a subclass may already have set attributes
    for name in list(vars(estimator)):
        is_fitted = name.endswith("_") and not name.startswith("_")
        if (is_fitted or name in private) and name not in keep:
            delattr(estimator, name)
