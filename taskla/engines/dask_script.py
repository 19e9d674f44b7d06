"""A script that runs inside this process as ``python script`` would run it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from types import TracebackType

__all__ = ["run_script"]

#: Of a program that Ctrl-C ended, as shells have it.
_INTERRUPTED = 130


def run_script(script: str, arguments: Sequence[str]) -> int:
    """Run a script as ``__main__``; return the exit code that Python would have had.

    Parameters
    ----------
    script : str
        A file. Its folder is to be on ``sys.path`` already.
    arguments : sequence of str
        Its ``sys.argv[1:]``.
    """
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        return _code(error.code)
    except BaseException as error:
        sys.stdout.flush()
        trace = _within(script, error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _code(given: object) -> int:
    """Return what a process that calls ``sys.exit`` ends with."""
    if given is None:
        return 0
    if isinstance(given, int):
        return given & 0xFF
    sys.stdout.flush()
    print(given, file=sys.stderr)
    return 1


def _within(script: str, trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames that are not the script's, above it."""
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    return trace
