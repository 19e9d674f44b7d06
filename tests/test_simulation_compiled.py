"""Compiled twins make the same decisions as the policies that they are twins of, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_traces import cholesky, lu
from random_programs import programs, random_operations

from taskla import schedulers
from taskla.engines import simulation, simulation_compiled
from taskla.engines.simulation import simulate
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.schedulers.eager import Eager

OWN = ("eager", "prio", "lws")
WORKERS = (1, 2, 3, 8, 64)


@pytest.fixture(scope="module", autouse=True)
def operations() -> Iterator[None]:
    with random_operations():
        yield


def kinds_of_durations(n: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "random": generator.random(n),
        "ties": generator.integers(0, 3, n).astype(float),
        "equal": np.ones(n),
        "none": np.zeros(n),
    }


def check_the_same(graph: TaskGraph, policy: str, workers: int, durations: np.ndarray) -> None:
    plain = simulate(graph, policy, workers, durations, compiled=False)
    twin = simulate(graph, policy, workers, durations, compiled=True)
    for name in plain._fields:
        mine, its = getattr(plain, name), getattr(twin, name)
        assert mine.dtype == its.dtype
        assert mine.tobytes() == its.tobytes(), name


@pytest.mark.parametrize("policy", OWN)
@settings(max_examples=40)
@given(programs(), st.integers(0, 2**32))
def test_twins_decide_the_same_on_random_graphs(policy: str, graph: TaskGraph, seed: int) -> None:
    for workers in WORKERS:
        for durations in kinds_of_durations(graph.n, seed).values():
            check_the_same(graph, policy, workers, durations)


@pytest.mark.parametrize("policy", OWN)
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("graph", [cholesky(14), lu(9)], ids=["cholesky", "lu"])
def test_twins_decide_the_same_on_factorisations(
    graph: TaskGraph, workers: int, policy: str
) -> None:
    for durations in kinds_of_durations(graph.n, 3).values():
        check_the_same(graph, policy, workers, durations)


@pytest.mark.parametrize("policy", OWN)
def test_twins_decide_the_same_on_independent_tasks(policy: str) -> None:
    flow = TaskFlow()
    flow.submit("noop", flow.matrix(500, 1, nb=1))
    graph = flow.graph()
    for workers in WORKERS:
        check_the_same(graph, policy, workers, kinds_of_durations(graph.n, 7)["ties"])


def test_by_default_large_graphs_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = cholesky(5)
    called = []
    twin = simulation_compiled.simulate

    def noting(*arguments: object) -> object:
        called.append(arguments)
        return twin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulation_compiled, "simulate", noting)
    ones = np.ones(graph.n)
    simulate(graph, "lws", 2, ones)
    assert called == []
    monkeypatch.setattr(simulation, "_WORTH_COMPILING", graph.n)
    simulate(graph, Other(), 2, ones)
    assert called == []
    schedule = simulate(graph, "lws", 2, ones)
    assert len(called) == 1
    plain = simulate(graph, "lws", 2, ones, compiled=False)
    assert schedule.worker.tolist() == plain.worker.tolist()


class Other(Eager):
    """A policy of anyone's, built on one of ours."""

    name = "other"


def test_other_policies_have_no_twin() -> None:
    with pytest.raises(ValueError, match=r"'other' \(Other\) has no compiled twin; eager, prio,"):
        simulate(cholesky(2), Other(), 2, np.ones(4), compiled=True)


def test_without_numba_only_the_policies_themselves_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(simulation, "_WORTH_COMPILING", 0)
    simulation_compiled.load.cache_clear()
    graph = cholesky(4)
    assert simulate(graph, "prio", 1, np.ones(graph.n)).makespan == graph.n
    with pytest.raises(ImportError, match=r"pip install 'taskla\[sim\]'"):
        simulate(graph, "prio", 1, np.ones(graph.n), compiled=True)


def test_compiled_code_needs_no_place_to_be_kept_at() -> None:
    """As in an installation that may not be written, of a user without a home."""
    module = ModuleType("nowhere")
    source = Path(simulation_compiled.__file__).read_text(encoding="utf-8")
    exec(compile(source, "nowhere.py", "exec"), module.__dict__)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(module._loop)
    graph = cholesky(6)
    ones = np.ones(graph.n)
    found = module.simulate(graph, schedulers.get("lws"), 3, ones)
    plain = simulate(graph, "lws", 3, ones, compiled=False)
    assert [array.tolist() for array in found] == [array.tolist() for array in plain]


def test_the_object_that_is_given_is_not_touched() -> None:
    policy = schedulers.get("lws")
    simulate(cholesky(3), policy, 2, np.ones(10), compiled=True)
    assert vars(policy) == {}
