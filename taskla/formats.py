"""The number formats in which tiles are stored and computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["FORMATS", "Format", "dtype_of", "format_of", "working_dtype"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    A complex number is a pair of reals, so one format serves both types.

    Attributes
    ----------
    name : str
        How users call it: "fp64", "fp32".
    t : int
        Bits of the significand, the implicit one included.
    unit_roundoff : float
        ``2**-t``, the largest relative error of rounding to nearest. This is what LAPACK's
        ``dlamch('E')`` returns, and half of ``np.finfo(dtype).eps``.
    min_normal, min_subnormal, max : float
        The smallest positive normal number, the smallest positive number, the largest finite one.
    real, complex : numpy.dtype
        What arrays of this format have.
    """

    name: str
    t: int
    unit_roundoff: float
    min_normal: float
    min_subnormal: float
    max: float
    real: np.dtype[Any]
    complex: np.dtype[Any]


def _ieee(name: str, t: int, emax: int, real: str, complex_: str) -> Format:
    """Return the IEEE 754 format with `t` significand bits and largest exponent `emax`."""
    return Format(
        name=name,
        t=t,
        unit_roundoff=2.0**-t,
        min_normal=2.0 ** (1 - emax),
        min_subnormal=2.0 ** (2 - emax - t),
        max=(2.0 - 2.0 ** (1 - t)) * 2.0**emax,
        real=np.dtype(real),
        complex=np.dtype(complex_),
    )


FORMATS: dict[str, Format] = {
    "fp64": _ieee("fp64", 53, 1023, "float64", "complex128"),
    "fp32": _ieee("fp32", 24, 127, "float32", "complex64"),
}
"""The formats that have kernels, by name, the widest first."""

_BY_DTYPE = {
    dtype: format for format in FORMATS.values() for dtype in (format.real, format.complex)
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


def dtype_of(format: str, complex: bool = False) -> np.dtype[Any]:
    """Return the dtype of the real (or complex) numbers of a format.

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
    """
    try:
        found = FORMATS[format]
    except (KeyError, TypeError):
        raise ValueError(f"format is {format!r}; allowed: {', '.join(FORMATS)}") from None
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
