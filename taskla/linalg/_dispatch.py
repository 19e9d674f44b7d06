"""Where a call is served: here, or on Dask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any, ParamSpec, TypeVar

__all__ = ["or_on_dask"]

P = ParamSpec("P")
R = TypeVar("R")


def or_on_dask(function: Callable[P, R]) -> Callable[P, R]:
    """Have what Dask arrays, and tiled matrices on Dask, are given to be done there, lazily.

    The function of the same name in `taskla.linalg._dask` gets all arguments, those that were left
    out as well, but for leave to overwrite: on Dask nothing is. What it does not know must have its
    default.
    """
    name = function.__name__

    @wraps(function)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        # before Dask is imported there is nothing of it
        if "dask" in sys.modules and _any_on_dask((*args, *kwargs.values())):
            lazy: Callable[..., R] = getattr(import_module("taskla.linalg._dask"), name)
            return lazy(**_by_name(function, args, kwargs, lazy))
        return function(*args, **kwargs)

    return dispatched


def _by_name(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    lazy: Callable[..., Any],
) -> dict[str, Any]:
    asked = signature(function)
    bound = asked.bind(*args, **kwargs)
    bound.apply_defaults()
    known = signature(lazy).parameters
    found = {}
    for name, argument in bound.arguments.items():
        if name in known:
            found[name] = argument
        elif not name.startswith("overwrite_") and argument is not asked.parameters[name].default:
            raise NotImplementedError(
                f"{name} is {argument!r}; {function.__name__} on Dask takes no {name}: use threads "
                "or MPI for that"
            )
    return found


def _any_on_dask(arguments: tuple[object, ...]) -> bool:
    """Whether an argument is on Dask, or one in a pair: factors and pivots."""
    return any(
        hasattr(argument, "__dask_graph__")
        or (isinstance(argument, tuple) and _any_on_dask(argument))
        for argument in arguments
    )
