"""What an engine writes into a trace beside its tasks: samples, energy, and the machine."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla import __version__, energy, kernels
from taskla.engines.cores import cores
from taskla.graph import TaskGraph
from taskla.machine import memory, processor, resident
from taskla.traces import Recorder, Recording
from taskla.traces.recorder import clock, format_name

__all__ = ["Journal", "Sampler", "facts", "task_figures"]

Times = NDArray[np.float64]

#: Seconds between two samples: counters of energy are refreshed about so often.
PERIOD = 0.05

_MEMORY = ("memory", "memory", "B", "measured")
_READY = ("ready", "ready", "task", "measured")


class Journal:
    """Records an engine's runs.

    Parameters
    ----------
    trace : path or Recorder
    source : taskla.energy.Source or str, default "auto"
        Where joules come from; a name is one for `taskla.energy.find`.

    Attributes
    ----------
    recorder : Recorder
    source : taskla.energy.Source

    Raises
    ------
    OSError
        When no file can be written there.
    ValueError
        When there is no such source of joules.
    """

    def __init__(
        self, trace: str | os.PathLike[str] | Recorder, source: energy.Source | str = "auto"
    ) -> None:
        self.recorder = trace if isinstance(trace, Recorder) else Recorder(trace)
        self.source = energy.find(source) if isinstance(source, str) else source
        self.recorder.facts = facts() | self.recorder.facts

    def save(self) -> None:
        """Write the file, if the recorder has a path and there is anything new."""
        if self.recorder.path is not None:
            self.recorder.save()

    @contextmanager
    def run(
        self, graph: TaskGraph, submitted: float, **info: Any
    ) -> Iterator[tuple[Recording, Sampler]]:
        """Record what runs inside ``with``.

        Parameters
        ----------
        graph : TaskGraph
        submitted : float
            Clock reading of when the engine got the tasks.
        **info
            For the header's description of the run.
        """
        recording = self.recorder.start(graph, submitted, **info)
        sampler = Sampler(recording, self.source.meters)
        error: BaseException | None = None
        try:
            with sampler:
                yield recording, sampler
        except BaseException as raised:
            error = raised
            raise
        finally:
            recording.close(error)
            # It takes longer than a small run: not while others wait for the result.
            recording.later = partial(_charge, self.source, recording, sampler)


class Sampler:
    """Reads the meters, the memory and the number of ready tasks while a run lasts.

    Parameters
    ----------
    recording : Recording
        Gets the samples.
    meters : sequence of taskla.energy.Meter

    Attributes
    ----------
    waiting : callable or None
        Returns the number of tasks that are ready; set once it is known.
    readings : dict
        Meter's name -> clock readings, joules since the run began.
    """

    def __init__(self, recording: Recording, meters: tuple[energy.Meter, ...]) -> None:
        self.waiting: Callable[[], int] | None = None
        self.readings: dict[str, tuple[list[float], list[float]]] = {}
        self._samples = recording.samples
        self._meters = list(meters)
        self._first: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="taskla-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._sample()

    def _sample(self) -> None:
        size = resident()
        if size is not None:
            self._samples.append((_MEMORY, clock(), float(size)))
        if self.waiting is not None:
            self._samples.append((_READY, clock(), float(self.waiting())))
        for meter in self._meters.copy():
            try:
                joules = meter.read()
            except OSError:
                # A counter that went away says nothing more: its run has no figure.
                self._meters.remove(meter)
                self.readings.pop(meter.name, None)
                continue
            self._note(meter.name, clock(), joules)

    def _note(self, name: str, now: float, joules: float) -> None:
        times, values = self.readings.setdefault(name, ([], []))
        joules -= self._first.setdefault(name, joules)
        if times and now > times[-1]:
            power = (joules - values[-1]) / (now - times[-1])
            self._samples.append(((name, "power", "W", "measured"), now, power))
        self._samples.append(((name, "energy", "J", "measured"), now, joules))
        times.append(now)
        values.append(joules)


def _charge(source: energy.Source, recording: Recording, sampler: Sampler) -> None:
    """Share the energy of a run out to its tasks."""
    account = energy.account(
        source,
        begin=recording.begin,
        end=recording.over,
        readings={name: (np.array(t), np.array(j)) for name, (t, j) in sampler.readings.items()},
        tasks=task_figures(recording.graph, recording.start, recording.end),
        workers=int(recording.info.get("workers") or 1),
    )
    recording.joules = account.tasks
    recording.info["energy"] = account.report


def task_figures(graph: TaskGraph, start: Times, end: Times) -> energy.Tasks:
    """Return what the energy of tasks follows from, for tasks that ran from `start` to `end`."""
    kernel = np.array([kind.operation for kind in graph.kinds], dtype=np.str_)
    format_ = [kind.precision or format_name(kind.dtype) for kind in graph.kinds]
    return energy.Tasks(
        start=start,
        end=end,
        kernel=kernel[graph.kind],
        format=np.array(format_, dtype=np.str_)[graph.kind],
        flops=graph.flops(),
        nbytes=graph.nbytes_accessed(),
    )


def facts() -> dict[str, Any]:
    """Return what the header says of the machine and of what is installed."""
    import scipy

    serving = next((blas for blas in kernels.blas_info() if blas["serves"]), None)
    return {
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
            "cores_usable": cores(),
            "memory": memory()[0],
        },
        "blas": serving and {key: serving[key] for key in ("name", "version", "architecture")},
        "versions": {
            "taskla": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
