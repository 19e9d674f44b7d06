"""Products of bf16 numbers summed in fp32, as processors with AMX make them, by Intel's MKL.

Where there is no such processor, or no MKL, products in bf16 are made in fp32 of rounded numbers
(`taskla.kernels.blas`): the same to rounding errors of fp32, and not faster than fp32.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from taskla.formats import FORMATS
from taskla.kernels.arguments import TRANSPOSE, mismatch, transposition, value_of
from taskla.kernels.pointers import mkl_routine
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile

__all__ = ["bf16_products", "facts"]

_CHOICES = ("", "mkl", "emulated")
#: CBLAS's numbers.
_COLUMN_MAJOR = 102
_TRANSPOSE = {"N": 111, "T": 112}


def bf16_products() -> bool:
    """Whether products in bf16 are made by MKL from packed tiles.

    They are where the processor has AMX and MKL is installed. The environment variable TASKLA_BF16
    says otherwise: "mkl" on any processor, "emulated" on none.

    Raises
    ------
    ValueError
        When TASKLA_BF16 is another word.
    ImportError
        When it is "mkl" and MKL is not installed.
    """
    choice = os.environ.get("TASKLA_BF16", "")
    if choice not in _CHOICES:
        raise ValueError(f"TASKLA_BF16 is {choice!r}; allowed: 'mkl', 'emulated' (default: AMX's)")
    if choice == "mkl":
        _routine()
        return True
    return not choice and _found()


@cache
def _found() -> bool:
    try:
        if "amx_bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"):
            return False
        _routine()
    except (OSError, ImportError, AttributeError):
        return False
    return True


@cache
def _routine() -> Callable[..., None]:
    """Return ``cblas_gemm_bf16bf16f32``."""
    integer, real, address = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    arguments: list[Any] = [*[integer] * 6, real, *[address, integer] * 2, real, address, integer]
    address_of = mkl_routine("cblas_gemm_bf16bf16f32")
    return ctypes.CFUNCTYPE(None, *arguments)(address_of)


@register("gemm", formats=[FORMATS["bf16"].storage.name])
def gemm(dtype: str, transa: str, transb: str, alpha: complex, beta: complex) -> Kernel:
    """C = alpha op(A) op(B) + beta C, A and B of bf16 numbers, C of fp32."""
    transa = transposition("gemm", "transa", transa, "s")
    transb = transposition("gemm", "transb", transb, "s")
    x, y = (float(value_of("gemm", n, v, "s").real) for n, v in (("alpha", alpha), ("beta", beta)))
    call = _routine()
    across_a, across_b = transa != "N", transb != "N"

    def kernel(a: Tile, b: Tile, c: Tile) -> None:
        m, n = c.rows, c.cols
        (m_a, k) = (a.cols, a.rows) if across_a else (a.rows, a.cols)
        (k_b, n_b) = (b.cols, b.rows) if across_b else (b.rows, b.cols)
        if m_a != m or n_b != n or k_b != k:
            mismatch("gemm", a, b, c)
        op_a = _TRANSPOSE[transa if a.order == c.order else TRANSPOSE[transa]]
        op_b = _TRANSPOSE[transb if b.order == c.order else TRANSPOSE[transb]]
        A, B, C = (a.pointer, a.ld), (b.pointer, b.ld), (c.pointer, c.ld)
        if c.order == "F":
            call(_COLUMN_MAJOR, op_a, op_b, m, n, k, x, *A, *B, y, *C)
        else:
            # C^T = alpha op(B)^T op(A)^T + beta C^T
            call(_COLUMN_MAJOR, op_b, op_a, n, m, k, x, *B, *A, y, *C)

    return kernel


def facts() -> dict[str, Any]:
    """Return, by format, how products are made in it here: "native", or what emulates it."""
    made = {name: "native" if name in ("fp64", "fp32") else "emulated in fp32" for name in FORMATS}
    if bf16_products():
        made["bf16"] = "native (MKL, AMX)" if _found() else "MKL"
    return made
