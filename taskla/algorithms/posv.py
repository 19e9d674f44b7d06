"""Solution of A X = B with a Hermitian positive definite A."""

from taskla.algorithms.potrf import potrf
from taskla.algorithms.potrs import potrs
from taskla.flow import TaskFlow, Tiles

__all__ = ["posv"]


def posv(flow: TaskFlow, A: Tiles, B: Tiles, uplo: str = "L") -> None:
    """B := A^-1 B; A is overwritten by its Cholesky factor.  [LAPACK dposv]"""
    potrf(flow, A, uplo)
    potrs(flow, A, B, uplo)
