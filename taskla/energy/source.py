"""Where the joules of a run come from: the machine's meters, or a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from taskla.energy.meters import Absent, Meter
from taskla.energy.model import Model
from taskla.energy.nvml import find_nvml
from taskla.energy.rapl import find_rapl
from taskla.energy.settings import find_model, read_settings

__all__ = ["Source", "find", "found"]

_ALLOWED = "auto, meters, model, model:NAME, model:FILE, model:FILE#NAME, off"


class Source(NamedTuple):
    """Meters, or a model, or neither.

    Attributes
    ----------
    meters : tuple of Meter
    model : Model or None
        Of use without meters.
    weights : mapping
        Kernel -> power of a running task, of which the ratios count; a kernel that is not in it has
        the mean of those that are, 1 when there are none.
    reason : str or None
        Why there is neither.
    """

    meters: tuple[Meter, ...]
    model: Model | None
    weights: Mapping[str, float] = MappingProxyType({})
    reason: str | None = None

    @property
    def kind(self) -> Literal["measured", "modelled", "unavailable"]:
        """What the figures will be, if all goes well."""
        if self.meters:
            return "measured"
        return "unavailable" if self.model is None else "modelled"


def find(spec: str = "auto", *, root: str | os.PathLike[str] | None = None) -> Source:
    """Find out where joules come from.

    Parameters
    ----------
    spec : str, default "auto"
        - "auto": the meters that can be read, without any the default model
        - "meters": the meters alone
        - "model": the default model; "model:NAME" that of a name, "model:FILE" and
          "model:FILE#NAME" one from a TOML file
        - "off": nowhere
    root : path, optional
        powercap's folder, see `find_rapl`.

    Raises
    ------
    OSError
        When a file of settings cannot be read.
    ValueError
        When `spec` is none of these, or a file of settings holds what it should not.
    """
    how, colon, wanted = spec.partition(":")
    if how not in ("auto", "meters", "model", "off") or (colon and (how != "model" or not wanted)):
        raise ValueError(f"energy is {spec!r}; allowed: {_ALLOWED}")
    if how == "off":
        return Source((), None, reason="switched off")
    settings = read_settings()
    if how == "model":
        return Source((), find_model(settings, wanted))
    meters, absent = _meters(root)
    for meter in meters:
        if meter.name in settings.idle:
            meter.idle_power, meter.idle_source = settings.idle[meter.name], "file"
    if meters:
        return Source(tuple(meters), None, settings.weights)
    if how == "auto":
        return Source((), find_model(settings))
    return Source((), None, reason="; ".join(f"{name}: {reason}" for name, _, reason in absent))


def found(*, root: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """List the meters of the machine, those that cannot be read as well.

    Parameters
    ----------
    root : path, optional
        powercap's folder, see `find_rapl`.

    Returns
    -------
    list of dict
        ``name``, ``kind``, ``readable`` and ``reason``, None for those that can be read. A kind of
        meter that the machine does not have at all is one row, "rapl" or "nvml".
    """
    meters, absent = _meters(root)
    readable = [Absent(meter.name, meter.kind, "") for meter in meters]
    return [
        {"name": name, "kind": kind, "readable": not reason, "reason": reason or None}
        for name, kind, reason in [*readable, *absent]
    ]


def _meters(root: str | os.PathLike[str] | None) -> tuple[list[Meter], list[Absent]]:
    meters, absent = find_rapl(root)
    cards, missing = find_nvml()
    return meters + cards, absent + missing
