"""The account of a run: what it used in all, and what each task did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.energy.attribution import attribute, fault
from taskla.energy.meters import Meter
from taskla.energy.model import Model
from taskla.energy.source import Source

__all__ = ["Account", "Tasks", "account"]

Readings = tuple[NDArray[np.float64], NDArray[np.float64]]


class Tasks(NamedTuple):
    """The tasks of a run.

    Attributes
    ----------
    start, end : (n,) float64 arrays
        In s; `end` is NaN for tasks that did not run.
    kernel, format : (n,) arrays of str
    flops : (n,) float64 array
    nbytes : (n,) int64 array
        Read and written.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    kernel: NDArray[np.str_]
    format: NDArray[np.str_]
    flops: NDArray[np.float64]
    nbytes: NDArray[np.int64]


class Account(NamedTuple):
    """What a run used.

    Attributes
    ----------
    tasks : (n,) float64 array or None
        J of each task, NaN for those that did not run; None when unavailable.
    report : dict
        For JSON, without NaN. ``source`` is "measured", "modelled" or "unavailable". The first two
        come with ``joules``, ``idle_joules`` (of no task), ``watts`` (the mean, None for a run that
        took no time) and ``edp`` (energy-delay product, J s), the last with ``reason``. Measured:
        ``reason`` where a meter has no figure, ``meters``, each with ``name``, ``kind``,
        ``idle_power``, ``idle_source``, ``joules``, and ``reason`` where joules are None;
        ``weights`` by kernel, where set. Modelled: ``model``, the figures with their sources.
    """

    tasks: NDArray[np.float64] | None
    report: dict[str, Any]


def account(
    source: Source,
    *,
    begin: float,
    end: float,
    readings: Mapping[str, Readings],
    tasks: Tasks,
    workers: int,
) -> Account:
    """Work out what a run used.

    Parameters
    ----------
    source : Source
    begin, end : float
        When the run began and ended, in s on the clock of the tasks and the readings.
    readings : mapping
        Meter's name -> (s,) times, (s,) joules. A meter that is not in it has no figure.
    tasks : Tasks
        Every meter's joules are shared out to all of them.
    workers : int
        For static power in models.

    Returns
    -------
    Account
        The joules of the tasks and the idle ones make up the total, to the last few bits.
    """
    seconds = float(end - begin)
    if source.meters:
        return _measured(source, seconds, readings, tasks)
    if source.model is not None:
        return _modelled(source.model, seconds, tasks, workers)
    return _unavailable(source.reason or "there is no meter and no model")


def _measured(
    source: Source, seconds: float, readings: Mapping[str, Readings], tasks: Tasks
) -> Account:
    weights = _weights(source.weights, tasks.kernel)
    shares = np.where(np.isfinite(tasks.end), 0.0, np.nan)
    total = idle = 0.0
    meters = []
    for meter in source.meters:
        about, figures = _of_meter(meter, readings.get(meter.name), tasks, weights)
        meters.append(about)
        if figures is not None:
            shares += figures[0]
            idle += figures[1]
            total += about["joules"]
    if all(about["joules"] is None for about in meters):
        reasons = "; ".join(f"{about['name']}: {about['reason']}" for about in meters)
        return _unavailable(reasons, meters=meters)
    extra: dict[str, Any] = {"weights": dict(source.weights)} if source.weights else {}
    missing = [f"{about['name']}: {about['reason']}" for about in meters if "reason" in about]
    if missing:
        extra["reason"] = "without " + "; ".join(missing)
    return Account(shares, _report("measured", total, idle, seconds, meters=meters, **extra))


def _of_meter(
    meter: Meter, readings: Readings | None, tasks: Tasks, weights: NDArray[np.float64]
) -> tuple[dict[str, Any], tuple[NDArray[np.float64], float] | None]:
    """Return what the report says of a meter, and the joules of the tasks and of none."""
    about: dict[str, Any] = {
        "name": meter.name,
        "kind": meter.kind,
        "idle_power": float(meter.idle_power),
        "idle_source": meter.idle_source,
        "joules": None,
    }
    if readings is None:
        return about | {"reason": "it could not be read all the time"}, None
    times, joules = (np.asarray(values, dtype=np.float64) for values in readings)
    reason = fault(times, joules)
    if reason is None and joules[0] == joules[-1]:
        reason = "the counter did not move: the run was too short for it"
    if reason is not None:
        return about | {"reason": reason}, None
    about["joules"] = math.fsum(np.diff(joules))
    return about, attribute(times, joules, meter.idle_power, tasks.start, tasks.end, weights)


def _modelled(model: Model, seconds: float, tasks: Tasks, workers: int) -> Account:
    ran = np.isfinite(tasks.end)
    format, flops = tasks.format[ran], tasks.flops[ran]
    joules = np.full(ran.size, np.nan)
    try:
        joules[ran] = model.joules(format, flops, tasks.nbytes[ran])
    except ValueError as error:
        return _unavailable(f"model {model.name!r}: {error}")
    idle = model.static_power(workers) * seconds
    total = math.fsum(np.append(joules[ran], idle))
    about = model.describe(format, flops)
    return Account(joules, _report("modelled", total, idle, seconds, model=about))


def _weights(table: Mapping[str, float], kernel: NDArray[np.str_]) -> NDArray[np.float64]:
    if not table:
        return np.ones(kernel.size)
    # in the table they may be watts: 1 would be next to nothing beside them
    other = sum(table.values()) / len(table)
    names, which = np.unique(kernel, return_inverse=True)
    return np.array([table.get(str(name), other) for name in names], dtype=np.float64)[which]


def _report(
    source: str, joules: float, idle: float, seconds: float, **about: Any
) -> dict[str, Any]:
    return {
        "source": source,
        "joules": joules,
        "idle_joules": idle,
        "watts": joules / seconds if seconds > 0 else None,
        "edp": joules * seconds,
        **about,
    }


def _unavailable(reason: str, **about: Any) -> Account:
    return Account(None, {"source": "unavailable", "reason": reason, **about})
