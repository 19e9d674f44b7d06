"""Product with a symmetric or Hermitian matrix whose tiles stay where they are."""

from typing import Any

from taskla.flow import TaskFlow, Tiles

__all__ = ["hemm_a", "symm_a"]


def symm_a(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    side: str = "L",
    uplo: str = "L",
    alpha: Any = 1.0,
    beta: Any = 1.0,
) -> None:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A = A^T stationary.

    Each stored tile of A is used twice, where it is; C is summed up from there.  [SLATE symmA]
    """
    # C := beta C
    flow.lascl(C, beta)
    if alpha == 0:
        return
    if uplo == "U":
        A = A.T
    if side == "R":
        # (B A)^T = A B^T
        B, C = B.T, C.T
    for k in flow.iterate(range(A.nt)):
        left, below = A[k, :k].T, A[k + 1 :, k]
        # C_i += alpha A_ki^T B_k, i < k
        flow.gemm(left, B[k, :], C[:k, :], alpha=alpha, accumulate=True, at=left)
        # C_k += alpha A_kk B_k
        flow.symm(A[k, k], B[k, :], C[k, :], alpha=alpha, accumulate=True, at=A[k, k])
        # C_i += alpha A_ik B_k, i > k
        flow.gemm(below, B[k, :], C[k + 1 :, :], alpha=alpha, accumulate=True, at=below)


def hemm_a(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    side: str = "L",
    uplo: str = "L",
    alpha: Any = 1.0,
    beta: Any = 1.0,
) -> None:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A = A^H stationary.

    As `symm_a`.
    """
    # C := beta C
    flow.lascl(C, beta)
    if alpha == 0:
        return
    if uplo == "U":
        A = A.H
    if side == "R":
        # (B A)^H = A B^H
        B, C, alpha = B.H, C.H, alpha.conjugate()
    for k in flow.iterate(range(A.nt)):
        left, below = A[k, :k].H, A[k + 1 :, k]
        # C_i += alpha A_ki^H B_k, i < k
        flow.gemm(left, B[k, :], C[:k, :], alpha=alpha, accumulate=True, at=left)
        # C_k += alpha A_kk B_k
        flow.hemm(A[k, k], B[k, :], C[k, :], alpha=alpha, accumulate=True, at=A[k, k])
        # C_i += alpha A_ik B_k, i > k
        flow.gemm(below, B[k, :], C[k + 1 :, :], alpha=alpha, accumulate=True, at=below)
