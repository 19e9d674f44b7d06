"""What exports have in common: whole folders, curves over time, the two ends of a message."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import beside, check_folder, flush, swap
from taskla.traces.trace import Run, Series

__all__ = ["arrows", "curves", "replacing_folder", "tile", "title"]

Path_ = str | os.PathLike[str]


@contextmanager
def replacing_folder(path: Path_, ours: Iterable[str]) -> Iterator[Path]:
    """Give a name to make a folder at, and put it in place of `path` when all went well.

    A link stays, what it points to is replaced.

    Parameters
    ----------
    path : path
    ours : iterable of str
        Patterns of the names, relative to the folder, of all that such a folder holds.

    Raises
    ------
    OSError
        When the parent folder does not exist or cannot be written to.
    FileExistsError
        When `path` is a file, or a folder that holds anything else.
    """
    path = Path(path).resolve()
    check_folder(path.parent)
    _check_replaceable(path, tuple(ours))
    with beside(path) as temporary:
        yield temporary
        for name in sorted(temporary.rglob("*")):
            flush(name)
        flush(temporary)
        swap(temporary, path)
        flush(path.parent)


def _check_replaceable(path: Path, ours: tuple[str, ...]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path}: exists and is not a folder; it is not replaced")
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if not any(fnmatchcase(name, pattern) for pattern in ours):
            raise FileExistsError(
                f"{path}: holds {name!r}, which is no part of such an export; "
                "the folder is not replaced"
            )


def curves(run: Run) -> list[Series]:
    """Return what was sampled, and the ready tasks: counted at each change, not sampled."""
    found = [series for series in run.series if series.kind != "ready"]
    return [*found, _ready(run)] if run.tasks.size else found


def title(series: Series) -> str:
    """Return what a curve is called: ``package-0 power``, ``memory``."""
    return series.name if series.kind in series.name else f"{series.name} {series.kind}"


def _ready(run: Run) -> Series:
    """Tasks that no worker has taken: one more when one gets ready, one less when it starts."""
    start = run.tasks["start"]
    times = np.concatenate([np.minimum(run.tasks["ready"], start), start])
    steps = np.repeat([1.0, -1.0], start.size)
    moments, at = np.unique(times, return_inverse=True)
    value = np.cumsum(np.bincount(at, weights=steps), dtype=np.float64)
    return Series("ready tasks", "ready", "tasks", "measured", moments, value)


def tile(run: Run, row: int) -> str:
    """Return the tile that a task writes first: ``A(3, 3)``; "" for none."""
    label = run.label(row)
    return label.removeprefix(run.kernels[run.tasks["kernel"][row]]).strip()


def arrows(run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two ends of each message as rows of tasks.

    Returns
    -------
    source, target : (m,) int64 arrays
        The task that made the tile version, and the first that read it where it went; -1 where
        that is not known.
    """
    messages, tasks = run.messages, run.tasks
    tiles: list[list[tuple[int, int, int]]] = [[] for _ in range(tasks.size)]
    rows = np.searchsorted(tasks["task"], run.accesses["task"])
    for at, tile in zip(rows.tolist(), run.accesses[["matrix", "i", "j"]].tolist(), strict=True):
        tiles[at].append(tile)
    first: dict[tuple[Any, ...], int] = {}
    source, target = run.edges
    crossing = tasks["rank"][source] != tasks["rank"][target]
    source, target = source[crossing], target[crossing]
    order = np.argsort(-tasks["start"][target], kind="stable")
    ranks = tasks["rank"][target].tolist()
    # of several assignments the last stays: the task that started first
    for edge in order.tolist():
        begin, end = int(source[edge]), int(target[edge])
        first[begin, ranks[edge]] = end
        # a task that makes several tiles may have several readers on one rank
        for tile in tiles[end]:
            first[begin, ranks[edge], *tile] = end
    row = {number: at for at, number in enumerate(tasks["task"].tolist())}
    begins = [row.get(number, -1) for number in messages["task"].tolist()]
    columns = messages[["destination", "matrix", "i", "j"]].tolist()
    ends = [
        first.get((begin, *about), first.get((begin, about[0]), -1))
        for begin, about in zip(begins, columns, strict=True)
    ]
    return np.array(begins, np.int64), np.array(ends, np.int64)
