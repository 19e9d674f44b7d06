"""Which BLAS libraries the process has loaded, and with how many threads they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController, threadpool_info

from taskla.kernels.pointers import library

__all__ = ["blas_info", "blas_threads"]


class _Limit:
    """The limit on BLAS threads of a process.

    A library with threads of its own has one number of threads: the first entry sets it, the last
    restores it. OpenMP has one for each thread that calls: every entry sets and restores that.
    """

    def __init__(self, find: Callable[[], list[Any]]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._entries = 0
        self._process = 0
        self._shared: list[Any] | None = None
        self._by_thread: list[Any] = []
        self._before: list[int] = []

    def enter(self, threads: int) -> tuple[int, list[int]]:
        """Count an entry; return what `leave` wants."""
        with self._lock:
            if self._shared is None:
                # The search through what is loaded takes milliseconds: only once.
                found = self._find()
                self._by_thread = [library for library in found if _openmp(library)]
                self._shared = [library for library in found if not _openmp(library)]
            if not self._entries:
                self._before = _set(self._shared, [threads] * len(self._shared))
            self._entries += 1
            process = self._process
        return process, _set(self._by_thread, [threads] * len(self._by_thread))

    def leave(self, process: int, before: list[int]) -> None:
        """Count a departure, unless the entry was counted before a fork."""
        _set(self._by_thread, before)
        with self._lock:
            if process != self._process:
                return
            self._entries -= 1
            if not self._entries:
                _set(self._shared or [], self._before)

    def after_fork(self) -> None:
        """Forget, in the child, all entries: most of their threads are not there to leave."""
        self._lock = threading.Lock()
        self._process += 1
        if self._entries:
            self._entries = 0
            _set(self._shared or [], self._before)


def _loaded() -> list[Any]:
    library()
    return [pool for pool in ThreadpoolController().lib_controllers if pool.user_api == "blas"]


def _openmp(pool: Any) -> bool:
    return bool(pool.internal_api == "openblas" and pool.threading_layer == "openmp")


def _set(pools: list[Any], threads: list[int]) -> list[int]:
    """Set the number of threads of each library; return what they were."""
    before = [pool.num_threads for pool in pools]
    for pool, number in zip(pools, threads, strict=True):
        # From version 3.8 on threadpoolctl ignores all threads but the one that came first, which
        # need not be the one that leaves last.
        release = getattr(pool, "clear_controlling_thread", lambda force: None)
        release(force=True)
        pool.set_num_threads(number)
        release(force=True)
    return before


_limit = _Limit(_loaded)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.after_fork)


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """Limit the threads of every BLAS library in the process while the context lasts.

    Contexts may be nested and entered from several threads: the first sets the limit, which holds
    until the last ends and the original numbers of threads are restored. A library that runs on
    OpenMP is limited only in threads that have entered. A forked child starts without a limit.

    Parameters
    ----------
    n : int
        Threads of each library, at least 1.

    Raises
    ------
    ValueError
        When `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; BLAS runs with at least 1 thread")
    entry = _limit.enter(n)
    try:
        yield
    finally:
        _limit.leave(*entry)


def blas_info() -> list[dict[str, Any]]:
    """Describe the BLAS libraries that the process has loaded.

    Returns
    -------
    list of dict
        One a library: ``name`` ("openblas", "mkl", ...), ``version`` (None if it does not say),
        ``file`` (its file name), ``path``, ``threads`` (as of now), ``architecture`` (the processor
        that its kernels are for, None if it does not say) and ``serves``: whether the kernels of
        taskla call it.

    Raises
    ------
    ValueError, ImportError
        When TASKLA_BLAS names a library that is not known, or not installed.
    """
    chosen = library().name
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    server = _server(chosen, pools)
    return [
        {
            "name": pool["internal_api"],
            "version": pool["version"],
            "file": Path(pool["filepath"]).name,
            "path": pool["filepath"],
            "threads": pool["num_threads"],
            "architecture": pool.get("architecture"),
            "serves": pool is server,
        }
        for pool in pools
    ]


def _server(chosen: str, pools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the library that the kernels call; None if threadpoolctl does not know it."""
    if chosen == "mkl":
        candidates = [pool for pool in pools if pool["internal_api"] == "mkl"]
    else:
        # The wheels of NumPy and SciPy bring a library each, in folders named after them; elsewhere
        # the two share one.
        candidates = sorted(
            pools, key=lambda pool: "scipy." not in Path(pool["filepath"]).parent.name
        )
    return candidates[0] if candidates else None
