"""Tiles in several number formats on Dask: the same as on threads, packed where they are kept.

The covariances of points in the plane are those of ExaGeoStat's papers: along a Morton curve most
tiles are small. Where the cluster does not matter, Dask's synchronous scheduler computes.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, wait

import taskla as tla
from taskla.engines.dask_matrix import DaskMatrix
from taskla.engines.dask_strips import Strips, stored
from taskla.errors import NotPositiveDefiniteError
from taskla.formats import FORMATS
from taskla.linalg._dispatch import or_on_dask
from taskla.rounding import round_to

pytestmark = pytest.mark.xdist_group("dask")

PATIENCE = 60
NB = 64


@cache
def matern(side: int = 32, beta: float = 0.03) -> Any:
    """Covariances exp(-h / beta) of the points of a grid in the unit square, in Morton order."""

    def along_the_curve(point: tuple[int, int]) -> int:
        return sum(
            ((point[0] >> bit) & 1) << (2 * bit + 1) | ((point[1] >> bit) & 1) << (2 * bit)
            for bit in range(side.bit_length())
        )

    points = np.array(sorted(np.ndindex(side, side), key=along_the_curve))
    at = (points + 0.5) / side
    return np.exp(-np.linalg.norm(at[:, None] - at[None], axis=2) / beta)


def of_type(a: Any, dtype: str) -> Any:
    """A positive definite matrix of a type: the complex one has the entries' phases turned."""
    turns = np.arange(len(a)) * 0.1
    phases = np.exp(1j * np.subtract.outer(turns, turns))
    return (a * phases if np.dtype(dtype).kind == "c" else a).astype(dtype)


def general(n: int, dtype: str = "float64") -> Any:
    """A general matrix whose columns fade: some of them may be in less than others."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(n, n)) * np.exp(-np.arange(n) / (n / 12)) + 3 * np.eye(n)
    return of_type(a, dtype)


@contextmanager
def threads() -> Iterator[None]:
    """The threads engine as it sums up on Dask: product after product."""
    with tla.engine("threads", workers=2, fuse=1):
        yield


@pytest.fixture
def here() -> Iterator[None]:
    """Dask computes in this process."""
    with dask.config.set(scheduler="synchronous"):
        yield


def lazily(
    a: Any, precision: Any, uplo: str | None = None, ranks: int = 2, name: str = "col"
) -> Any:
    """A matrix on Dask, whose tasks sum up product after product."""
    x = da.from_array(a, chunks=NB)
    owners = tla.distributions.get(name, ranks)
    A = tla.TiledMatrix.from_dask(x, NB, uplo, precision=precision, distribution=owners)
    A.engine.fuse = 1
    return A


def error(L: Any, a: Any) -> float:
    return float(np.linalg.norm(L @ L.conj().T - a) / np.linalg.norm(a))


def program(A: DaskMatrix) -> Counter[str]:
    """How many tasks of each kind the last program has."""
    layer = list(A.graph.layers)[-1]
    return Counter(key[0].rpartition("-")[0] for key in A.graph.layers[layer])


# -- on a cluster ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tol", "counts"),
    [(1e-4, {"fp64": 16, "fp32": 24, "fp16": 96}), (1e-6, {"fp64": 16, "fp32": 42, "fp16": 78})],
)
def test_cholesky_keeps_the_tolerance(client: Client, tol: float, counts: dict[str, int]) -> None:
    a = matern()
    precision = tla.PrecisionMap("adaptive", tol=tol)
    with threads():
        T = tla.potrf(tla.TiledMatrix.from_array(a, NB, "lower", precision=precision))
    with tla.engine("dask", client=client, fuse=1):
        A = tla.TiledMatrix.from_array(a, NB, "lower", precision=precision)
        assert isinstance(A, DaskMatrix)
        assert Counter(A.format_map[np.tril_indices(A.nt)].tolist()) == counts
        np.testing.assert_array_equal(A.format_map, T.format_map)
        tla.potrf(A)
        A = A.persist()
        L = A.to_array()
        assert tol / 1000 < error(L, a) <= 3 * tol
        # the same bits
        np.testing.assert_array_equal(L, T.to_array())
        np.testing.assert_array_equal(A.to_dask().compute(), L)
        np.testing.assert_array_equal(A.block(9, 2), T.block(9, 2))
        in_memory = A.compute()
    assert type(in_memory) is tla.TiledMatrix
    assert in_memory.nbytes == A.nbytes == T.nbytes < 0.45 * 8 * NB**2 * 136
    np.testing.assert_array_equal(in_memory.format_map, T.format_map)
    np.testing.assert_array_equal(in_memory.to_array(), L)


def test_workers_keep_tiles_packed_and_pass_them_on_so(client: Client) -> None:
    def held(dask_worker: Any) -> int:
        return sum(value.nbytes for value in dask_worker.data.values() if isinstance(value, Strips))

    def sent(dask_worker: Any) -> int:
        return int(dask_worker.transfer_outgoing_bytes_total)

    travelled = {}
    for precision in (None, "adaptive:1e-4"):
        with tla.engine("dask", client=client):
            A = tla.TiledMatrix.from_function(
                lambda rows, cols: matern()[np.ix_(rows, cols)],
                (1024, 1024),
                NB,
                uplo="lower",
                precision=precision,
            ).persist()
            wait(A, timeout=PATIENCE)
            before = sum(client.run(sent).values())
            tla.potrf(A)
            A = A.persist()
            wait(A, timeout=PATIENCE)
            travelled[precision] = sum(client.run(sent).values()) - before
            assert sum(client.run(held).values()) == A.nbytes
            del A
    # of fp64: 0.32 where every tile travels as each consumer wants it, and nothing else
    assert travelled["adaptive:1e-4"] < 0.5 * travelled[None]


def test_the_scheduler_knows_one_matrix_and_its_formats(client: Client) -> None:
    def known(dask_scheduler: Any) -> Any:
        program = list(dask_scheduler.plugins["taskla"].progress.programs.values())[-1]
        tiles = [program.tiles(number) for number in range(len(program.matrices))]
        return program.matrices, tiles, program.formats

    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(general(96), 16, precision="fp64:1,fp32:2,fp16:rest")
        B = tla.TiledMatrix.from_array(general(96), 16)
        C = tla.TiledMatrix.from_array(np.eye(96), 16, precision="fp64:3,bf16:rest")
        tla.gemm(1.0, A, B, 1.0, C)
        wait(C.persist(), timeout=PATIENCE)
    matrices, tiles, formats = client.run_on_scheduler(known)
    assert [tuple(matrix) for matrix in matrices] == [
        ("A", 6, 6, ("fp64", "fp32", "fp16")),
        ("B", 6, 6, ("fp64",)),
        ("C", 6, 6, ("fp64", "bf16")),
    ]
    # copies in other formats are of no matrix
    assert [(of.tasks > 0).sum() for of in tiles] == [0, 0, 36]
    np.testing.assert_array_equal(np.array(formats)[tiles[2].format], C.format_map)
    assert (tiles[2].done == tiles[2].tasks).all()


@pytest.mark.usefixtures("here")
def test_bytes_are_told_by_format() -> None:
    a = matern()[:300, :300]
    for precision in ("fp64:1,fp24:2,bf16:rest", None):
        A = lazily(a, precision, "lower")
        T = tla.TiledMatrix.from_array(a, NB, "lower", precision=precision)
        assert A.nbytes_by_format() == T.nbytes_by_format()
        assert sum(A.nbytes_by_format().values()) == A.nbytes == T.nbytes
    assert list(A.nbytes_by_format()) == ["fp64"]


def test_dask_arrays_take_a_precision(client: Client) -> None:
    a, g = matern(), general(512)
    with client.as_current():
        L = tla.cholesky(da.from_array(a, chunks=NB), lower=True, precision="adaptive:1e-5")
        assert isinstance(L, da.Array)
        assert 1e-9 < error(L.compute(), a) <= 3e-5
        factors, piv = tla.lu_factor(da.from_array(g, chunks=NB), precision="adaptive:1e-5")
        p, lower, upper = tla.lu(da.from_array(g, chunks=NB), precision="adaptive:1e-5")
        found, piv, p, lower, upper = dask.compute(factors, piv, p, lower, upper)
    np.testing.assert_array_equal(np.triu(found), upper)
    assert 1e-9 < np.linalg.norm(p @ lower @ upper - g) / np.linalg.norm(g) <= 3e-5


def test_a_failing_minor_is_named(client: Client) -> None:
    a = matern().copy()
    a[650, 650] = -1
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(a, NB, "lower", precision="adaptive:1e-5")
        tla.potrf(A)
        with pytest.raises(NotPositiveDefiniteError, match="651-th leading minor") as caught:
            A.compute()
    assert "in task potrf on tile A(10, 10)" in caught.value.__notes__


# -- the same as on threads ------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("dtype", "uplo", "name", "ranks"),
    [
        ("float32", "lower", "col", 3),
        ("float64", "upper", "col", 2),
        ("complex64", "lower", "2dbc", 4),
        ("complex128", "upper", "2dbc", 4),
        ("float64", "lower", "sbc", 3),
    ],
)
def test_cholesky_and_what_is_solved_with_it(dtype: str, uplo: Any, name: str, ranks: int) -> None:
    a = of_type(matern()[:500, :500], dtype)
    b = general(500, dtype)[:, :70]
    for precision in ("adaptive:1e-4", "fp32:2,fp24:2,bf16:2,fp8_e5m2:rest"):
        if precision.startswith("fp32"):
            # what is far away is small enough for 2 bits
            a = a * 0.5 ** np.abs(np.subtract.outer(np.arange(500), np.arange(500)) // NB)
            a = (a + 2 * np.eye(500)).astype(dtype)
        A, X = lazily(a, precision, uplo, ranks, name), lazily(b, None, None, ranks, name)
        tla.potrs(tla.potrf(A), X)
        with threads():
            T = tla.TiledMatrix.from_array(a, NB, uplo, precision=precision)
            Y = tla.TiledMatrix.from_array(b, NB, copy=True)
            tla.potrs(tla.potrf(T), Y)
        np.testing.assert_array_equal(A.format_map, T.format_map)
        np.testing.assert_array_equal(A.to_array(), T.to_array())
        np.testing.assert_array_equal(A.in_pieces().compute(), T.to_array())
        np.testing.assert_array_equal(X.to_array(), Y.to_array())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("pivot", "name", "ranks"),
    [("partial", "col", 2), ("partial", "2dbc", 4), ("none", "row", 3), ("tournament", "2dbc", 4)],
)
@pytest.mark.parametrize("rule", ["columns", "band"])
def test_lu(pivot: Any, name: str, ranks: int, rule: str) -> None:
    a = general(460)
    columns = tla.PrecisionMap("adaptive", tol=4e-3, by="column")
    precision = columns if rule == "columns" else "fp64:2,fp32:2,bf16:rest"
    A = lazily(a, precision, None, ranks, name)
    assert len(set(A.format_map.ravel())) >= 2
    piv = tla.getrf(A, pivot=pivot)
    B = lazily(a[:, :9], None, None, ranks, name)
    tla.getrs(A, piv, B)
    with threads():
        T = tla.TiledMatrix.from_array(a, NB, precision=precision)
        expected = tla.getrf(T, pivot=pivot)
        C = tla.TiledMatrix.from_array(a[:, :9], NB, copy=True)
        tla.getrs(T, expected, C)
    np.testing.assert_array_equal(np.asarray(piv), expected)
    if rule == "band" and pivot == "partial" and name == "2dbc":
        # rows that two ranks interchange are rounded on their way
        np.testing.assert_allclose(A.to_array(), T.to_array(), atol=1e-6)
    else:
        np.testing.assert_array_equal(A.to_array(), T.to_array())
        np.testing.assert_array_equal(B.to_array(), C.to_array())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("precision", ["adaptive:1e-4", "fp16"])
def test_products(precision: str) -> None:
    a, b = matern()[:300, :300], general(300)
    A, B, C = lazily(a, None), lazily(b, "fp64:2,fp32:rest"), lazily(a, None)
    tla.gemm(2.0, A, B, 0.5, C, precision=precision)
    with threads():
        D = tla.TiledMatrix.from_array(a, NB, copy=True)
        tla.gemm(
            2.0,
            tla.TiledMatrix.from_array(a, NB),
            tla.TiledMatrix.from_array(b, NB, precision="fp64:2,fp32:rest"),
            0.5,
            D,
            precision=precision,
        )
    np.testing.assert_array_equal(C.to_array(), D.to_array())
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    x, y = da.from_array(a, chunks=NB), da.from_array(b, chunks=(50, 70))
    limit = 1e-4 if precision != "fp16" else 2 * FORMATS["fp16"].unit_roundoff
    for product in (tla.matmul(x, y, precision=precision), tla.symm(x, y, precision=precision)):
        distance = np.linalg.norm(product.compute() - a @ b) / norms
        assert 1e-3 * limit < distance <= limit


# -- few tasks -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("name", "ranks"), [("col", 2), ("2dbc", 4)])
def test_a_panel_is_one_task_however_many_formats_it_has(name: str, ranks: int) -> None:
    found = {}
    for precision in (None, "adaptive:1e-5"):
        A = tla.potrf(lazily(matern(), precision, "lower", ranks, name))
        found[precision] = program(A)
    # products: what the factors hold is converted strip by strip, however often it is read
    factors = [lazily(matern(), None, None, ranks, name) for _ in range(2)]
    C = lazily(matern(), "fp64:2,fp16:rest", None, ranks, name)
    conversions = program(tla.gemm(1.0, *factors, 0.0, C, precision="adaptive:1e-5"))["lag2"]
    rows = {"col": 1, "2dbc": 2}[name]
    assert 0 < conversions <= 2 * C.nt * rows
    several, one = found["adaptive:1e-5"], found[None]
    kept = several.pop("keep", 0)
    assert kept <= one.pop("keep", 0) + 2 * A.nt
    assert several == one


# -- what is computed when -------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_only_norms_are_computed_at_once() -> None:
    a = matern()[:256, :256]
    seen: list[tuple[int, int]] = []

    def block(rows: Any, cols: Any) -> Any:
        seen.append((int(rows[0]) // NB, int(cols[0]) // NB))
        return a[np.ix_(rows, cols)]

    tiles = [(i, j) for j in range(4) for i in range(j, 4)]
    like = lazily(a, None, "lower")
    for precision, looked in (("fp64:1,fp16:rest", []), ("adaptive:1e-4", tiles)):
        seen.clear()
        F = like.like_function(block).with_precision(precision)
        assert sorted(seen) == sorted(looked)
        tla.potrf(F)
        assert sorted(seen) == sorted(looked)
        assert error(F.to_array(), a) < 1e-3
        assert sorted(seen) == sorted(looked + tiles)
    # a product's norms are those of its factors
    x = da.from_array(a, chunks=NB).map_blocks(lambda part: seen.append((0, 0)) or part, meta=a)
    seen.clear()
    product = tla.matmul(x, x, precision="fp32")
    assert not seen
    product = tla.matmul(x, x, precision="adaptive:1e-4")
    assert len(seen) == 32
    product.compute()
    assert len(seen) > 32


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_a_folder_keeps_the_formats(client: Client, tmp_path: Path, dtype: str) -> None:
    a = of_type(matern()[:300, :300], dtype)
    precision = "fp32:1,fp24:1,fp16:1,bf16:rest"
    T = tla.TiledMatrix.from_array(a, NB, "lower", precision=precision)
    T.save(tmp_path / "here")
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(a, NB, "lower", precision=precision)
        A.save(tmp_path / "there")
        tla.TiledMatrix.from_array(a, NB, "lower").save(tmp_path / "plain")
    for name in ("here", "there"):
        M = tla.TiledMatrix.load(tmp_path / name)
        with tla.engine("dask", client=client):
            B = tla.TiledMatrix.load(tmp_path / name)
            assert isinstance(B, DaskMatrix)
            assert (B.nbytes, B.uplo, B.dtype) == (T.nbytes, T.uplo, T.dtype)
            assert tla.TiledMatrix.load(tmp_path / name, NB // 2).mixed is None
            assert tla.TiledMatrix.load(tmp_path / "plain").mixed is None
        for X in (M, B):
            np.testing.assert_array_equal(X.format_map, T.format_map)
            np.testing.assert_array_equal(X.to_array(), T.to_array())


@pytest.mark.usefixtures("here")
def test_a_matrix_of_several_formats_is_a_matrix(tmp_path: Path) -> None:
    a = matern()[:300, :300]
    A = lazily(a, "fp64:1,fp32:1,fp16:rest", "lower")
    T = tla.TiledMatrix.from_array(a, NB, "lower", precision="fp64:1,fp32:1,fp16:rest")
    for same in (A, A.copy(), A.persist(), A.redistribute("row")):
        assert same.precision == T.precision
        np.testing.assert_array_equal(same.format_map, T.format_map)
        np.testing.assert_array_equal(same.to_array(), T.to_array())
        symmetric = same.to_dask("symmetric").compute()
        np.testing.assert_array_equal(symmetric, T.to_array(fill="symmetric"))
    assert A.accuracy is None
    A.save(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), T.to_array())
    again = A.with_precision("bf16")
    np.testing.assert_array_equal(again.to_array(), T.with_precision("bf16").to_array())
    uniform = A.astype("float64")
    assert uniform.mixed is None
    np.testing.assert_array_equal(uniform.to_array(), T.to_array())
    # a factor in this process's memory beside it
    L = tla.potrf(A)
    with threads():
        tla.potrf(T)
    B = tla.TiledMatrix.from_array(a[:, :3].copy(), NB)
    tla.potrs(L, B)
    np.testing.assert_allclose(B.to_array(), np.linalg.solve(a, a[:, :3]), atol=1e-2)
    M = tla.TiledMatrix.from_array(a, NB, precision="fp64:1,fp16:rest")
    tla.trsm("L", "L", "N", "N", 1.0, L, M)
    with threads():
        N = tla.TiledMatrix.from_array(a, NB, precision="fp64:1,fp16:rest")
        tla.trsm("L", "L", "N", "N", 1.0, T, N)
    np.testing.assert_array_equal(M.to_array(), N.to_array())


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_what_is_not_allowed_is_said() -> None:
    a = matern()[:200, :200].copy()
    with pytest.raises(ValueError, match=r"precision has shape \(1, 1\)"):
        lazily(a, [["fp32"]])
    with pytest.raises(ValueError, match="rule is 'nonsense'"):
        lazily(a, "nonsense")
    large = lazily(a * 1e39, "fp64:1,fp32:rest")
    with pytest.raises(OverflowError, match=r"has an entry of .*; fp32 holds"):
        large.to_array()
    a[150, 3] = np.nan
    x = da.from_array(a, chunks=NB)
    with pytest.raises(ValueError, match="infs or NaNs"):
        lazily(a, "adaptive:1e-4")
    L = tla.cholesky(x, lower=True, precision="fp64:1,fp32:rest")
    with pytest.raises(ValueError, match="infs or NaNs"):
        L.compute()
    # the other triangle is not looked at
    upper = tla.cholesky(x, precision="adaptive:1e-4").compute()
    assert error(upper.T, matern()[:200, :200]) < 3e-4


# -- strips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [5, 700])
def test_packed_tiles_travel(format: str, dtype: str, axis: int, size: int) -> None:
    tiles = [
        of_type(np.random.default_rng(k).normal(size=(size, size)) * 100.0**k, dtype)
        for k in range(2)
    ]
    array, spots = stored(tiles, axis, format)
    itemsize = FORMATS[format].nbytes * (2 if dtype == "complex128" else 1)
    assert array.nbytes == 2 * size**2 * itemsize
    buffers: list[Any] = []
    sent = pickle.dumps(Strips([array], spots), protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 2000
    # messages begin at any byte
    moved = [bytearray(b"x" + buffer.raw().tobytes()) for buffer in buffers]
    found = pickle.loads(sent, buffers=[memoryview(part)[1:] for part in moved])
    for position, tile in enumerate(tiles):
        expected = round_to(tile, format, scaled=True)
        np.testing.assert_array_equal(found.array(position), expected)


# -- arguments that Dask's functions do not know ---------------------------------------------------


@pytest.mark.usefixtures("here")
def test_what_dask_does_not_know_must_have_its_default() -> None:
    def norm(
        a: Any,
        ord: Any = None,
        axis: Any = None,
        keepdims: bool = False,
        check_finite: bool = True,
        overwrite_a: bool = False,
        *,
        colour: str | None = None,
    ) -> Any:
        raise AssertionError("this is for Dask")

    dispatched = or_on_dask(norm)
    x = da.ones((3, 3), chunks=2)
    assert dispatched(x, 1, overwrite_a=True).compute() == 3
    with pytest.raises(NotImplementedError, match="colour is 'red'; norm on Dask takes no colour"):
        dispatched(x, colour="red")
