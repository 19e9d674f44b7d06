"""Solution of A X = B by the LU factors."""

from taskla.algorithms.trsm import trsm
from taskla.flow import TaskFlow, Tiles

__all__ = ["getrs"]


def getrs(flow: TaskFlow, A: Tiles, P: Tiles, B: Tiles, trans: str = "N") -> None:
    """B := op(A)^-1 B where A and P hold L, U and the interchanges of `getrf`.  [LAPACK dgetrs]"""
    if trans == "N":
        # B := P B
        flow.laswp(P.columns, B.columns)
        # B := U^-1 L^-1 B
        trsm(flow, A, B, uplo="L", diag="U")
        trsm(flow, A, B, uplo="U")
        return
    A = A.H if trans == "C" else A.T
    # B := L^-T U^-T B
    trsm(flow, A, B, uplo="L")
    trsm(flow, A, B, uplo="U", diag="U")
    # B := P^T B
    flow.laswp(P.columns, B.columns, forward=False)
