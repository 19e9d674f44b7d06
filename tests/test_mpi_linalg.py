"""The functions of `taskla.linalg` on the ranks of an MPI job, against SciPy's.

The programs are in `mpi_linalg`; each checks itself on every rank and prints a line on rank 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_engine_mpi import mpirun

PROGRAMS = Path(__file__).with_name("mpi_linalg.py")
# Ranks of several runs at once would wait for one another's cores.
pytestmark = pytest.mark.xdist_group("mpi")


def found(ranks: int, program: str) -> Any:
    """What a program that succeeds prints."""
    done = mpirun(ranks, PROGRAMS, program, timeout=120)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_tiled_matrices(ranks: int) -> None:
    assert found(ranks, "tiled") == {"checked": 3}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_have_the_same_arrays(ranks: int) -> None:
    assert found(ranks, "arrays") == {"has_sent": True}


@pytest.mark.parametrize("ranks", [2, 3])
def test_errors_are_the_same_on_all_ranks(ranks: int) -> None:
    assert found(ranks, "errors")["errors"] == [
        "ValueError: array must not contain infs or NaNs",
        "ValueError: array must not contain infs or NaNs",
        "LinAlgError: A singular matrix detected: slice(s) [0] are si",
        "NotPositiveDefiniteError: 21-th leading minor of the array i",
        "NotPositiveDefiniteError: 21-th leading minor of the array i",
        "LinAlgError: A singular matrix detected: slice(s) [0] are si",
        "LinAlgWarning: Diagonal number 10 is exactly zero. Singular ",
        "LinAlgError: A singular matrix detected: slice(s) [0] are si",
        "LinAlgWarning: An ill-conditioned matrix detected: slice 0 h",
        "LinAlgWarning: An ill-conditioned matrix detected: slice 0 h",
        "LinAlgError: singular matrix: resolution failed at diagonal ",
    ]
