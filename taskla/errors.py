"""Errors of the tiled factorisations, with the index that LAPACK reports as ``info``."""

from __future__ import annotations

from typing import Self

from numpy.linalg import LinAlgError

__all__ = ["NotPositiveDefiniteError", "SingularMatrixError"]


class NotPositiveDefiniteError(LinAlgError):
    """A Cholesky factorisation met a leading minor that is not positive (or is not a number).

    Parameters
    ----------
    minor : int
        Order of the first such leading minor, counted from 1: ``info`` of LAPACK's ``potrf``.

    Attributes
    ----------
    minor : int
        The same; local to the tile until the engine has added the tile's first row by `shifted`.
    """

    def __init__(self, minor: int) -> None:
        super().__init__(f"{minor}-th leading minor of the array is not positive definite")
        self.minor = minor

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        # The default pickles the message as the only argument; the error crosses processes.
        return type(self), (self.minor,)

    def shifted(self, offset: int) -> Self:
        """Return the same error for a tile whose first row is row `offset` of the matrix."""
        return type(self)(self.minor + offset)


class SingularMatrixError(LinAlgError):
    """A solution by LU, LU without pivoting or an inverse met a pivot that is exactly zero.

    Parameters
    ----------
    pivot : int
        Position of the zero on the diagonal, counted from 1: ``info`` of LAPACK's ``trtri``.

    Attributes
    ----------
    pivot : int
        The same; local to the tile until the engine has added the tile's first row by `shifted`.
    """

    def __init__(self, pivot: int) -> None:
        super().__init__(f"singular matrix: diagonal element {pivot} is exactly zero")
        self.pivot = pivot

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self.pivot,)

    def shifted(self, offset: int) -> Self:
        """Return the same error for a tile whose first row is row `offset` of the matrix."""
        return type(self)(self.pivot + offset)
