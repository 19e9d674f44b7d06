"""The MPI engine on real ranks: what it computes, what it sends, how it ends.

The programs are in `mpi_ranks`; each checks itself on every rank and prints a line on rank 0.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import taskla as tla

PROGRAMS = Path(__file__).with_name("mpi_ranks.py")
# Ranks of several runs at once would wait for one another's cores.
pytestmark = pytest.mark.xdist_group("mpi")


def mpirun(ranks: int, *program: str | Path, timeout: int) -> subprocess.CompletedProcess[str]:
    """Run a program on so many ranks."""
    own = shutil.which("mpirun", path=str(Path(sys.executable).parent))
    command = own or shutil.which("mpirun")
    if command is None:
        assert "CI" not in os.environ, "CI has an MPI"
        pytest.skip("there is no mpirun here")
    flags = ["--oversubscribe"]
    if os.geteuid() == 0:
        flags.append("--allow-run-as-root")
    return subprocess.run(
        [command, *flags, "-n", str(ranks), sys.executable, *program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )


def found(ranks: int, program: str, timeout: int = 60) -> dict[str, Any]:
    """What a program that succeeds prints."""
    done = mpirun(ranks, PROGRAMS, program, timeout=timeout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(("ranks", "maps"), [(2, 6), (3, 5), (4, 3), (6, 4)])
def test_every_algorithm_gives_what_one_process_gives_and_sends_what_was_planned(
    ranks: int, maps: int
) -> None:
    # 21 algorithms and their variants; 5 sizes in one type and one in four, or less
    runs = 9 if ranks < 4 else 3
    assert found(ranks, "algorithms", timeout=280) == {"checked": 21 * runs * maps}


@pytest.mark.parametrize(
    ("ranks", "maps"),
    [(2, ["2.5d-2dbc"]), (4, ["2.5d-2dbc", "2.5d-sbc"]), (6, ["2.5d-2dbc"])],
)
def test_slices_add_up_their_updates(ranks: int, maps: list[str]) -> None:
    assert found(ranks, "sliced", timeout=120) == {"maps": maps}


@pytest.mark.parametrize("ranks", [2, 3])
def test_final_tiles_are_read_in_place_on_one_machine(ranks: int) -> None:
    assert set(found(ranks, "shared").values()) == {True}


@pytest.mark.parametrize("ranks", [2, 3])
def test_norms_are_the_same_on_all_ranks(ranks: int) -> None:
    assert found(ranks, "norms") == {"ranks": ranks}


@pytest.mark.parametrize("ranks", [2, 3])
def test_matrices_are_shared_out_and_gathered(ranks: int) -> None:
    errors = found(ranks, "matrices")["errors"]
    assert [error[:40] for error in errors] == [
        "tile (1, 0) belongs to rank 1, not 0",
        "copy is False; a rank copies its tiles o",
    ]


@pytest.mark.parametrize("ranks", [2, 6])
def test_a_minor_that_is_not_positive_is_named_on_all_ranks(ranks: int) -> None:
    assert found(ranks, "indefinite") == {"ranks": ranks}


def test_an_error_among_messages_reaches_all_ranks() -> None:
    result = found(3, "broken")
    assert result["kinds"] == ["RemoteError", "OSError", "RemoteError"]
    assert result["words"][0] == "rank 1: OSError: the network is down"


def test_functions_run_on_a_rank_and_mpi_may_end_before_the_program() -> None:
    assert found(2, "mapped") == {"notes": ["in call 1 of 2 of divmod"]}


def test_ranks_that_differ_are_told_so() -> None:
    result = found(3, "different")
    assert result["alike"]
    assert [words[:43] for words in result["words"]] == [
        "ranks [2] run something else than rank 0 (h"
    ] * 4


@pytest.mark.parametrize("how", ["exit", "run", "array"])
def test_nobody_waits_for_a_rank_that_has_left(how: str) -> None:
    done = mpirun(3, PROGRAMS, "gone", how, timeout=40)
    assert done.returncode != 0
    assert "rank 1 has left the engine's `with`, or ended" in done.stderr


@pytest.mark.parametrize(("program", "cause"), [("uncaught", "the first cause"), ("killed", "")])
def test_a_rank_that_fails_ends_the_job(program: str, cause: str) -> None:
    # well below the time that the others would wait
    done = mpirun(3, PROGRAMS, program, timeout=40)
    assert done.returncode != 0
    assert cause in done.stderr


def test_one_rank_is_like_threads() -> None:
    # without mpirun there is one
    code = """
import numpy as np
import taskla as tla
A = tla.TiledMatrix.random((90, 90), nb=16, kind="spd", uplo="lower")
a = A.to_array(fill="symmetric")
with tla.engine("mpi", workers=2) as engine:
    tla.potrf(A)
    piv = tla.getrf(tla.TiledMatrix.random((50, 50), nb=16))
    assert tla.cholesky(a).shape == (90, 90)
L = A.to_array()
np.testing.assert_allclose(L @ L.T, a, atol=1e-10)
assert (engine.rank, engine.ranks, engine.messages) == (0, 1, 0)
assert repr(engine).startswith("MPIEngine(ranks=1, workers=2")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_mpi4py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"taskla\[mpi\]"):
        tla.engine("mpi")


def test_a_distribution_needs_its_ranks() -> None:
    with pytest.raises(ValueError, match="there is one rank"):
        tla.TiledMatrix.random((8, 8), nb=4, distribution=tla.distributions.get("row", ranks=2))
    A = tla.TiledMatrix.random((8, 8), nb=4, distribution=tla.distributions.get("row", ranks=1))
    assert A.distribution is None
    assert A.own_tiles() == [(0, 0), (1, 0), (0, 1), (1, 1)]
    np.testing.assert_array_equal(A.owner_map, np.zeros((2, 2)))


def test_the_program_of_the_page_runs_on_ranks(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "mpi.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^\$ mpirun -n (\d+) python program.py$", page, re.MULTILINE)
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    done = mpirun(int(command), program, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    *numbers, messages = done.stdout.replace("[", " ").replace("]", " ").split()
    assert int(messages) > 0
    # the same on one
    alone = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=True
    )
    *expected, none = alone.stdout.replace("[", " ").replace("]", " ").split()
    assert none == "0"
    np.testing.assert_allclose(np.array(numbers, float), np.array(expected, float), rtol=1e-6)
