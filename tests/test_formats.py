"""Number formats against NumPy's finfo and the definition u = 2^-t."""

import dataclasses

import numpy as np
import pytest

from taskla.formats import FORMATS, Format, dtype_of, format_of, working_dtype


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_constants_are_those_of_numpy(format: Format) -> None:
    info = np.finfo(format.real)
    assert format.t == info.nmant + 1
    assert format.unit_roundoff == 2.0**-format.t == float(info.eps) / 2
    assert format.min_normal == float(info.smallest_normal)
    assert format.min_subnormal == float(info.smallest_subnormal)
    assert format.max == float(info.max)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_unit_roundoff_is_where_rounding_begins(format: Format) -> None:
    one = format.real.type(1)
    # 1 + u is a tie and goes to even, 1; the next larger summand goes up.
    assert one + format.real.type(format.unit_roundoff) == one
    assert one + format.real.type(format.unit_roundoff * 1.01) > one


def test_unit_roundoff_of_fp32_is_the_published_one() -> None:
    assert FORMATS["fp32"].unit_roundoff == pytest.approx(5.96e-8, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("f4", "fp32"), ("f8", "fp64"), ("c8", "fp32"), ("c16", "fp64"), (">f8", "fp64")],
)
def test_format_of_dtype(dtype: str, name: str) -> None:
    assert format_of(dtype) is FORMATS[name]
    assert format_of(np.dtype(dtype)).name == name


@pytest.mark.parametrize("name", FORMATS)
def test_dtype_of_is_the_inverse_of_format_of(name: str) -> None:
    assert dtype_of(name).kind == "f"
    assert dtype_of(name, complex=True).kind == "c"
    assert format_of(dtype_of(name)).name == format_of(dtype_of(name, complex=True)).name == name
    assert dtype_of(name, complex=True).itemsize == 2 * dtype_of(name).itemsize


@pytest.mark.parametrize("dtype", ["float16", "int64", "object", "longdouble", "nonsense", "U3"])
def test_format_of_other_dtypes_names_the_allowed(dtype: str) -> None:
    with pytest.raises(ValueError, match="complex128, complex64, float32, float64"):
        format_of(dtype)


@pytest.mark.parametrize("name", ["fp128", "", "FP64", None, ["fp64"]])
def test_dtype_of_other_names_names_the_allowed(name: object) -> None:
    with pytest.raises(ValueError, match="allowed: fp64, fp32"):
        dtype_of(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("?", "f8"),
        ("i1", "f8"),
        ("i8", "f8"),
        ("u8", "f8"),
        ("f2", "f4"),
        (">f2", "f4"),
        ("f4", "f4"),
        (">f4", "f4"),
        ("f8", "f8"),
        ("c8", "c8"),
        (">c16", "c16"),
    ],
)
def test_working_dtype_promotes_as_scipy_does(given: str, expected: str) -> None:
    result = working_dtype(given)
    assert result == np.dtype(expected)
    assert result.isnative


@pytest.mark.parametrize("dtype", ["object", "longdouble", "clongdouble", "U3", "M8[s]", "V8"])
def test_working_dtype_refuses_the_rest(dtype: str) -> None:
    with pytest.raises(ValueError, match="allowed: complex128"):
        working_dtype(dtype)


def test_a_format_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FORMATS["fp64"].t = 24  # type: ignore[misc]
