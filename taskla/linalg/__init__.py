"""Linear algebra with SciPy's names, signatures, results and exceptions, by tiles.

Code written for `scipy.linalg` runs with the import replaced. A large matrix of a LAPACK type is
factored, solved, inverted or multiplied as a graph of tasks on tiles by the current engine
(`taskla.engine`), in tiles of ``nb=``; a small one by SciPy in the calling thread.
`slogdet` and `matmul` are NumPy's, `symm` is BLAS's; every other name is `scipy.linalg`'s own.

The functions take a `TiledMatrix` as well, and give one back where they give a matrix; a right-hand
side that is an array gives an array. Of what they are told to check for infs and NaNs they look at
the entries that they use. With the engine ``mpi`` both kinds are worked on by all ranks, which all
make the same call; arrays are the same on all of them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import scipy.linalg

from taskla.linalg._cholesky import cho_factor, cho_solve, cholesky
from taskla.linalg._determinant import det, slogdet
from taskla.linalg._inputs import matrices_first
from taskla.linalg._inverse import inv
from taskla.linalg._lu import lu, lu_factor, lu_solve
from taskla.linalg._products import matmul, norm, symm as _symm
from taskla.linalg._solve import solve, solve_triangular

__all__ = [
    "cho_factor",
    "cho_solve",
    "cholesky",
    "det",
    "inv",
    "lu",
    "lu_factor",
    "lu_solve",
    "matmul",
    "norm",
    "slogdet",
    "solve",
    "solve_triangular",
    "symm",
]

symm = matrices_first(_symm)

if not TYPE_CHECKING:
    __all__ = sorted({*__all__, *scipy.linalg.__all__})

    # So that `from taskla.linalg.blas import dgemm` works, though this module is no package.
    for _name in ("blas", "lapack", "cython_blas", "cython_lapack"):
        sys.modules[f"{__name__}.{_name}"] = import_module(f"scipy.linalg.{_name}")


def __getattr__(name: str) -> Any:
    # The import system asks a module for __path__ and the like: not scipy.linalg's.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "interpolative":
        # The one submodule that scipy.linalg does not import itself.
        return import_module("scipy.linalg.interpolative")
    try:
        return getattr(scipy.linalg, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
