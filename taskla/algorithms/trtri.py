"""Inverse of a triangular matrix."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["trtri"]


def trtri(flow: TaskFlow, A: Tiles, uplo: str = "L", diag: str = "N") -> None:
    """A := A^-1, A triangular, in place.  [LAPACK dtrtri; PLASMA's order of steps]"""
    if uplo == "U":
        A = A.T
    for k in flow.iterate(range(A.nt)):
        left, below = slice(None, k), slice(k + 1, None)
        # A_ik := -A_ik A_kk^-1, i > k
        flow.trsm(A[k, k], A[below, k], side="R", diag=diag, alpha=-1.0)
        # A_ij += A_ik A_kj, j < k < i
        flow.gemm(A[below, k], A[k, left], A[below, left])
        # A_kj := A_kk^-1 A_kj, j < k
        flow.trsm(A[k, k], A[k, left], diag=diag)
        # A_kk := A_kk^-1
        flow.trtri(A[k, k], diag=diag)
