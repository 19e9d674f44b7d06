"""What engines do when something goes wrong: errors, bad policies, Ctrl-C, fork.

As in test_engines.py the kernels are NumPy expressions, here on 32-bit integers.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Sequence
from io import StringIO

import numpy as np
import pytest

import taskla as tla
from taskla import kernels, operations
from taskla.engines import progress
from taskla.engines.threads import ThreadsEngine
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.graph import TaskGraph
from taskla.schedulers import Policy
from taskla.tile import Tile

PATIENCE = 60.0

ran: list[str] = []
"""Names of the "t_event" tasks that ran, in the order in which they began."""

events: dict[str, Callable[[], object]] = {}
"""What a "t_event" task of that name does."""


def _event(name: str) -> Callable[..., None]:
    def kernel(*tiles: Tile) -> None:
        ran.append(name)
        events[name]()

    return kernel


operations.register("t_event", "name", "RW")
operations.register("t_event2", "name", "R RW")
kernels.register("t_event", formats=["int32"])(lambda format, name: _event(name))
kernels.register("t_event2", formats=["int32"])(lambda format, name: _event(name))


class Anywhere:
    """A matrix whose tiles are all the same one."""

    def tile(self, i: int, j: int) -> Tile:
        return Tile(np.zeros((2, 2), np.int32))


def graph_of(*names: str, chain: bool = False) -> TaskGraph:
    """A task a name, on tile (k, k) of A; in a chain each waits for the one before."""
    flow = tla.TaskFlow()
    A = flow.matrix(2 * len(names), 2 * len(names), nb=2, dtype=np.int32, name="A")
    for k, name in enumerate(names):
        if chain and k:
            flow.submit("t_event2", A[k - 1, k - 1], A[k, k], params=(name,))
        else:
            flow.submit("t_event", A[k, k], params=(name,))
    return flow.graph()


def run(workers: int, graph: TaskGraph, policy: str | Policy = "prio") -> None:
    ThreadsEngine(workers, policy, fuse=1).run(graph, [Anywhere()])


def fails(error: BaseException) -> Callable[[], object]:
    def event() -> None:
        raise error

    return event


@pytest.fixture(autouse=True)
def _clean():
    ran.clear()
    events.clear()
    events["ok"] = lambda: None
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("taskla")] == []


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_task_and_the_tile(workers: int):
    events["bad"] = fails(ZeroDivisionError("by nought"))
    with pytest.raises(ZeroDivisionError, match="by nought") as caught:
        run(workers, graph_of("ok", "ok", "bad", chain=True))
    assert caught.value.__notes__ == ["in task t_event2 on tile A(2, 2)"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("error", "index", "message"),
    [
        (NotPositiveDefiniteError(2), "minor", "8-th leading minor of the array is not positive"),
        (SingularMatrixError(2), "pivot", "diagonal element 8 is exactly zero"),
    ],
)
def test_an_index_counts_from_the_top_of_the_matrix(workers, error, index, message):
    events["bad"] = fails(error)
    with pytest.raises(type(error), match=message) as caught:
        run(workers, graph_of("ok", "ok", "ok", "bad"))
    assert getattr(caught.value, index) == 8
    assert caught.value.__notes__ == ["in task t_event on tile A(3, 3)"]
    # What the kernel raised has the wrong index: it is not shown as the cause.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("apart", [False, True])
def test_an_error_in_a_batch_names_the_tile_of_its_part(apart: bool):
    operations_called = []

    def kernel(tile: Tile) -> None:
        operations_called.append(tile.array[0, 0])
        if tile.array[0, 0] == 2:
            raise NotPositiveDefiniteError(1)

    name = f"t_third{int(apart)}"
    operations.register(name, "", "RW")
    kernels.register(name, formats=["int32"])(lambda format: kernel)
    kind = operations.OPERATIONS[name]
    assert kind.modes == (operations.Access.RW,)
    flow = tla.TaskFlow()
    A = flow.matrix(8, 2, nb=2, dtype=np.int32, name="A")
    flow.submit(name, A)
    blocks = np.repeat(np.arange(4, dtype=np.int32), 2)[:, None] * np.ones((1, 2), np.int32)

    class Blocks:
        def tile(self, i: int, j: int) -> Tile:
            block = blocks[2 * i : 2 * i + 2]
            return Tile(block.copy() if apart else block)

    with pytest.raises(NotPositiveDefiniteError) as caught:
        ThreadsEngine(1, fuse=4).run(flow.graph(), [Blocks()])
    assert operations_called == [0, 1, 2]
    assert caught.value.minor == 5
    assert caught.value.__notes__ == [f"in task {name} on tile A(2, 0)"]


def test_of_several_errors_the_one_submitted_first_is_raised():
    # Both tasks fail, the later one first.
    together = threading.Barrier(2)
    later_failed = threading.Event()

    def first() -> None:
        together.wait(PATIENCE)
        assert later_failed.wait(PATIENCE)
        raise ValueError("first")

    def later() -> None:
        together.wait(PATIENCE)
        later_failed.set()
        raise ValueError("later")

    events.update(first=first, later=later)
    with pytest.raises(ValueError, match="first"):
        run(2, graph_of("first", "later"))
    assert sorted(ran) == ["first", "later"]


def test_tasks_in_flight_end_before_the_error_is_raised():
    together = threading.Barrier(2)
    failing = threading.Event()
    ended = []

    def bad() -> None:
        together.wait(PATIENCE)
        failing.set()
        raise ValueError("bad")

    def slow() -> None:
        together.wait(PATIENCE)
        assert failing.wait(PATIENCE)
        ended.append("slow")

    events.update(bad=bad, slow=slow)
    with pytest.raises(ValueError, match="bad"):
        run(2, graph_of("bad", "slow"))
    assert ended == ["slow"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_nothing_that_waits_for_a_failed_task_starts(workers: int):
    events["bad"] = fails(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        run(workers, graph_of("ok", "bad", "never", "never", chain=True))
    assert ran == ["ok", "bad"]


def test_one_worker_starts_nothing_after_an_error():
    events["bad"] = fails(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        run(1, graph_of("ok", "bad", "never"), policy="eager")
    assert ran == ["ok", "bad"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("names", [["bad"], ["bad", "ok", "ok"]])
def test_an_engine_works_after_an_error(workers: int, names: Sequence[str]):
    engine = ThreadsEngine(workers)
    events["bad"] = fails(SystemExit(3))
    with pytest.raises(SystemExit):
        engine.run(graph_of(*names), [Anywhere()])
    ran.clear()
    engine.run(graph_of("ok", "ok"), [Anywhere()])
    assert ran == ["ok", "ok"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_run_leaves_nothing_for_the_collector(workers: int):
    events["bad"] = lambda: 1 / 0
    matrix = Anywhere()
    gone = weakref.ref(matrix)
    failed = False
    gc.disable()
    try:
        # Not pytest.raises, which makes a cycle itself.
        try:
            ThreadsEngine(workers, fuse=1).run(graph_of("ok", "bad"), [matrix])
        except ZeroDivisionError:
            failed = True
        del matrix
        assert (failed, gone()) == (True, None)
    finally:
        gc.enable()


def test_a_task_without_a_kernel_is_an_error_before_anything_runs():
    flow = tla.TaskFlow()
    A = flow.matrix(2, 2, nb=2, dtype=np.int32, name="A")
    flow.submit("t_event", A, params=("ok",))
    flow.potrf(A)
    with pytest.raises(ValueError, match="operation 'potrf' has no kernel for int32"):
        run(2, flow.graph())
    assert ran == []


def test_a_tile_that_is_not_there_is_an_error_that_names_it():
    class Empty:
        def tile(self, i: int, j: int) -> Tile:
            raise IndexError("no such tile")

    with pytest.raises(IndexError, match="no such tile") as caught:
        ThreadsEngine(2).run(graph_of("ok", "ok"), [Empty()])
    assert caught.value.__notes__[0].startswith("in task t_event on tile A(")


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
    events["bad"] = fails(ValueError("inner"))

    def outer(k: int) -> None:
        engine.run(graph_of("ok", "bad"), [Anywhere()])

    with pytest.raises(ValueError, match="inner") as caught:
        engine.map(outer, [(0,), (1,)])
    assert caught.value.__notes__[0] == "in task t_event on tile A(1, 1)"
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
        (Broken(), KeyError, "broken"),
    ],
)
def test_a_bad_policy_is_an_error_and_no_hang(workers, policy, error, message):
    # Lazy is left with the one task that the others wait for.
    names = ["ok"] * 3
    with pytest.raises(error, match=message):
        run(workers, graph_of(*names, chain=True), policy)


# -- in processes of their own ---------------------------------------------------------------------

PRELUDE = """
import os, random, signal, sys, threading, time, traceback
import numpy as np
import taskla as tla
from taskla import kernels, operations
from taskla.engines.threads import ThreadsEngine
from taskla.tile import Tile
from threadpoolctl import threadpool_info, threadpool_limits

events = {"ok": lambda: None}
operations.register("t_event", "name", "RW")
kernels.register("t_event", formats=["int8"])(lambda format, name: lambda tile: events[name]())

class Anywhere:
    def tile(self, i, j):
        return Tile(np.zeros((1, 1), np.int8))

def chain(first, count):
    flow = tla.TaskFlow()
    A = flow.matrix(1, 1, nb=1, dtype=np.int8)
    flow.submit("t_event", A, params=(first,))
    for _ in range(count // 1000):
        flow.submit("t_event", A[[0] * 1000, 0], params=("ok",))
    return flow.graph()

def blas_threads():
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

def check_clean(handler):
    # A child that a worker forked still calls its only thread by the worker's name.
    others = {*threading.enumerate()} - {threading.current_thread()}
    assert [t for t in others if t.name.startswith("taskla")] == []
    assert blas_threads() == {2}, blas_threads()
    assert signal.getsignal(signal.SIGINT) is handler
"""


def child(script: str) -> str:
    """What a Python process prints that must end well, and soon."""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", ["run", "map"])
def test_ctrl_c_ends_a_run(workers: int, what: str):
    # The first task waits for the signal that it sends, the pipe in which C code notes it, so all
    # is in flight when it comes; the tasks after it would take a second or so.
    script = """
    handler = signal.default_int_handler
    noted, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note)
    started = []

    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.read(noted, 1)

    def count(*_):
        started.append(1)

    events["interrupted"] = interrupted
    events["ok"] = count
    engine = ThreadsEngine(WORKERS, fuse=1)
    total = 200_000
    with threadpool_limits(2, user_api="blas"):
        try:
            if "WHAT" == "run":
                engine.run(chain("interrupted", total), [Anywhere()])
            else:
                engine.map(lambda k: events["interrupted" if k == 0 else "ok"](),
                           [(k,) for k in range(total)])
        except KeyboardInterrupt:
            print("interrupted")
        assert len(started) < total
        check_clean(handler)
        # The engine is as good as new.
        done = engine.map(lambda k: k, [(1,), (2,)])
        assert done == [1, 2]
    """
    assert child(script.replace("WORKERS", str(workers)).replace("WHAT", what)) == "interrupted\n"


def test_a_handler_that_raises_nothing_ends_nothing():
    script = """
    caught = []
    handler = lambda number, frame: caught.append(number)
    signal.signal(signal.SIGINT, handler)
    noted, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note)
    started = []

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.read(noted, 1)

    events["interrupted"] = interrupted
    events["ok"] = lambda: started.append(1)
    with threadpool_limits(2, user_api="blas"):
        ThreadsEngine(2, fuse=1).run(chain("interrupted", 1000), [Anywhere()])
        check_clean(handler)
    print(len(caught), len(started))
    """
    assert child(script) == "1 1000\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupts_at_any_moment_leave_nothing_behind(workers: int):
    # Hundreds of signals fall on short runs at whatever bytecode they meet.
    script = """
    class Interrupted(BaseException):
        pass

    def handler(number, frame):
        raise Interrupted

    signal.signal(signal.SIGINT, handler)
    main = threading.main_thread().ident
    over = threading.Event()

    def disturb():
        for _ in range(400):
            over.wait(random.random() / 500)
            signal.pthread_kill(main, signal.SIGINT)
        over.set()

    engine = ThreadsEngine(WORKERS, fuse=1)
    graph = chain("ok", 1000)
    ended, interrupted = 0, 0
    with threadpool_limits(2, user_api="blas"):
        disturber = threading.Thread(target=disturb)
        disturber.start()
        while not over.is_set():
            try:
                engine.run(graph, [Anywhere()])
                engine.map(abs, [(1,)] * 50)
                ended += 1
            except Interrupted:
                interrupted += 1
        disturber.join()
        check_clean(handler)
        engine.run(graph, [Anywhere()])
        check_clean(handler)
    assert interrupted > 20, interrupted
    print("clean")
    """
    assert child(script.replace("WORKERS", str(workers))) == "clean\n"


def test_a_forked_child_runs():
    script = """
    engine = ThreadsEngine(2, fuse=1)

    def use():
        handler = signal.getsignal(signal.SIGINT)
        with threadpool_limits(2, user_api="blas"):
            engine.run(chain("ok", 1000), [Anywhere()])
            meet = threading.Barrier(2)
            assert sorted(engine.map(meet.wait, [(20,)] * 2)) == [0, 1]
            check_clean(handler)

    def fork():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                use()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return pid

    def wait(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    use()
    codes = [wait(fork())]

    # While a run is on in another thread, which the child does not have.
    running, go_on = threading.Event(), threading.Event()
    def block():
        running.set()
        assert go_on.wait(60)
    user = threading.Thread(target=lambda: engine.map(block, [()] * 2))
    user.start()
    assert running.wait(60)
    codes.append(wait(fork()))
    go_on.set()
    user.join()

    # In a worker: the child is none. With one worker, the handler of a run is in force.
    codes += [wait(pid) for pid in engine.map(fork, [()] * 2)]
    use()
    print(codes)
    """
    assert child(script) == "[0, 0, 0, 0]\n"


def test_ctrl_c_reaches_a_child_that_a_task_forked():
    script = """
    engine = ThreadsEngine(1)

    def fork():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)
            except KeyboardInterrupt:
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    print(engine.map(fork, [()]))
    """
    assert child(script) == "[0]\n"


# -- progress --------------------------------------------------------------------------------------


class Screen(StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def watched_run(monkeypatch: pytest.MonkeyPatch, engine: ThreadsEngine, screen: Screen) -> str:
    """What a run shows whose last task waits until the bar has been drawn with the others done."""
    drawn = threading.Event()
    draw = progress._draw

    def draw_and_tell(display, line, job, seconds):
        draw(display, line, job, seconds)
        if job.done()[0] == 2:
            drawn.set()

    monkeypatch.setattr(progress, "_draw", draw_and_tell)
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    events["last"] = lambda: drawn.wait(PATIENCE)
    engine.run(graph_of("ok", "ok", "last", chain=True), [Anywhere()])
    return screen.getvalue()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_run_at_a_terminal_shows_how_far_it_is(monkeypatch, workers):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    shown = watched_run(monkeypatch, ThreadsEngine(workers, fuse=1), Screen(terminal=True))
    assert "2/3" in shown


def test_progress_can_be_asked_for_without_a_terminal(monkeypatch):
    screen = Screen(terminal=False)
    watched_run(monkeypatch, ThreadsEngine(2, fuse=1, progress=True), screen)


@pytest.mark.parametrize(("setting", "terminal"), [(None, False), (False, True), (False, False)])
def test_other_runs_are_silent(monkeypatch, setting, terminal):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    ThreadsEngine(2, progress=setting).run(graph_of("ok", "ok"), [Anywhere()])
    assert screen.getvalue() == ""
    assert ran == ["ok", "ok"]


def test_a_short_run_at_a_terminal_is_silent(monkeypatch):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", PATIENCE)
    ThreadsEngine(2).run(graph_of("ok", "ok"), [Anywhere()])
    assert (screen.getvalue(), ran) == ("", ["ok", "ok"])


def test_the_bar_tells_the_rate():
    class Job:
        count = 8

        def done(self) -> tuple[int, float, float]:
            return 2, 3e9, 12e9

    with progress._columns() as display:
        line = display.add_task("", total=None, rate="")
        progress._draw(display, line, Job(), seconds=2.0)
        task = display.tasks[0]
    assert (task.description, task.fields["rate"], task.percentage) == ("2/8", "1.5 Gflop/s", 25)


def test_done_counts_tasks_and_flops():
    from taskla.engines.graph_run import GraphRun
    from taskla.schedulers import get

    flow = tla.TaskFlow()
    flow.lascl(flow.matrix(4, 2, nb=2), 2.0)
    graph = flow.graph()
    job = GraphRun(graph, lambda task: None, get("eager"), 1)
    assert job.done() == (0, 0.0, 8.0)
    job.work(0)
    assert job.done() == (2, 8.0, 8.0)
