"""Product with a symmetric or Hermitian matrix of which one triangle is stored."""

from typing import Any

from taskla.flow import TaskFlow, Tiles

__all__ = ["hemm", "symm"]


def symm(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    side: str = "L",
    uplo: str = "L",
    alpha: Any = 1.0,
    beta: Any = 1.0,
) -> None:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A = A^T.  [BLAS dsymm]"""
    if alpha == 0:
        # C := beta C, without a look at A and B
        flow.lascl(C, beta)
        return
    if uplo == "U":
        A = A.T
    if side == "R":
        # (B A)^T = A B^T
        B, C = B.T, C.T
    for k in flow.iterate(range(A.nt)):
        # row k of A is its stored part left of the diagonal, then column k transposed
        left, below = slice(None, k), slice(k + 1, None)
        # C_i := alpha A_ki^T B_k + beta C_i, i < k
        flow.gemm(A[k, left].T, B[k, :], C[left, :], alpha=alpha, beta=beta)
        # C_k := alpha A_kk B_k + beta C_k
        flow.symm(A[k, k], B[k, :], C[k, :], alpha=alpha, beta=beta)
        # C_i := alpha A_ik B_k + beta C_i, i > k
        flow.gemm(A[below, k], B[k, :], C[below, :], alpha=alpha, beta=beta)
        beta = 1.0


def hemm(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    side: str = "L",
    uplo: str = "L",
    alpha: Any = 1.0,
    beta: Any = 1.0,
) -> None:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A = A^H.  [BLAS zhemm]"""
    if alpha == 0:
        # C := beta C, without a look at A and B
        flow.lascl(C, beta)
        return
    if uplo == "U":
        A = A.H
    if side == "R":
        # (B A)^H = A B^H
        B, C, alpha, beta = B.H, C.H, alpha.conjugate(), beta.conjugate()
    for k in flow.iterate(range(A.nt)):
        left, below = slice(None, k), slice(k + 1, None)
        # C_i := alpha A_ki^H B_k + beta C_i, i < k
        flow.gemm(A[k, left].H, B[k, :], C[left, :], alpha=alpha, beta=beta)
        # C_k := alpha A_kk B_k + beta C_k
        flow.hemm(A[k, k], B[k, :], C[k, :], alpha=alpha, beta=beta)
        # C_i := alpha A_ik B_k + beta C_i, i > k
        flow.gemm(A[below, k], B[k, :], C[below, :], alpha=alpha, beta=beta)
        beta = 1.0
