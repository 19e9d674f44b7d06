"""Checkpoint and restart on real ranks; the programs are in `mpi_checkpoint`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_engine_mpi import mpirun

PROGRAM = Path(__file__).with_name("mpi_checkpoint.py")
pytestmark = pytest.mark.xdist_group("mpi")


def result(ranks: int, program: str, folder: str | Path = "-") -> tuple[Any, str]:
    """What a program that goes to its end prints, checksums or errors, and what it says."""
    done = mpirun(ranks, PROGRAM, program, str(folder), timeout=60)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def killed(ranks: int, program: str, folder: Path, kill: str, number: int) -> list[str]:
    """Kill the last rank of a program; the checkpoints that are there then."""
    done = mpirun(ranks, PROGRAM, program, str(folder), kill, str(number), timeout=60)
    assert done.returncode != 0
    assert done.stdout == ""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a job of three ranks gives that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    found, said = result(3, "everything", folder)
    plain, _ = result(3, "everything")
    # what is summed up across ranks, the fifth, is summed up piece by piece
    assert found[:4] + found[5:] == plain[:4] + plain[5:]
    assert "resumed" not in said
    assert os.listdir(folder) == []
    return list(found)


@pytest.mark.parametrize(
    ("name", "run", "piece"),
    [("potrf", 0, 3), ("getrf", 2, 3), ("getrf_tntpiv", 3, 2), ("gemm", 4, 4)],
)
def test_a_killed_job_goes_on_with_the_same_bits(
    name: str, run: int, piece: int, tmp_path: Path, whole: list[str]
) -> None:
    iteration = 3 * (piece - 1)
    last = f"taskla-run-{run:04d}-iteration-{iteration:06d}"
    assert killed(3, "everything", tmp_path, name, piece)[-1] == last
    found, said = result(3, "everything", tmp_path)
    assert said.count("taskla:") == 1
    assert f"taskla: resumed {name} from iteration {iteration} of" in said
    assert found == whole
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def factor() -> Any:
    """The factor that two ranks compute without checkpoints."""
    return result(2, "potrf")[0]


@pytest.mark.parametrize(("kill", "number"), [("tile", 40), ("file", 2)])
def test_a_rank_killed_in_a_checkpoint_leaves_the_one_before_whole(
    kill: str, number: int, tmp_path: Path, factor: Any
) -> None:
    # rank 1 of 2 writes 25 of the 55 tiles, and flushes one file each time
    assert killed(2, "potrf", tmp_path, kill, number) == ["taskla-run-0000-iteration-000003"]
    found, said = result(2, "potrf", tmp_path)
    assert found == factor
    assert "resumed potrf from iteration 3 of 10" in said


def test_all_ranks_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    names = killed(2, "potrf", tmp_path, "potrf", 3)
    errors, _ = result(2, "other", tmp_path)
    assert len(errors) == 2
    assert all(error.startswith("ValueError") and "on other data" in error for error in errors)
    errors, _ = result(3, "potrf", tmp_path)
    assert len(errors) == 3
    assert all("another number of ranks, distribution" in error for error in errors)
    # damaged for one, it is used by none
    for name in names:
        (tmp_path / name / "rank-0001").write_bytes(b"")
    errors, said = result(2, "potrf", tmp_path)
    assert len(errors) == 2
    assert all("no checkpoint of run 0 is whole" in error for error in errors)
    assert said.count("rank-0001 has 0 bytes") == 2
