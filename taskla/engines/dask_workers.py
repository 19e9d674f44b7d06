"""The workers of a Dask cluster as the ranks of a trace: names, clocks, memory, energy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskla import energy
from taskla.engines.dask_notes import Noted, Transfer
from taskla.engines.dask_reports import Report, reading
from taskla.engines.machines import Machine
from taskla.engines.mpi_clocks import TRIPS, Offset, aligned, described, offset
from taskla.machine import boot
from taskla.traces import Recording
from taskla.traces.recorder import clock

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Workers"]

Times = NDArray[np.float64]
Sample = tuple[tuple[str, str, str, str], float, float]


@dataclass
class _Worker:
    """What is known of a worker; its samples are as it told them."""

    name: Any
    threads: int
    machine: str
    first: Offset
    last: Offset
    memory: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    readings: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    source: energy.Source | None = None

    def aligned(self, times: Any) -> Times:
        """Return readings of its clock as those of the client's."""
        return aligned(times, self.first, self.last)


class Workers:
    """The workers that have told anything, or are there.

    Parameters
    ----------
    spec : str
        Where joules are to come from.
    source : taskla.energy.Source
        What that is on the client's machine.
    """

    def __init__(self, spec: str, source: energy.Source) -> None:
        self._spec, self._source = spec, source
        self._known: dict[str, _Worker] = {}
        self._offsets: dict[str, tuple[Offset, Offset]] = {}
        self._present: set[str] = set()

    # -- clocks ------------------------------------------------------------------------------------

    def measure(self, client: Client) -> None:
        """Compare the clocks of all workers with that of this process.

        Processes of one machine have one clock. Of others the trip there and back that was the
        shortest tells the most.
        """
        asked, found = clock(), client.run(reading, on_error="ignore")
        trips = [(asked, found, clock())]
        elsewhere = {address for address, (machine, _) in found.items() if machine != boot()}
        while elsewhere and len(trips) < TRIPS:
            asked, found = clock(), client.run(reading, on_error="ignore")
            trips.append((asked, found, clock()))
        for address in trips[0][1]:
            new = Offset(asked, 0.0, 0.0)
            if address in elsewhere:
                mine = [(a, read[address][1], b) for a, read, b in trips if address in read]
                new = offset(*zip(*mine, strict=True))
            self._offsets[address] = self._offsets.get(address, (new, new))[0], new

    def told(self, found: Mapping[str, Report | None], present: bool) -> dict[str, Report]:
        """Take what workers told of themselves, and return what is of use.

        Of a worker of another machine that came and went between two measurements nothing is: its
        times say nothing here.

        Parameters
        ----------
        found : mapping of str to Report or None
            By address; None for a worker that notes nothing.
        present : bool
            Whether these are all workers that there are; else they have gone.
        """
        here = Offset(clock(), 0.0, 0.0)
        reports = {}
        for address, report in found.items():
            if report is None:
                continue
            if report.machine == boot():
                self._offsets.setdefault(address, (here, here))
            if address in self._offsets:
                reports[address] = report
        if present:
            self._present = set(reports)
        for address, report in reports.items():
            first, last = self._offsets[address]
            worker = self._known.setdefault(
                address, _Worker(report.name, report.threads, report.machine, first, last)
            )
            worker.last, worker.threads = last, report.threads
            worker.source = report.source or worker.source
            _extend(worker.memory, report.memory)
            for name, series in report.readings.items():
                _extend(worker.readings.setdefault(name, ([], [])), series)
        return reports

    def noted(self, address: str, noted: Noted) -> Noted:
        """Return a worker's note by the client's clock."""
        worker = self._known[address]
        begin, over = worker.aligned([noted.begin, noted.over]).tolist()
        start, end = worker.aligned(noted.start), worker.aligned(noted.end)
        return noted._replace(begin=begin, over=over, start=start, end=end)

    def transfer(self, address: str, transfer: Transfer) -> Transfer:
        """Return a transfer to a worker by the client's clock."""
        start, end = self._known[address].aligned([transfer.start, transfer.end]).tolist()
        return transfer._replace(start=start, end=end)

    # -- ranks -------------------------------------------------------------------------------------

    def ranks(self, addresses: Iterable[str]) -> dict[str, int]:
        """Number workers that took part, and those that are there, in the order of their names."""

        def order(address: str) -> tuple[int, int, str]:
            name = self._known[address].name if address in self._known else address
            return (0, name, "") if isinstance(name, int) else (1, 0, str(name))

        everyone = sorted(self._present.union(addresses), key=order)
        return {address: rank for rank, address in enumerate(everyone)}

    def about(self, ranks: Mapping[str, int], begin: float) -> dict[str, Any]:
        """Return what the header says of the workers."""
        known = [self._known.get(address) for address in ranks]
        clocks = [
            described(rank, worker.first, worker.last, begin)
            for rank, worker in enumerate(known)
            if worker is not None
        ]
        return {
            "workers": min((worker.threads for worker in known if worker is not None), default=1),
            "ranks": len(ranks),
            "rank_names": [
                str(address if worker is None else worker.name)
                for address, worker in zip(ranks, known, strict=True)
            ],
            "clock": clocks,
        }

    # -- samples, energy ---------------------------------------------------------------------------

    def samples(self, recording: Recording, ranks: Mapping[str, int]) -> list[Sample]:
        """Return what was sampled during a run."""
        found: list[Sample] = []
        for address, rank in ranks.items():
            worker = self._known.get(address)
            if worker is None:
                continue
            times = worker.aligned(worker.memory[0])
            during = (times >= recording.begin) & (times <= recording.over)
            about = (f"rank {rank} memory", "memory", "B", "measured")
            sizes = np.array(worker.memory[1])[during].tolist()
            found += [
                (about, time, size)
                for time, size in zip(times[during].tolist(), sizes, strict=True)
            ]
            for name, (at, joules) in _during(worker, recording).items():
                about = (f"rank {rank} {name}", "energy", "J", "measured")
                found += [(about, *reading) for reading in zip(at, joules, strict=True)]
                about = (f"rank {rank} {name}", "power", "W", "measured")
                watts = (np.diff(joules) / np.diff(at)).tolist()
                found += [(about, *power) for power in zip(at[1:], watts, strict=True)]
        return found

    def machines(self, recording: Recording, ranks: Mapping[str, int]) -> list[Machine]:
        """Return the machines of a run, with where their joules come from."""
        together: dict[str, list[str]] = {}
        for address in ranks:
            if address in self._known:
                together.setdefault(self._known[address].machine, []).append(address)
        result = []
        for addresses in together.values():
            workers = [self._known[address] for address in addresses]
            # the one that reads the meters, if any is
            teller = next((worker for worker in workers if worker.source is not None), workers[0])
            result.append(
                Machine(
                    [ranks[address] for address in addresses],
                    self._source_of(teller),
                    _during(teller, recording),
                    sum(worker.threads for worker in workers),
                )
            )
        return result

    def _source_of(self, worker: _Worker) -> energy.Source:
        if self._spec not in ("auto", "meters"):
            return self._source
        found = worker.source
        if found is None:
            found = energy.Source(
                (), None, reason="no worker there reads meters, or the one that did has left"
            )
        if found.meters or self._spec == "meters":
            return found
        return energy.find("model")


def _extend(
    series: tuple[list[float], list[float]], more: tuple[Collection[float], Collection[float]]
) -> None:
    series[0].extend(more[0])
    series[1].extend(more[1])


def _during(worker: _Worker, recording: Recording) -> dict[str, tuple[list[float], list[float]]]:
    """The joules of a worker's meters since a run began; those that were not read all along lack.

    What a meter showed at the begin and at the end lies between the readings before and after.
    """
    found = {}
    begin, over = recording.begin, recording.over
    for name, (when, joules) in worker.readings.items():
        times = worker.aligned(when)
        if not times.size or times[0] > begin or times[-1] < over or begin >= over:
            continue
        inner = times[(times > begin) & (times < over)]
        at = np.concatenate([[begin], inner, [over]])
        shown = np.interp(at, times, joules)
        found[name] = at.tolist(), (shown - shown[0]).tolist()
    return found
