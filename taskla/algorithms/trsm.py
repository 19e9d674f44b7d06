"""Triangular solve with many right-hand sides."""

from typing import Any

from taskla.flow import TaskFlow, Tiles, flip

__all__ = ["trsm"]


def trsm(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    side: str = "L",
    uplo: str = "L",
    diag: str = "N",
    alpha: Any = 1.0,
) -> None:
    """B := alpha A^-1 B (side L) or alpha B A^-1 (side R), A triangular as seen.  [BLAS dtrsm]"""
    if alpha == 0:
        # as in BLAS, which does not look at A then
        flow.laset(B)
        return
    if side == "R":
        # (B A^-1)^T = A^-T B^T, and the same with H
        if A.op == "C":
            A, B, alpha = A.H, B.H, alpha.conjugate()
        else:
            A, B = A.T, B.T
        uplo = flip(uplo, "T")
    for k in flow.iterate(range(A.nt) if uplo == "L" else reversed(range(A.nt))):
        rest = slice(k + 1, None) if uplo == "L" else slice(None, k)
        # X_k = alpha A_kk^-1 B_k
        flow.trsm(A[k, k], B[k, :], uplo=uplo, diag=diag, alpha=alpha)
        # B_i := alpha B_i - A_ik X_k
        flow.gemm(A[rest, k], B[k, :], B[rest, :], alpha=-1.0, beta=alpha)
        alpha = 1.0
