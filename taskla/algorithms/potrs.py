"""Solution of A X = B by the Cholesky factors."""

from taskla.algorithms.trsm import trsm
from taskla.flow import TaskFlow, Tiles

__all__ = ["potrs"]


def potrs(flow: TaskFlow, A: Tiles, B: Tiles, uplo: str = "L") -> None:
    """B := A^-1 B where A holds L (uplo L) or U (uplo U) of `potrf`.  [LAPACK dpotrs]"""
    L = A if uplo == "L" else A.H
    # B := L^-1 B
    trsm(flow, L, B, uplo="L")
    # B := L^-H B
    trsm(flow, L.H, B, uplo="U")
