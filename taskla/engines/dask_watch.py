"""A thread that reads the memory of a process, and the machine's meters, now and then."""

from __future__ import annotations

import threading

from taskla import energy
from taskla.engines.journal import PERIOD
from taskla.machine import resident
from taskla.traces.recorder import clock

__all__ = ["Watch"]

#: Samples of a series that are kept; beyond that every other one goes.
MOST = 2**14

Series = tuple[list[float], list[float]]


class Watch:
    """Samples of a process, until they are taken.

    Parameters
    ----------
    source : taskla.energy.Source or None
        Of the meters to be read.

    Attributes
    ----------
    source : taskla.energy.Source or None
    """

    def __init__(self, source: energy.Source | None) -> None:
        self.source = source
        self._meters = [] if source is None else list(source.meters)
        self._memory: Series = [], []
        self._readings: dict[str, Series] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="taskla-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def glance(self) -> None:
        """Sample the memory, unless that was done just now."""
        with self._lock:
            times = self._memory[0]
            if not times or clock() - times[-1] > PERIOD / 10:
                self._sample_memory()

    def take(self) -> tuple[Series, dict[str, Series]]:
        """Return the samples, one of now included, and forget them: memory, and meters by name."""
        self._look()
        with self._lock:
            memory, self._memory = self._memory, ([], [])
            readings, self._readings = self._readings, {}
        return memory, readings

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._look()

    def _look(self) -> None:
        with self._lock:
            self._sample_memory()
            for meter in self._meters.copy():
                try:
                    joules = meter.read()
                except OSError:
                    # a counter that went away says nothing more: see `taskla.engines.journal`
                    self._meters.remove(meter)
                    self._readings.pop(meter.name, None)
                    continue
                _add(self._readings.setdefault(meter.name, ([], [])), joules)

    def _sample_memory(self) -> None:
        size = resident()
        if size is not None:
            _add(self._memory, float(size))


def _add(series: Series, value: float) -> None:
    times, values = series
    times.append(clock())
    values.append(value)
    if len(times) > MOST:
        del times[1::2], values[1::2]
