"""Ctrl-C and fork, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

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

def check_clean(handler, term_handler=signal.SIG_DFL):
    # A child that a worker forked still calls its only thread by the worker's name.
    others = {*threading.enumerate()} - {threading.current_thread()}
    assert [t for t in others if t.name.startswith("taskla")] == []
    assert blas_threads() == {2}, blas_threads()
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getsignal(signal.SIGTERM) is term_handler
"""


def child(script: str, silent: bool = True) -> str:
    """What a Python process prints that must end well, and soon, without a word of complaint."""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert not (silent and process.stderr)
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


@pytest.mark.parametrize("workers", [1, 2])
def test_another_signal_that_raises_ends_a_run(workers: int):
    script = """
    def handler(*_):
        raise SystemExit

    signal.signal(signal.SIGTERM, handler)
    noted, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note)
    started = []

    def terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        os.read(noted, 1)

    events["terminated"] = terminated
    events["ok"] = lambda: started.append(1)
    with threadpool_limits(2, user_api="blas"):
        try:
            ThreadsEngine(WORKERS, fuse=1).run(chain("terminated", 200_000), [Anywhere()])
        except SystemExit:
            print("terminated")
        assert len(started) < 200_000
        check_clean(signal.default_int_handler, handler)
    """
    assert child(script.replace("WORKERS", str(workers))) == "terminated\n"


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

    armed = False

    def handler(number, frame):
        # Once a try: another one would fall on this test's own except clause.
        global armed
        if armed:
            armed = False
            raise Interrupted

    both = signal.SIGINT, signal.SIGTERM
    for number in both:
        signal.signal(number, handler)
    main = threading.main_thread().ident
    over = threading.Event()

    def disturb():
        for _ in range(2000):
            over.wait(random.random() / 1000)
            signal.pthread_kill(main, random.choice(both))
        over.set()

    engine = ThreadsEngine(WORKERS, fuse=1)
    ended, interrupted = 0, 0
    with threadpool_limits(2, user_api="blas"):
        disturber = threading.Thread(target=disturb)
        disturber.start()
        while not over.is_set():
            try:
                armed = True
                engine.map(abs, [(1,)] * 5)
                ended += 1
                armed = False
            except Interrupted:
                interrupted += 1
        armed = False
        disturber.join()
        check_clean(handler, handler)
        engine.run(chain("ok", 1000), [Anywhere()])
        check_clean(handler, handler)
    assert interrupted > 20, interrupted
    print("clean")
    """
    # Python reports what a handler raises inside a weak reference's callback, and goes on.
    assert child(script.replace("WORKERS", str(workers)), silent=False) == "clean\n"


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
