"""The table of operations: what it says, and its flop counts against counting."""

from __future__ import annotations

import numpy as np
import pytest

from taskla.operations import OPERATIONS, Access, Operation, register

R, W, RW, REDUX = Access.R, Access.W, Access.RW, Access.REDUX


@pytest.mark.parametrize(
    ("names", "params", "modes"),
    [
        ("potrf lauum", "uplo", (RW,)),
        ("trsm trmm", "side uplo trans diag alpha", (R, RW)),
        ("syrk herk", "uplo trans alpha beta", (R, RW)),
        ("gemm", "transa transb alpha beta", (R, R, RW)),
        ("symm hemm", "side uplo alpha beta", (R, R, RW)),
        ("trtri", "uplo diag", (RW,)),
        ("getrf", "row", (RW, W)),
        ("getrf_nopiv", "", (RW,)),
        ("laswp", "row forward", (R, RW)),
        ("lacpy", "uplo trans", (R, W)),
        ("laset", "uplo offdiag diag", (W,)),
        ("lascl", "uplo alpha", (RW,)),
        ("geadd", "trans alpha beta", (R, RW)),
    ],
)
def test_parameters_and_access_modes(names: str, params: str, modes: tuple[Access, ...]) -> None:
    for name in names.split():
        operation = OPERATIONS[name]
        assert operation.name == name
        assert operation.params == tuple(params.split())
        assert operation.modes == modes
        assert operation.panel == (name in ("getrf", "laswp"))


def test_register_adds_an_operation_once() -> None:
    try:
        added = register("t_gather", "x y", "R RW REDUX", lambda shapes: (2.0, 3.0), panel=True)
        assert OPERATIONS["t_gather"] is added
        assert added.params == ("x", "y")
        assert added.modes == (R, RW, REDUX)
        assert added.panel
        assert (added.flops([], False), added.flops([], True)) == (5.0, 18.0)
        with pytest.raises(ValueError, match="'t_gather' is registered already"):
            register("t_gather", "", "R")
    finally:
        OPERATIONS.pop("t_gather", None)


# -- flops -----------------------------------------------------------------------------------------
# Multiplications (divisions and square roots too) and additions of the textbook's loops.


def count_potrf(n: int) -> tuple[int, int]:
    products = sums = 0
    for j in range(n):
        products, sums = products + j + 1, sums + j  # l_jj
        for _ in range(j + 1, n):
            products, sums = products + j + 1, sums + j  # l_ij
    return products, sums


def count_getrf(m: int, n: int) -> tuple[int, int]:
    products = sums = 0
    for k in range(min(m, n)):
        # the reciprocal of the pivot, the column, the update
        products += 1 + (m - k - 1) + (m - k - 1) * (n - k - 1)
        sums += (m - k - 1) * (n - k - 1)
    return products, sums


def count_trtri(n: int) -> tuple[int, int]:
    products = sums = 0
    for j in range(n):
        products += 1
        for i in range(j + 1, n):
            # x_ij = -(sum over j <= k < i of l_ik x_kj) / l_ii
            products, sums = products + (i - j) + 1, sums + (i - j) - 1
    return products, sums


def count_lauum(n: int) -> tuple[int, int]:
    # (L^H L)_ij sums n - i products, i >= j
    lengths = [n - i for i in range(n) for j in range(i + 1)]
    return sum(lengths), sum(length - 1 for length in lengths)


def count_triangular(m: int, n: int) -> tuple[int, int]:
    # row i of an m x m triangle has i products with each of n columns, and the diagonal's
    return n * sum(i + 1 for i in range(m)), n * sum(range(m))


def test_flop_counts_are_those_of_the_loops() -> None:
    sizes = (1, 2, 3, 5, 8)
    for m in sizes:
        for name, count in (("potrf", count_potrf), ("trtri", count_trtri), ("lauum", count_lauum)):
            assert OPERATIONS[name].cost([(m, m)]) == pytest.approx(count(m), rel=1e-13), name
        for n in sizes:
            for name in ("getrf", "getrf_nopiv"):
                # working note 41 counts a wide matrix as its transpose
                counted = count_getrf(max(m, n), min(m, n))
                shapes = [(m, n), (min(m, n), 1)]
                assert OPERATIONS[name].cost(shapes) == pytest.approx(counted, rel=1e-13)
            for name in ("trsm", "trmm"):
                counted = count_triangular(m, n)
                assert OPERATIONS[name].cost([(m, m), (m, n)]) == pytest.approx(counted)
            for name in ("symm", "hemm"):
                shapes = [(m, m), (m, n), (m, n)]
                assert OPERATIONS[name].cost(shapes) == (m * m * n, m * m * n)
            for name in ("syrk", "herk"):
                both = n * m * (m + 1) / 2
                for shape in ((m, n), (n, m)):
                    assert OPERATIONS[name].cost([shape, (m, m)]) == (both, both)
            for k in sizes:
                for a in ((m, k), (k, m)):
                    shapes = [a, (k, n), (m, n)]
                    assert OPERATIONS["gemm"].cost(shapes) == (m * n * k, m * n * k)


def test_flops_of_a_right_hand_side_triangle_count_its_order() -> None:
    # B A^-1 with B 3 x 5 is the transpose of A^-T B^T
    operation = OPERATIONS["trsm"]
    assert operation.cost([(5, 5), (3, 5)]) == pytest.approx(count_triangular(5, 3))


def test_counts_take_arrays() -> None:
    n = np.array([1.0, 4.0, 7.0])
    for operation in OPERATIONS.values():
        shapes = [(n, n)] * len(operation.modes)
        many = operation.flops(shapes, True)
        assert many.shape == (3,)
        for at, size in enumerate(n):
            one = operation.flops([(size, size)] * len(operation.modes), True)
            assert many[at] == pytest.approx(one, rel=1e-14)


def test_moving_data_costs_no_flops() -> None:
    for name in ("lacpy", "laset", "laswp", "noop", "getrf_tnt_pivots"):
        operation: Operation = OPERATIONS[name]
        assert operation.flops([(8, 8)] * len(operation.modes), False) == 0.0
