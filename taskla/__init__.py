"""Tiled dense linear algebra: an algorithm is a task graph, and the graph runs anywhere.

``import taskla as tla`` loads nothing else; each public name loads its module on first use.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from taskla import (
        distributions as distributions,
        lapack as lapack,
        linalg as linalg,
        schedulers as schedulers,
    )
    from taskla.engines import engine as engine
    from taskla.flow import TaskFlow as TaskFlow
    from taskla.graph import TaskGraph as TaskGraph
    from taskla.lapack import (
        gemm as gemm,
        gesv as gesv,
        getrf as getrf,
        getri as getri,
        getrs as getrs,
        hemm as hemm,
        herk as herk,
        lange as lange,
        lanhe as lanhe,
        lansy as lansy,
        lantr as lantr,
        lauum as lauum,
        posv as posv,
        potrf as potrf,
        potri as potri,
        potrs as potrs,
        syrk as syrk,
        trmm as trmm,
        trsm as trsm,
        trtri as trtri,
    )
    from taskla.linalg import (
        cho_factor as cho_factor,
        cho_solve as cho_solve,
        cholesky as cholesky,
        det as det,
        inv as inv,
        lu as lu,
        lu_factor as lu_factor,
        lu_solve as lu_solve,
        matmul as matmul,
        norm as norm,
        slogdet as slogdet,
        solve as solve,
        solve_triangular as solve_triangular,
        symm as symm,
    )
    from taskla.matrix import TiledMatrix as TiledMatrix
    from taskla.precision import PrecisionMap as PrecisionMap
else:
    # Hidden from type checkers, which would otherwise take any misspelt name for an attribute.
    from importlib import import_module

    _SUBMODULES = ("distributions", "lapack", "linalg", "schedulers")
    _NAMES = {
        "engines": "engine",
        "flow": "TaskFlow",
        "graph": "TaskGraph",
        # by way of the engines, on which matrices are made tile by tile
        "lapack": "TiledMatrix gemm gesv getrf getri getrs hemm herk lange lanhe lansy lantr lauum"
        " posv potrf potri potrs syrk trmm trsm trtri",
        "linalg": "cho_factor cho_solve cholesky det inv lu lu_factor lu_solve matmul norm slogdet"
        " solve solve_triangular symm",
        "precision": "PrecisionMap",
    }
    _HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

    __all__ = sorted(["__version__", *_SUBMODULES, *_HOME])

    def __getattr__(name):
        if name in _SUBMODULES:
            return import_module(f"taskla.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'taskla' has no attribute {name!r}")
        value = getattr(import_module(f"taskla.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return __all__
