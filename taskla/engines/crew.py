"""The workers of one run: threads that live as long as it does."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from taskla import kernels
from taskla.engines.progress import Bar
from taskla.engines.signals import DeferredSignals

__all__ = ["Each", "Job", "conduct", "is_worker"]

_thread = threading.local()


def _forget_workers() -> None:
    """Begin anew in a forked child: its only thread is no worker, whatever forked it."""
    global _thread
    _thread = threading.local()


os.register_at_fork(after_in_child=_forget_workers)


class Job(ABC):
    """Work that a crew shares. It is for one run.

    Parameters
    ----------
    count : int
        The number of its parts: tasks or calls.

    Attributes
    ----------
    lock : threading.Lock
        Held for every change of what workers share.
    stopped : bool
        Whether workers are to start nothing more.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.lock = threading.Lock()
        self.stopped = False
        self._failure: tuple[int, BaseException] | None = None

    @abstractmethod
    def work(self, worker: int) -> None:
        """Do parts of the work until none is left or the job stopped. Raises nothing."""

    @abstractmethod
    def done(self) -> tuple[int, float, float]:
        """Return the number of parts done, their flops, and the flops of all."""

    def stop(self) -> None:
        """Let workers start nothing more. Takes no lock: a signal handler calls it."""
        self.stopped = True

    def fail(self, part: int, error: BaseException) -> None:
        """Stop because of an error in a part; that of the first part is kept. Needs the lock."""
        self.stopped = True
        if self._failure is None or part < self._failure[0]:
            self._failure = part, error

    def raise_failure(self) -> None:
        """Raise the error that was kept, if any."""
        if self._failure is not None:
            # The traceback refers to this frame and to the workers'; without these deletions the
            # cycle would keep the matrices in memory until the next collection.
            error, self._failure = self._failure[1], None
            try:
                raise error
            finally:
                del error


class Each(Job):
    """The calls ``function(0)``, ..., ``function(count - 1)``, started in this order."""

    def __init__(self, count: int, function: Callable[[int], None]) -> None:
        super().__init__(count)
        self._function = function
        self._started = 0

    def work(self, worker: int) -> None:
        """Call until none is left."""
        index = -1
        try:
            while True:
                with self.lock:
                    if self.stopped or self._started == self.count:
                        return
                    index = self._started
                    self._started = index + 1
                self._function(index)
        except BaseException as error:
            with self.lock:
                self.fail(index, error)

    def done(self) -> tuple[int, float, float]:
        """Return the number of calls that have started; they have no flops."""
        return self._started, 0.0, 0.0


def is_worker() -> bool:
    """Whether the calling thread is at work for a crew."""
    return getattr(_thread, "at_work", False)


def conduct(
    job: Job,
    workers: int,
    progress: bool | None = False,
    attend: Callable[[threading.Event], None] | None = None,
) -> None:
    """Have a crew do a job, with one BLAS thread a worker.

    One worker needs no thread of its own: it is the calling thread, unless that has a progress bar
    to keep. In a thread that is a worker already the job is done there, by that worker alone: its
    crew holds the cores, and waiting for others could go on for ever.

    Parameters
    ----------
    job : Job
    workers : int
        Employed at most; no more than the job has parts.
    progress : bool or None, default False
        See `taskla.engines.progress.Bar`.
    attend : callable, optional
        ``attend(over)`` is what the calling thread does until the event is set, when all workers
        have gone home, in place of waiting or a bar; each worker is a thread of its own then.

    Raises
    ------
    BaseException
        What the job failed with, or what the handler of SIGINT raised meanwhile.
    """
    if is_worker():
        job.work(0)
    else:
        workers = min(workers, job.count)
        bar = Bar.wanted(progress) if job.count > 1 else None
        with DeferredSignals(job.stop), kernels.blas_threads(1):
            if attend is not None:
                _employ(job, workers, attend)
            elif workers > 1 or bar is not None:
                _employ(job, workers, None if bar is None else partial(bar.watch, job))
            else:
                _labour(job, 0)
    job.raise_failure()


def _labour(job: Job, worker: int) -> None:
    """Be a worker, in this thread."""
    _thread.at_work = True
    try:
        job.work(worker)
    finally:
        _thread.at_work = False


def _employ(job: Job, workers: int, attend: Callable[[threading.Event], None] | None) -> None:
    """Start worker threads and wait until they have ended, attending to something meanwhile."""
    over = threading.Event()
    at_work = workers

    def labour(worker: int) -> None:
        nonlocal at_work
        try:
            _labour(job, worker)
        finally:
            with job.lock:
                at_work -= 1
                if not at_work:
                    over.set()

    started: list[threading.Thread] = []
    try:
        for worker in range(workers):
            thread = threading.Thread(
                target=copy_context().run, args=(labour, worker), name=f"taskla-worker-{worker}"
            )
            thread.start()
            started.append(thread)
        if not workers:
            over.set()
        if attend is not None:
            attend(over)
        # Not a join: before Python 3.13 an exception from a signal's handler that falls into one
        # makes the thread pass for ended.
        over.wait()
    except BaseException:
        job.stop()
        raise
    finally:
        for thread in started:
            thread.join()
