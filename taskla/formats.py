"""The number formats in which tiles are stored and computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

__all__ = ["FORMATS", "Format", "dtype_of", "format_of", "get_format", "working_dtype"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    A complex number is a pair of reals, so one format serves both types.

    Attributes
    ----------
    name : str
        How users call it: "fp64", "bf16".
    t : int
        Bits of the significand, the implicit one included.
    unit_roundoff : float
        ``2**-t``, the largest relative error of rounding to nearest. This is what LAPACK's
        ``dlamch('E')`` returns, and half of ``np.finfo(dtype).eps``.
    min_normal, min_subnormal, max : float
        The smallest positive normal number, the smallest positive number, the largest finite one.
    overflow : float
        What a number too large becomes when it is rounded to nearest: inf, or nan where the format
        has no infinity.
    real, complex : numpy.dtype
        What arrays have that hold numbers of this format while they are computed with.
    storage, complex_storage : numpy.dtype
        What arrays have that store them. Where NumPy has no complex type for them, complex numbers
        are pairs with the fields "real" and "imag".
    scaled : bool
        Whether a tile is stored as its product with a power of two, because the format's range is
        narrow.
    working : str
        The format in which tiles of this one are updated.
    """

    name: str
    t: int
    unit_roundoff: float
    min_normal: float
    min_subnormal: float
    max: float
    overflow: float
    real: np.dtype[Any]
    complex: np.dtype[Any]
    storage: np.dtype[Any]
    complex_storage: np.dtype[Any]
    scaled: bool
    working: str

    @property
    def nbytes(self) -> int:
        """Bytes of a stored real number; a complex one takes twice as many."""
        return self.storage.itemsize


def _format(
    name: str,
    t: int,
    emax: int,
    storage: DTypeLike,
    scaled: bool = False,
) -> Format:
    """Return the format with `t` bits of significand and exponents from ``1 - emax`` to `emax`."""
    stored = np.dtype(storage)
    real, complex = ("float64", "complex128") if t > 24 else ("float32", "complex64")
    return Format(
        name=name,
        t=t,
        unit_roundoff=2.0**-t,
        min_normal=2.0 ** (1 - emax),
        min_subnormal=2.0 ** (2 - emax - t),
        max=(2.0 - 2.0 ** (1 - t)) * 2.0**emax,
        overflow=math.inf,
        real=np.dtype(real),
        complex=np.dtype(complex),
        storage=stored,
        complex_storage=np.dtype(
            complex if stored == real else [("real", stored), ("imag", stored)]
        ),
        scaled=scaled,
        working="fp64" if t > 24 else "fp32",
    )


_KNOWN = (
    _format("fp64", 53, 1023, "float64"),
    _format("fp32", 24, 127, "float32"),
    _format("fp24", 16, 127, "V3"),
    _format("tf32", 11, 127, "float32"),
    _format("fp16", 11, 15, "float16", scaled=True),
    _format("bf16", 8, 127, ml_dtypes.bfloat16),
    # The flavour of the Open Compute Project: all ones is the only nan, and the other patterns of
    # the largest exponent are numbers.
    replace(
        _format("fp8_e4m3", 4, 7, ml_dtypes.float8_e4m3fn, scaled=True),
        max=448.0,
        overflow=math.nan,
    ),
    _format("fp8_e5m2", 3, 15, ml_dtypes.float8_e5m2, scaled=True),
)

FORMATS: dict[str, Format] = {format.name: format for format in _KNOWN}
"""The formats of tiles by name, those with more bits of significand first.

fp24 is the upper three bytes of a float32; fp8 is that of the Open Compute Project, e4m3 "fn".
"""

_BY_DTYPE = {
    dtype: FORMATS[name]
    for name in ("fp64", "fp32")
    for dtype in (FORMATS[name].real, FORMATS[name].complex)
}


def format_of(dtype: DTypeLike) -> Format:
    """Return the format that numbers of a dtype have.

    Parameters
    ----------
    dtype : dtype-like
        float32, float64, complex64 or complex128, in either byte order.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> format_of("complex64").name
    'fp32'
    """
    try:
        return _BY_DTYPE[np.dtype(dtype).newbyteorder("=")]
    except (KeyError, TypeError):
        allowed = ", ".join(sorted(map(str, _BY_DTYPE)))
        raise ValueError(f"dtype is {dtype!r}; allowed: {allowed}") from None


def get_format(name: str) -> Format:
    """Return the format of a name.

    Raises
    ------
    ValueError
        When no format has this name.
    """
    try:
        return FORMATS[name]
    except (KeyError, TypeError):
        raise ValueError(f"format is {name!r}; allowed: {', '.join(FORMATS)}") from None


def dtype_of(format: str, complex: bool = False) -> np.dtype[Any]:
    """Return the dtype in which real (or complex) numbers of a format are held to compute.

    Parameters
    ----------
    format : str
        A name in `FORMATS`.
    complex : bool, default False
        Whether the numbers are complex.

    Raises
    ------
    ValueError
        When no format has this name.

    Examples
    --------
    >>> dtype_of("bf16")
    dtype('float32')
    """
    found = get_format(format)
    return found.complex if complex else found.real


def working_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype in which an array of a given dtype is computed, as SciPy promotes it.

    The four types of LAPACK stay (in native byte order), float16 becomes float32, integers and
    booleans become float64.

    Raises
    ------
    ValueError
        For every other dtype: object, strings, extended precision.
    """
    given = np.dtype(dtype)
    if given.kind in "biu":
        return FORMATS["fp64"].real
    if given == np.float16 or given.newbyteorder("=") == np.float16:
        return FORMATS["fp32"].real
    format = format_of(given)
    return format.complex if given.kind == "c" else format.real
