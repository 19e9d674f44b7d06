"""Which format each tile gets: the rules, their short forms, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from matern import covariance, morton_grid

import taskla as tla
from taskla import PrecisionMap
from taskla.formats import FORMATS
from taskla.precision import NAMES, precision_map


def formats(A: tla.TiledMatrix) -> list[int]:
    """How many tiles of the lower triangle are in fp64, fp32 and fp16."""
    lower = A.format_map[np.tril_indices(A.mt)]
    return [int((lower == name).sum()) for name in ("fp64", "fp32", "fp16")]


# the table of the field's test matrix, the same for both sizes
@pytest.mark.parametrize(("side", "nb"), [(32, 64), (64, 256)])
@pytest.mark.parametrize(
    ("tol", "expected"),
    [(1e-4, [16, 24, 96]), (1e-6, [16, 42, 78]), (1e-8, [40, 58, 38])],
)
def test_tiles_by_format_of_a_weakly_correlated_field(
    side: int, nb: int, tol: float, expected: list[int]
) -> None:
    n = side**2
    f = covariance(morton_grid(side), 0.03)
    A = tla.TiledMatrix.from_function(f, (n, n), nb, uplo="lower", precision=f"adaptive:{tol}")
    assert formats(A) == expected
    if side == 64:
        assert tla.lansy("F", A) == pytest.approx(154.33551765, abs=1e-4)
    # the same of an array, and of its other triangle
    a = f(np.arange(n), np.arange(n))
    B = tla.TiledMatrix.from_array(a, nb, "upper", precision=PrecisionMap("adaptive", tol=tol))
    assert (B.format_map == A.format_map).all()
    assert A.precision == B.precision


def test_bands_count_diagonals_of_tiles() -> None:
    codes = PrecisionMap("fp64:1, fp32: 2, bf16: rest").of_shape(5, 4)
    names = np.array(NAMES)[codes]
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(4)))
    expected = np.where(distance < 1, "fp64", np.where(distance < 3, "fp32", "bf16"))
    assert (names == expected).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_format_is_that_of_every_tile(name: str) -> None:
    assert (PrecisionMap(name).of_shape(3, 2) == NAMES.index(name)).all()
    assert PrecisionMap(name).uniform == name


def test_an_array_names_each_tile(tmp_path: Path) -> None:
    a = np.random.default_rng(0).normal(size=(5, 5))
    names = [["fp64", "fp32", "bf16"], ["fp32", "fp16", "fp24"], ["fp64", "tf32", "fp64"]]
    A = tla.TiledMatrix.from_array(a, 2, precision=names)
    assert A.format_map.tolist() == names
    path = tmp_path / "map.csv"
    path.write_text("# of 3 x 3 tiles\n" + "\n".join(",".join(row) for row in names) + "\n")
    B = tla.TiledMatrix.from_array(a, 2, precision=str(path))
    assert B.format_map.tolist() == names
    assert B.to_array().tobytes() == A.to_array().tobytes()


def test_by_column_a_tile_column_has_one_format() -> None:
    norms = np.array([[1.0, 1e-9, 1e-3], [1e-9, 1e-9, 1e-9]])
    names = np.array(NAMES)[PrecisionMap("adaptive:1e-7", by="column").of_norms(norms, 1.0)]
    assert names.tolist() == [["fp64", "fp16", "fp32"]] * 2


@given(
    st.lists(st.floats(0, 1e3), min_size=9, max_size=9),
    st.sampled_from([1e-2, 1e-5, 1e-9, 1e-14]),
)
def test_the_lowest_format_that_the_rule_allows(values: list[float], tol: float) -> None:
    norms = np.array(values).reshape(3, 3)
    total = float(np.sqrt((norms**2).sum()))
    if not tol * total / 3 > 2.0**-100:
        return
    names = ("fp64", "fp32", "fp16", "fp8_e4m3")
    codes = PrecisionMap("adaptive", tol, names).of_norms(norms, total)
    for i, j in np.ndindex(3, 3):
        allowed = [
            name
            for name in names
            if norms[i, j] == 0 or norms[i, j] * 3 * FORMATS[name].unit_roundoff < tol * total
        ]
        expected = "fp64" if i == j or not allowed else allowed[-1]
        assert NAMES[codes[i, j]] == expected


def test_no_tile_is_wider_than_the_matrix() -> None:
    a = np.eye(4, dtype=np.float32) + 0.1
    A = tla.TiledMatrix.from_array(a, 2, precision="fp64:1,bf16:rest")
    assert A.format_map.tolist() == [["fp32", "bf16"], ["bf16", "fp32"]]


def test_maps_are_equal_by_what_they_say() -> None:
    assert precision_map("adaptive:1e-6") == PrecisionMap("adaptive", tol=1e-6)
    assert str(PrecisionMap("adaptive", tol=1e-6)) == "adaptive:1e-06"
    assert eval(repr(PrecisionMap("adaptive", 1e-6, ("fp64", "bf16"), "column"))) == PrecisionMap(
        "adaptive:1e-6", formats=("bf16", "fp64"), by="column"
    )
    assert eval(repr(PrecisionMap("fp64:1,fp16:rest"))) == PrecisionMap("fp64:1,fp16:rest")


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("fp63", {}, "rule is 'fp63'; allowed: a format"),
        ("fp64:2", {}, "a band like"),
        ("fp64:0,fp32:rest", {}, "a band like"),
        ("fp64:2,fp32:x,bf16:rest", {}, "a band like"),
        ("fp64:rest,fp32:rest", {}, "a band like"),
        ("fp65:2,fp32:rest", {}, "format is 'fp65'"),
        ("adaptive", {}, "needs a tolerance"),
        ("adaptive:", {}, "needs a tolerance"),
        ("adaptive:much", {}, "must be a number"),
        ("adaptive:1e-6", {"tol": 1e-6}, "one of them is enough"),
        ("adaptive", {"tol": 0.0}, "tol is 0.0"),
        ("adaptive", {"tol": 1.0}, "tol is 1.0"),
        ("adaptive", {"tol": np.nan}, "tol is nan"),
        ("adaptive", {"tol": 1e-9, "formats": ("fp32", "fp16")}, "with the widest format fp32"),
        ("adaptive", {"tol": 1e-6, "formats": ()}, "formats is empty"),
        ("adaptive", {"tol": 1e-6, "formats": ("fp7",)}, "format is 'fp7'"),
        ("adaptive", {"tol": 1e-6, "by": "row"}, "by is 'row'"),
        ("fp32", {"tol": 1e-6}, "are for the rule 'adaptive' only"),
        ("adaptive:1e-6", {"formats": "fp32"}, "formats is 'fp32'; it must be a sequence"),
    ],
)
def test_what_is_not_allowed_is_said(rule: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrecisionMap(rule, **options)  # type: ignore[arg-type]


def test_what_does_not_fit_a_matrix_is_said(tmp_path: Path) -> None:
    a = np.eye(4)
    with pytest.raises(ValueError, match=r"precision has shape \(1, 2\); the matrix has \(2, 2\)"):
        tla.TiledMatrix.from_array(a, 2, precision=[["fp64", "fp32"]])
    with pytest.raises(ValueError, match="an array of formats has a name for each tile"):
        tla.TiledMatrix.from_array(a, 2, precision=np.eye(2))
    with pytest.raises(ValueError, match="a tolerance is given as 'adaptive:1e-06'"):
        tla.TiledMatrix.from_array(a, 2, precision=1e-6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="copy is False"):
        tla.TiledMatrix.from_array(a, 2, copy=False, precision="fp32")
    with pytest.raises(TypeError, match="rule is 7"):
        PrecisionMap(7)  # type: ignore[arg-type]
    path = tmp_path / "map.txt"
    path.write_text("fp64 fp32\n")
    with pytest.raises(ValueError, match=r"map.txt: has 1 lines of formats; there must be 2 of 2"):
        tla.TiledMatrix.from_array(a, 2, precision=str(path))
    path.write_text("fp64\nfp32 fp64\n")
    with pytest.raises(
        ValueError, match=r"map.txt: line 1 of formats has 1 names; there must be 2"
    ):
        tla.TiledMatrix.from_array(a, 2, precision=path)
    path.write_text("fp64 fp32\nfp32 fp99\n")
    with pytest.raises(ValueError, match=r"map.txt: format is 'fp99'"):
        tla.TiledMatrix.from_array(a, 2, precision=str(path))
    with pytest.raises(FileNotFoundError):
        tla.TiledMatrix.from_array(a, 2, precision=str(tmp_path / "none.csv"))
    a[1, 0] = np.nan
    with pytest.raises(ValueError, match="must not contain infs or NaNs"):
        tla.TiledMatrix.from_array(a, 2, precision="adaptive:1e-6")
    with pytest.raises(OverflowError, match=r"tile \(\d, \d\) has an entry of 1e\+300; fp32 holds"):
        tla.TiledMatrix.from_array(np.eye(2) + 1e300, 1, precision="fp64:1,fp32:rest")
