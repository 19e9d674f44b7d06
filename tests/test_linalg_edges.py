"""Unusual arguments: the functions on arrays answer, raise and warn as SciPy (or NumPy) does."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from taskla import linalg
from taskla.linalg import _inputs, _passes, _products
from taskla.linalg._passes import Part

N = 9
NB = 4

rng = np.random.default_rng(7)
GENERAL = rng.integers(-9, 10, (N, N)) + 20 * np.eye(N, dtype=int)
SPD = GENERAL @ GENERAL.T
RIGHT = rng.integers(-9, 10, (N, 3))


class Array:
    """An array-like that is no ndarray."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.data, dtype=dtype, copy=copy)


class Sub(np.ndarray):
    """A subclass that adds nothing."""


def strided(a: Any) -> Any:
    big = np.zeros((3 * len(a), 2 * a.shape[1]), a.dtype)
    big[::3, ::2] = a
    return big[::3, ::2]


def unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def part_of_larger(a: Any) -> Any:
    big = np.zeros((a.shape[0] + 2, a.shape[1] + 3), a.dtype, order="F")
    big[1:-1, 1:-2] = a
    return big[1:-1, 1:-2]


def read_only(a: Any) -> Any:
    a = np.array(a, order="F")
    a.flags.writeable = False
    return a


def swapped(a: Any) -> Any:
    return a.astype(a.dtype.newbyteorder())


def cast(dtype: Any) -> Callable[[Any], Any]:
    return lambda a: a.astype(dtype)


FORMS: dict[str, Callable[[Any], Any]] = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(map(tuple, a.tolist())),
    "list of arrays": list,
    "array-like": Array,
    "np.matrix": np.asmatrix,
    "masked": np.ma.masked_array,
    "sparse": scipy.sparse.csr_array,
    "subclass": lambda a: a.view(Sub),
    "strided": strided,
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "reversed columns": lambda a: a[:, ::-1].copy()[:, ::-1],
    "part of a larger array": part_of_larger,
    "unaligned": unaligned,
    "read-only": read_only,
    "byte-swapped": swapped,
    **{
        np.dtype(name).name: cast(name)
        for name in (
            *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
            *("float16", "float32", "longdouble", "complex64", "complex128", "clongdouble"),
        )
    },
    "object": cast(object),
    "strings": cast(str),
    "datetime": cast("datetime64[s]"),
    "record": lambda a: np.zeros(a.shape, [("x", float)]),
    "vector": lambda a: a[0],
    "scalar": lambda a: a[0, 0],
    "one by one": lambda a: a[:1, :1],
    "wide": lambda a: a[:-2],
    "tall": lambda a: a[:, :2],
    "empty": lambda a: a[:0, :0],
    "no rows": lambda a: a[:0],
    "no columns": lambda a: a[:, :0],
    "stack": lambda a: np.stack([a, a]),
    "empty stack": lambda a: np.stack([a, a])[:0],
    "stack of empty": lambda a: np.zeros((2, 0, 0)),
    "stack of stacks": lambda a: np.stack([[a], [a]]),
    "ragged": lambda a: [[1.0], [1.0, 2.0]],
    "None": lambda a: None,
}

CALLS: dict[str, Callable[..., Any]] = {
    "cholesky": lambda m, f, **o: m.cholesky(f(SPD), **o),
    "cho_factor": lambda m, f, **o: m.cho_factor(f(SPD), True, **o),
    "cho_solve": lambda m, f, **o: m.cho_solve((f(SPD), True), RIGHT, **o),
    "cho_solve b": lambda m, f, **o: m.cho_solve((SPD, False), f(RIGHT), **o),
    "lu": lambda m, f, **o: m.lu(f(GENERAL), **o),
    "lu_factor": lambda m, f, **o: m.lu_factor(f(GENERAL), **o),
    "lu_solve": lambda m, f, **o: m.lu_solve((f(GENERAL), np.arange(N)), 1.0 * RIGHT, **o),
    "lu_solve b": lambda m, f, **o: m.lu_solve((1.0 * GENERAL, np.arange(N)), f(RIGHT), **o),
    "lu_solve piv": lambda m, f, **o: m.lu_solve(
        (GENERAL * 1.0, f(np.arange(N).reshape(1, -1))), RIGHT, **o
    ),
    "solve": lambda m, f, **o: m.solve(f(GENERAL), RIGHT, **o),
    "solve b": lambda m, f, **o: m.solve(1.0 * GENERAL, f(RIGHT), **o),
    "solve both": lambda m, f, **o: m.solve(f(GENERAL), f(RIGHT), **o),
    "solve pos": lambda m, f, **o: m.solve(f(SPD), f(RIGHT), assume_a="pos", **o),
    "solve unknown": lambda m, f, **o: m.solve(f(SPD), f(RIGHT), assume_a="kaboom", **o),
    "solve_triangular": lambda m, f, **o: m.solve_triangular(f(GENERAL), RIGHT, **o),
    "solve_triangular b": lambda m, f, **o: m.solve_triangular(GENERAL, f(RIGHT), **o),
    "inv": lambda m, f, **o: m.inv(f(GENERAL), **o),
    "inv pos": lambda m, f, **o: m.inv(f(SPD), assume_a="pos", **o),
    "inv unknown": lambda m, f, **o: m.inv(f(SPD), assume_a="kaboom", **o),
    "det": lambda m, f, **o: m.det(f(GENERAL), **o),
    "norm": lambda m, f, **o: m.norm(f(GENERAL), **o),
    "norm 1": lambda m, f, **o: m.norm(f(GENERAL), 1, **o),
    "norm axis": lambda m, f, **o: m.norm(f(GENERAL), 1, axis=0, keepdims=True, **o),
    "norm unknown": lambda m, f, **o: m.norm(f(GENERAL), "kaboom", **o),
    "slogdet": lambda m, f, **o: getattr(m, "slogdet", np.linalg.slogdet)(f(GENERAL), **o),
    "matmul": lambda m, f, **o: getattr(m, "matmul", np.matmul)(f(GENERAL), f(SPD), **o),
    "matmul left": lambda m, f, **o: getattr(m, "matmul", np.matmul)(f(GENERAL), RIGHT * 1.0, **o),
    "matmul vector": lambda m, f, **o: getattr(m, "matmul", np.matmul)(f(SPD), RIGHT[:, 0], **o),
}


def outcome(
    call: Callable[..., Any], module: Any, form: Callable[[Any], Any], **options: Any
) -> Any:
    """What a call returns or raises, and the kinds of warnings it gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call(module, form, **options)
        except Exception as error:
            return type(error), None
    return result, {warning.category for warning in caught}


def same(ours: Any, theirs: Any, unit: float) -> None:
    if scipy.sparse.issparse(theirs):
        ours, theirs = ours.toarray(), theirs.toarray()
    if isinstance(theirs, tuple | list):
        # For a batch SciPy returns a list where it documents a tuple.
        assert isinstance(ours, tuple)
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            same(x, y, unit)
        return
    assert type(ours) is type(theirs)
    x, y = np.asarray(ours), np.asarray(theirs)
    assert x.dtype == y.dtype
    assert x.shape == y.shape
    if y.dtype.kind not in "fc":
        np.testing.assert_array_equal(x, y)
    elif y.size:
        unit = max(unit, float(np.finfo(y.dtype).eps))
        largest = float(np.abs(y[np.isfinite(y)]).max(initial=1))
        np.testing.assert_allclose(x, y, rtol=0, atol=1e3 * unit * largest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("nb", [None, NB])
def test_the_same_happens(name: str, form: str, nb: int | None, monkeypatch: Any) -> None:
    if nb is not None:
        monkeypatch.setattr(_inputs, "ONE_TILE", 1)
        monkeypatch.setattr(_products, "LARGE", 1)
    theirs, their_warnings = outcome(CALLS[name], scipy.linalg, FORMS[form])
    options = {} if name.startswith("norm") else {"nb": nb}
    ours, our_warnings = outcome(CALLS[name], linalg, FORMS[form], **options)
    if their_warnings is None:
        assert our_warnings is None, ours
        assert issubclass(ours, theirs)
        return
    assert our_warnings == their_warnings, ours
    if name == "cho_factor":
        ours, theirs = (np.tril(ours[0]), ours[1]), (np.tril(theirs[0]), theirs[1])
    # det returns double precision even of what it computes in single.
    same(ours, theirs, float(np.finfo("float32").eps) if name == "det" else 0.0)


# -- passes over memory ----------------------------------------------------------------------------


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "transposed and strided": lambda a: strided(a.T).T,
}


@pytest.fixture(params=[(4, 8, 0), (128, 512, 2**18)], ids=["many blocks", "one block"])
def blocks(request: Any, monkeypatch: Any) -> None:
    for name, value in zip(("WIDTH", "TALL", "SMALL"), request.param, strict=True):
        monkeypatch.setattr(_passes, name, value)


def numbers(shape: tuple[int, int], dtype: str = "complex128") -> Any:
    a = np.random.default_rng(3).normal(size=(*shape, 2)) @ [1, 1j]
    return (a if np.dtype(dtype).kind == "c" else a.real).astype(dtype)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(17, 17), (21, 10), (10, 21), (1, 30), (30, 1), (0, 5), (5, 0)])
def test_copies(layout: str, shape: tuple[int, int]) -> None:
    a = LAYOUTS[layout](numbers(shape))
    for order in ("F", "C"):
        for part, expected in (("G", a), ("L", np.tril(a)), ("U", np.triu(a))):
            copy = _passes.copied(a, np.dtype("complex64"), order, part, True)  # type: ignore[arg-type]
            assert copy.flags[f"{order}_CONTIGUOUS"]
            np.testing.assert_array_equal(copy, expected.astype("complex64"))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["G", "L", "U"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, complex(0, np.nan), complex(1, np.inf)])
def test_one_bad_element_anywhere_is_found(layout: str, part: Part, bad: complex) -> None:
    for i, j in ((0, 0), (0, 16), (16, 0), (16, 16), (5, 7), (7, 5)):
        a = LAYOUTS[layout](numbers((17, 17)))
        a[i, j] = bad
        with pytest.raises(ValueError, match="array must not contain infs or NaNs"):
            _passes.copied(a, a.dtype, "F", part, True)
        with pytest.raises(ValueError, match="array must not contain infs or NaNs"):
            _passes.check(a)
        _passes.copied(a, a.dtype, "F", part, False)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_changes_in_place(layout: str) -> None:
    a = numbers((17, 17))
    for part, keep in (("L", np.tril), ("U", np.triu)):
        x = LAYOUTS[layout](a.copy())
        _passes.clear(x, part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(x, keep(a))
        x = LAYOUTS[layout](a.copy())
        _passes.mirror(x, part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(x, keep(a) + (keep(a) - np.diag(a.diagonal())).conj().T)
        assert _passes.is_mirrored(x - 1j * np.diag(x.diagonal().imag), conjugate=True)
        assert not _passes.is_mirrored(x, conjugate=False)
    symmetric = LAYOUTS[layout](a + a.T)
    assert _passes.is_mirrored(symmetric, conjugate=False)
    for i, j in ((0, 16), (9, 8), (16, 15)):
        other = symmetric.copy()
        other[i, j] += 1
        assert not _passes.is_mirrored(other, conjugate=False)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums(layout: str) -> None:
    for shape in ((17, 11), (11, 17), (1, 9)):
        a = LAYOUTS[layout](numbers(shape))
        assert _passes.sum_of_squares(a) == pytest.approx(np.sum(np.abs(a) ** 2))
        assert _passes.largest_column_sum(a) == pytest.approx(np.abs(a).sum(axis=0).max())
        a[0, -1] = np.nan
        assert np.isnan(_passes.sum_of_squares(a))
        assert np.isnan(_passes.largest_column_sum(a))


@pytest.mark.usefixtures("blocks")
def test_permutations() -> None:
    a = np.asfortranarray(numbers((17, 11)))
    order = np.random.default_rng(5).permutation(17)
    np.testing.assert_array_equal(_passes.gathered(a, order), a[order])
    out = np.empty((11, 17), a.dtype, order="F")
    _passes.scatter_columns(np.asfortranarray(a.T), order, out)
    np.testing.assert_array_equal(out[:, order], a.T)
