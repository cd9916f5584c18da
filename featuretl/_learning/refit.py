"""What a fit leaves on an estimator, and how the next one begins without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def forget(estimator: Any, *private: str, keep: Sequence[str] = ()) -> None:
    """Delete all that an earlier `fit` set; each `fit` begins with this.

    Otherwise attributes that only some settings set (`path_`, `coef_`, `gamma_`) would outlive them.
    Deleted are those that end with an underscore, except those to `keep`, and the `private` ones.
    """
    if not hasattr(estimator, "n_features_in_"):
        return  # never fitted; what is there is a subclass's
    for name in list(vars(estimator)):
        is_fitted = name.endswith("_") and not name.startswith("_")
        if (is_fitted or name in private) and name not in keep:
            delattr(estimator, name)
