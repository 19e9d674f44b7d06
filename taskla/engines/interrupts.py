"""Ctrl-C, put off until a run can end in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["DeferredInterrupt"]


class DeferredInterrupt:
    """A context in which SIGINT asks to stop; what its handler raised is raised on leaving.

    A KeyboardInterrupt may come between any two bytecodes, so between taking a resource and noting
    that it is to be given back. Here the signal's own handler is called at once, what it raises is
    kept, and `stop` is called; a handler that raises nothing stops nothing. In threads other than
    the main one, which signals never interrupt, and where SIGINT has no handler in Python, the
    context does nothing.

    Parameters
    ----------
    stop : callable
        Called in the main thread between any two bytecodes: it must take no lock.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._process = os.getpid()
        self._raised: BaseException | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        assert self._handler is not None
        # A task that forks leaves this handler to a child that never leaves the context.
        if os.getpid() != self._process:
            self._handler(number, frame)
            return
        try:
            self._handler(number, frame)
        except BaseException as error:
            self._raised = error
            self._stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self._raised is not None:
            # Without the traceback into the handler, whose frames refer to this object.
            raised, self._raised = self._raised.with_traceback(None), None
            try:
                raise raised
            finally:
                del raised
