"""Virtual time: what runs when, by hand, by invariants, and call by call as the threads engine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_traces import cholesky, lu
from random_programs import programs, random_operations

from taskla import schedulers
from taskla.engines.crew import conduct
from taskla.engines.graph_run import GraphRun
from taskla.engines.simulation import Schedule, simulate
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.schedulers import Policy
from taskla.schedulers.eager import Eager

OWN = ("eager", "prio", "lws")


@pytest.fixture(scope="module", autouse=True)
def operations() -> Iterator[None]:
    with random_operations():
        yield


def independent(*priorities: float) -> TaskGraph:
    """A task for each priority, none of which waits for another."""
    flow = TaskFlow()
    tiles = flow.matrix(len(priorities), 1, nb=1)
    for i, priority in enumerate(priorities):
        flow.submit("noop", tiles[i, 0], priority=priority)
    return flow.graph()


def fork(width: int) -> TaskGraph:
    """Task 0, and tasks 1, ..., `width` that wait for it alone."""
    flow = TaskFlow()
    source = flow.matrix(1, 1, nb=1)
    flow.submit("noop", source)
    flow.geadd(source, flow.matrix(width, 1, nb=1))
    return flow.graph()


class Logging(Eager):
    """Eager, that writes down what it is asked, and gives some workers `most` tasks at most."""

    name = "logging"

    def __init__(self, most: dict[int, int] | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.most = most or {}

    def start(self, graph: TaskGraph, workers: int) -> None:
        self.calls.append(("start", graph.n, workers))
        super().start(graph, workers)

    def ready(self, task: int, worker: int | None) -> None:
        self.calls.append(("ready", task, worker))
        super().ready(task, worker)

    def next(self, worker: int) -> int | None:
        given = sum(call[:2] == ("next", worker) and call[2] is not None for call in self.calls)
        task = None if given >= self.most.get(worker, given + 1) else super().next(worker)
        self.calls.append(("next", worker, task))
        return task

    def finished(self, task: int, worker: int) -> None:
        self.calls.append(("finished", task, worker))


# -- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "start", "worker"),
    [
        # 0 and 3 end together, and 0 was started first: its worker goes on first
        ("eager", [0, 0, 2, 3, 3], [0, 1, 1, 0, 1]),
        # by priority 4, 0, 3, 1, 2
        ("prio", [0, 4, 6, 3, 0], [1, 0, 1, 1, 0]),
        # worker 0 is dealt 0, 2, 4 and worker 1 is dealt 1, 3, and steals 2
        ("lws", [4, 3, 5, 0, 0], [0, 1, 1, 1, 0]),
    ],
)
def test_a_schedule_made_by_hand(policy: str, start: list[int], worker: list[int]) -> None:
    durations = [3, 2, 1, 3, 4]
    schedule = simulate(independent(8, 1, 0, 2, 9), policy, 2, durations)
    assert schedule.start.tolist() == start
    assert schedule.end.tolist() == [s + d for s, d in zip(start, durations, strict=True)]
    assert schedule.worker.tolist() == worker
    assert schedule.makespan == max(schedule.end)


def test_the_calls_of_a_run_by_hand() -> None:
    policy = Logging()
    simulate(fork(3), policy, 3, [1, 2, 2, 2])
    assert policy.calls == [
        ("start", 4, 3),
        ("ready", 0, None),
        *[("next", 0, 0), ("next", 1, None), ("next", 2, None)],
        ("finished", 0, 0),
        *[("ready", task, 0) for task in (1, 2, 3)],
        # the worker itself, then the idle ones
        *[("next", 0, 1), ("next", 1, 2), ("next", 2, 3)],
        ("finished", 1, 0),
        ("next", 0, None),
        ("finished", 2, 1),
        ("next", 1, None),
        ("finished", 3, 2),
    ]


def test_idle_workers_are_woken_in_the_order_in_which_they_became_idle() -> None:
    flow = TaskFlow()
    tiles = flow.matrix(4, 1, nb=1)
    flow.submit("noop", tiles)
    # these three wait for task 0 alone
    flow.geadd(tiles[0, 0], flow.matrix(3, 1, nb=1))
    schedule = simulate(flow.graph(), "eager", 4, [9, 3, 1, 2, 1, 1, 1])
    assert schedule.worker.tolist() == [0, 1, 2, 3, 0, 2, 3]


def test_a_refused_worker_is_asked_again_after_another_task_has_finished() -> None:
    policy = Logging(most={0: 0})
    schedule = simulate(independent(0, 0, 0), policy, 2, [1, 1, 1])
    assert schedule.start.tolist() == [0, 1, 2]
    assert set(schedule.worker.tolist()) == {1}
    assert policy.calls[4:] == [
        *[("next", 0, None), ("next", 1, 0)],
        *[("finished", 0, 1), ("next", 1, 1), ("next", 0, None)],
        *[("finished", 1, 1), ("next", 1, 2)],
        ("finished", 2, 1),
    ]


def test_a_worker_that_is_refused_after_its_task_is_not_asked_twice() -> None:
    policy = Logging(most={0: 1})
    simulate(independent(0, 0, 0), policy, 2, [1, 2, 1])
    assert policy.calls[4:] == [
        *[("next", 0, 0), ("next", 1, 1)],
        *[("finished", 0, 0), ("next", 0, None)],
        *[("finished", 1, 1), ("next", 1, 2)],
        ("finished", 2, 1),
    ]


def test_idle_workers_are_not_woken_for_nothing() -> None:
    policy = Logging()
    simulate(fork(2), policy, 3, [1, 1, 1])
    after = policy.calls.index(("finished", 0, 0))
    assert policy.calls[after + 3 : after + 6] == [
        *[("next", 0, 1), ("next", 1, 2)],
        ("finished", 1, 0),
    ]


def test_no_more_workers_take_part_than_there_are_tasks() -> None:
    policy = Logging()
    simulate(independent(0, 0), policy, 10**9, [1, 1])
    assert policy.calls[0] == ("start", 2, 2)


@pytest.mark.parametrize("policy", OWN)
def test_an_empty_graph(policy: str) -> None:
    assert simulate(TaskFlow().graph(), policy, 2, []).makespan == 0


def test_a_policy_always_has_a_worker() -> None:
    policy = Logging()
    simulate(TaskFlow().graph(), policy, 2, [])
    assert policy.calls == [("start", 0, 1)]


def test_the_object_that_is_given_is_not_touched() -> None:
    policy = Eager()
    simulate(independent(0, 0), policy, 1, [1, 1])
    assert vars(policy) == {}


# -- the same calls as the threads engine ----------------------------------------------------------


@given(programs(), st.integers(0, 2**32))
def test_on_one_worker_the_calls_are_those_of_the_threads_engine(
    graph: TaskGraph, seed: int
) -> None:
    simulated, real = Logging(), Logging()
    simulate(graph, simulated, 1, durations_of(graph, seed))
    if graph.n:
        conduct(GraphRun(graph, lambda task: None, real, 1), 1, progress=False)
        assert simulated.calls == real.calls


class Wrong(Eager):
    """Gives a task that it must not."""

    name = "wrong"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def next(self, worker: int) -> int | None:
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (1, "policy 'wrong' gave task 1 to worker 0; it must give a task that is ready, once"),
        (-1, "policy 'wrong' gave task -1 to worker 0; it must give a task that is ready, once"),
        (9, "policy 'wrong' gave task 9 to worker 0; it must give a task that is ready, once"),
        ("0", "policy 'wrong' gave task '0' to worker 0; it must give a task that is ready, once"),
        (0, "policy 'wrong' gave task 0 to worker 1; it must give a task that is ready, once"),
        (
            None,
            "policy 'wrong' gave none of the 1 ready tasks to any of 2 workers, while 3 tasks are "
            "left and none is running",
        ),
    ],
)
def test_a_policy_at_fault_is_told_as_by_the_threads_engine(answer: object, message: str) -> None:
    graph = fork(2)
    with pytest.raises(RuntimeError) as simulated:
        simulate(graph, Wrong(answer), 2, [1, 1, 1])
    assert str(simulated.value) == message
    with pytest.raises(RuntimeError) as real:
        conduct(GraphRun(graph, lambda task: None, Wrong(answer), 2), 2, progress=False)
    # which of two real workers asks first is up to the machine
    assert str(real.value).replace("worker 1;", "worker 0;") == message.replace(
        "worker 1;", "worker 0;"
    )


@pytest.mark.parametrize(
    ("graph", "workers", "durations", "message"),
    [
        (fork(2), 0, [1, 1, 1], "workers is 0; it must be at least 1"),
        (fork(2), True, [1, 1, 1], "workers is True; it must be at least 1"),
        (fork(2), 1, [1, 1], r"durations must have shape \(3,\), not \(2,\)"),
        (fork(2), 1, [1, -1, 1], r"durations\[1\] is -1.0; it must be finite and at least 0"),
        (fork(2), 1, [1, 1, math.nan], r"durations\[2\] is nan; it must be finite"),
        (fork(2), 1, [math.inf, 1, 1], r"durations\[0\] is inf; it must be finite"),
    ],
)
def test_arguments_that_are_not_allowed(
    graph: TaskGraph, workers: int, durations: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(graph, "eager", workers, durations)


def test_a_policy_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="policy 'fifo' does not exist; there are eager"):
        simulate(fork(2), "fifo", 1, [1, 1, 1])


# -- invariants ------------------------------------------------------------------------------------


def durations_of(graph: TaskGraph, seed: int) -> np.ndarray:
    """Small integers, zero among them: many ties, and sums are exact."""
    chance = random.Random(seed)
    return np.array([chance.choice((0, 1, 1, 2, 3, 7)) for _ in range(graph.n)], dtype=float)


def check_valid(graph: TaskGraph, workers: int, durations: np.ndarray, schedule: Schedule) -> None:
    """Every task runs once, after its predecessors, and a worker does one thing at a time."""
    start, end, worker = schedule
    assert (end == start + durations).all()
    assert start.min(initial=0) == 0
    source, target = graph.edges()
    assert (end[source] <= start[target]).all()
    assert ((worker >= 0) & (worker < workers)).all()
    order = np.lexsort((end, start, worker))
    same = np.diff(worker[order]) == 0
    assert (end[order][:-1] <= start[order][1:])[same].all()


def check_never_idle(
    graph: TaskGraph, workers: int, durations: np.ndarray, schedule: Schedule
) -> None:
    """While a task that could run waits, all workers run tasks."""
    start, end, _ = schedule
    ready = np.zeros(graph.n)
    source, target = graph.edges()
    np.maximum.at(ready, target, end[source])
    for task in np.flatnonzero(start > ready):
        busy = np.minimum(end, start[task]) - np.maximum(start, ready[task])
        assert busy.clip(0).sum() == workers * (start[task] - ready[task])


@pytest.mark.parametrize("policy", OWN)
@given(programs(), st.sampled_from([1, 2, 3, 8]), st.integers(0, 2**32))
def test_the_schedule_is_valid_and_greedy(
    policy: str, graph: TaskGraph, workers: int, seed: int
) -> None:
    durations = durations_of(graph, seed)
    schedule = simulate(graph, policy, workers, durations)
    check_valid(graph, workers, durations, schedule)
    crew = max(1, min(workers, graph.n))
    check_never_idle(graph, crew, durations, schedule)
    area, path = durations.sum() / workers, graph.critical_path(durations)
    assert max(area, path) <= schedule.makespan
    # Graham (1969): no greedy schedule is longer
    assert schedule.makespan <= area + path * (1 - 1 / workers) + 1e-9


class Contrary(Policy):
    """The task submitted last first, and nothing for worker 1 every other time it asks."""

    name = "contrary"

    def start(self, graph: TaskGraph, workers: int) -> None:
        self.ready_: list[int] = []
        self.asked = 0

    def ready(self, task: int, worker: int | None) -> None:
        self.ready_.append(task)

    def next(self, worker: int) -> int | None:
        self.asked += worker == 1
        if not self.ready_ or (worker == 1 and self.asked % 2):
            return None
        latest = max(self.ready_)
        self.ready_.remove(latest)
        return latest


@given(programs(), st.sampled_from([1, 3]), st.integers(0, 2**32))
def test_the_schedule_of_a_policy_of_anyones_is_valid(
    graph: TaskGraph, workers: int, seed: int
) -> None:
    durations = durations_of(graph, seed)
    check_valid(graph, workers, durations, simulate(graph, Contrary(), workers, durations))


@pytest.mark.parametrize("policy", OWN)
@pytest.mark.parametrize("graph", [cholesky(6), lu(5)], ids=["cholesky", "lu"])
def test_on_one_worker_a_run_lasts_the_sum_of_the_durations(graph: TaskGraph, policy: str) -> None:
    durations = np.random.default_rng(5).random(graph.n)
    schedule = simulate(graph, policy, 1, durations)
    running = 0.0
    for task in np.argsort(schedule.start):
        assert schedule.start[task] == running
        running += durations[task]
    assert schedule.makespan == running
    assert schedule.makespan == pytest.approx(math.fsum(durations), rel=1e-12)
    whole = np.round(durations * 1e6)
    assert simulate(graph, policy, 1, whole).makespan == math.fsum(whole)


@pytest.mark.parametrize("policy", OWN)
def test_as_many_workers_as_tasks_reach_the_critical_path(policy: str) -> None:
    graph = cholesky(7)
    durations = durations_of(graph, 1)
    schedule = simulate(graph, schedulers.get(policy), graph.n, durations)
    assert schedule.makespan == graph.critical_path(durations)
