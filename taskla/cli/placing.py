"""Where the operands of a bench go on many ranks, and whether they fit there."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from taskla.distributions import Distribution
from taskla.engines import Engine
from taskla.machine import memory
from taskla.matrix_layout import Layout
from taskla.plan import PLANNED, operand_maps, plan
from taskla.routines import Problem

if TYPE_CHECKING:
    from taskla.cli.ranks import Ranks

__all__ = ["maps", "refuse_too_large"]


def maps(p: Problem, map_: Distribution) -> dict[str, Distribution]:
    """Return the distribution of each operand, by name: those that `taskla.plan` counts with."""
    return {operand.name: map_ for operand in p.operands} | operand_maps(p, map_)


def refuse_too_large(p: Problem, map_: Distribution, engine: Engine, ranks: Ranks) -> None:
    """Raise ValueError, on all ranks, when on one machine a problem does not fit in memory.

    Parameters
    ----------
    p : Problem
    map_ : Distribution
        Of A.
    engine : Engine
        Whose `window` is the bytes of received tiles that a rank holds at most.
    ranks : Ranks
    """
    own, received = _bytes(p, map_)
    here = sum(ranks.machine(own + min(getattr(engine, "window", 0), received)))
    total = memory()[0] or inf
    machines = ranks.gather((here, total))
    here, total = max(machines, key=lambda machine: machine[0] / machine[1])
    if here > total:
        fit = int(p.n * (total / here) ** 0.5)
        raise ValueError(
            f"{p.op} with n={p.n} and nb={p.nb} needs {own / 1e9:.4g} GB a rank and "
            f"{here / 1e9:.4g} GB on one machine, whose memory is {total / 1e9:.4g} GB; "
            f"on as many ranks a machine n up to about {fit} would fit"
        )


def _bytes(p: Problem, map_: Distribution) -> tuple[int, int]:
    """Return the most that a rank has of its own, and what all receive together."""
    if p.op in PLANNED:
        # in lower precision it is less
        names = p.routine.options - {"precision"}
        options: dict[str, Any] = {name: getattr(p, name) for name in names}
        (row,) = plan(p.op, p.n, dist=map_, nb=p.nb, dtype=p.type, **options)
        return row.bytes_per_rank, row.bytes
    own = np.zeros(map_.ranks)
    for operand in p.operands:
        layout = Layout(operand.m, operand.n, p.nb, operand.uplo)
        owner = map_(*np.indices((layout.mt, layout.nt)))
        for i, j in layout.tiles():
            rows, cols = layout.rows(i), layout.cols(j)
            own[owner[i, j]] += (rows.stop - rows.start) * (cols.stop - cols.start)
    return int(own.max(initial=0)) * p.dtype.itemsize, 0
