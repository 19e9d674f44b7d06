"""Shares of tiles in a norm: "M" (largest), "1" (column sums), "I" (row sums), "F" (Frobenius)."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["lange", "lansy", "lantr"]


def lange(flow: TaskFlow, A: Tiles, S: Tiles, norm: str) -> None:
    """S_ij := the share of A_ij.  [LAPACK dlange]"""
    flow.lange(A, S, norm, at=A)


def lansy(
    flow: TaskFlow, A: Tiles, S: Tiles, norm: str, uplo: str = "L", hermitian: bool = False
) -> None:
    """S_ij := the share of A_ij, A symmetric or Hermitian; for the sums, S_ji that of A_ij^T.

    [LAPACK dlansy, zlanhe]
    """
    stored = A if uplo == "L" else A.T
    shares = S if uplo == "L" else S.T
    # S_ii := the share of a whole symmetric tile
    flow.lansy(A.diagonal, S.diagonal, norm, uplo, hermitian, at=A.diagonal)
    # S_ij := the share of A_ij, once
    sums = norm in ("1", "I")
    below = stored.below_diagonal
    flow.lange(below, shares.below_diagonal, "I" if sums else norm, at=below)
    if sums:
        # S_ji := that of its mirror image
        flow.lange(below, shares.T.below_diagonal, "1", at=below)


def lantr(flow: TaskFlow, A: Tiles, S: Tiles, norm: str, uplo: str = "L", diag: str = "N") -> None:
    """S_ij := the share of A_ij, A triangular.  [LAPACK dlantr]"""
    stored, shares = (A, S) if uplo == "L" else (A.T, S.T)
    # S_ii := the share of a triangular tile
    flow.lantr(A.diagonal, S.diagonal, norm, uplo, diag, at=A.diagonal)
    # S_ij := that of a full one
    below = stored.below_diagonal
    flow.lange(below, shares.below_diagonal, norm, at=below)
