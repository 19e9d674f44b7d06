"""The test matrix of the field: Matern covariances of points along a Morton curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["covariance", "morton_grid"]

Array = NDArray[Any]


def morton_grid(side: int) -> Array:
    """The centres of side x side cells of the unit square, side a power of two, in Z-order."""
    number = np.arange(side * side)
    bits = np.arange(16)[:, None]
    x, y = (((number >> (2 * bits + shift)) & 1) << bits for shift in (0, 1))
    return (np.stack([x.sum(axis=0), y.sum(axis=0)], axis=1) + 0.5) / side


def covariance(points: Array, beta: float) -> Callable[[Array, Array], Array]:
    """``f(rows, cols)`` of exp(-h / beta), the Matern covariance of smoothness 1/2."""

    def block(rows: Array, cols: Array) -> Array:
        distance = points[rows][:, None] - points[cols][None]
        return np.exp(-np.sqrt((distance**2).sum(axis=-1)) / beta)

    return block
