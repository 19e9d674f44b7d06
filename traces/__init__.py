"""Traces: what ran where, when, on which tiles, for how many bytes and joules.

An engine writes to a `Recorder`. A `Trace` comes from it, from a file, from an import or from a
simulation; all else here looks at one: analysis, exports, pictures.
"""

from taskla.traces.files import read, write
from taskla.traces.recorder import Recorder, Recording
from taskla.traces.trace import Run, Series, Trace, Worker

__all__ = ["Recorder", "Recording", "Run", "Series", "Trace", "Worker", "read", "write"]
