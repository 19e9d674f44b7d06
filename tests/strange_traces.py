"""Traces that pictures must stand: of a run that failed, and with names that are code elsewhere."""

from made_traces import cholesky, made

from taskla.traces import Recorder, Trace

__all__ = ["NASTY", "failed", "nasty"]

#: HTML, and formulas for Bokeh and matplotlib.
NASTY = '</script><img src=x onerror="window.hit=1">$$\\[x\\]\'&amp;'


def failed() -> Trace:
    """A run whose second task failed."""
    recorder = Recorder()
    graph = cholesky(2)
    recording = recorder.start(graph, engine="threads", policy="prio", workers=1)
    for task in (0, 1):
        recording.start[task], recording.end[task] = (
            recording.begin + task,
            recording.begin + task + 1,
        )
    recording.close(ValueError(NASTY))
    return recorder.trace()


def nasty() -> Trace:
    """A trace in which everything that has a name has a nasty one."""
    trace = made(cholesky(3), ranks=2)
    header = trace.header
    for column in ("kernels", "formats", "compressions", "devices"):
        header[column] = [f"{number}{NASTY}" for number, _ in enumerate(header[column])]
    for about in (*header["matrices"], *header["series"]):
        about["name"] = NASTY
    for about in header["runs"]:
        about.update(program=NASTY, engine=NASTY, policy=NASTY, distribution=NASTY)
        about.update(parameters={"n": NASTY, "nb": [NASTY]}, status=NASTY, error=NASTY)
    return trace
