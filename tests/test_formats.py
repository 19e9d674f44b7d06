"""Number formats against the finfo of NumPy and ml_dtypes, and the definition u = 2^-t."""

import dataclasses
import math

import ml_dtypes
import numpy as np
import pytest

from taskla.formats import FORMATS, Format, dtype_of, format_of, get_format, working_dtype

# Those in which kernels compute, and those that NumPy or ml_dtypes have as a dtype.
COMPUTED = ["fp64", "fp32"]
DTYPES = [name for name in FORMATS if name not in ("fp24", "tf32")]


@pytest.mark.parametrize("format", [FORMATS[name] for name in DTYPES], ids=DTYPES)
def test_constants_are_those_of_the_dtype(format: Format) -> None:
    info = ml_dtypes.finfo(format.storage)
    assert format.t == info.nmant + 1
    assert format.unit_roundoff == 2.0**-format.t == float(info.eps) / 2
    assert format.min_normal == float(info.smallest_normal)
    assert format.min_subnormal == float(info.smallest_subnormal)
    assert format.max == float(info.max)


# t, u, the least normal and subnormal number, the largest, to the digits that are usually printed.
# fp64, fp32, fp16: IEEE 754; fp8: the Open Compute Project's OFP8; the others have the exponents
# of fp32.
PUBLISHED = {
    "fp64": (53, 1.11e-16, 2.225e-308, 4.941e-324, 1.7976e308),
    "fp32": (24, 5.960e-8, 1.175e-38, 1.401e-45, 3.4028e38),
    "fp24": (16, 1.526e-5, 1.175e-38, 3.587e-43, 3.4028e38),
    "tf32": (11, 4.883e-4, 1.175e-38, 1.148e-41, 3.4012e38),
    "fp16": (11, 4.883e-4, 6.104e-5, 5.960e-8, 65504),
    "bf16": (8, 3.906e-3, 1.175e-38, 9.184e-41, 3.3895e38),
    "fp8_e4m3": (4, 0.0625, 0.015625, 0.001953125, 448),
    "fp8_e5m2": (3, 0.125, 6.104e-5, 1.526e-5, 57344),
}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_constants_are_the_published_ones(format: Format) -> None:
    found = (format.t, format.unit_roundoff, format.min_normal, format.min_subnormal, format.max)
    assert found == pytest.approx(PUBLISHED[format.name], rel=1e-3)
    assert format.min_subnormal == format.min_normal * 2 * format.unit_roundoff
    assert math.isnan(format.overflow) == (format.name == "fp8_e4m3")


def test_formats_stand_widest_first() -> None:
    assert list(FORMATS) == list(PUBLISHED)
    assert all(get_format(name).name == name for name in FORMATS)
    for one, next in zip(FORMATS.values(), list(FORMATS.values())[1:], strict=False):
        assert one.t >= next.t


# Bytes of a stored real, whether tiles are scaled, the dtype and the format of the computation.
STORED = {
    "fp64": (8, False, "float64", "fp64"),
    "fp32": (4, False, "float32", "fp32"),
    "fp24": (3, False, "float32", "fp32"),
    "tf32": (4, False, "float32", "fp32"),
    "fp16": (2, True, "float32", "fp32"),
    "bf16": (2, False, "float32", "fp32"),
    "fp8_e4m3": (1, True, "float32", "fp32"),
    "fp8_e5m2": (1, True, "float32", "fp32"),
}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_how_a_format_is_stored_and_held(format: Format) -> None:
    found = (format.nbytes, format.scaled, format.real.name, format.working)
    assert found == STORED[format.name]
    assert format.complex_storage.itemsize == 2 * format.nbytes
    assert format.real == np.empty(0, format.complex).real.dtype
    pair = np.zeros(2, format.complex_storage)
    real = pair["real"] if format.complex_storage.names else pair.real
    assert real.dtype == format.storage


@pytest.mark.parametrize("format", [FORMATS[name] for name in COMPUTED], ids=COMPUTED)
def test_unit_roundoff_is_where_rounding_begins(format: Format) -> None:
    one = format.real.type(1)
    # 1 + u is a tie and goes to even, 1; the next larger summand goes up.
    assert one + format.real.type(format.unit_roundoff) == one
    assert one + format.real.type(format.unit_roundoff * 1.01) > one


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("f4", "fp32"), ("f8", "fp64"), ("c8", "fp32"), ("c16", "fp64"), (">f8", "fp64")],
)
def test_format_of_dtype(dtype: str, name: str) -> None:
    assert format_of(dtype) is FORMATS[name]
    assert format_of(np.dtype(dtype)).name == name


@pytest.mark.parametrize("name", FORMATS)
def test_dtype_of_is_that_of_the_working_format(name: str) -> None:
    assert dtype_of(name).kind == "f"
    assert dtype_of(name, complex=True).kind == "c"
    working = FORMATS[name].working
    assert working == (name if name in COMPUTED else "fp32")
    for complex in (False, True):
        assert format_of(dtype_of(name, complex)).name == working
    assert dtype_of(name, complex=True).itemsize == 2 * dtype_of(name).itemsize


@pytest.mark.parametrize(
    "dtype",
    ["float16", ml_dtypes.bfloat16, "V3", "int64", "object", "longdouble", "nonsense", "U3"],
)
def test_format_of_other_dtypes_names_the_allowed(dtype: object) -> None:
    with pytest.raises(ValueError, match="complex128, complex64, float32, float64"):
        format_of(dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fp128", "", "FP64", None, ["fp64"]])
def test_dtype_of_other_names_names_the_allowed(name: object) -> None:
    for call in (dtype_of, get_format):
        with pytest.raises(ValueError, match=f"allowed: {', '.join(FORMATS)}"):
            call(name)  # type: ignore[arg-type]


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
