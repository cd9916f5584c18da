"""Maps that make two domains look alike: of rows of one domain, into the space of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

from featuretl._core.types import Array

# Of the largest eigenvalue or standard deviation: less than this is no direction but noise.
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
    """What is done to rows of the source and of the target; None leaves them as they are."""

    source: Affine | None = None
    target: Affine | None = None


def moments(source: Array, target: Array) -> Alignment:
    """Give each feature of the target the mean and the standard deviation that it has in the source.

    For linear heads on standardised features this is the same as standardising each domain by itself,
    which Li et al. 2018 (AdaBN, doi:10.1016/j.patcog.2018.03.005) do inside a network.
    """
    scale, own = source.std(axis=0), target.std(axis=0)
    constant = own <= _LEAST * own.max()
    factor = np.where(constant, 1.0, scale / np.where(constant, 1.0, own))
    return Alignment(target=Affine(target.mean(axis=0), factor, source.mean(axis=0)))


def coral(source: Array, target: Array) -> Alignment:
    """Give the source the covariance (and the mean) of the target.

    CORAL (Sun, Feng and Saenko 2016, arXiv:1511.05547) on features divided by their standard
    deviation in the source, with covariances shrunk as Ledoit and Wolf do: there are more columns
    than rows.
    """
    scale = source.std(axis=0)
    scale = np.where(scale > _LEAST * scale.max(), scale, 1.0)
    whiten = _power(ledoit_wolf(source / scale)[0], -0.5)
    colour = _power(ledoit_wolf(target / scale)[0], 0.5)
    factor = (whiten @ colour) / scale[:, None] * scale
    return Alignment(source=Affine(source.mean(axis=0), factor, target.mean(axis=0)))


def none(source: Array, target: Array) -> Alignment:
    """Leave both as they are."""
    return Alignment()


METHODS = {"none": none, "moments": moments, "coral": coral}


def align(method: str, source: Array, target: Array) -> Alignment:
    """Return the map of a method, learnt in float64 from rows (n, d) and (m, d)."""
    return METHODS[method](np.asarray(source, np.float64), np.asarray(target, np.float64))


def mapped(affine: Affine | None, X: Array) -> Array:
    """Return the rows of one side of an alignment."""
    return X if affine is None else affine(X)


def _power(covariance: Array, exponent: float) -> Array:
    values, vectors = eigh(covariance)
    values = np.maximum(values, _LEAST * values[-1])
    return (vectors * values**exponent) @ vectors.T
