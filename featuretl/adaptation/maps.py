"""Maps of the rows of one domain into the space of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

from featuretl._core.types import Array

METHODS = ("none", "moments", "coral")

# Directions with less than this fraction of the largest eigenvalue or standard deviation are noise.
_LEAST = 1e-6


class Affine(NamedTuple):
    """Rows (n, d) as ``(X - centre) * factor + target``, or ``@ factor`` of shape (d, d)."""

    centre: Array
    factor: Array
    target: Array

    def __call__(self, X: Array) -> Array:
        """Return the mapped rows, in the dtype of `X`."""
        Z = X - self.centre
        Z = Z @ self.factor if self.factor.ndim == 2 else Z * self.factor
        Z += self.target
        return Z.astype(X.dtype, copy=False)


class Alignment(NamedTuple):
    """The maps of the source's and of the target's rows; None leaves them as they are."""

    source: Affine | None = None
    target: Affine | None = None


def align(method: str, source: Array, target: Array) -> Alignment:
    """Return the maps of one of `METHODS`, fitted in float64 to rows (n, d) and (m, d)."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if method == "moments":
        return Alignment(target=_moments(source, target))
    return Alignment(source=_coral(source, target)) if method == "coral" else Alignment()


def mapped(affine: Affine | None, X: Array) -> Array:
    """Return the rows of one side of an alignment."""
    return X if affine is None else affine(X)


def _moments(source: Array, target: Array) -> Affine:
    """Give each feature of the target the mean and the standard deviation that it has in the source.

    For linear heads on standardised features this is the same as standardising each domain by itself,
    which Li et al. 2018 (AdaBN, doi:10.1016/j.patcog.2018.03.005) do inside a network.
    """
    scale, own = source.std(axis=0), target.std(axis=0)
    constant = own <= _LEAST * own.max()
    factor = np.where(constant, 1.0, scale / np.where(constant, 1.0, own))
    return Affine(target.mean(axis=0), factor, source.mean(axis=0))


def _coral(source: Array, target: Array) -> Affine:
    """Give the source the covariance (and the mean) of the target.

    CORAL (Sun, Feng and Saenko 2016, arXiv:1511.05547) on features divided by their standard
    deviation in the source, with covariances shrunk as by Ledoit and Wolf: there are more columns
    than rows.
    """
    scale = source.std(axis=0)
    scale = np.where(scale > _LEAST * scale.max(), scale, 1.0)
    whiten = _power(ledoit_wolf(source / scale)[0], -0.5)
    colour = _power(ledoit_wolf(target / scale)[0], 0.5)
    factor = (whiten @ colour) / scale[:, None] * scale
    return Affine(source.mean(axis=0), factor, target.mean(axis=0))


def _power(covariance: Array, exponent: float) -> Array:
    values, vectors = eigh(covariance)
    values = np.maximum(values, _LEAST * values[-1])
    return (vectors * values**exponent) @ vectors.T
