"""Exports: traces in the formats of other tools, each module imported when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

from taskla.traces.trace import Trace

__all__ = ["NAMES", "get"]

# name -> the module here, its function
_WRITERS = {
    "paje": ("paje", "write"),
    "perfetto": ("perfetto", "write"),
    "otf2": ("otf2", "write"),
    "starpu-rec": ("starpu", "write"),
    "csv": ("tabular", "write_csv"),
    "parquet": ("tabular", "write_parquet"),
}

#: The formats.
NAMES = tuple(_WRITERS)

Writer = Callable[[Trace, str | os.PathLike[str], int | None], None]


def get(name: str) -> Writer:
    """Return what writes a trace in a format: ``write(trace, path, run)``.

    A run of None is the one that `Trace.run` chooses; tables hold all runs then.

    Raises
    ------
    ValueError
        When there is no such format.
    """
    if name not in _WRITERS:
        raise ValueError(f"format is {name!r}; allowed: {', '.join(NAMES)}")
    module, function = _WRITERS[name]
    writer: Writer = getattr(import_module(f"{__name__}.{module}"), function)
    return writer
