"""Rows that no split may separate: rows of one group, and rows with equal content."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featuretl._core.types import Array
from featuretl._learning.arrays import library_of, near, to_numpy
from featuretl._learning.labels import is_gap
from featuretl._learning.rows import blocks
from featuretl._learning.targets import check_length
from featuretl.exceptions import InputError


def read_groups(owner: str, groups: Any, n: int) -> Array | None:
    """Return the codes (n,), int, of `groups` (n,) or (n, 1); InputError if a row has no group."""
    if groups is None:
        return None
    values = group_names(groups)
    if values.ndim != 1:
        raise InputError(
            f"groups of {owner} must hold one value per row; got shape {values.shape}: combine "
            "several columns into one."
        )
    check_length(n, "groups", len(values))
    try:
        codes, names = pd.factorize(values)
    except TypeError as error:
        raise InputError(
            f"groups of {owner} must hold numbers or text; got values that cannot be compared "
            f"({error})."
        ) from error
    gaps = [code for code, name in enumerate(names) if is_gap(name)]
    missing = int(((codes < 0) | np.isin(codes, gaps)).sum())
    if missing:
        raise InputError(
            f"groups of {owner} must name a group in every row; {missing} of {n} rows have none: "
            "give each of these rows its own group, or leave them out."
        )
    return codes


def group_names(groups: Any) -> Array:
    """Return the values of `groups` as an object array; (n, 1) becomes (n,)."""
    values = np.asarray(to_numpy(groups), dtype=object)
    if isinstance(groups, np.ma.MaskedArray):
        values = values.copy()
        values[np.ma.getmaskarray(groups)] = None
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def copies_of(X: Array) -> Array | None:
    """Return codes (n,) that equal rows of X (n, d) share, or None if all rows differ."""
    if library_of(X) is not np:
        return _copies_of_tensor(X)
    digests: list[bytes] = []
    for _, block in blocks(X):
        rows = np.add(block, 0, order="C")  # -0.0 becomes 0.0
        digests += [blake2b(row, digest_size=16).digest() for row in rows]
    return equal_ones(digests)


def _copies_of_tensor(X: Any) -> Array | None:
    """Return `copies_of` a tensor; only rows that share a checksum leave its device."""
    xp, sums = library_of(X), []
    for _, block in blocks(X):
        bits = (block + 0).view(xp.int64 if block.dtype == xp.float64 else xp.int32)
        factors = np.random.default_rng(0).integers(2**62, size=X.shape[1])
        # Sums of int64 products are exact in any order.
        sums.append(to_numpy((bits * near(X, factors)).sum(axis=1)))
    rows = np.flatnonzero(pd.Series(np.concatenate(sums)).duplicated(keep=False))
    copies = copies_of(to_numpy(X[rows]))
    if copies is None:
        return None
    codes = np.arange(len(X))
    codes[rows] = len(X) + copies
    return pd.factorize(codes)[0]


def equal_ones(values: Iterable[bytes]) -> Array | None:
    """Return codes (n,) that equal values share, or None if all values differ."""
    codes, distinct = pd.factorize(np.array(list(values), object))
    return None if len(distinct) == len(codes) else codes


def joined(groups: Array | None, contents: Array | None) -> Array | None:
    """Return unit codes (n,): rows linked, also indirectly, by a group or content share one."""
    if groups is None or contents is None:
        return contents if groups is None else groups
    n, first = len(groups), groups.max(initial=-1) + 1
    rows = np.tile(np.arange(n), 2)
    nodes = n + np.concatenate([groups, first + contents])
    shape = (n + first + contents.max(initial=-1) + 1,) * 2
    graph = coo_array((np.ones(2 * n), (rows, nodes)), shape=shape)
    unit: Array = connected_components(graph, directed=False)[1][:n]
    return np.unique(unit, return_inverse=True)[1]


def subset(codes: Array | None, rows: Array) -> Array | None:
    """Return ``codes[rows]``, or None if `codes` is None."""
    return None if codes is None else codes[rows]
