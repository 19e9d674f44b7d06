"""Product of a triangular matrix and its conjugate transpose."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["lauum"]


def lauum(flow: TaskFlow, A: Tiles, uplo: str = "L") -> None:
    """A := L^H L (uplo L) or U U^H (uplo U), in place.  [LAPACK dlauum]"""
    if uplo == "U":
        A = A.H
    for k in flow.iterate(range(A.nt)):
        left = slice(None, k)
        # A_jj += A_kj^H A_kj, j < k
        flow.herk(A[k, left].H, A[left, left].diagonal)
        # A_ij += A_ki^H A_kj, j < i < k
        flow.gemm(A[k, left].H, A[k, left], A[left, left].below_diagonal)
        # A_kj := A_kk^H A_kj, j < k
        flow.trmm(A[k, k].H, A[k, left], uplo="U")
        # A_kk := A_kk^H A_kk
        flow.lauum(A[k, k])
