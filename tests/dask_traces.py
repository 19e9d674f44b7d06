"""Programs that `test_dask_trace_ends` runs, with own clusters: ``dask_traces.py NAME FILE``."""

from __future__ import annotations

import sys

import numpy as np

import taskla as tla


def factor(n: int = 200) -> None:
    A = tla.TiledMatrix.random((n, n), nb=50, kind="spd", uplo="lower", seed=1)
    a = A.to_array(fill="symmetric")
    tla.potrf(A)
    np.testing.assert_allclose(A.to_array(), np.linalg.cholesky(a))


def own(file: str) -> None:
    """The cluster of an engine is there as long as it has something to tell."""
    with tla.engine("dask", workers=2, trace=file, energy="model"):
        factor()


def left(file: str) -> None:
    """By an exception."""
    try:
        with tla.engine("dask", workers=2, trace=file, energy="off"):
            factor()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def default(file: str) -> None:
    """Written when Python ends."""
    tla.engine("dask", workers=2, trace=file, energy="off").set_default()
    factor()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
