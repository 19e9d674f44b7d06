"""Tiles of several formats: what tasks compute in, what is converted, how accurate it is."""

from __future__ import annotations

import gc
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from matern import covariance, morton_grid
from test_engine_mpi import mpirun

import taskla as tla
from taskla import PrecisionMap, kernels, programs
from taskla.algorithms.gemm import gemm
from taskla.algorithms.potrf import potrf
from taskla.engines.threads import ThreadsEngine
from taskla.formats import FORMATS
from taskla.graph import TaskGraph
from taskla.linalg import cho_factor, cho_solve, cholesky, lu, lu_factor, matmul, symm
from taskla.mixed_precision import mixed
from taskla.operations import Access
from taskla.precision import NAMES
from taskla.product_formats import product_tags
from taskla.programs import Layout
from taskla.traces import Recorder

DTYPES = ["float32", "float64", "complex64", "complex128"]
LOW = [name for name in NAMES if name not in ("fp64", "fp32")]
F8 = np.dtype("f8")


def norm(a: Any) -> float:
    return float(np.linalg.norm(a))


def spd(n: int, dtype: str = "float64", seed: int = 0) -> Any:
    """A positive definite matrix whose entries decay off the diagonal."""
    at = np.arange(n)
    a = np.exp(-np.abs(np.subtract.outer(at, at)) / 9).astype(dtype)
    if a.dtype.kind == "c":
        phase = np.exp(1j * np.random.default_rng(seed).uniform(0, 6, n)).astype(dtype)
        a = phase[:, None] * a * phase.conj()
    return a + np.eye(n, dtype=dtype)


def product(c: Any, uplo: str) -> Any:
    return c @ c.conj().T if uplo == "lower" else c.conj().T @ c


# -- the program -----------------------------------------------------------------------------------


def cholesky_graph(names: Any, n: int = 0) -> TaskGraph:
    """The program of a Cholesky factorisation of tiles of order 4 with these formats."""
    codes = np.array([[NAMES.index(name) for name in row] for row in names], np.int8)
    n = n or 4 * len(codes)
    graph = programs.program(potrf, (Layout(n, n, 4, F8, "A"),))
    return mixed(graph, {0: codes}).graph


def tasks(graph: TaskGraph) -> list[str]:
    """Each task in words: its operation and tag, and the tiles that it accesses."""
    words = []
    for task in range(graph.n):
        kind = graph.kinds[graph.kind[task]]
        tiles = []
        for access in range(graph.indptr[task], graph.indptr[task + 1]):
            grid = graph.grid_of(int(graph.tiles[access]))
            i, j = (int(k) for k in grid.coordinates(graph.tiles[access]))
            tiles.append(f"{grid.name}({i},{j})")
        words.append(f"{kind.operation}/{kind.precision} {' '.join(tiles)}")
    return words


def test_tags_follow_from_the_tiles_written_and_operands_are_converted_once() -> None:
    """potrf and syrk are in fp64, trsm not below fp32, gemm in the format of its result."""
    names = [["fp64", "", ""], ["fp32", "fp64", ""], ["fp16", "fp16", "fp64"]]
    names = [[name or "fp64" for name in row] for row in names]
    assert tasks(cholesky_graph(names)) == [
        "potrf/fp64 A:fp64(0,0)",
        # one copy for both tiles below
        "lag2/fp32 A:fp64(0,0) A>fp32(0,0)",
        "trsm/fp32 A>fp32(0,0) A:fp32(1,0)",
        "trsm/fp32 A>fp32(0,0) A:fp16(2,0)",
        "round/fp16 A:fp16(2,0)",
        "lag2/fp16 A:fp32(1,0) A>fp16(1,0)",
        # widened where they are read
        "herk/fp64 A:fp32(1,0) A:fp64(1,1)".replace("herk", "syrk"),
        "syrk/fp64 A:fp16(2,0) A:fp64(2,2)",
        # its own operand fits, the other was rounded
        "gemm/fp16 A:fp16(2,0) A>fp16(1,0) A:fp16(2,1)",
        "potrf/fp64 A:fp64(1,1)",
        "lag2/fp32 A:fp64(1,1) A>fp32(1,1)",
        "trsm/fp32 A>fp32(1,1) A:fp16(2,1)",
        "round/fp16 A:fp16(2,1)",
        "syrk/fp64 A:fp16(2,1) A:fp64(2,2)",
        "potrf/fp64 A:fp64(2,2)",
    ]


def test_a_program_of_one_wide_format_has_no_conversions() -> None:
    graph = programs.program(potrf, (Layout(40, 40, 4, F8, "A"),))
    again = mixed(graph, {0: np.zeros((10, 10), np.int8)}).graph
    assert again.counts() == graph.counts()
    # in the same order, and with the same calls to be fused
    assert (again.tiles == graph.tiles).all()
    assert (again.calls == graph.calls).all()
    assert (again.iteration == graph.iteration).all()


@pytest.mark.parametrize("seed", range(8))
def test_every_operand_has_the_numbers_that_its_task_can_take(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = rng.choice(NAMES, size=(6, 6))
    graph = cholesky_graph(names)
    copies = set()
    rounded: dict[int, bool] = {}
    for task in range(graph.n):
        kind = graph.kinds[graph.kind[task]]
        begin, end = graph.indptr[task], graph.indptr[task + 1]
        for tile, mode in zip(graph.tiles[begin:end].tolist(), graph.modes[begin:end], strict=True):
            grid = graph.grid_of(tile)
            assert grid.format is not None
            if mode != Access.R:
                # of 16 and 8 bits it is not rounded before the last of a run of updates
                low = FORMATS[grid.format].t < 24
                rounded[tile] = kind.operation in ("round", "lag2") or not low
                continue
            # what is read was rounded after it had been written
            assert rounded.get(tile, True)
            assert kind.precision is not None
            wanted, given = FORMATS[kind.precision], FORMATS[grid.format]
            if kind.operation == "lag2":
                assert (tile, kind.precision) not in copies
                copies.add((tile, kind.precision))
            elif wanted.real == np.float32:
                assert given.t <= wanted.t
                assert given.max <= wanted.max
    assert copies


@pytest.mark.parametrize(("tol", "shares"), [(1e-4, (9.2, 30.8, 60.1)), (1e-8, (32.9, 47.9, 19.2))])
def test_shares_of_flops_by_format(tol: float, shares: tuple[float, ...]) -> None:
    n = 1024
    f = covariance(morton_grid(32), 0.03)
    A = tla.TiledMatrix.from_function(f, (n, n), 64, uplo="lower", precision=f"adaptive:{tol}")
    graph = cholesky_graph(A.format_map, 4 * A.mt)
    tags = np.array([kind.precision for kind in graph.kinds])[graph.kind]
    for name, share in zip(("fp64", "fp32", "fp16"), shares, strict=True):
        part = graph.flops()[tags == name].sum() / graph.flops().sum()
        # of tiles of order 4 panels have a larger share than of 64
        assert 100 * part == pytest.approx(share, abs=2.5)


def test_products_are_summed_up_apart_where_they_are_in_less_than_the_result() -> None:
    layouts = tuple(Layout(8, 8, 4, F8, name) for name in "ABC")
    graph = programs.program(gemm, layouts, (1.0, 0.5))
    tags = np.where(np.arange(graph.n) < 4, NAMES.index("fp64"), NAMES.index("fp32"))
    words = tasks(mixed(graph, {}, tags.astype(np.int8)).graph)
    assert [word for word in words if "C" in word and word.endswith("(0,0)")] == [
        "gemm/fp64 A(0,0) B(0,0) C(0,0)",
        "gemm/fp32 A>fp32(0,1) B>fp32(1,0) C+fp32(0,0)",
        "geadd/fp64 C+fp32(0,0) C(0,0)",
    ]
    low = np.full(graph.n, NAMES.index("bf16"), np.int8)
    counts = mixed(graph, {}, low).graph.counts()
    assert counts == {"lag2": 8, "lascl": 4, "gemm": 8, "geadd": 4}


def test_products_get_the_lowest_format_that_the_rule_allows() -> None:
    layouts = (Layout(8, 12, 4, F8, "A"), Layout(12, 8, 4, F8, "B"), Layout(8, 8, 4, F8, "C"))
    graph = programs.program(gemm, layouts, (1.0, 0.0))
    rng = np.random.default_rng(3)
    norms = {0: 10.0 ** rng.uniform(-6, 0, (2, 3)), 6: 10.0 ** rng.uniform(-6, 0, (3, 2))}
    tags = product_tags(graph, norms, PrecisionMap("adaptive", tol=1e-8))
    total = norm(norms[0]) * norm(norms[6])
    found = set()
    for task, tag in enumerate(tags.tolist()):
        a, b, _ = graph.tiles[3 * task : 3 * task + 3].tolist()
        (i, k), (_, j) = (a % 2, a // 2), ((b - 6) % 3, (b - 6) // 3)
        size = norms[0][i, k] * norms[6][k, j] * 3 * 2 / total
        sums = np.sqrt(12) * FORMATS["fp32"].unit_roundoff
        error = {f: (2 * FORMATS[f].unit_roundoff + sums) * size for f in ("fp32", "fp16")}
        allowed = [f for f in error if error[f] <= 1e-8]
        assert NAMES[tag] == ["fp64", *allowed][-1]
        found.add(NAMES[tag])
    assert found == {"fp64", "fp32", "fp16"}


# -- accuracy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-8])
def test_a_tolerance_is_a_promise(beta: float, tol: float) -> None:
    n = 1024
    f = covariance(morton_grid(32), beta)
    a = f(np.arange(n), np.arange(n))
    A = tla.TiledMatrix.from_function(f, (n, n), 64, uplo="lower", precision=f"adaptive:{tol}")
    assert norm(A.to_array(fill="symmetric") - a) < tol * norm(a)
    tla.potrf(A, estimate=True)
    error = norm(product(A.to_array(), "lower") - a) / norm(a)
    assert error <= 3 * tol
    # low precision was used, and shows
    assert error > 1e-12
    assert A.accuracy is not None
    assert A.accuracy.kept
    assert 0.4 < A.accuracy.error / error < 2


def test_the_jittered_grid_of_the_brief() -> None:
    """Storage, backward error and log det of n=4096, beta .03: .382, 1.3e-5, 1.8e-8 at 1e-4."""
    rng = np.random.default_rng(0)
    points = morton_grid(64)
    f = covariance(points + rng.uniform(-0.4, 0.4, points.shape) / 64, 0.03)
    at = np.arange(4096)
    a = f(at, at)
    exact = 2 * np.log(np.diag(scipy.linalg.cholesky(a))).sum()
    for tol, storage, error, determinant in [
        (1e-4, 0.382, 1.3e-5, 1.8e-8),
        (1e-7, 0.445, 3.1e-8, 2e-10),
    ]:
        A = tla.TiledMatrix.from_array(a, 256, "lower", precision=f"adaptive:{tol}")
        assert A.nbytes / (136 * 256**2 * 8) == pytest.approx(storage, abs=0.02)
        tla.potrf(A)
        L = A.to_array()
        assert norm(L @ L.T - a) / norm(a) == pytest.approx(error, rel=0.5)
        logdet = 2 * np.log(np.diag(L)).sum()
        assert abs(logdet - exact) < 10 * determinant * abs(exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("uplo", ["lower", "upper"])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 61])
def test_cholesky_of_every_type_and_size(dtype: str, uplo: str, n: int) -> None:
    a = spd(n, dtype)
    unit = FORMATS["fp16"].unit_roundoff
    c = cholesky(a, lower=uplo == "lower", nb=8, precision="fp64:1,fp16:rest")
    assert c.dtype == a.dtype
    if n:
        assert norm(product(c, uplo) - a) < 10 * unit * norm(a)
        assert (np.triu(c, 1) if uplo == "lower" else np.tril(c, -1)).any() == False  # noqa: E712
    if n > 8:
        assert norm(product(c, uplo) - a) > unit / 100 * norm(a)


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_of_the_size_of_the_format(name: str) -> None:
    a = spd(300)
    c = cholesky(a, lower=True, nb=50, precision=name)
    error = norm(product(c, "lower") - a) / norm(a)
    unit = FORMATS[name].unit_roundoff
    assert error < 10 * unit
    # a task that ran in another precision would show
    assert error > unit / 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(61, 61), (61, 37), (37, 61), (8, 8), (5, 5)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "adaptive:1e-3"])
def test_lu_of_every_type_and_shape(dtype: str, shape: tuple[int, int], precision: str) -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=shape).astype(dtype)
    if a.dtype.kind == "c":
        a = a + (1j * rng.normal(size=shape)).astype(dtype)
    factors, piv = lu_factor(a, nb=8, precision=precision)
    assert factors.dtype == a.dtype
    p, left, right = lu(a, nb=8, precision=precision, p_indices=True)
    assert norm(left[p] @ right - a) < (1e-4 if precision == "fp32" else 3e-2) * norm(a)
    order = np.arange(shape[0])
    for i, k in enumerate(piv):
        order[[i, k]] = order[[k, i]]
    assert (order[p] == np.arange(shape[0])).all()


@pytest.mark.parametrize("pivot", ["partial", "tournament", "none"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_lu_keeps_a_tolerance(pivot: Any, tol: float) -> None:
    n = 256
    at = np.arange(n)
    a = np.random.default_rng(2).normal(size=(n, n))
    a *= np.exp(-np.abs(np.subtract.outer(at, at)) / 20)
    if pivot == "none":
        a += 8 * np.eye(n)
    by = "tile" if pivot == "none" else "column"
    A = tla.TiledMatrix.from_array(a, 16, precision=PrecisionMap("adaptive", tol=tol, by=by))
    piv = tla.getrf(A, pivot, estimate=True)
    factors = A.to_array()
    order = np.arange(n)
    for i, k in enumerate(piv):
        order[[i, k]] = order[[k, i]]
    residual = a[order] - (np.tril(factors, -1) + np.eye(n)) @ np.triu(factors)
    assert norm(residual) <= 3 * tol * norm(a)
    assert A.accuracy is not None
    assert A.accuracy.kept
    assert 0.4 < A.accuracy.error / (norm(residual) / norm(a)) < 2
    assert len(np.unique(A.format_map)) > 1 or by == "column"


def test_rows_do_not_move_to_tiles_that_are_too_rough_for_them() -> None:
    A = tla.TiledMatrix.random((40, 40), 8, precision="adaptive:1e-4")
    with pytest.raises(ValueError, match=r"use PrecisionMap\(..., by='column'\), or pivot='none'"):
        tla.getrf(A)
    tla.getrf(tla.TiledMatrix.random((40, 40), 8, kind="dominant", precision="fp32:1,bf16:rest"))
    tla.getrf(tla.TiledMatrix.random((8, 8), 8, precision="adaptive:1e-4"))


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_keep_a_tolerance(tol: float, dtype: str) -> None:
    rng = np.random.default_rng(3)
    a = (rng.normal(size=(60, 90)) * np.geomspace(1, 1e-6, 90)).astype(dtype)
    b = rng.normal(size=(90, 40)).astype(dtype)
    c = matmul(a, b, nb=16, precision=f"adaptive:{tol}")
    assert c.dtype == a.dtype
    assert norm(c - a.astype("c16") @ b) <= 3 * tol * norm(a) * norm(b)
    s = spd(60, dtype).astype(dtype)
    s = s.real.astype(dtype)
    x = symm(s, a, nb=16, precision=f"adaptive:{tol}", alpha=2.0, lower=False)
    assert norm(x - 2 * (s.astype("c16") @ a)) <= 3 * tol * 2 * norm(s) * norm(a)


@pytest.mark.parametrize("name", ["fp32", *LOW])
def test_products_in_one_format(name: str) -> None:
    """The relative error for U[-1, 1] is .53 of the unit roundoff."""
    rng = np.random.default_rng(4)
    a, b = rng.uniform(-1, 1, (2, 512, 512))
    error = norm(matmul(a, b, nb=128, precision=name) - a @ b) / norm(a @ b)
    if name != "fp32":
        assert 0.45 < error / FORMATS[name].unit_roundoff < 0.6
    else:
        assert error < 10 * FORMATS[name].unit_roundoff


def test_a_product_scales_and_adds_what_is_there() -> None:
    rng = np.random.default_rng(5)
    a, b, c = rng.normal(size=(3, 40, 40))
    for beta, start in ((0.5, c), (0.0, np.full((40, 40), np.nan))):
        A, B, C = (tla.TiledMatrix.from_array(x, 16, copy=True) for x in (a, b, start))
        tla.gemm(-2.0, A, B, beta, C, transa="T", precision="fp32")
        expected = -2 * a.T @ b + (beta * c if beta else 0)
        np.testing.assert_allclose(C.to_array(), expected, atol=1e-4)


def test_factors_of_several_formats_solve() -> None:
    a = spd(90)
    b = np.random.default_rng(6).normal(size=(90, 3))
    factor = cho_factor(a, nb=16, precision="adaptive:1e-6")
    x = cho_solve(factor, b)
    np.testing.assert_allclose(a @ x, b, atol=1e-4)
    A = tla.TiledMatrix.from_array(a, 16, "lower", precision="adaptive:1e-6")
    B = tla.TiledMatrix.from_array(b, 16, copy=True)
    tla.posv(A, B)
    np.testing.assert_allclose(a @ B.to_array(), b, atol=1e-4)
    assert (tla.potri(A).to_array(fill="symmetric") @ a).trace() == pytest.approx(90, abs=1e-3)


def test_a_minor_that_is_not_positive_definite_is_named() -> None:
    a = spd(50)
    a[30, 30] = -1
    with pytest.raises(np.linalg.LinAlgError, match="31-th leading minor"):
        cholesky(a, nb=8, precision="adaptive:1e-4")


def test_any_number_of_workers_and_any_policy_give_the_same_bits() -> None:
    a = spd(200)
    results = set()
    for workers, policy in ((1, "lws"), (2, "prio"), (3, "lws")):
        with tla.engine("threads", workers=workers, policy=policy):
            results.add(cholesky(a, nb=16, precision="fp64:1,fp32:2,bf16:rest").tobytes())
    assert len(results) == 1


# -- the matrix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("uplo", [None, "lower", "upper"])
def test_tiles_hold_the_numbers_of_their_format(dtype: str, name: str, uplo: Any) -> None:
    rng = np.random.default_rng(7)
    a = rng.normal(size=(21, 21)).astype(dtype)
    A = tla.TiledMatrix.from_array(a, 8, uplo, precision=name)
    part = {None: a, "lower": np.tril(a), "upper": np.triu(a)}[uplo]
    unit = FORMATS[name].unit_roundoff
    got = A.to_array()
    assert got.dtype == a.dtype
    assert np.abs(got - part).max() <= unit * np.abs(part).max() * (1 if name != "fp64" else 0)
    # again the same, of a copy too
    assert A.copy().to_array().tobytes() == got.tobytes()
    assert A.with_precision(name).to_array().tobytes() == got.tobytes()
    assert A.astype(dtype).to_array().tobytes() == got.tobytes()
    assert A.astype(dtype).mixed is None
    entries = A.layout.entries
    size = FORMATS[name].nbytes * (2 if a.dtype.kind == "c" else 1)
    assert A.nbytes == entries * min(size, a.dtype.itemsize)
    assert A.mixed is not None
    assert sum(A.nbytes_by_format().values()) == A.nbytes


def test_a_tile_of_a_narrow_range_is_scaled() -> None:
    a = np.full((4, 4), 1e-7)
    a[:2, :2] = 1e9
    A = tla.TiledMatrix.from_array(a, 2, precision="fp16")
    np.testing.assert_allclose(A.to_array(), a, rtol=FORMATS["fp16"].unit_roundoff)


def test_tiles_can_be_set_saved_and_loaded(tmp_path: Path) -> None:
    a = np.random.default_rng(8).normal(size=(9, 9))
    A = tla.TiledMatrix.from_array(a, 4, precision="fp64:1,bf16:rest")
    A.put(0, 1, np.full((4, 4), 1 + 2.0**-9))
    assert (A.tile(0, 1).array == 1).all()
    assert not A.tile(0, 1).array.flags.writeable
    for name in ("a.npy", "a.tiles", "a.mtx"):
        A.save(tmp_path / name)
        B = tla.TiledMatrix.load(tmp_path / name, 4)
        assert B.dtype == A.dtype
        assert (B.to_array() == A.to_array()).all()
    with pytest.raises(IndexError):
        A.tile(3, 0)
    with pytest.raises(ValueError, match="copy is False"):
        A.to_array(copy=False)


# -- what is seen of it ----------------------------------------------------------------------------


def test_a_trace_has_the_tags_and_the_conversions() -> None:
    recorder = Recorder()
    A = tla.TiledMatrix.from_array(spd(80), 16, "lower", precision="fp64:1,fp32:1,bf16:rest")
    with tla.engine("threads", workers=2, trace=recorder):
        tla.potrf(A)
    run = recorder.trace().run()
    names = np.array(recorder.trace().header["formats"])[run.tasks["format"]]
    kernels = np.array(recorder.trace().header["kernels"])[run.tasks["kernel"]]
    assert set(names[kernels == "potrf"]) == {"fp64"}
    assert set(names[kernels == "trsm"]) == {"fp32"}
    assert set(names[kernels == "gemm"]) == {"fp32", "bf16"}
    assert set(kernels) == {"potrf", "trsm", "syrk", "gemm", "lag2", "round"}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_get_the_same_and_send_tiles_in_their_formats(ranks: int) -> None:
    program = Path(__file__).with_name("mpi_precision.py")
    done = mpirun(ranks, program, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for case, (error, tol, share) in found["cholesky"].items():
        assert error <= 3 * tol, case
        # of the bytes of fp64: a quarter for fp16, half for fp32
        assert 0.25 < share < 0.5, case
    for case, (error, tol) in found["others"].items():
        assert error <= 3 * tol, case


test_ranks_get_the_same_and_send_tiles_in_their_formats = pytest.mark.xdist_group("mpi")(
    test_ranks_get_the_same_and_send_tiles_in_their_formats
)


def test_engines_of_one_process_run_it() -> None:
    a = spd(60)
    with ThreadsEngine(1):
        c = cholesky(a, nb=8, precision="fp24")
    assert norm(product(c, "upper") - a) < 1e-4 * norm(a)


# -- bf16 by MKL -----------------------------------------------------------------------------------


def has_mkl() -> bool:
    try:
        importlib.metadata.distribution("mkl")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not has_mkl(), reason="MKL is not installed: pip install 'taskla[mkl]'")
@pytest.mark.parametrize("shape", [(60, 70, 80), (1, 7, 5), (16, 16, 16)])
def test_products_by_mkl_are_those_that_are_emulated(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    m, k, n = shape
    rng = np.random.default_rng(9)
    a, b, c = (rng.normal(size=size) for size in ((m, k), (k, n), (m, n)))
    results = []
    for choice in ("emulated", "mkl"):
        monkeypatch.setenv("TASKLA_BF16", choice)
        A = tla.TiledMatrix.from_array(np.asfortranarray(a.T), 16)
        B, C = (tla.TiledMatrix.from_array(x, 16, copy=True) for x in (b, c))
        tla.gemm(-1.5, A, B, 0.5, C, transa="T", precision="bf16")
        results.append(C.to_array())
        results.append(cholesky(spd(100), lower=True, nb=16, precision="fp64:1,bf16:rest"))
    one, first, other, second = results
    np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(first, second, atol=1e-2)
    assert norm(one + 1.5 * a @ b - 0.5 * c) > 1e-4


def test_who_makes_products_in_bf16_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKLA_BF16", "emulated")
    assert not kernels.bf16_products()
    assert kernels.product_facts()["bf16"] == "emulated in fp32"
    monkeypatch.setenv("TASKLA_BF16", "fast")
    with pytest.raises(ValueError, match="TASKLA_BF16 is 'fast'; allowed: 'mkl', 'emulated'"):
        kernels.bf16_products()
    if not has_mkl():
        monkeypatch.setenv("TASKLA_BF16", "mkl")
        with pytest.raises(ImportError, match=r"pip install 'taskla\[mkl\]'"):
            kernels.bf16_products()


def test_a_run_leaves_nothing_for_the_garbage_collector() -> None:
    def kept() -> list[Any]:
        return [x for x in gc.get_objects() if type(x).__name__ in ("Execution", "Workspaces")]

    A = tla.TiledMatrix.from_array(spd(60), 16, "lower", precision="fp64:1,fp16:rest")
    gc.collect()
    # what an exception, or a cluster, of an earlier test still holds
    before = {id(x): x for x in kept()}
    gc.disable()
    try:
        tla.potrf(A)
        left = [x for x in kept() if id(x) not in before]
    finally:
        gc.enable()
    assert left == []


# -- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-60, 1e-42, 1e-30, 1e30, 1e60, 1e140])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_a_tolerance_holds_for_entries_of_any_size(scale: float, tol: float) -> None:
    a = spd(120) * scale
    A = tla.TiledMatrix.from_array(a, 16, "lower", precision=f"adaptive:{tol}")
    tla.potrf(A, estimate=True)
    L = A.to_array() / np.sqrt(scale)
    assert norm(L @ L.T - a / scale) <= 3 * tol * norm(a / scale)
    assert A.accuracy is not None
    assert A.accuracy.kept
    p, lower, upper = lu(a, nb=16, precision=f"adaptive:{tol}", p_indices=True)
    assert norm((lower[p] @ upper - a) / scale) <= 3 * tol * norm(a / scale)
    b = np.ones((120, 40))
    c = matmul(a, b, nb=16, precision=f"adaptive:{tol}")
    assert norm((c - a @ b) / scale) <= 3 * tol * norm(a / scale) * norm(b)


def test_entries_that_no_format_holds_are_refused() -> None:
    for name in ("fp16", "fp8_e4m3", "fp32"):
        with pytest.raises(OverflowError, match=r"tile \(\d, \d\) has an entry of"):
            tla.TiledMatrix.from_array(spd(20) * 1e40, 8, precision=name)
        with pytest.raises(OverflowError, match=f"too large for {name}, which is held in float32"):
            matmul(spd(20) * 1e40, spd(20), nb=8, precision=name)
    with pytest.raises(OverflowError, match="whose squares are too large for a norm"):
        tla.TiledMatrix.from_array(spd(20) * 1e200, 8, precision="adaptive:1e-6")


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("precision", ["fp64", "adaptive:1e-7", "fp32", "bf16"])
def test_products_in_single_precision_are_in_no_more(dtype: str, precision: str) -> None:
    x = np.random.default_rng(0).normal(size=(90, 90)).astype(dtype)
    error = 2e-2 if precision == "bf16" else 1e-5
    for c, expected in (
        (matmul(x, x, nb=16, precision=precision), x @ x),
        (symm(x + x.T, x, nb=16, precision=precision), (x + x.T) @ x),
    ):
        assert c.dtype == x.dtype
        assert norm(c - expected) < error * norm(expected)


def test_a_tolerance_is_not_less_than_the_matrix_holds() -> None:
    x = np.eye(4, dtype=np.float32)
    for call in (
        lambda: tla.TiledMatrix.from_array(x, 2, precision="adaptive:1e-9"),
        lambda: matmul(x, x, nb=2, precision="adaptive:1e-9"),
    ):
        with pytest.raises(
            ValueError, match="tol is 1e-09; with float32 it must be at least 6e-08"
        ):
            call()


@pytest.mark.parametrize(("nb", "tol"), [(10, 1e-6), (200, 1e-6), (10, 1.5e-7), (200, 1e-5)])
def test_sums_of_many_products_keep_a_tolerance(nb: int, tol: float) -> None:
    a = np.full((40, 8000), 1 / 3)
    c = matmul(a, a.T, nb=nb, precision=f"adaptive:{tol}")
    assert norm(c - a @ a.T) <= 3 * tol * norm(a) ** 2


@pytest.mark.parametrize("tol", [1e-6, 1.2e-7])
def test_lu_of_gaussian_matrices_keeps_a_tolerance(tol: float) -> None:
    g = np.random.default_rng(0).normal(size=(1000, 1000))
    p, lower, upper = lu(g, nb=100, precision=f"adaptive:{tol}", p_indices=True)
    assert norm(lower[p] @ upper - g) <= 3 * tol * norm(g)


def test_a_band_has_an_estimate_of_its_error_too() -> None:
    a = spd(200)
    A = tla.TiledMatrix.from_array(a, 16, "lower", precision="fp64:2,fp16:rest")
    tla.potrf(A, estimate=True)
    assert A.accuracy is not None
    assert A.accuracy.kept is None
    assert 0.4 < A.accuracy.error / (norm(product(A.to_array(), "lower") - a) / norm(a)) < 2
    assert A.copy().accuracy == A.accuracy


def test_tiles_that_are_not_stored_have_the_formats_of_those_that_are() -> None:
    names = [["fp64", "fp16"], ["fp32", "fp64"]]
    A = tla.TiledMatrix.from_array(spd(20), 10, "lower", precision=names)
    assert A.format_map.tolist() == [["fp64", "fp32"], ["fp32", "fp64"]]
    assert "precision='fp32'" in repr(A.with_precision("fp32"))


def test_a_task_does_not_write_tiles_of_another_width() -> None:
    layouts = tuple(Layout(8, 8, 4, np.dtype("f4"), name) for name in "ABC")
    graph = programs.program(gemm, layouts, (1.0, 0.0))
    wide = mixed(graph, {}, np.full(graph.n, NAMES.index("fp64"), np.int8)).graph
    X = [tla.TiledMatrix.zeros((8, 8), 4, "float32") for _ in "ABC"]
    with pytest.raises(ValueError, match="a task in fp64 writes a tile of float32, not float64"):
        ThreadsEngine(1).run(wide, X)
