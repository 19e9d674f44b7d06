"""Cholesky factorisation."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["potrf"]


def potrf(flow: TaskFlow, A: Tiles, uplo: str = "L", slices: int = 1) -> None:
    """A = L L^H (uplo L) or U^H U (uplo U), right-looking, in place.

    With several slices updates are contributions that commute, added up before a column's turn.
    [LAPACK dpotrf; Buttari, Langou, Kurzak, Dongarra 2009; 2.5D: Beaumont et al. 2022]
    """
    sums = slices > 1
    if uplo == "U":
        A = A.H
    for k in flow.iterate(range(A.nt)):
        trailing = slice(k + 1, None)
        # L_kk = chol(A_kk)
        flow.potrf(A[k, k])
        # L_ik = A_ik L_kk^-H
        flow.trsm(A[k, k].H, A[trailing, k], side="R", uplo="U")
        # A_ii -= L_ik L_ik^H
        flow.herk(A[trailing, k], A[trailing, trailing].diagonal, alpha=-1.0, accumulate=sums)
        # A_ij -= L_ik L_jk^H, i > j
        below = A[trailing, trailing].below_diagonal
        flow.gemm(A[trailing, k], A[trailing, k].H, below, alpha=-1.0, accumulate=sums)
