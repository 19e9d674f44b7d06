"""Inverse of a Hermitian positive definite matrix from its Cholesky factor."""

from taskla.algorithms.lauum import lauum
from taskla.algorithms.trtri import trtri
from taskla.flow import TaskFlow, Tiles

__all__ = ["potri"]


def potri(flow: TaskFlow, A: Tiles, uplo: str = "L") -> None:
    """A := A^-1 where A holds the factor of `potrf`; one triangle, in place.  [LAPACK dpotri]"""
    # L := L^-1
    trtri(flow, A, uplo)
    # A^-1 = L^-H L^-1
    lauum(flow, A, uplo)
