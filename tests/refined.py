"""Matrices of given condition numbers, and how far solutions are from LAPACK's limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from residuals import NB

from taskla.refinement import FEWEST, System

Array = np.ndarray[Any, Any]
U = 2.0**-53
LOW = ("fp32", "bf16", "fp16")
WIDE = ("float64", "complex128")
#: sizes: the smallest that SciPy does not know a simpler form of, one tile, one more, a remainder
ORDERS = (3, NB - 1, NB, NB + 1, 3 * NB + 5)


def randsvd(n: int, kappa: float, dtype: str = "float64", seed: int = 0) -> Array:
    """A matrix with geometric singular values from 1 to 1/kappa."""
    generator = np.random.default_rng(seed)

    def orthogonal() -> Array:
        g = generator.standard_normal((n, n))
        if dtype == "complex128":
            g = g + 1j * generator.standard_normal((n, n))
        return np.linalg.qr(g)[0]

    left, right = orthogonal(), orthogonal()
    return (left * kappa ** (-np.arange(n) / max(n - 1, 1))) @ right.conj().T


def definite(n: int, kappa: float, dtype: str = "float64") -> Array:
    q = np.linalg.qr(randsvd(n, 1, dtype))[0]
    a = (q * kappa ** (-np.arange(n) / max(n - 1, 1))) @ q.conj().T
    return (a + a.conj().T) / 2


def excess(a: Array, x: Array, b: Array) -> float:
    """The residual in units of what dsgesv's rule allows; above 1 it is not met."""
    residual, size = (np.abs(v).max(axis=0, initial=0) for v in (b - a @ x, x))
    norm = np.abs(a).sum(axis=1).max(initial=0)
    # the residual is rounded as well
    allowed = size * norm * U * (np.sqrt(max(len(a), FEWEST)) + 1)
    return float(np.max(residual / np.where(allowed > 0, allowed, 1), initial=0))


def exact(a: Array, solve: Callable[[Array], Array] | None = None) -> System:
    """A system that is solved exactly, or as said."""
    solve = solve or (lambda R: np.linalg.solve(a, R))
    return System(lambda X: a @ X, solve, lambda: solve, float(np.abs(a).sum(axis=1).max()))
