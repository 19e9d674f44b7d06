"""What cannot be lazy on Dask: algorithms that look at numbers to know how they go on.

A matrix is settled, which is to say computed and kept on the workers, and thin arrays of this
process are multiplied with it there.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_collection import Collection, joined
from taskla.engines.dask_program import Where
from taskla.matrix_layout import Part

__all__ = ["placed", "product", "settle"]


def settle(*collections: Collection) -> None:
    """Have workers compute some collections, all in one go, and keep them; return when it is done.

    Parameters
    ----------
    *collections : Collection
        Of one engine. What they refer to is on the workers afterwards.

    Raises
    ------
    Exception
        What a task has raised.
    """
    import dask
    from dask.task_spec import Task, TaskRef

    done = dask.persist(*collections, **collections[0].scheduler({}))
    for collection, computed in zip(collections, done, strict=True):
        collection.graph = computed.graph
    keys = list(dict.fromkeys(key for one in collections for key in one.tile_keys()))
    name = f"settled-{uuid.uuid4().hex}"
    # a client waits for these, and hears of errors, wherever it is called; nothing is sent
    looks: dict[Hashable, Any] = {
        (name, number): Task((name, number), _nothing, TaskRef(key))
        for number, key in enumerate(keys)
    }
    graph = joined([one.graph for one in collections], name, looks)
    collections[0].engine.get(graph, list(looks))


def _nothing(_: Any) -> None:
    return None


def placed(block: NDArray[Any], dtype: np.dtype[Any], graph: Any) -> tuple[Where, Any]:
    """Return where a tile is that goes to a worker when something is computed, and a graph."""
    from dask.task_spec import DataNode

    name = f"array-{uuid.uuid4().hex}"
    key = (name, 0)
    node = DataNode(key, np.array(block, dtype, order="F"))
    return Where(key, -1), joined([graph], name, {key: node})


def product(A: Any, x: NDArray[Any], part: Part, adjoint: bool) -> NDArray[Any]:
    """Return A x or A^H x for a part of what a matrix holds: see `taskla.accuracy`.

    Parameters
    ----------
    A : DaskMatrix
    x : ndarray, shape (n, k)
    part : {"all", "hermitian", "lower", "upper", "unit lower"}
    adjoint : bool

    Returns
    -------
    ndarray, shape (m, k)
        In double precision.
    """
    import dask.array as da

    dtype = np.result_type(A.dtype, np.float64)
    factor = A.to_dask("hermitian" if part == "hermitian" else None).astype(dtype)
    if part == "unit lower" or (A.uplo is None and part in ("lower", "upper")):
        factor = factor.map_blocks(_part, part, dtype=dtype, meta=np.zeros((0, 0), dtype))
    factor = factor.conj().T if adjoint else factor[:, : len(x)]
    thin = da.from_array(x.astype(dtype), chunks=(factor.chunks[1], x.shape[1]))
    y: NDArray[Any] = (factor @ thin).compute(**A.scheduler({}))
    return y


def _part(block: NDArray[Any], part: Part, block_info: Any = None) -> NDArray[Any]:
    """The block of a triangle; one of which the diagonal is ones has them here."""
    (top, _), (left, _) = block_info[0]["array-location"]
    if part == "upper":
        return np.triu(block, top - left)
    if part == "lower":
        return np.tril(block, top - left)
    ones = np.eye(block.shape[0], block.shape[1], top - left, dtype=block.dtype)
    return np.asarray(np.tril(block, top - left - 1) + ones)
