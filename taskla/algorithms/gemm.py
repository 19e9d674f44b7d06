"""General matrix product."""

from typing import Any

from taskla.flow import TaskFlow, Tiles

__all__ = ["gemm"]


def gemm(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    alpha: Any = 1.0,
    beta: Any = 1.0,
    stationary: str = "C",
) -> None:
    """C := alpha A B + beta C; `stationary` is the matrix whose tiles stay where they are.

    [BLAS dgemm; SUMMA's order of steps]
    """
    if A.nt == 0 or alpha == 0:
        # C := beta C, without a look at A and B
        flow.lascl(C, beta)
        return
    if stationary != "C":
        # C_ij := beta C_ij
        flow.lascl(C, beta)
        for k in flow.iterate(range(A.nt)):
            # C_ij += alpha A_ik B_kj, where A_ik (or B_kj) is
            at = A[:, k] if stationary == "A" else B[k, :]
            flow.gemm(A[:, k], B[k, :], C, alpha=alpha, accumulate=True, at=at)
        return
    for k in flow.iterate(range(A.nt)):
        # C_ij := alpha A_ik B_kj + beta C_ij
        flow.gemm(A[:, k], B[k, :], C, alpha=alpha, beta=beta if k == 0 else 1.0)
