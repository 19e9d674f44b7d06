"""How much the machine draws when it does nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from taskla.energy.meters import Meter

__all__ = ["measure_idle"]


def measure_idle(
    meters: Iterable[Meter],
    seconds: float = 1.0,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, float]:
    """Measure the power of a machine that waits, and set it as the meters' `idle_power`.

    Nothing else should run meanwhile. A power that the user's settings give stays as it is.

    Parameters
    ----------
    meters : iterable of Meter
    seconds : float, default 1.0
        How long to wait between two readings.
    clock, sleep : callable, optional
        What to read the time from, and what to wait with.

    Returns
    -------
    dict
        Meter's name -> W, of the meters that were measured. One that cannot be read, or whose
        counter did not move, is not among them.

    Raises
    ------
    ValueError
        When `seconds` is not positive and finite.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds!r}; it must be positive and finite")
    waiting = [meter for meter in meters if meter.idle_source != "file"]
    first = _read(waiting, clock)
    sleep(seconds)
    last = _read(waiting, clock)
    powers = {}
    for meter in waiting:
        if meter.name in first and meter.name in last:
            then, joules = first[meter.name]
            now, grown = last[meter.name][0], last[meter.name][1] - joules
            if grown > 0 and now > then:
                meter.idle_power = powers[meter.name] = grown / (now - then)
                meter.idle_source = "measured"
    return powers


def _read(meters: list[Meter], clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    readings = {}
    for meter in meters:
        try:
            joules = meter.read()
        except OSError:
            continue  # it has no figure, and the account of a run says so
        readings[meter.name] = clock(), joules
    return readings
