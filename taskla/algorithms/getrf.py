"""LU factorisation of a general matrix."""

from taskla.flow import TaskFlow, Tiles

__all__ = ["getrf", "getrf_nopiv", "getrf_tntpiv"]


def getrf(flow: TaskFlow, A: Tiles, P: Tiles) -> None:
    """P A = L U with partial pivoting, right-looking, in place; LAPACK's pivots.  [LAPACK dgetrf]

    P is a column of integer tiles: the row interchanges of each panel.
    """
    steps = min(A.mt, A.nt)
    for k in range(steps):
        right, below = slice(k + 1, None), slice(k + 1, None)
        # P_k A_:k = L_:k U_kk, rows k and below
        flow.getrf(A[k:, k].columns, P[k, 0])
        # A_:j := P_k A_:j, j > k
        flow.laswp(P[k, 0], A[k:, right].columns)
        _update(flow, A, k, right, below)
    for k in range(steps):
        # L_:j := P_k L_:j, j < k
        flow.laswp(P[k, 0], A[k:, :k].columns)


def getrf_nopiv(flow: TaskFlow, A: Tiles) -> None:
    """A = L U without pivoting, right-looking, in place: for matrices known to allow it."""
    for k in range(min(A.mt, A.nt)):
        right, below = slice(k + 1, None), slice(k + 1, None)
        # A_kk = L_kk U_kk
        flow.getrf_nopiv(A[k, k])
        # L_ik = A_ik U_kk^-1
        flow.trsm(A[k, k], A[below, k], side="R", uplo="U")
        _update(flow, A, k, right, below)


def getrf_tntpiv(flow: TaskFlow, A: Tiles, P: Tiles, C: Tiles, R: Tiles) -> None:
    """P A = L U with tournament pivoting, right-looking, in place.

    The pivot rows of a panel win a tournament of its tiles in pairs; C, shaped as A, and R, a
    column of integer tiles as high as A, hold the candidates and their row numbers.
    [CALU; Grigori, Demmel, Xiang 2011]
    """
    steps = min(A.mt, A.nt)
    for k in range(steps):
        right, below = slice(k + 1, None), slice(k + 1, None)
        for i in range(k, A.mt):
            # C_i = the rows of A_ik that partial pivoting would choose
            flow.getrf_tnt_leaf(A[i, k], C[i, k], R[i, 0], row=i * A.nb)
        distance = 1
        while k + distance < A.mt:
            for i in range(k, A.mt - distance, 2 * distance):
                # C_i = those that it would choose of C_i and C_i+d
                flow.getrf_tnt_merge(C[i, k], R[i, 0], C[i + distance, k], R[i + distance, 0])
            distance *= 2
        # P_k = the interchanges that bring the winners to the top
        flow.getrf_tnt_pivots(R[k, 0], P[k, 0], row=k * A.nb)
        # A_:j := P_k A_:j, j >= k
        flow.laswp(P[k, 0], A[k:, k:].columns)
        # A_kk = L_kk U_kk
        flow.getrf_nopiv(A[k, k])
        # L_ik = A_ik U_kk^-1
        flow.trsm(A[k, k], A[below, k], side="R", uplo="U")
        _update(flow, A, k, right, below)
    for k in range(steps):
        # L_:j := P_k L_:j, j < k
        flow.laswp(P[k, 0], A[k:, :k].columns)


def _update(flow: TaskFlow, A: Tiles, k: int, right: slice, below: slice) -> None:
    # U_kj = L_kk^-1 A_kj
    flow.trsm(A[k, k], A[k, right], diag="U")
    # A_ij -= L_ik U_kj
    flow.gemm(A[below, k], A[k, right], A[below, right], alpha=-1.0)
