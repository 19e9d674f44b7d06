"""What engines do when something goes wrong: errors in tasks, bad policies."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from integers import (
    INT,
    PATIENCE,
    Anywhere,
    clear,
    hook_tasks,
    hooks,
    integer_kernels,
    ran,
    worker_threads,
)

import taskla as tla
from taskla import kernels, operations
from taskla.engines.threads import ThreadsEngine
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.graph import TaskGraph
from taskla.schedulers import Policy
from taskla.tile import Tile


@pytest.fixture(autouse=True, scope="module")
def _integers():
    with integer_kernels():
        yield


@pytest.fixture(autouse=True)
def _clean():
    clear()
    yield
    assert worker_threads() == []


def run(workers: int, graph: TaskGraph, policy: str | Policy = "prio") -> None:
    ThreadsEngine(workers, policy, fuse=1).run(graph, [Anywhere()])


def fails(error: BaseException) -> Callable[[Tile], object]:
    def hook(tile: Tile) -> None:
        raise error

    return hook


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_task_and_the_tile(workers: int):
    hooks["bad"] = fails(ZeroDivisionError("by nought"))
    with pytest.raises(ZeroDivisionError, match="by nought") as caught:
        run(workers, hook_tasks("ok", "ok", "bad", chain=True))
    assert caught.value.__notes__ == ["in task t_after on tile A(2, 2)"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("error", "index", "message"),
    [
        (NotPositiveDefiniteError(2), "minor", "8-th leading minor of the array is not positive"),
        (SingularMatrixError(2), "pivot", "diagonal element 8 is exactly zero"),
    ],
)
def test_an_index_counts_from_the_top_of_the_matrix(workers, error, index, message):
    hooks["bad"] = fails(error)
    with pytest.raises(type(error), match=message) as caught:
        run(workers, hook_tasks("ok", "ok", "ok", "bad"))
    assert getattr(caught.value, index) == 8
    assert caught.value.__notes__ == ["in task t_hook on tile A(3, 3)"]
    # What the kernel raised has the wrong index: it is not shown as the cause.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("apart", [False, True])
def test_an_error_in_a_batch_names_the_tile_of_its_part(apart: bool):
    called = []

    def kernel(tile: Tile) -> None:
        called.append(tile.array[0, 0])
        if tile.array[0, 0] == 2:
            raise NotPositiveDefiniteError(1)

    name = f"t_third{int(apart)}"
    operations.register(name, "", "RW")
    kernels.register(name, formats=["int64"])(lambda format: kernel)
    flow = tla.TaskFlow()
    A = flow.matrix(8, 2, nb=2, dtype=INT, name="A")
    flow.submit(name, A)
    blocks = np.repeat(np.arange(4, dtype=INT), 2)[:, None] * np.ones((1, 2), INT)

    class Blocks:
        def tile(self, i: int, j: int) -> Tile:
            block = blocks[2 * i : 2 * i + 2]
            return Tile(block.copy() if apart else block)

    with pytest.raises(NotPositiveDefiniteError) as caught:
        ThreadsEngine(1, fuse=4).run(flow.graph(), [Blocks()])
    assert called == [0, 1, 2]
    assert caught.value.minor == 5
    assert caught.value.__notes__ == [f"in task {name} on tile A(2, 0)"]


def test_of_several_errors_the_one_submitted_first_is_raised():
    # Both tasks fail, the later one first.
    together = threading.Barrier(2)
    later_failed = threading.Event()

    def first(tile: Tile) -> None:
        together.wait(PATIENCE)
        assert later_failed.wait(PATIENCE)
        raise ValueError("first")

    def later(tile: Tile) -> None:
        together.wait(PATIENCE)
        later_failed.set()
        raise ValueError("later")

    hooks.update(first=first, later=later)
    with pytest.raises(ValueError, match="first"):
        run(2, hook_tasks("first", "later"))
    assert sorted(ran) == ["first", "later"]


def test_tasks_in_flight_end_before_the_error_is_raised():
    together = threading.Barrier(2)
    failing = threading.Event()
    ended = []

    def bad(tile: Tile) -> None:
        together.wait(PATIENCE)
        failing.set()
        raise ValueError("bad")

    def slow(tile: Tile) -> None:
        together.wait(PATIENCE)
        assert failing.wait(PATIENCE)
        ended.append("slow")

    hooks.update(bad=bad, slow=slow)
    with pytest.raises(ValueError, match="bad"):
        run(2, hook_tasks("bad", "slow"))
    assert ended == ["slow"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_nothing_that_waits_for_a_failed_task_starts(workers: int):
    hooks["bad"] = fails(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        run(workers, hook_tasks("ok", "bad", "never", "never", chain=True))
    assert ran == ["ok", "bad"]


def test_one_worker_starts_nothing_after_an_error():
    hooks["bad"] = fails(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        run(1, hook_tasks("ok", "bad", "never"), policy="eager")
    assert ran == ["ok", "bad"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("names", [["bad"], ["bad", "ok", "ok"]])
def test_an_engine_works_after_an_error(workers: int, names: Sequence[str]):
    engine = ThreadsEngine(workers)
    hooks["bad"] = fails(SystemExit(3))
    with pytest.raises(SystemExit):
        engine.run(hook_tasks(*names), [Anywhere()])
    ran.clear()
    engine.run(hook_tasks("ok", "ok"), [Anywhere()])
    assert ran == ["ok", "ok"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_run_leaves_nothing_for_the_collector(workers: int):
    hooks["bad"] = lambda tile: 1 / 0
    matrix = Anywhere()
    gone = weakref.ref(matrix)
    failed = False
    gc.disable()
    try:
        # Not pytest.raises, which makes a cycle itself.
        try:
            ThreadsEngine(workers, fuse=1).run(hook_tasks("ok", "bad"), [matrix])
        except ZeroDivisionError:
            failed = True
        del matrix
        assert (failed, gone()) == (True, None)
    finally:
        gc.enable()


def test_a_task_without_a_kernel_is_an_error_before_anything_runs():
    flow = tla.TaskFlow()
    A = flow.matrix(2, 2, nb=2, dtype=INT, name="A")
    flow.submit("t_hook", A, params=("ok",))
    flow.potrf(A)
    with pytest.raises(ValueError, match="operation 'potrf' has no kernel for int64"):
        run(2, flow.graph())
    assert ran == []


def test_a_tile_that_is_not_there_is_an_error_that_names_it():
    class Empty:
        def tile(self, i: int, j: int) -> Tile:
            raise IndexError("no such tile")

    with pytest.raises(IndexError, match="no such tile") as caught:
        ThreadsEngine(2).run(hook_tasks("ok", "ok"), [Empty()])
    assert caught.value.__notes__[0].startswith("in task t_hook on tile A(")


@pytest.mark.parametrize("workers", [1, 2])
def test_map_raises_the_first_error_with_the_number_of_the_call(workers: int):
    called = []

    def reciprocal(k: int) -> float:
        called.append(k)
        return 1 / k

    with pytest.raises(ZeroDivisionError) as caught:
        ThreadsEngine(workers).map(reciprocal, [(2,), (1,), (0,), (0,)])
    assert caught.value.__notes__[0].startswith("in call 2 of 4 of ")
    assert "reciprocal" in caught.value.__notes__[0]
    assert len(called) <= 2 + workers


def test_an_error_in_nested_use_passes_through():
    engine = ThreadsEngine(2)
    hooks["bad"] = fails(ValueError("inner"))

    def outer(k: int) -> None:
        engine.run(hook_tasks("ok", "bad"), [Anywhere()])

    with pytest.raises(ValueError, match="inner") as caught:
        engine.map(outer, [(0,), (1,)])
    assert caught.value.__notes__[0] == "in task t_hook on tile A(1, 1)"
    assert caught.value.__notes__[1].startswith("in call ")


# -- bad policies ----------------------------------------------------------------------------------


class Bad(Policy):
    """First in, first out, but for what a test replaces."""

    name = "bad"

    def start(self, graph, workers):
        self.queue = []

    def ready(self, task, worker):
        self.queue.append(task)

    def next(self, worker):
        return self.queue.pop(0) if self.queue else None


class Lazy(Bad):
    def next(self, worker):
        return None if len(self.queue) == 1 else super().next(worker)


class Twice(Bad):
    def next(self, worker):
        return self.queue[0]


class Early(Bad):
    def next(self, worker):
        return 2


class Wrong(Bad):
    def __init__(self, answer):
        self.answer = answer

    def next(self, worker):
        return self.answer


class Broken(Bad):
    def next(self, worker):
        raise KeyError("broken")


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (Lazy(), RuntimeError, "gave none of the 1 ready tasks to any of . workers, while 3 tasks"),
        (
            Twice(),
            RuntimeError,
            "policy 'bad' gave task 0 to worker .; it must give a task",
        ),
        (Early(), RuntimeError, "policy 'bad' gave task 2"),
        (Wrong("a"), RuntimeError, "policy 'bad' gave task 'a' to worker .; it must give a task"),
        (Wrong(0.0), RuntimeError, "policy 'bad' gave task 0.0"),
        (Wrong((0,)), RuntimeError, r"policy 'bad' gave task \(0,\)"),
        (Wrong(-3), RuntimeError, "policy 'bad' gave task -3"),
        (Wrong(3), RuntimeError, "policy 'bad' gave task 3"),
        (Broken(), KeyError, "broken"),
    ],
)
def test_a_bad_policy_is_an_error_and_no_hang(workers, policy, error, message):
    # Lazy is left with the one task that the others wait for.
    names = ["ok"] * 3
    with pytest.raises(error, match=message):
        run(workers, hook_tasks(*names, chain=True), policy)
