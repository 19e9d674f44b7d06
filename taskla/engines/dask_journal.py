"""What the engine on a Dask cluster writes into a trace: one file for all workers.

Workers note what they do of a program when Dask computes it, which may be never, or long after the
program was called. The client fetches the notes when a trace is asked for, makes a run of each
program that was computed, and of Dask's transfers between workers messages.
"""

from __future__ import annotations

import os
import pickle
import uuid
import warnings
from collections.abc import Collection, Hashable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from taskla import energy
from taskla.coarsening import INITIAL, Coarse
from taskla.engines.dask_notes import TRANSFERS, Transfer
from taskla.engines.dask_program import Where
from taskla.engines.dask_recording import (
    DaskRecording,
    Passed,
    Program,
    WorkersGraph,
    identity,
    workers_graph,
)
from taskla.engines.dask_reports import Report, forget, plugin, report, topic
from taskla.engines.dask_workers import Workers
from taskla.engines.journal import facts
from taskla.engines.machines import charge
from taskla.traces import Recorder
from taskla.traces.recorder import in_words

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskJournal"]

#: Of Dask's states of a task those of one that is to be computed.
AHEAD = ("waiting", "processing", "queued", "no-worker")


class DaskJournal:
    """Records the programs of an engine.

    Parameters
    ----------
    trace : path or Recorder
    source : str, default "auto"
        Where joules come from: see `taskla.energy.find`. A model is the client's; meters are those
        of the workers' machines.

    Attributes
    ----------
    recorder : Recorder
    name : str
        That workers know it by.

    Raises
    ------
    OSError
        When no file can be written there.
    ValueError
        When there is no such source of joules.
    """

    def __init__(self, trace: str | os.PathLike[str] | Recorder, source: str = "auto") -> None:
        self.recorder = trace if isinstance(trace, Recorder) else Recorder(trace)
        self._energy = source, energy.find(source)
        self.recorder.facts = facts() | self.recorder.facts
        self.name = uuid.uuid4().hex
        self._client: Client | None = None
        self._workers = Workers(*self._energy)
        self._programs: dict[str, Program] = {}
        self._open: dict[str, DaskRecording] = {}
        self._graphs: dict[tuple[int, int], tuple[Coarse, WorkersGraph]] = {}
        self._under_way: list[tuple[str, Transfer]] = []
        self._read = 0

    def submitted(
        self,
        client: Client,
        token: str,
        coarse: Coarse,
        fuse: int,
        initial: Mapping[int, Where],
        when: float,
        **info: Any,
    ) -> None:
        """Take note of a program that the workers may be asked for.

        Parameters
        ----------
        client : distributed.Client
        token, coarse, fuse, initial
            See `Program`.
        when : float
            Clock reading of when the engine got it.
        **info
            For the header's description of its runs.
        """
        self.start(client)
        if token in self._programs:
            # once all of it was computed, this is another run of it
            self._collect()
            if token in self._open and self._open[token].complete:
                del self._open[token]
        name = coarse.program.graph.name or "graph"
        about = {"program": name, **info, "fuse": fuse, **self.recorder.context}
        self._programs[token] = Program(token, coarse, fuse, dict(initial), when, about)

    def finish(self, error: BaseException | None = None) -> None:
        """Fetch what the workers have noted, let them note no more, and write the file.

        Parameters
        ----------
        error : BaseException or None
            What ``with`` is left by.
        """
        if self._client is not None:
            self.recorder.elsewhere.remove(self._collect)
            try:
                self._collect(last=True, error=error)
                # workers that have gone note nothing any more
                with suppress(Exception):
                    self._running().unregister_worker_plugin(topic(self.name))
                    self._running().run_on_scheduler(forget, self.name)
            finally:
                self._client, self._read = None, 0
                self._workers = Workers(*self._energy)
                self._programs, self._open, self._under_way = {}, {}, []
        if self.recorder.path is not None:
            self.recorder.save()

    def start(self, client: Client) -> None:
        """Have workers note what they do from now on; a program that is called does it as well."""
        if self._client is not None:
            return
        meters = self._energy[0] in ("auto", "meters")
        client.register_plugin(plugin(self.name, meters))
        self._workers.measure(client)
        self._client = client
        self.recorder.elsewhere.append(self._collect)

    # -- from the workers --------------------------------------------------------------------------

    def _collect(self, last: bool = False, error: BaseException | None = None) -> None:
        """Add what the workers have noted since they were last asked."""
        ahead: Collection[str] = ()
        try:
            client = self._running()
            found = client.run(report, self.name, on_error="ignore")
            self._workers.measure(client)
            self._take(self._left(client), present=False)
            self._take(found, present=True)
            unfinished = {token for token, run in self._open.items() if not run.complete}
            if unfinished:
                ahead = client.run_on_scheduler(_ahead, tokens=unfinished)
        except Exception as failure:
            # a cluster that has gone takes neither what it told before nor the first cause along
            words = f"the trace lacks what workers noted: {in_words(failure)}"
            warnings.warn(words, RuntimeWarning, stacklevel=2)
        self._assign(last)
        for run in self._open.values():
            self._settle(run, run.program.token in ahead, last, error)

    def _running(self) -> Client:
        if self._client is None or self._client.status != "running":
            raise OSError("the client is closed")
        return self._client

    def _left(self, client: Client) -> dict[str, Report | None]:
        """Return what workers that have gone meanwhile have left with the scheduler."""
        entries = client.get_events(topic(self.name))
        new, self._read = entries[self._read :], len(entries)
        return dict(pickle.loads(entry) for _, entry in new)

    def _take(self, found: Mapping[str, Report | None], present: bool) -> None:
        for address, told in self._workers.told(found, present).items():
            for noted in told.noted:
                if (run := self._run_of(noted.token)) is not None:
                    run.add(address, self._workers.noted(address, noted))
            for token, count in told.lost.items():
                if (run := self._run_of(token)) is not None:
                    run.info["lost"] = run.info.get("lost", 0) + count
            self._under_way += [
                (address, self._workers.transfer(address, transfer)) for transfer in told.transfers
            ]

    def _run_of(self, token: str) -> DaskRecording | None:
        """Return the run of a program that was called since the journal began."""
        if token not in self._open and token in self._programs:
            self._open[token] = DaskRecording(self._programs[token])
            self.recorder.recordings.append(self._open[token])
        return self._open.get(token)

    def _assign(self, last: bool) -> None:
        """Give transfers to the runs whose tasks read what came, or made it if none has yet."""
        waiting: list[tuple[str, Transfer]] = []
        for destination, transfer in self._under_way:
            left: dict[Hashable, int] = {}
            for key, nbytes in transfer.nbytes.items():
                found = self._reader(key, destination, transfer.end) or self._maker(key, last)
                if found is None:
                    left[key] = nbytes
                    continue
                run, maker, tile = found
                times = transfer.start, transfer.end
                run.passed.append(Passed(transfer.source, destination, tile, maker, nbytes, *times))
            if left and not last:
                waiting.append((destination, transfer._replace(nbytes=left)))
        self._under_way = waiting[-TRANSFERS:]

    def _reader(
        self, key: Hashable, worker: str, came: float
    ) -> tuple[DaskRecording, int, int] | None:
        """The run that read a value first after it came to a worker; its maker, and a tile."""
        known = identity(key)
        found = [
            (time < came, time, run, tile)
            for run in self._open.values()
            for time, tile in run.readings(known, worker)
        ]
        if not found:
            return None
        *_, run, tile = min(found, key=lambda row: row[:2])
        origin = run.program.origin(key)
        return run, INITIAL if origin is None else origin[0], tile

    def _maker(self, key: Hashable, last: bool) -> tuple[DaskRecording, int, int] | None:
        for run in self._open.values():
            if (last or run.complete) and (origin := run.program.origin(key)) is not None:
                return run, *origin
        return None

    # -- runs --------------------------------------------------------------------------------------

    def _settle(
        self, run: DaskRecording, ahead: bool, last: bool, error: BaseException | None
    ) -> None:
        """Say how a run has ended, and where it ran."""
        if run.error is not None:
            is_exception, words = run.error
            run.info |= {"status": "failed" if is_exception else "interrupted", "error": words}
        elif ahead and not last:
            run.info["status"] = "running"
        elif not run.complete and (ahead or error is not None):
            why = "it was not over when the trace was written"
            run.info |= {"status": "interrupted", "error": in_words(error) if error else why}
        else:
            # tasks that nobody asked for are not run
            run.info["status"] = "completed"
            run.info.pop("error", None)
        addresses = [address for address, _ in run.noted.values()]
        addresses += [address for passed in run.passed for address in passed[:2]]
        run.ranks = self._workers.ranks(addresses)
        run.info |= self._workers.about(run.ranks, run.begin)
        run.later = partial(self._complete, run, self._workers)

    def _complete(self, run: DaskRecording, workers: Workers) -> None:
        """Put together what a trace has of a run."""
        coarse, width = run.program.coarse, run.program.fuse
        # many runs may be of one program; the entry keeps its key in use
        if (id(coarse), width) not in self._graphs:
            self._graphs[id(coarse), width] = coarse, workers_graph(coarse, width)
        _, whole = self._graphs[id(coarse), width]
        run.merge(whole)
        run.samples = workers.samples(run, run.ranks)
        charge(run, workers.machines(run, run.ranks))
        report = run.info["energy"]
        if report["source"] == "measured" and self._overlaps(run):
            # what each of them used of a meter's joules cannot be told
            words = "all joules while it ran, those of programs that ran meanwhile as well"
            report["reason"] = "; ".join([*filter(None, [report.get("reason")]), words])

    def _overlaps(self, run: DaskRecording) -> bool:
        """Whether another program ran at the same time."""
        return any(
            other is not run and other.begin < run.over and run.begin < other.over
            for other in self.recorder.recordings
        )


def _ahead(tokens: set[str], dask_scheduler: Any) -> set[str]:
    """Return the programs of which there are tasks that are to be computed; on the scheduler."""
    return {
        known[0]
        for key, task in dask_scheduler.tasks.items()
        if isinstance(known := identity(key), tuple) and known[0] in tokens and task.state in AHEAD
    }
