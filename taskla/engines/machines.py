"""The energy of a run of several processes, on one machine or many: each machine's own account."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from taskla import energy
from taskla.engines.journal import task_figures
from taskla.traces import Recording

__all__ = ["Machine", "Readings", "charge", "portable"]

#: Meter's name -> times, joules.
Readings = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Machine(NamedTuple):
    """A machine, and where its joules come from.

    Attributes
    ----------
    ranks : list of int
        The processes on it; the first names it.
    source : taskla.energy.Source
    readings : Readings
        Of its meters.
    workers : int
        Of all its processes.
    """

    ranks: list[int]
    source: energy.Source
    readings: Readings
    workers: int


class _Elsewhere(energy.Meter):
    """A meter of another process, which has been read there."""

    def read(self) -> NoReturn:
        raise OSError(f"{self.name} is read on its own machine")


def portable(source: energy.Source) -> energy.Source:
    """Return a source with meters that can be sent, of use for accounts only."""
    meters = []
    for meter in source.meters:
        stand_in = _Elsewhere(meter.name, meter.kind)
        stand_in.idle_power, stand_in.idle_source = meter.idle_power, meter.idle_source
        meters.append(stand_in)
    # a mapping that cannot be changed cannot be pickled either
    return source._replace(meters=tuple(meters), weights=dict(source.weights))


def charge(recording: Recording, machines: Sequence[Machine]) -> None:
    """Share the energy of each machine out to the tasks that ran there.

    Parameters
    ----------
    recording : Recording
        Gets the joules of its tasks, and in its description those of the run.
    machines : sequence of Machine
        All that took part.
    """
    figures = task_figures(recording.graph, recording.start, recording.end)
    joules = np.full(recording.graph.n, np.nan)
    reports: dict[int, dict[str, Any]] = {}
    for machine in machines:
        mine = np.flatnonzero(np.isin(recording.rank, machine.ranks))
        readings = machine.readings.items()
        account = energy.account(
            machine.source,
            begin=recording.begin,
            end=recording.over,
            readings={name: (np.array(t), np.array(j)) for name, (t, j) in readings},
            tasks=_some(figures, mine),
            workers=machine.workers,
        )
        reports[machine.ranks[0]] = account.report
        if account.tasks is not None:
            joules[mine] = account.tasks
    report = _total(reports, recording.over - recording.begin)
    recording.info["energy"] = report
    recording.joules = None if report["source"] == "unavailable" else joules


def _some(tasks: energy.Tasks, rows: NDArray[np.int64]) -> energy.Tasks:
    start, end, kernel, format, flops, nbytes = tasks
    return energy.Tasks(
        start[rows], end[rows], kernel[rows], format[rows], flops[rows], nbytes[rows]
    )


def _total(reports: Mapping[int, dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Add up what the machines used, each named by its first rank.

    A sum that lacks a machine, or is measured here and modelled there, would be no figure.
    """
    found = {report["source"] for report in reports.values()}
    if len(reports) == 1 and found == {"unavailable"}:
        return next(iter(reports.values()))
    if "unavailable" in found or len(found) > 1:
        words = [
            f"rank {rank}: {report.get('reason') or report['source']}"
            for rank, report in reports.items()
        ]
        return {"source": "unavailable", "reason": "; ".join(words)}
    every = list(reports.values())
    joules = math.fsum(report["joules"] for report in every)
    total: dict[str, Any] = {
        **every[0],
        "joules": joules,
        "idle_joules": math.fsum(report["idle_joules"] for report in every),
        "watts": joules / seconds if seconds > 0 else None,
        "edp": joules * seconds,
    }
    if "meters" in total:
        total["meters"] = [
            {**meter, "name": f"rank {rank} {meter['name']}"}
            for rank, report in reports.items()
            for meter in report["meters"]
        ]
    if "model" in total:
        flop = {name: figure for r in every for name, figure in r["model"]["flop"].items()}
        total["model"] = {**total["model"], "flop": flop}
    missing = [f"rank {rank}: {r['reason']}" for rank, r in reports.items() if "reason" in r]
    if missing:
        total["reason"] = "; ".join(missing)
    return total
