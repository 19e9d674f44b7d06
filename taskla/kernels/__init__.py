"""The kernels: what each operation does to its tiles, by device and format.

A kernel is found by :func:`bind` in one table keyed by (operation, device, format); nothing outside
this package knows what a kernel computes. Those of the CPU call BLAS and LAPACK by pointer, in
place, with leading dimensions and without the GIL.
"""

from taskla.kernels import (
    bf16,
    blas,
    conversions,
    elementwise,
    interchanges,
    lapack,
    norms,
    tournament,
)
from taskla.kernels.bf16 import bf16_products, facts as product_facts
from taskla.kernels.libraries import blas_info, blas_threads
from taskla.kernels.table import TABLE, Kernel, bind, register

__all__ = [
    "TABLE",
    "Kernel",
    "bf16_products",
    "bind",
    "blas_info",
    "blas_threads",
    "product_facts",
    "register",
]

# These enter their kernels into the table on import.
del bf16, blas, conversions, elementwise, interchanges, lapack, norms, tournament
