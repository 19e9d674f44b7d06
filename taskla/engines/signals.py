"""Ctrl-C, and signals like it, put off until a run can end in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeAlias

__all__ = ["DeferredSignals"]

Handler: TypeAlias = Callable[[int, FrameType | None], object]

# What people give handlers that raise: Ctrl-C, the end of a batch job's time, a time limit.
_SIGNALS: tuple[int, ...] = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__
)


class DeferredSignals:
    """A context in which a signal asks to stop; what its handler raised is raised on leaving.

    A KeyboardInterrupt may come between any two bytecodes, so between taking a resource and noting
    that it is to be given back. Here a signal's own handler is called at once, what it raises is
    kept, and `stop` is called; a handler that raises nothing stops nothing. In threads other than
    the main one, which signals never interrupt, and for signals without a handler in Python, the
    context does nothing.

    Parameters
    ----------
    stop : callable
        Called in the main thread between any two bytecodes: it must take no lock.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._handlers: dict[int, Handler] = {}
        self._process = os.getpid()
        self._over = False
        self._raised: BaseException | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
            try:
                for number in self._handlers:
                    signal.signal(number, self._on_signal)
            except BaseException:
                # Raised by a handler that was not replaced yet.
                self._restore()
                raise

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A task that forks leaves this handler to a child that never leaves the context.
        if self._over or os.getpid() != self._process:
            self._handlers[number](number, frame)
            return
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            self._raised = error
            self._stop()

    def _restore(self) -> None:
        try:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        except BaseException:
            # Raised by a handler that was back already. Should another do the same now, those that
            # are left are called through this object as if it were not there.
            self._over = True
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        if self._raised is not None:
            # Without the traceback into the handler, whose frames refer to this object.
            raised, self._raised = self._raised.with_traceback(None), None
            try:
                raise raised
            finally:
                del raised
