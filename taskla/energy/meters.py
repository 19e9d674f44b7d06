"""What a meter is: a counter of joules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

__all__ = ["Absent", "Meter"]


class Meter(ABC):
    """A counter of the energy that a part of the machine has used.

    Attributes
    ----------
    name : str
        Unique on the machine: "package-0", "dram-0", "gpu-0".
    kind : {"package", "dram", "gpu"}
        A processor with its caches, the memory of one, a graphics card.
    idle_power : float
        Watts that the part draws when no task runs; 0 as long as they are unknown.
    idle_source : {"unknown", "measured", "file"}
        Where `idle_power` comes from: nowhere, `measure_idle`, or the user's settings.
    """

    name: str
    kind: str
    idle_power: float = 0.0
    idle_source: str = "unknown"

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind

    @abstractmethod
    def read(self) -> float:
        """Return the joules counted so far, from any origin; they never get fewer.

        Raises
        ------
        OSError
            When the counter cannot be read.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Absent(NamedTuple):
    """A meter that was found but cannot be read, or a kind of meter that was not found at all.

    Attributes
    ----------
    name, kind : str
    reason : str
        For people.
    """

    name: str
    kind: str
    reason: str
