"""The cluster of a Dask engine: the current one, or one of its own; what its scheduler is told."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Cluster", "from_distributed", "install", "seceded"]

#: Seconds that workers and scheduler of a cluster of our own have to end.
END = 30


class Cluster:
    """A client, and what is asked of its scheduler.

    Parameters
    ----------
    client : distributed.Client or None
        Default: the current one, else that of a new cluster.
    workers : int or None
        Processes of a new cluster.

    Attributes
    ----------
    client : distributed.Client or None
        None where Dask computes without one.
    """

    def __init__(self, client: Client | None, workers: int | None) -> None:
        self._own: Any = None
        self._closed = False
        if client is None:
            client = _current()
        elif workers is not None:
            raise ValueError(f"workers is {workers}; it is for a new cluster, and client is given")
        if client is None:
            client = self._new(workers)
        self.client: Client | None = _checked(client)
        install(self.client)

    @classmethod
    def current(cls) -> Cluster:
        """Return the cluster of the current client, or nothing."""
        cluster = cls.__new__(cls)
        cluster._own, cluster._closed = None, False
        client = _current()
        # an asynchronous one can compute what is built, but not be asked anything meanwhile
        cluster.client = None if client is None or client.asynchronous else client
        if cluster.client is not None:
            install(cluster.client)
        return cluster

    def _new(self, workers: int | None) -> Any:
        """Start a cluster on this machine that nobody else can reach."""
        Client, LocalCluster = from_distributed()
        from taskla.engines.dask_dashboard import register

        register()
        options: dict[str, Any] = {} if workers is None else {"n_workers": workers}
        if workers is not None:
            options["threads_per_worker"] = 1
        cluster = LocalCluster(
            host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=40, **options
        )
        client = Client(cluster, set_as_default=False)
        self._own = cluster, client
        # when it is forgotten without having been closed
        self._finalizer = weakref.finalize(self, _close, cluster, client)
        return client

    def workers(self) -> list[str]:
        """Return the addresses of the workers that there are."""
        if self.client is None:
            return []
        return sorted(self.client.nthreads())

    def recomputed(self) -> int:
        """Tasks of ours that were done again."""
        if self.client is None:
            return 0
        return int(self.client.run_on_scheduler(_recomputed))

    def close(self) -> None:
        """End the cluster, if it is our own."""
        if self._own is not None:
            self._own, self._closed = None, True
            self._finalizer()

    def require_open(self) -> None:
        """Raise RuntimeError if the cluster was our own and is no more."""
        if self._closed:
            raise RuntimeError(
                "the cluster that the engine had started was closed when `with` ended: compute, "
                "persist and gather inside of it, or give the engine a client"
            )


def _close(cluster: Any, client: Any) -> None:
    client.close(timeout=END)
    cluster.close(timeout=END)


def from_distributed() -> tuple[Any, Any]:
    """Return the classes of clients and local clusters; ImportError says what to install."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(
            "the engine 'dask' needs distributed: pip install 'taskla[dask]'"
        ) from error
    return Client, LocalCluster


def _current() -> Client | None:
    """Return the current client: in a task, its worker's."""
    try:
        from distributed import get_client
    except ImportError:
        return None
    try:
        client = get_client()
    except ValueError:
        return None
    # one that was closed stays the current one
    return client if client.status == "running" else None


def _checked(client: Any) -> Any:
    Client, _ = from_distributed()
    if not isinstance(client, Client):
        raise TypeError(f"client must be a distributed.Client, not {type(client).__name__}")
    if client.asynchronous:
        raise TypeError(
            "client is asynchronous; the engine waits for results: give Client(..., "
            "asynchronous=False)"
        )
    if client.status != "running":
        raise ValueError(f"client is {client.status}; the engine needs one that is connected")
    return client


@contextmanager
def seceded() -> Iterator[None]:
    """Leave the threads of a worker to others meanwhile: in a task that waits for other tasks."""
    from distributed import rejoin, secede

    try:
        secede()
    except (AttributeError, KeyError, ValueError):
        # no task, or one that has done so
        yield
        return
    try:
        yield
    finally:
        rejoin()


#: Those whose schedulers have the plugin.
_known: weakref.WeakSet[Any] = weakref.WeakSet()


def install(client: Any) -> None:
    """Put the plugin into the scheduler of a client, once."""
    from taskla.engines.dask_plugin import install

    if client not in _known:
        client.run_on_scheduler(install)
        _known.add(client)


def _recomputed(dask_scheduler: Any) -> int:
    from taskla.engines.dask_plugin import NAME

    return int(dask_scheduler.plugins[NAME].recomputed)
