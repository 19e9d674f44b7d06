"""The progress bar of long runs."""

from __future__ import annotations

import sys
import threading
from io import StringIO

import pytest
from integers import PATIENCE, Anywhere, clear, hook_tasks, hooks, integer_kernels, ran

import taskla as tla
from taskla.engines import progress
from taskla.engines.graph_run import GraphRun
from taskla.engines.threads import ThreadsEngine
from taskla.schedulers import get


@pytest.fixture(autouse=True)
def _integers():
    clear()
    with integer_kernels():
        yield


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
    hooks["last"] = lambda tile: drawn.wait(PATIENCE)
    engine.run(hook_tasks("ok", "ok", "last", chain=True), [Anywhere()])
    assert drawn.is_set()
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
    ThreadsEngine(2, progress=setting).run(hook_tasks("ok", "ok"), [Anywhere()])
    assert screen.getvalue() == ""
    assert ran == ["ok", "ok"]


def test_a_short_run_at_a_terminal_is_silent(monkeypatch):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", PATIENCE)
    ThreadsEngine(2).run(hook_tasks("ok", "ok"), [Anywhere()])
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
    flow = tla.TaskFlow()
    flow.lascl(flow.matrix(4, 2, nb=2), 2.0)
    graph = flow.graph()
    job = GraphRun(graph, lambda task: None, get("eager"), 1)
    assert job.done() == (0, 0.0, 8.0)
    job.work(0)
    assert job.done() == (2, 8.0, 8.0)
