"""What tests of rounding and packing share: the definition of rounding, and numbers to round.

The definition is rounding of x 2^-q to an integer, 2^q being the last place of x in the format.
`by_definition` is written from it alone, with frexp and ldexp, for float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS, Format
from taskla.rounding import pack

LOW = [name for name in FORMATS if name not in ("fp64", "fp32")]
MODES = ["nearest", "toward_zero", "stochastic"]
KINDS = {"f": ["float32", "float64"], "c": ["complex64", "complex128"]}
TYPES = KINDS["f"] + KINDS["c"]


def exponents(f: Format) -> tuple[int, int]:
    """The exponents of the smallest normal and the largest number of a format."""
    return int(np.frexp(f.min_normal)[1]) - 1, int(np.frexp(f.max)[1]) - 1


def by_definition(x: Any, f: Format, mode: str = "nearest") -> NDArray[np.float64]:
    """float64 numbers rounded to nearest, toward zero, down or up."""
    x = np.asarray(x, np.float64)
    integer = {"nearest": np.rint, "toward_zero": np.trunc, "down": np.floor, "up": np.ceil}[mode]
    with np.errstate(all="ignore"):
        q = np.maximum(np.frexp(x)[1] - 1, exponents(f)[0]) - (f.t - 1)
        y = np.ldexp(integer(np.ldexp(x, -q)), q)
        y = np.where(np.isfinite(x), y, x)
        saturated = np.isfinite(x) & (mode != "nearest")
        limit = np.where(saturated, f.max, f.overflow)
        return np.where(np.abs(y) > f.max, np.copysign(limit, x), y)


def samples(f: Format, dtype: str, n: int = 50_000) -> NDArray[Any]:
    """Numbers of all magnitudes, those of the format, ties between them, and neighbours of ties."""
    rng = np.random.default_rng(1)
    low, high = exponents(f)
    magnitude = np.ldexp(rng.uniform(1, 2, n), rng.integers(low - f.t - 3, high + 3, n))
    with np.errstate(all="ignore"):
        exact = by_definition(magnitude, f, "toward_zero")
        half = np.ldexp(0.5, np.maximum(np.frexp(exact)[1] - 1, low) - (f.t - 1))
        x = np.concatenate([magnitude, exact, exact + half, [0, f.max, f.min_subnormal / 2]])
        border = f.max + np.ldexp(0.5, high - (f.t - 1))
        x = np.concatenate([x, [border, 1.0001 * border, 1e300, 5e-324, np.inf, np.nan]])
        x = x.astype(dtype)
        near = [np.nextafter(x, x.dtype.type(end)) for end in (0, np.inf)]
        x = np.concatenate([x, *near])
    return np.concatenate([x, -x])


def assert_same(found: Any, expected: Any) -> None:
    """Equal bit by bit, but for the kind of nan."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    for part in ("real", "imag"):
        signs = np.signbit(getattr(found, part)[numbers])
        np.testing.assert_array_equal(signs, np.signbit(getattr(expected, part)[numbers]))


def layouts(x: NDArray[Any]) -> list[NDArray[Any]]:
    """The same numbers in other memory: F-ordered, slices with a leading dimension, reversed."""
    m, n = x.shape
    fortran = np.zeros((m + 7, n), x.dtype, order="F")[3 : 3 + m]
    c = np.zeros((m, n + 9), x.dtype)[:, 4 : 4 + n]
    apart = np.zeros((2 * m, 3 * n), x.dtype)[::2, ::3]
    back = np.zeros((m, n), x.dtype, order="F")[::-1, ::-1]
    for array in (fortran, c, apart, back):
        array[...] = x
    return [np.asfortranarray(x), fortran, c, apart, back]


def as_stored(x: NDArray[Any], name: str, **options: Any) -> tuple[NDArray[Any], str, float]:
    stored, scale = pack(x, name, **options)
    return stored, name, scale
