"""Between number formats: tiles rounded in place, or copied into tiles of another format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS
from taskla.kernels.arguments import mismatch
from taskla.kernels.elementwise import fortran
from taskla.kernels.pointers import LETTERS
from taskla.kernels.table import Kernel, register
from taskla.rounding import pack, round_to
from taskla.tile import Tile

__all__: list[str] = []


def _known(operation: str, format: str) -> str:
    if format not in FORMATS:
        raise ValueError(f"{operation}: format is {format!r}; allowed: {', '.join(FORMATS)}")
    return format


@register("round")
def round(dtype: str, format: str) -> Kernel:
    """A = A rounded to numbers of a format, as a tile of it holds them."""
    format = _known("round", format)

    def kernel(a: Tile) -> None:
        x = fortran(a)
        round_to(x, format, scaled=True, out=x)

    return kernel


def refuse_infinite(a: NDArray[Any], b: NDArray[Any], format: str) -> None:
    """Raise OverflowError where finite numbers have become infinite."""
    if not np.isfinite(b).all() and np.isfinite(a).all():
        raise OverflowError(
            f"entries of up to {np.abs(a).max():.3g} are too large for {format}, which is held in "
            f"{b.dtype}"
        )


@register("lag2", formats=(*LETTERS, FORMATS["bf16"].storage.name))
def lag2(dtype: str, format: str) -> Kernel:
    """B = A rounded to numbers of a format: LAPACK's dlag2s, for any."""
    format = _known("lag2", format)

    def kernel(a: Tile, b: Tile) -> None:
        if a.shape != b.shape:
            mismatch("lag2", a, b)
        if dtype not in LETTERS:
            pack(a.array, format, out=b.array)
        elif format in ("fp64", "fp32"):
            with np.errstate(over="ignore"):
                np.copyto(b.array, a.array, casting="same_kind")
        else:
            round_to(a.array, format, scaled=True, out=b.array)
        if a.array.dtype.itemsize > b.array.dtype.itemsize and dtype in LETTERS:
            refuse_infinite(a.array, b.array, format)

    return kernel
