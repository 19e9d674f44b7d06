"""The engine mpi on MPICH, which `tests/mpich` installs beside the Open MPI of the other tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MPICH = TESTS.parent / "build" / "mpich"
# Ranks of several runs at once would wait for one another's cores.
pytestmark = pytest.mark.xdist_group("mpi")


def mpiexec(ranks: int, *program: str | Path, timeout: int) -> subprocess.CompletedProcess[str]:
    """Run a program on so many ranks of MPICH."""
    if not (MPICH / ".installed").exists():
        assert "CI" not in os.environ, "tests/mpich installs MPICH"
        pytest.skip("MPICH is not installed: tests/mpich does it")
    return subprocess.run(
        [MPICH / "bin" / "mpiexec", "-n", str(ranks), *program],
        # mpi4py takes the library that it is told to, and the interface that it has
        env=os.environ | {"MPI4PY_LIBMPI": str(MPICH / "lib" / "libmpi.so.12")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_algorithm_gives_what_one_process_gives(ranks: int) -> None:
    done = mpiexec(ranks, sys.executable, TESTS / "mpi_mpich.py", timeout=100)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # on two distributions
    assert found["checked"] == 2 * found["algorithms"] > 30
    assert (found["engine"], found["library"]) == ("mpi", "MPICH")


def test_a_minor_that_is_not_positive_is_named_on_all_ranks() -> None:
    done = mpiexec(2, sys.executable, TESTS / "mpi_ranks.py", "indefinite", timeout=60)
    assert done.returncode == 0, done.stderr[-5000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"ranks": 2}


@pytest.mark.parametrize(("program", "cause"), [("uncaught", "the first cause"), ("killed", "")])
def test_a_rank_that_fails_ends_the_job(program: str, cause: str) -> None:
    # well below the time that the others would wait
    done = mpiexec(3, sys.executable, TESTS / "mpi_ranks.py", program, timeout=40)
    assert done.returncode != 0
    assert cause in done.stderr


def test_the_command_notices_the_launcher() -> None:
    command = (sys.executable, "-m", "taskla", "bench", "potrf", "-n", "200", "--nb", "50")
    done = mpiexec(2, *command, "--check", "--workers", "1", "--json", timeout=60)
    assert done.returncode == 0, done.stderr[-5000:]
    (row,) = (json.loads(line) for line in done.stdout.splitlines())
    assert row["status"] == "PASSED"
    assert row["messages"] > 0
