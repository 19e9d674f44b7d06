"""The table of kernels, keyed by (operation, device, format)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from taskla.kernels.pointers import LETTERS

__all__ = ["TABLE", "Factory", "Kernel", "bind", "register"]

#: a bound kernel: takes tiles in operand order, works in place
Kernel: TypeAlias = Callable[..., None]
#: from a format's name and the operation's parameters to the bound kernel
Factory: TypeAlias = Callable[..., Kernel]

#: (operation, device, format) -> factory; the format of a CPU kernel is NumPy's name of the dtype
TABLE: dict[tuple[str, str, str], Factory] = {}


def register(
    operation: str, device: str = "cpu", formats: Iterable[str] = tuple(LETTERS)
) -> Callable[[Factory], Factory]:
    """Return a decorator that enters a factory of kernels into the table.

    Parameters
    ----------
    operation : str
        Its name.
    device : str, default "cpu"
        Where the kernel runs.
    formats : iterable of str, optional
        The formats that it computes in. Default: the four types of LAPACK.

    Raises
    ------
    ValueError
        If there is a kernel for one of them already.
    """

    def enter(factory: Factory) -> Factory:
        for name in formats:
            key = operation, device, name
            if key in TABLE:
                raise ValueError(f"there is a kernel for {key} already")
            TABLE[key] = factory
        return factory

    return enter


def bind(
    operation: str, dtype: np.dtype[Any], params: tuple[object, ...] = (), device: str = "cpu"
) -> Kernel:
    """Return the kernel of an operation with everything resolved that its parameters decide.

    Parameters
    ----------
    operation : str
        Its name: "gemm".
    dtype : numpy.dtype
        float32, float64, complex64 or complex128.
    params : tuple
        The operation's parameters, in the order of `taskla.operations`.
    device : str, default "cpu"
        Where it is to run.

    Returns
    -------
    callable
        Takes the operands as `Tile` objects of `dtype` (integers for pivots and row indices, real
        for norms), in the order of `taskla.operations`. Tiles may be of either order, mixed. Safe
        to call from several threads; the GIL is released while it computes.

    Raises
    ------
    ValueError
        When there is no such kernel, or a parameter is not allowed; and by the kernel when the
        shapes of the tiles do not fit together.
    """
    dtype = np.dtype(dtype)
    # A dtype of the other byte order has the same name, and no kernel.
    return _bind(operation, dtype.name if dtype.isnative else dtype.str, params, device)


# Every call in a user's loop may bring its own alpha: old ones have to go.
@lru_cache(maxsize=4096)
def _bind(operation: str, format_name: str, params: tuple[object, ...], device: str) -> Kernel:
    factory = TABLE.get((operation, device, format_name))
    if factory is None:
        alike = sorted(op for op, dev, fmt in TABLE if (dev, fmt) == (device, format_name))
        if alike:
            raise ValueError(
                f"operation {operation!r} has no kernel for {format_name} on {device!r}; "
                f"these have: {', '.join(alike)}"
            )
        places = sorted({f"{fmt} on {dev!r}" for _, dev, fmt in TABLE})
        raise ValueError(
            f"operation {operation!r} has no kernel for {format_name} on {device!r}; "
            f"there are kernels for: {', '.join(places)}"
        )
    return factory(format_name, *params)
