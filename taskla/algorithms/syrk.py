"""Symmetric and Hermitian rank-k updates."""

from typing import Any

from taskla.flow import TaskFlow, Tiles

__all__ = ["herk", "syrk"]


def syrk(
    flow: TaskFlow, A: Tiles, C: Tiles, uplo: str = "L", alpha: Any = 1.0, beta: Any = 1.0
) -> None:
    """C := alpha A A^T + beta C, the triangle `uplo` of C.  [BLAS dsyrk]"""
    if uplo == "U":
        C = C.T
    if A.nt == 0 or alpha == 0:
        # C := beta C, without a look at A
        flow.lascl(C.below_diagonal, beta)
        flow.lascl(C.diagonal, beta, uplo="L")
        return
    for k in flow.iterate(range(A.nt)):
        # C_ii := alpha A_ik A_ik^T + beta C_ii
        flow.syrk(A[:, k], C.diagonal, alpha=alpha, beta=beta)
        # C_ij := alpha A_ik A_jk^T + beta C_ij, i > j
        flow.gemm(A[:, k], A[:, k].T, C.below_diagonal, alpha=alpha, beta=beta)
        beta = 1.0


def herk(
    flow: TaskFlow, A: Tiles, C: Tiles, uplo: str = "L", alpha: float = 1.0, beta: float = 1.0
) -> None:
    """C := alpha A A^H + beta C, the triangle `uplo` of C.  [BLAS zherk]"""
    if uplo == "U":
        C = C.H
    if A.nt == 0 or alpha == 0:
        # C := beta C, without a look at A
        flow.lascl(C.below_diagonal, beta)
        flow.lascl(C.diagonal, beta, uplo="L")
        return
    for k in flow.iterate(range(A.nt)):
        # C_ii := alpha A_ik A_ik^H + beta C_ii
        flow.herk(A[:, k], C.diagonal, alpha=alpha, beta=beta)
        # C_ij := alpha A_ik A_jk^H + beta C_ij, i > j
        flow.gemm(A[:, k], A[:, k].H, C.below_diagonal, alpha=alpha, beta=beta)
        beta = 1.0
