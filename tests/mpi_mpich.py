"""What `test_mpich` runs on MPICH: every algorithm once, by the programs of `mpi_ranks`."""

from __future__ import annotations

from mpi4py import MPI
from mpi_ranks import COMM, OPERATIONS, expect_messages, report, run
from numpy.testing import assert_allclose

import taskla as tla
from taskla.distributions import get


def main() -> None:
    """Each algorithm gives what one process gives, and sends what was planned."""
    checked = 0
    for name in ("2dbc", "gcrm"):
        map_ = get(name, COMM.size)
        with tla.engine(distribution=map_, workers=2, window=4000) as engine:
            for op, options in OPERATIONS:
                messages, *found = run(op, 61, 8, "z", True, **options)
                with tla.engine("threads", workers=1):
                    expected = run(op, 61, 8, "z", False, **options)
                for a, b in zip(found, expected, strict=True):
                    assert_allclose(a, b, rtol=1e-9, atol=1e-9)
                total = COMM.allreduce(messages).tolist()
                expect_messages(op, 61, 8, "z", map_, total, options)
                checked += 1
    library = MPI.Get_library_version().split()[0]
    report(checked=checked, algorithms=len(OPERATIONS), engine=engine.name, library=library)


if __name__ == "__main__":
    main()
