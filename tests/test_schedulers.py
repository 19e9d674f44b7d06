"""Policies decide in a fixed order: a test drives one as an engine would and asserts the order."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla import schedulers
from taskla.algorithms.potrf import potrf
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.schedulers import Policy

OWN = ("eager", "prio", "lws")


def independent(*priorities: float) -> TaskGraph:
    """A task for each priority, none of which waits for another."""
    flow = TaskFlow()
    tiles = flow.matrix(len(priorities), 1, nb=1)
    for i, priority in enumerate(priorities):
        flow.submit("noop", tiles[i, 0], priority=priority)
    return flow.graph()


def cholesky(nt: int) -> TaskGraph:
    flow = TaskFlow()
    potrf(flow, flow.matrix(8 * nt, 8 * nt, nb=8))
    return flow.graph()


def started(policy: str | Policy, graph: TaskGraph, workers: int = 1) -> Policy:
    """The policy, told of the tasks without predecessors."""
    policy = schedulers.get(policy)
    policy.start(graph, workers)
    for task in np.flatnonzero(graph.indegree == 0).tolist():
        policy.ready(task, None)
    return policy


def run(policy: str | Policy, graph: TaskGraph, workers: int = 1) -> list[tuple[int, int]]:
    """Tasks with their workers, in the order given, when tasks take turns and equal times."""
    policy = started(policy, graph, workers)
    missing = graph.indegree.copy()
    given_to: list[tuple[int, int]] = []
    while len(given_to) < graph.n:
        round_ = [(worker, policy.next(worker)) for worker in range(workers)]
        for worker, task in round_:
            if task is None:
                continue
            given_to.append((task, worker))
            policy.finished(task, worker)
            for successor in graph.succ[graph.succ_ptr[task] : graph.succ_ptr[task + 1]].tolist():
                missing[successor] -= 1
                if not missing[successor]:
                    policy.ready(successor, worker)
        assert any(task is not None for _, task in round_)
    return given_to


def order(policy: str, graph: TaskGraph, workers: int = 1) -> list[int]:
    return [task for task, _ in run(policy, graph, workers)]


def test_eager_is_first_in_first_out():
    # Ready together, tasks go by submission whatever their priority.
    assert order("eager", independent(1, 3, 2, 3)) == [0, 1, 2, 3]
    policy = started("eager", independent(0, 0, 0))
    assert policy.next(0) == 0
    policy.ready(0, 0)
    assert [policy.next(w) for w in (1, 0, 1, 0)] == [1, 2, 0, None]


def test_prio_takes_the_highest_priority_and_then_the_first_submitted():
    assert order("prio", independent(1, 3, 2, 3, -1)) == [1, 3, 2, 0, 4]


def test_prio_goes_by_bottom_levels_by_default():
    graph = cholesky(5)
    levels = graph.bottom_levels("flops")
    # What is ready at each step is known from the tasks done before it.
    missing = graph.indegree.copy()
    for task in order("prio", graph):
        ready = np.flatnonzero(missing == 0)
        assert task == ready[np.argmax(levels[ready])]
        missing[task] = -1
        missing[graph.succ[graph.succ_ptr[task] : graph.succ_ptr[task + 1]]] -= 1


def test_lws_deals_the_first_tasks_round_robin():
    policy = started("lws", independent(0, 0, 0, 0, 0), workers=2)
    assert [policy.next(0) for _ in range(3)] == [0, 2, 4]
    assert [policy.next(1) for _ in range(3)] == [1, 3, None]


def test_lws_keeps_a_task_where_it_was_released():
    policy = started("lws", independent(9, 9, 0, 1, 2), workers=2)
    for worker in (0, 1):
        while policy.next(worker) is not None:
            pass
    for task, worker in ((2, 0), (3, 1), (4, 0)):
        policy.ready(task, worker)
    # Worker 0 takes its own by priority, then steals.
    assert [policy.next(0) for _ in range(4)] == [4, 2, 3, None]


@pytest.mark.parametrize(
    ("workers", "thief", "victims"),
    [
        (2, 0, [1]),
        (5, 0, [1, 4, 2, 3]),
        (5, 3, [4, 2, 0, 1]),
        (6, 2, [3, 1, 4, 0, 5]),
    ],
)
def test_lws_steals_in_order_of_proximity(workers: int, thief: int, victims: list[int]):
    # One task a worker, task number = worker, the nearest one the least urgent.
    policy = started("lws", independent(*range(workers)), workers)
    assert [policy.next(thief) for _ in range(workers)] == [thief, *victims]
    assert policy.next(thief) is None


def test_lws_steals_the_most_urgent_task():
    policy = started("lws", independent(0, 1, 0, 3, 0, 2), workers=2)
    for _ in range(3):
        policy.next(0)
    assert [policy.next(0) for _ in range(3)] == [3, 5, 1]


@pytest.mark.parametrize("name", OWN)
@given(nt=st.integers(1, 6), workers=st.integers(1, 5))
def test_every_task_is_given_once_after_its_predecessors(name: str, nt: int, workers: int):
    graph = cholesky(nt)
    source, target = graph.edges()
    given_at = np.empty(graph.n, dtype=int)
    tasks = order(name, graph, workers)
    given_at[tasks] = np.arange(graph.n)
    assert sorted(tasks) == list(range(graph.n))
    assert (given_at[source] < given_at[target]).all()


@pytest.mark.parametrize("name", OWN)
def test_the_same_calls_give_the_same_answers(name: str):
    graph = cholesky(6)
    policy = schedulers.get(name)
    first = run(policy, graph, workers=3)
    # A second start forgets the first run, even one that was broken off.
    started(policy, graph, workers=3)
    assert run(policy, graph, workers=3) == first
    assert run(name, graph, workers=3) == first


@pytest.mark.parametrize("name", OWN)
def test_an_empty_graph_gives_nothing(name: str):
    assert started(name, TaskFlow().graph(), workers=2).next(1) is None


def test_get_takes_names_and_objects():
    policy = schedulers.get("prio")
    assert (policy.name, schedulers.get(policy) is policy) == ("prio", True)
    assert schedulers.get("prio") is not policy


def test_an_unknown_policy_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"policy 'fifo' does not exist; .*eager, prio, lws"):
        schedulers.get("fifo")
    with pytest.raises(TypeError, match=r"policy is 3; it must be a name or a "):
        schedulers.get(3)  # type: ignore[arg-type]


def test_available_describes_each_policy_in_a_line():
    lines = schedulers.available()
    assert list(lines)[:3] == list(OWN)
    for name in OWN:
        assert lines[name].endswith(".")
        assert "\n" not in lines[name]


class Backwards(Policy):
    """Last in, first out."""

    name = "backwards"

    def start(self, graph, workers):
        self.stack = []

    def ready(self, task, worker):
        self.stack.append(task)

    def next(self, worker):
        return self.stack.pop() if self.stack else None


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch):
    """Entry points as three installed packages would declare them: good, bad, and broken."""
    module = ModuleType("plugin_of_a_test")
    module.Backwards = Backwards  # type: ignore[attr-defined]
    module.dictionary = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugin_of_a_test", module)
    entries = [
        EntryPoint(name, value, schedulers.GROUP)
        for name, value in (
            ("backwards", "plugin_of_a_test:Backwards"),
            ("prio", "plugin_of_a_test:Backwards"),
            ("a-dict", "plugin_of_a_test:dictionary"),
            ("absent", "no_such_module_of_a_test:Policy"),
        )
    ]
    monkeypatch.setattr(schedulers, "entry_points", lambda group: entries)


@pytest.mark.usefixtures("plugins")
def test_a_policy_of_another_package_comes_by_entry_point():
    assert order("backwards", independent(0, 0, 0)) == [2, 1, 0]
    assert schedulers.available()["backwards"] == "Last in, first out."
    with pytest.raises(ValueError, match="eager, prio, lws, a-dict, absent, backwards"):
        schedulers.get("fifo")


@pytest.mark.usefixtures("plugins")
def test_no_other_package_replaces_a_policy_of_ours():
    assert order("prio", independent(0, 0, 0)) == [0, 1, 2]


@pytest.mark.usefixtures("plugins")
def test_a_bad_plugin_is_named():
    with pytest.raises(TypeError, match=r"policy 'a-dict': plugin_of_a_test:dictionary is not"):
        schedulers.get("a-dict")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_a_test"):
        schedulers.get("absent")
    lines = schedulers.available()
    assert lines["absent"].startswith("cannot be loaded: No module named")
    assert "eager" in lines
