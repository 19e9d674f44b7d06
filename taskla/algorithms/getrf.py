"""LU factorisation of a general matrix."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["getrf", "getrf_nopiv", "getrf_tntpiv"]


def getrf(flow: TaskFlow, A: Tiles, P: Tiles) -> None:
    """P A = L U with partial pivoting, right-looking, in place; LAPACK's pivots.  [LAPACK dgetrf]

    P is a column of integer tiles: the row interchanges, panel by panel.
    """
    for k in flow.iterate(range(min(A.mt, A.nt))):
        # P_k A_:k = L_:k U_kk, rows k and below
        flow.getrf(A[k:, k].columns, P[k, 0], row=k * A.nb)
        _update(flow, A, k, P)
    _interchange_left(flow, A, P)


def getrf_nopiv(flow: TaskFlow, A: Tiles) -> None:
    """A = L U without pivoting, right-looking, in place: for matrices known to allow it."""
    for k in flow.iterate(range(min(A.mt, A.nt))):
        # A_kk = L_kk U_kk
        flow.getrf_nopiv(A[k, k])
        # L_ik = A_ik U_kk^-1
        flow.trsm(A[k, k], A[k + 1 :, k], side="R", uplo="U")
        _update(flow, A, k)


def getrf_tntpiv(flow: TaskFlow, A: Tiles, P: Tiles, C: Tiles, R: Tiles) -> None:
    """P A = L U with tournament pivoting, right-looking, in place.

    The pivot rows of a panel win a tournament of its tiles in pairs; C, shaped as A, and R, a
    column of integer tiles as high as A, hold the candidates and their row numbers.
    [CALU; Grigori, Demmel, Xiang 2011]
    """
    for k in flow.iterate(range(min(A.mt, A.nt))):
        row = k * A.nb
        for i in range(k, A.mt):
            # C_i = the rows of A_ik that partial pivoting would choose
            flow.getrf_tnt_leaf(A[i, k], C[i, k], R[i, 0], row=i * A.nb, at=A[i, k])
        distance = 1
        while k + distance < A.mt:
            for i in range(k, A.mt - distance, 2 * distance):
                # C_i = those that it would choose of C_i and C_i+d
                j = i + distance
                flow.getrf_tnt_merge(C[i, k], R[i, 0], C[j, k], R[j, 0], at=A[i, k])
            distance *= 2
        # P_k = the interchanges that bring the winners to the top
        flow.getrf_tnt_pivots(R[k, 0], P[k, 0], row=row, at=A[k, k])
        # A_:k := P_k A_:k
        flow.laswp(P[k, 0], A[k:, k].columns, row=row)
        # A_kk = L_kk U_kk
        flow.getrf_nopiv(A[k, k])
        # L_ik = A_ik U_kk^-1
        flow.trsm(A[k, k], A[k + 1 :, k], side="R", uplo="U")
        _update(flow, A, k, P)
    _interchange_left(flow, A, P)


def _update(flow: TaskFlow, A: Tiles, k: int, P: Tiles | None = None) -> None:
    """What panel k does to the columns on its right, each on its own: the next panel first."""
    below = slice(k + 1, None)
    for j in range(k + 1, A.nt):
        if P is not None:
            # A_:j := P_k A_:j
            flow.laswp(P[k, 0], A[k:, j].columns, row=k * A.nb)
        # U_kj = L_kk^-1 A_kj
        flow.trsm(A[k, k], A[k, j], diag="U")
        # A_ij -= L_ik U_kj
        flow.gemm(A[below, k], A[k, j], A[below, j], alpha=-1.0)


def _interchange_left(flow: TaskFlow, A: Tiles, P: Tiles) -> None:
    """Apply the interchanges of later panels to L, in one pass over each of its columns."""
    for k in flow.iterate(range(1, min(A.mt, A.nt))):
        # L_:j := P_last ... P_j+1 L_:j, j = k - 1
        flow.laswp(P[k:, 0].columns, A[k:, k - 1].columns, row=k * A.nb)
