"""Triangular product."""

from typing import Any

from taskla.flow import TaskFlow, Tiles, flip

__all__ = ["trmm"]


def trmm(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    side: str = "L",
    uplo: str = "L",
    diag: str = "N",
    alpha: Any = 1.0,
) -> None:
    """B := alpha A B (side L) or alpha B A (side R), A triangular as seen.  [BLAS dtrmm]"""
    if alpha == 0:
        # as in BLAS, which does not look at A then
        flow.laset(B)
        return
    if side == "R":
        # (B A)^T = A^T B^T, and the same with H
        if A.op == "C":
            A, B, alpha = A.H, B.H, alpha.conjugate()
        else:
            A, B = A.T, B.T
        uplo = flip(uplo, "T")
    for k in flow.iterate(reversed(range(A.nt)) if uplo == "L" else range(A.nt)):
        rest = slice(k + 1, None) if uplo == "L" else slice(None, k)
        # B_i += alpha A_ik B_k, rows i done but for the columns of A from k on
        flow.gemm(A[rest, k], B[k, :], B[rest, :], alpha=alpha)
        # B_k := alpha A_kk B_k
        flow.trmm(A[k, k], B[k, :], uplo=uplo, diag=diag, alpha=alpha)
