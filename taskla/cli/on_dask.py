"""Bench on Dask: clusters of this machine, and one combination on one of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from statistics import median
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from taskla import programs, schedulers
from taskla.cli.checks import check
from taskla.cli.checks_formats import check_formats
from taskla.cli.generate import matrices
from taskla.cli.measure import Measured, reason_of_fallback
from taskla.cli.ranks import current
from taskla.coarsening import Coarse
from taskla.distributions import Distribution
from taskla.engines.cores import cores
from taskla.engines.dask import DaskEngine
from taskla.engines.dask_chunks import tile_size
from taskla.engines.dask_cluster import from_distributed
from taskla.engines.dask_collection import Collection
from taskla.graph import TaskGraph
from taskla.matrix import BlockFunction
from taskla.routines import TYPES, Problem
from taskla.traces import Recorder

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["OnDask", "on_dask"]

#: Seconds between two looks at whether there are workers, and without any until a run is given up:
#: those that have died are started again.
PERIOD, GONE = 5.0, 60.0

#: Seconds that a scheduler has to answer.
ANSWER = 10


def on_dask(
    workers: Sequence[int] | None,
    policies: Sequence[str],
    scheduler: str | None,
    checkpoint: str | None,
    checkpoint_every: int | None,
) -> list[OnDask]:
    """Return what runs routines, for each number of workers and policy; nothing is started yet.

    Parameters
    ----------
    workers : sequence of int or None
        Processes. Default: usable cores.
    policies : sequence of str
    scheduler : str or None
        Address of a running cluster, which is connected to. Default: clusters of this machine.
    checkpoint, checkpoint_every
        None: they are not for Dask.

    Raises
    ------
    ImportError
        When distributed is not installed.
    ValueError
        When there are several ranks, an option is not for Dask, or a value is not allowed; when
        nothing answers at an address, or it has no workers.
    """
    if (ranks := current()) is not None:
        raise ValueError(
            f"engine is 'dask', which starts its own processes, and there are {ranks.ranks} ranks; "
            "start one, without mpirun"
        )
    for name, value in (("checkpoint", checkpoint), ("checkpoint_every", checkpoint_every)):
        if value is not None:
            raise ValueError(f"{name} is {value!r}; the engine 'dask' has no checkpoints")
    from_distributed()
    clusters: dict[int, DaskEngine] = {}
    client = None
    if scheduler is not None:
        if workers is not None:
            raise ValueError(
                f"workers is {', '.join(map(str, workers))}; those of the scheduler are the ranks"
            )
        for policy in policies:
            schedulers.get(policy)
        client = connected(scheduler)
        workers = [len(client.nthreads())]
        clusters[workers[0]] = DaskEngine(client)
    return [
        OnDask(count or cores(), policy, clusters, client)
        for count in workers or (None,)
        for policy in policies
    ]


def connected(address: str) -> Client:
    """Return a client of the scheduler at an address.

    Raises
    ------
    ValueError
        When nothing answers there, or it has no workers.
    """
    from distributed import Client
    from distributed.comm import connect
    from distributed.security import Security

    async def look() -> None:
        secured = Security().get_connection_args("client")
        comm = await connect(address, timeout=ANSWER, **secured)
        await comm.close()

    # a client that could not connect would go on trying, and complain when it is forgotten
    try:
        asyncio.run(look())
        client = Client(address, set_as_default=False, timeout=ANSWER)
    except (OSError, ValueError) as error:
        raise ValueError(f"scheduler is {address!r}: {error}") from error
    if not client.nthreads():
        client.close()
        raise ValueError(f"scheduler is {address!r}, which has no workers")
    return client


class OnDask:
    """How a bench runs on Dask: on a cluster of this machine, started when it is first needed.

    Parameters
    ----------
    workers : int
        Processes, of a thread each.
    policy : str
    clusters : dict of int to DaskEngine
        Those that have been started, by their workers, for all that share them.
    connected : distributed.Client, optional
        That of the cluster which ran before, to be closed in the end.

    Attributes
    ----------
    name : {"dask"}
    workers, ranks : int
    policy : Policy
    """

    name: ClassVar[str] = "dask"

    def __init__(
        self,
        workers: int,
        policy: str,
        clusters: dict[int, DaskEngine],
        connected: Client | None = None,
    ) -> None:
        self.workers = self.ranks = workers
        self.policy = schedulers.get(policy)
        self._clusters, self._connected = clusters, connected

    def tile_size(self, n: int, dtype: str) -> int:
        """Return the tile size of a matrix of order n for which none is given."""
        return tile_size(n, np.dtype(TYPES.get(dtype, dtype)), self.ranks)

    @property
    def client(self) -> Client:
        """The client of the cluster."""
        if self.workers not in self._clusters:
            self._clusters[self.workers] = DaskEngine(workers=self.workers)
        client = self._clusters[self.workers].client
        assert client is not None
        return client

    def close(self) -> None:
        """End the clusters, or leave the one that ran before."""
        while self._clusters:
            self._clusters.popitem()[1].close()
        if self._connected is not None:
            self._connected.close()

    def measure(
        self,
        p: Problem,
        maps: Mapping[str, Distribution],
        recorder: Recorder | None,
        energy: str,
        *,
        seed: int,
        repeat: int,
        warmup: int,
        checked: bool,
    ) -> Measured:
        """Run a problem: see `taskla.cli.measure.measure`.

        A run ends when its results are on the workers. They are checked in this process.

        Parameters
        ----------
        p, maps, recorder, seed, repeat, warmup, checked
            As there.
        energy : str
            Where the joules of the recorder's runs come from.
        """
        runs, verdicts = [], []
        for number in range(warmup + repeat):
            counted = number >= warmup
            noting = recorder if counted else None
            if noting is not None:
                noting.context["repeat"] = number - warmup
            run = _Run(p, self.client, self.policy.name, noting, energy)
            # what waits for results asks for it
            with self.client.as_current():
                run.prepare(maps, seed)
                run.call()
            if counted:
                runs.append(run.figures)
                if checked:
                    verdicts.append(run.verdict(seed))
        last = runs[-1]
        return Measured(
            t_submit=median(found["t_submit"] for found in runs),
            time=median(found["time"] for found in runs),
            **{name: last[name] for name in ("tasks", "tasks_run", "messages", "bytes_sent")},
            pivot_messages=None,
            energy="unavailable",
            residual=float(np.max([residual for residual, _ in verdicts])) if verdicts else None,
            passed=all(passed for _, passed in verdicts) if verdicts else None,
            failure=reason_of_fallback(run.outcome),
        )


class _Observed(DaskEngine):
    """The engine, with a count of the tile tasks that reach it, and of Dask's tasks."""

    tasks = tasks_run = 0

    def coarse(
        self, graph: TaskGraph, maps: Sequence[Distribution | None], rowwise: tuple[int, ...]
    ) -> Coarse:
        found = super().coarse(graph, maps, rowwise)
        self.tasks += int(graph.multiplicity.sum())
        self.tasks_run += len(found)
        return found


class _Anew:
    """A function that Dask does not take for one that it knows: what is known is not computed."""

    def __init__(self, f: BlockFunction) -> None:
        self._f, self._token = f, uuid.uuid4().hex

    def __call__(self, rows: NDArray[Any], cols: NDArray[Any]) -> Any:
        return self._f(rows, cols)

    def __dask_tokenize__(self) -> str:
        return self._token


class _Run:
    """One call on fresh matrices.

    Attributes
    ----------
    figures : dict
        What it took.
    outcome : object
        What it has returned.
    """

    def __init__(
        self, p: Problem, client: Client, policy: str, recorder: Recorder | None, energy: str
    ) -> None:
        self._p, self._client = p, client
        self._plain = DaskEngine(client, policy=policy)
        tracing = {} if recorder is None else {"trace": recorder, "energy": energy}
        self._engine = _Observed(client, policy=policy, **tracing)  # type: ignore[arg-type]
        self.figures: dict[str, Any] = {}
        self.outcome: Any = None

    def prepare(self, maps: Mapping[str, Distribution], seed: int) -> None:
        """Have workers make the operands, and what the routine wants first."""
        with self._plain as engine:
            operands = matrices(self._p, seed, engine, maps, _Anew)
            prepared = self._p.routine.prepare
            given = prepared(self._p, operands) if prepared else None
        *self._operands, self._given = self._settled(self._begun([*operands, given]))
        for A in self._operands:
            A.engine = self._engine

    def call(self) -> None:
        """Time the call, until its results are on the workers."""
        # a graph kept from an earlier call would be no submission
        programs.forget()
        if self._engine.journal is not None:
            self._engine.journal.start(self._client)
        sent = _sent(self._client)
        with self._engine as engine:
            begin = perf_counter()
            outcome = self._p.routine.call(self._p, self._operands, self._given)
            begun = self._begun([*self._operands, outcome])
            submitted = perf_counter()
            *self._operands, self.outcome = self._settled(begun)
            end = perf_counter()
            messages, bytes_sent = (_sent(self._client) - sent).tolist()
        self.figures = {
            "t_submit": submitted - begin,
            "time": end - begin,
            "tasks": engine.tasks,
            "tasks_run": engine.tasks_run,
            "messages": messages,
            "bytes_sent": bytes_sent,
        }

    def verdict(self, seed: int) -> tuple[float, bool]:
        """Return the scaled residual of the result, brought here, and whether it passes."""
        outcome = self.outcome
        if isinstance(outcome, Collection):
            outcome = np.asarray(outcome)
        judge = check if self._p.formats is None else check_formats
        return judge(self._p, self._operands, outcome, seed)

    def _begun(self, things: Sequence[Any]) -> list[Any]:
        """Return things, of which those on Dask are being computed."""
        import dask

        return list(dask.persist(*things, scheduler=self._client))

    def _settled(self, things: list[Any]) -> list[Any]:
        """Return things when they are on the workers; raise what a task has raised."""
        from distributed import futures_of, wait

        futures = futures_of(things)
        alive = monotonic()
        while True:
            try:
                wait(futures, timeout=PERIOD)
                break
            except TimeoutError:
                now = monotonic()
                alive = now if self._client.nthreads() else alive
                if now - alive > GONE:
                    raise RuntimeError(f"there has been no worker for {GONE:.0f} s") from None
        for future in futures:
            if future.status != "finished":
                future.result()
        return things


def _sent(client: Client) -> NDArray[np.int64]:
    """Return how many answers workers have got from others so far, and the bytes they have sent."""
    found = list(client.run(_traffic).values())
    return np.asarray(np.array(found, np.int64).sum(axis=0))


def _traffic(dask_worker: Any) -> tuple[int, int]:
    answers = dask_worker.state.transfer_incoming_count_total
    return answers, dask_worker.transfer_outgoing_bytes_total
