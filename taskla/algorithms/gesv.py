"""Solution of A X = B with a general A."""

from taskla.algorithms.getrf import getrf
from taskla.algorithms.getrs import getrs
from taskla.flow import TaskFlow, Tiles

__all__ = ["gesv"]


def gesv(flow: TaskFlow, A: Tiles, P: Tiles, B: Tiles) -> None:
    """B := A^-1 B; A and P are overwritten by L, U and the interchanges.  [LAPACK dgesv]"""
    getrf(flow, A, P)
    getrs(flow, A, P, B)
