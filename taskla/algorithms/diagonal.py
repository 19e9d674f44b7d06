"""The diagonal of a matrix."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["diagonal"]


def diagonal(flow: TaskFlow, A: Tiles, D: Tiles) -> None:
    """D := the diagonal of A, a column."""
    square = A[: D.mt, : D.mt]
    # D_k := diag(A_kk)
    flow.diagonal(square.diagonal, D, at=square.diagonal)
