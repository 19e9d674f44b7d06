"""`taskla solve`: files in, a checked solution out, or one line that says why not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from click.testing import CliRunner, Result

from taskla import TiledMatrix
from taskla.cli import main, solve as solve_command
from taskla.routines import TYPES

N = 70


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["solve", *map(str, arguments)])


def solved(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def refused(*arguments: object) -> str:
    """The one line of a solve that fails."""
    result = run(*arguments)
    assert result.exit_code != 0
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def matrix(kind: str, dtype: str = "d") -> np.ndarray[Any, np.dtype[Any]]:
    return TiledMatrix.random((N, N), 16, TYPES[dtype], seed=3, kind=kind).to_array()  # type: ignore[arg-type]


def rhs(nrhs: int | None, dtype: str = "d") -> np.ndarray[Any, np.dtype[Any]]:
    B = TiledMatrix.random((N, nrhs or 1), 16, TYPES[dtype], seed=4).to_array()
    return B[:, 0] if nrhs is None else B


def write(path: Path, array: np.ndarray[Any, np.dtype[Any]]) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        TiledMatrix.from_array(array, 16).save(path)
    return path


def read(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    return TiledMatrix.load(path).to_array()


@pytest.mark.parametrize("dtype", "sdcz")
@pytest.mark.parametrize(("assume", "kind"), [("gen", "general"), ("pos", "spd")])
@pytest.mark.parametrize("nrhs", [None, 1, 5])
def test_x_solves_the_equation(
    tmp_path: Path, dtype: str, assume: str, kind: str, nrhs: int | None
) -> None:
    a, b = matrix(kind, dtype), rhs(nrhs, dtype)
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    row = solved(*files, "-o", tmp_path / "x.npy", "--assume-a", assume, "--nb", 16)
    x = np.load(tmp_path / "x.npy")
    assert x.shape == b.shape
    assert x.dtype == b.dtype
    eps = np.finfo(a.dtype).eps
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e4 * eps, atol=1e4 * eps)
    assert (row["n"], row["nrhs"], row["nb"], row["type"]) == (N, nrhs or 1, 16, dtype)
    assert row["op"] == {"gen": "gesv", "pos": "posv"}[assume]
    assert 0 < row["residual"] < 1
    assert row["time"] > 0


@pytest.mark.parametrize("of_a", ["a.npy", "a.mtx", "a"])
@pytest.mark.parametrize("of_b", ["b.npy", "b.mtx", "b"])
@pytest.mark.parametrize("of_x", ["x.npy", "x.mtx", "x"])
def test_all_files_go_together(tmp_path: Path, of_a: str, of_b: str, of_x: str) -> None:
    a, b = matrix("general"), rhs(2)
    files = write(tmp_path / of_a, a), write(tmp_path / of_b, b)
    solved(*files, "-o", tmp_path / of_x, "--nb", 20)
    np.testing.assert_allclose(read(tmp_path / of_x), np.linalg.solve(a, b), rtol=1e-10, atol=1e-12)
    # the inputs are as they were
    np.testing.assert_array_equal(read(files[0]), a)
    np.testing.assert_array_equal(read(files[1]), b)


def test_the_residual_is_hpls(tmp_path: Path) -> None:
    a, b = matrix("general"), rhs(3)
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    row = solved(*files, "-o", tmp_path / "x.npy")
    x = np.load(tmp_path / "x.npy")

    def norm(block: Any) -> Any:
        return np.linalg.norm(block, np.inf)

    scale = 2.0**-53 * (norm(a) * norm(x) + norm(b)) * N
    # another BLAS call rounds otherwise
    assert row["residual"] == pytest.approx(norm(a @ x - b) / scale, rel=0.5)


def test_a_vector_stays_one_only_where_the_format_has_vectors(tmp_path: Path) -> None:
    files = write(tmp_path / "a.npy", matrix("general")), write(tmp_path / "b.npy", rhs(None))
    for name in ("x.mtx", "x"):
        solved(*files, "-o", tmp_path / name)
        assert TiledMatrix.load(tmp_path / name).shape == (N, 1)
    assert scipy.io.mmread(tmp_path / "x.mtx").shape == (N, 1)


def test_types_are_promoted(tmp_path: Path) -> None:
    a, b = matrix("general", "s"), rhs(2, "z")
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    assert solved(*files, "-o", tmp_path / "x.npy")["type"] == "z"
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.linalg.solve(a, b), rtol=1e-9)
    integers = write(tmp_path / "i.npy", 7 * np.eye(N, dtype=int))
    assert solved(integers, files[1], "-o", tmp_path / "y.npy")["type"] == "z"
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), b / 7)


@pytest.mark.parametrize("uplo", ["lower", "upper"])
def test_a_folder_of_one_triangle_is_a_hermitian_matrix(tmp_path: Path, uplo: Any) -> None:
    a, b = matrix("spd", "z"), rhs(1, "z")
    TiledMatrix.from_array(a, 16, uplo=uplo).save(tmp_path / "a")
    files = tmp_path / "a", write(tmp_path / "b.npy", b)
    solved(*files, "-o", tmp_path / "x.npy", "--assume-a", "pos")
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.linalg.solve(a, b), rtol=1e-10)
    assert f"a: holds the {uplo} triangle of A only; --assume-a pos" in refused(
        *files, "-o", tmp_path / "y.npy"
    )


def test_tiles_of_several_formats_are_solved_with_in_the_type_of_the_matrix(tmp_path: Path) -> None:
    a = TiledMatrix.from_array(matrix("general"), 16, precision="fp64:1,fp16:rest")
    b = TiledMatrix.from_array(rhs(2), 16, precision="bf16")
    a.save(tmp_path / "a")
    b.save(tmp_path / "b")
    solved(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "x.npy")
    expected = np.linalg.solve(a.to_array(), b.to_array())
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=1e-10)
    solved(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "x")
    assert TiledMatrix.load(tmp_path / "x").mixed is None


@pytest.mark.parametrize("name", ["a.npy", "b.npy"])
def test_the_output_is_no_input(tmp_path: Path, name: str) -> None:
    a, b = matrix("general"), rhs(None)
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    (tmp_path / "link.npy").symlink_to(tmp_path / name)
    for output in (name, "link.npy"):
        line = refused(*files, "-o", tmp_path / output)
        assert f"{output}: is {name[0].upper()} itself; the output must be another file" in line
    np.testing.assert_array_equal(np.load(files[0]), a)
    np.testing.assert_array_equal(np.load(files[1]), b)


@pytest.mark.parametrize("name", ["x.txt", "x.npz", "x.npy.gz"])
def test_the_output_has_an_extension_that_is_known(tmp_path: Path, name: str) -> None:
    files = write(tmp_path / "a.npy", matrix("general")), write(tmp_path / "b.npy", rhs(None))
    assert "allowed: .npy, .mtx, and none or .tiles" in refused(*files, "-o", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_a_folder_in_the_place_of_the_output_is_named(tmp_path: Path) -> None:
    files = write(tmp_path / "a.npy", matrix("general")), write(tmp_path / "b.npy", rhs(None))
    (tmp_path / "x.npy").mkdir()
    line = refused(*files, "-o", tmp_path / "x.npy")
    assert line == f"Error: {tmp_path / 'x.npy'}: exists and is not a file; it is not replaced\n"


@pytest.mark.parametrize(("dtype", "nb"), [("s", 512), ("d", 256), ("z", 256)])
def test_the_tile_size_is_chosen_for_the_type_that_is_computed_in(
    tmp_path: Path, dtype: str, nb: int
) -> None:
    a, b = matrix("general", "s"), rhs(2, dtype)
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    assert solved(*files, "-o", tmp_path / "x.npy")["nb"] == nb
    write(tmp_path / "a", a)
    assert solved(tmp_path / "a", files[1], "-o", tmp_path / "y.npy")["nb"] == 16


@pytest.mark.parametrize("n", [0, 1])
def test_small_systems_are_solved_too(tmp_path: Path, n: int) -> None:
    files = write(tmp_path / "a.npy", 2 * np.eye(n)), write(tmp_path / "b.npy", np.ones(n))
    row = solved(*files, "-o", tmp_path / "x.npy")
    assert row["residual"] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.full(n, 0.5))


def test_for_people_it_is_a_table(tmp_path: Path) -> None:
    files = write(tmp_path / "a.npy", matrix("general")), write(tmp_path / "b.npy", rhs(1))
    heading, line = run(*files, "-o", tmp_path / "x.npy", "--workers", 1).stdout.splitlines()
    cells = dict(zip(heading.split(), line.split(), strict=True))
    assert cells["workers"] == "1"
    assert float(cells["residual"]) < 1
    assert cells["output"] == str(tmp_path / "x.npy")


# -- what cannot be solved -------------------------------------------------------------------------


def spoilt(how: str) -> tuple[Any, Any]:
    a, b = matrix("spd"), rhs(None)
    if how == "nan":
        a[2, 50] = np.nan
    elif how == "inf":
        b[33] = -np.inf
    elif how == "not positive definite":
        a[40, 40] = -1
    elif how == "singular":
        a[:, 8] = 0
    elif how == "not square":
        a = a[:, :9]
    elif how == "too short":
        b = b[:-1]
    elif how == "not hermitian":
        a[3, 60] += 1000
    elif how == "three-dimensional":
        a = np.zeros((2, 2, 2))
    elif how == "words":
        a = np.array([["a"]])
    return a, b


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("nan", [], "a.npy: entry (2, 50), counted from 0, is nan; all must be finite"),
        ("inf", [], "b.npy: entry (33, 0), counted from 0, is -inf; all must be finite"),
        ("nan", ["--no-check-finite"], "the residual is nan, not below 16, so X is not kept"),
        ("not positive definite", ["--assume-a", "pos"], "41-th leading minor of the array is not"),
        ("singular", [], "singular matrix: diagonal element 9 is exactly zero"),
        ("not square", [], "a.npy: A must be square, not 70 x 9"),
        ("too short", [], "b.npy: B must have 70 rows, as A has, not 69"),
        ("not hermitian", ["--assume-a", "pos"], "so X is not kept: is A Hermitian?"),
        ("three-dimensional", [], "a.npy"),
        ("words", [], "a.npy"),
    ],
)
def test_why_not_is_said_in_one_line_and_nothing_is_written(
    tmp_path: Path, how: str, options: list[str], message: str
) -> None:
    a, b = spoilt(how)
    files = write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b)
    (tmp_path / "x.npy").write_text("older")
    line = refused(*files, "-o", tmp_path / "x.npy", "--nb", 16, *options)
    assert message in line
    assert (tmp_path / "x.npy").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy", "x.npy"]


def test_what_is_not_a_matrix_file_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.npy", matrix("general"))
    text = tmp_path / "notes.txt"
    text.write_text("no matrix")
    damaged = tmp_path / "damaged.npy"
    damaged.write_bytes(good.read_bytes()[:1000])
    for path in (text, damaged):
        assert str(path) in refused(path, good, "-o", tmp_path / "x.npy")
        assert str(path) in refused(good, path, "-o", tmp_path / "x.npy")
    assert "no such folder" in refused(good, good, "-o", tmp_path / "nowhere" / "x.npy")
    assert "does not exist" in refused(tmp_path / "b.npy", good, "-o", tmp_path / "x.npy")


def test_a_vector_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "a.npy", matrix("general")), write(tmp_path / "b.npy", rhs(None))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(solve_command.os, "fsync", full)
    assert "No space left on device" in refused(*files, "-o", tmp_path / "x.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
