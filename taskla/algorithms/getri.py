"""Inverse of a general matrix from its LU factors."""

from taskla.algorithms.trsm import trsm
from taskla.algorithms.trtri import trtri
from taskla.flow import TaskFlow, Tiles

__all__ = ["getri"]


def getri(flow: TaskFlow, A: Tiles, X: Tiles) -> None:
    """X := U^-1 L^-1 where A holds the factors of `getrf`.  [LAPACK dgetri]

    The inverse is X with the interchanges applied to its columns: A^-1 = U^-1 L^-1 P.
    """
    # X := U
    flow.laset(X)
    flow.lacpy(A.diagonal, X.diagonal, uplo="U")
    flow.lacpy(A.T.below_diagonal, X.T.below_diagonal)
    # X := U^-1
    trtri(flow, X, "U")
    # X := U^-1 L^-1
    trsm(flow, A, X, side="R", uplo="L", diag="U")
