"""A progress bar for long runs at a terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar"]

# Seconds: a run that is over sooner needs no bar; a quarter is often enough to look alive.
DELAY = 1.0
PERIOD = 0.25

# A terminal shows one bar at a time; other runs go on without.
_screen = threading.Lock()


def _forget_screen() -> None:
    """Begin anew in a forked child, where no thread is left to release the lock."""
    global _screen
    _screen = threading.Lock()


os.register_at_fork(after_in_child=_forget_screen)


class Watched(Protocol):
    """A job as the bar sees it."""

    count: int

    def done(self) -> tuple[int, float, float]:
        """Return the number of parts done, their flops, and the flops of all."""


class Bar:
    """Parts done, Gflop/s and the time that remains, on the standard error stream.

    The waiting thread draws it, four times a second, so workers do nothing for it.

    Parameters
    ----------
    delay : float
        Seconds to wait before the bar appears.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay

    @classmethod
    def wanted(cls, progress: bool | None) -> Bar | None:
        """Return a bar, or None where none is to be shown.

        Parameters
        ----------
        progress : bool or None
            True: a bar from the start, whatever the stream is. False: none. None: at a terminal,
            for runs of more than a second.
        """
        if progress:
            return cls(0.0)
        if progress is None and sys.stderr is not None and sys.stderr.isatty():
            return cls(DELAY)
        return None

    def watch(self, job: Watched, over: threading.Event) -> None:
        """Show how far a job has come until it is over, or not at all if the screen is taken."""
        begin = time.monotonic()
        if over.wait(self._delay) or not _screen.acquire(blocking=False):
            return
        try:
            with _columns() as display:
                line = display.add_task("", total=None, rate="")
                _draw(display, line, job, time.monotonic() - begin)
                while not over.wait(PERIOD):
                    _draw(display, line, job, time.monotonic() - begin)
        finally:
            _screen.release()


def _draw(display: Progress, line: TaskID, job: Watched, seconds: float) -> None:
    done, flops, all_flops = job.done()
    rate = f"{flops / seconds / 1e9:.1f} Gflop/s" if flops and seconds else ""
    # Flops tell how much time is left better than tasks, where a task has any.
    completed, total = (flops, all_flops) if all_flops else (float(done), float(job.count))
    display.update(
        line, completed=completed, total=total, description=f"{done}/{job.count}", rate=rate
    )
    display.refresh()


def _columns() -> Progress:
    """Return rich's display; its own refreshing thread stays off."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
