"""Distributed matrices on real ranks: files, other owners, and what happens when one rank fails.

The programs are in `mpi_matrices`; each checks itself on every rank and prints a line on rank 0.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_engine_mpi import mpirun

from taskla import TiledMatrix, distributions
from taskla.engines.mpi_collectives import _rounds

PROGRAMS = Path(__file__).with_name("mpi_matrices.py")
pytestmark = pytest.mark.xdist_group("mpi")

# 7 shapes of full matrices, 5 of each triangle, 4 types
CASES = (7 + 5 + 5) * 4


def found(ranks: int, program: str, folder: Path, timeout: int = 90) -> dict[str, Any]:
    """What a program that succeeds prints."""
    done = mpirun(ranks, PROGRAMS, program, folder, timeout=timeout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# a third of the cases each, as folder, .npy and .mtx
@pytest.mark.parametrize(("ranks", "checked"), [(2, 66), (3, 69), (4, 69)])
def test_ranks_write_the_bytes_that_one_process_writes_and_read_them(
    tmp_path: Path, ranks: int, checked: int
) -> None:
    assert found(ranks, "saved_and_loaded", tmp_path) == {"checked": checked}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_keep_the_formats_of_tiles_in_the_files_of_one_process(
    tmp_path: Path, ranks: int
) -> None:
    result = found(ranks, "formats", tmp_path)
    assert result["checked"] == 6
    *others, own = result["damaged"]
    assert own.startswith(f"ValueError: {tmp_path}/a.tiles/tile_{ranks - 1:04d}_")
    assert "holds uint8 of shape (9,)" in own
    assert others == [f"RemoteError: rank {ranks - 1}: {own}"] * (ranks - 1)


def test_what_ranks_wrote_is_read_by_one_process_and_by_other_ranks(tmp_path: Path) -> None:
    assert found(3, "left", tmp_path) == {"written": 24}
    for path in sorted(tmp_path.iterdir()):
        dtype, _, name = path.stem.partition("-")
        uplo = None if name == "None" else name
        expected = TiledMatrix.random((61, 61), 8, dtype, uplo, seed=7).to_array()
        assert TiledMatrix.load(path, 8, uplo=uplo).to_array().tobytes() == expected.tobytes()
    for ranks in (2, 4):
        assert found(ranks, "found", tmp_path) == {"read": 24}


def test_a_file_that_several_machines_write_is_mapped_by_one_rank(tmp_path: Path) -> None:
    # made and written; the last matrices, one process's, are rank 0's as well
    assert found(3, "another_machine", tmp_path)["maps"] == [3 * 2 + 3 * 2, 0, 0]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_each_tile_whose_owner_changes_travels_once(tmp_path: Path, ranks: int) -> None:
    assert found(ranks, "redistributed", tmp_path) == {"checked": CASES}


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_fails_on_one_rank_fails_on_all_and_leaves_what_was_there(
    tmp_path: Path, ranks: int
) -> None:
    raised = found(ranks, "failures", tmp_path)
    culprits = {"load": 1, "put": 1, "to_array": ranks - 1, "redistribute": ranks - 1}
    assert len(raised) == 7 + len(culprits)
    for name, errors in raised.items():
        culprit = culprits[name] if name in culprits else int(name.split()[1])
        cause = "ValueError: no room" if name == "put" else "OSError: disk full"
        expected = [f"RemoteError: rank {culprit}: {cause}"] * ranks
        expected[culprit] = cause
        assert errors == expected, name


def test_what_a_distributed_matrix_cannot_do_is_said(tmp_path: Path) -> None:
    errors = found(2, "refusals", tmp_path)["errors"]
    allowed = "each rank copies its tiles of a file, so only True and False are allowed"
    outside = (
        "ValueError: the matrix is distributed over 2 ranks, and here is 1: "
        "do this inside of `with tla.engine('mpi')`"
    )
    for error, start in zip(
        errors,
        [
            f"ValueError: mmap is 'r+'; {allowed}",
            f"ValueError: mmap is 'r'; {allowed}",
            f"FileNotFoundError: {tmp_path}/none.npy: no such file",
            f"ValueError: {tmp_path}/a.csv: extension '.csv' is not known",
            "ValueError: distribution 'nonsense' does not exist",
            "ValueError: distribution is Distribution(name='row', ranks=3, grid=(3, 1)); "
            "there are 2 ranks",
            "ValueError: copy is False; tiles that are distributed or of several formats "
            "are copied",
            outside,
            outside,
        ],
        strict=True,
    ):
        assert error.startswith(start)


def test_every_way_to_make_a_matrix_takes_a_distribution(tmp_path: Path) -> None:
    assert found(3, "made", tmp_path) == {"ok": True}


def test_the_program_of_the_page_runs_on_ranks(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "mpi.md").read_text(encoding="utf-8")
    section = page.partition("\n## Data\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    program = tmp_path / "program.py"
    before = f"import os\nimport taskla as tla\nos.chdir({str(tmp_path)!r})\n"
    program.write_text(before + code, encoding="utf-8")
    done = mpirun(3, program, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    a = TiledMatrix.random((1000, 1000), 125, kind="spd", seed=2).to_array()
    factor = np.load(tmp_path / "L.npy")
    np.testing.assert_allclose(factor @ factor.T, a, rtol=1e-12, atol=1e-11)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["A.tiles", "L.npy", "program.py"]


def test_nobody_has_more_than_the_limit_in_a_round() -> None:
    loads = [(("from", k % 3), ("to", k % 5)) for k in range(60)]
    sizes = [8 if k % 7 else 40 for k in range(60)]
    rounds = _rounds(list(zip(loads, sizes, strict=True)), 24)
    assert [k for chosen in rounds for k in chosen] == list(range(60))
    for chosen in rounds:
        for who in {key for k in chosen for key in loads[k]}:
            held = [sizes[k] for k in chosen if who in loads[k]]
            assert sum(held) <= 24 or len(held) == 1
    assert len(rounds) < 30
    assert _rounds([], 24) == []


def test_on_one_rank_a_redistributed_matrix_is_a_copy() -> None:
    A = TiledMatrix.random((9, 7), 4)
    B = A.redistribute("row")
    B.tile(0, 0).array[...] = 0
    assert B.distribution is None
    assert (A.tile(0, 0).array != 0).all()
    np.testing.assert_array_equal(B.tile(2, 1).array, A.tile(2, 1).array)
    with pytest.raises(ValueError, match="there is one rank"):
        A.redistribute(distributions.get("row", ranks=2))
