"""Energy by a model: static power + joules per flop of a format + joules per byte.

Formats without a figure take that of the format nearest in precision, scaled by the square of the
ratio of significand bits: the area and the energy of a multiplier grow so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS

__all__ = ["Figure", "Model", "Static"]

#: Bits of the significand, the implicit one included, of formats that tiles do not have here.
_BITS = {"fp8": 4}


class Figure(NamedTuple):
    """Joules per flop or per byte, and who says so."""

    joules: float
    source: str


class Static(NamedTuple):
    """Power that is drawn whether tasks run or not, in W: of the machine, and for each worker."""

    watts: float
    watts_per_worker: float
    source: str


@dataclass(frozen=True)
class Model:
    """What flops and bytes cost.

    Parameters
    ----------
    name : str
    flop : dict
        Format -> `Figure`; at least one.
    byte : Figure
        Every byte that a task reads or writes counts, cached or not.
    static : Static, optional
    about : str, default ""

    Raises
    ------
    ValueError
        When no format has a figure, or one of unknown precision has.
    """

    name: str
    flop: Mapping[str, Figure]
    byte: Figure
    static: Static | None = None
    about: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.flop:
            raise ValueError(f"model {self.name!r} has no figure per flop of any format")
        for format in self.flop:
            significand(format)

    def per_flop(self, format: str) -> tuple[Figure, bool]:
        """Return the joules per flop of a format, and whether they follow from another's by rule.

        Raises
        ------
        ValueError
            When the format is not known.
        """
        if format in self.flop:
            return self.flop[format], False
        t = significand(format)
        # of two as near, the more precise one
        known = min(
            self.flop, key=lambda name: (_distance(significand(name), t), -significand(name))
        )
        ratio = (t / significand(known)) ** 2
        source = f"rule: {known} x ({t}/{significand(known)})^2"
        return Figure(self.flop[known].joules * ratio, source), True

    def joules(
        self,
        format: NDArray[np.str_],
        flops: NDArray[np.float64],
        nbytes: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the energy of tasks without static power.

        Parameters
        ----------
        format, flops, nbytes : (n,) arrays
            Of each task: the format of its arithmetic, flops, bytes read and written.

        Returns
        -------
        (n,) float64 array
            J.

        Raises
        ------
        ValueError
            When a task has flops in a format that is not known.
        """
        joules = self.byte.joules * nbytes.astype(np.float64)
        for name in _used(format, flops):
            mine = format == name
            joules[mine] += self.per_flop(name)[0].joules * flops[mine]
        return joules

    def static_power(self, workers: int) -> float:
        """Return the static power with so many workers, in W; 0 when none is set."""
        if self.static is None:
            return 0.0
        return self.static.watts + self.static.watts_per_worker * workers

    def describe(self, format: NDArray[np.str_], flops: NDArray[np.float64]) -> dict[str, Any]:
        """Return the figures that tasks were charged by, with their sources, for JSON.

        Parameters
        ----------
        format, flops : (n,) arrays
        """
        figures = {name: self.per_flop(name) for name in _used(format, flops)}
        about = {
            "name": self.name,
            "flop": {name: figure._asdict() for name, (figure, _) in figures.items()},
            "byte": self.byte._asdict(),
            "static": self.static and self.static._asdict(),
            "rule": [name for name, (_, by_rule) in figures.items() if by_rule],
        }
        if self.static is None:
            about["note"] = "dynamic only: no static power is set"
        return about


def significand(format: str) -> int:
    """Return a format's bits of significand, the implicit one included.

    Raises
    ------
    ValueError
        When the format is not known.
    """
    if format in FORMATS:
        return FORMATS[format].t
    if format not in _BITS:
        allowed = ", ".join(dict.fromkeys([*FORMATS, *_BITS]))
        raise ValueError(f"format is {format!r}; allowed: {allowed}")
    return _BITS[format]


def _distance(known: int, wanted: int) -> float:
    return max(known, wanted) / min(known, wanted)


def _used(format: NDArray[np.str_], flops: NDArray[np.float64]) -> Iterable[str]:
    return [str(name) for name in np.unique(format[flops > 0])]
