"""RAPL, the energy counters of processors, as Linux shows them: powercap's files in sysfs.

A zone is a folder with its name, its counter and the value where the counter starts again from 0.
A package holds what is in it, so its cores and its graphics would be counted twice; the platform
(psys) holds the packages; the zones of the control type intel-rapl-mmio are the packages again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Lock

from taskla.energy.meters import Absent, Meter

__all__ = ["RaplMeter", "find_rapl"]

_ZONE = re.compile(r"intel-rapl:([0-9]{1,9})(?::([0-9]{1,9}))?")
_DEFAULT = "/sys/class/powercap"
#: Longer than any number or name in these files.
_MOST = 80


class RaplMeter(Meter):
    """A package or the memory of one.

    Parameters
    ----------
    name : str
    kind : {"package", "dram"}
    zone : path
        The folder with ``energy_uj`` and ``max_energy_range_uj``.

    Raises
    ------
    OSError
        When the counter cannot be read, or is no number.
    """

    def __init__(self, name: str, kind: str, zone: str | os.PathLike[str]) -> None:
        super().__init__(name, kind)
        self._zone = Path(zone)
        self._range = _number(self._zone / "max_energy_range_uj")
        if not self._range:
            raise OSError("max_energy_range_uj is 0")
        self._lock = Lock()
        self._last = self._raw()
        self._total = self._last

    def read(self) -> float:
        """Return the joules counted so far; the counter may have started again once since then."""
        with self._lock:
            now = self._raw()
            grown = now - self._last
            self._total += grown if grown >= 0 else grown + self._range
            self._last = now
            return self._total / 1e6

    def _raw(self) -> int:
        raw = _number(self._zone / "energy_uj")
        if raw > self._range:
            raise OSError(f"energy_uj is {raw}, more than max_energy_range_uj, {self._range}")
        return raw


def find_rapl(root: str | os.PathLike[str] | None = None) -> tuple[list[Meter], list[Absent]]:
    """Return the packages and memories that can be read, and those that cannot.

    Parameters
    ----------
    root : path, optional
        powercap's folder; default: the environment's ``TASKLA_POWERCAP``, or /sys/class/powercap.

    Returns
    -------
    meters : list of Meter
    absent : list of Absent
        With reasons. One of them stands for all when there is no package.
    """
    folder = Path(root if root is not None else os.environ.get("TASKLA_POWERCAP") or _DEFAULT)
    meters: dict[str, Meter] = {}
    absent: list[Absent] = []
    packages: dict[str, str] = {}
    try:
        zones = _zones(folder)
    except OSError as error:
        return [], [Absent("rapl", "package", f"{folder}: {_reason(error)}")]
    for (parent, child), zone in zones.items():
        name, kind = zone.name, "package"
        try:
            found = _word(zone / "name")
            if child == "" and found.startswith("package-"):
                name = found
                packages[parent] = name.removeprefix("package-")
            elif child != "" and found == "dram" and parent in packages:
                name, kind = f"dram-{packages[parent]}", "dram"
            else:
                continue
            if name in meters:
                raise OSError(f"{zone.name} has the name of another zone")
            meters[name] = RaplMeter(name, kind, zone)
        except OSError as error:
            absent.append(Absent(name, kind, f"not readable: {_reason(error)}"))
    if not meters and not absent:
        absent = [Absent("rapl", "package", f"{folder}: no package")]
    return list(meters.values()), absent


def _zones(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the zones in powercap's folder by number of the parent and of the child, "" for none.

    In /sys/class/powercap all lie side by side; in /sys/devices/virtual/powercap, which that links
    to, zones lie in their control type and children in their parents.
    """
    os.listdir(folder)  # raises what is wrong with it: a search by pattern finds nothing instead
    zones: dict[tuple[str, str], Path] = {}
    zone = "intel-rapl:*"
    for pattern in (zone, f"{zone}/{zone}", f"intel-rapl/{zone}", f"intel-rapl/{zone}/{zone}"):
        for path in folder.glob(pattern):
            if match := _ZONE.fullmatch(path.name):
                zones.setdefault((match[1], match[2] or ""), path)
    return dict(sorted(zones.items(), key=lambda item: (int(item[0][0]), item[0][1])))


def _number(path: Path) -> int:
    word = _word(path)
    if not word.isdecimal():
        raise OSError(f"{path.name} is {word!r}, not a number")
    return int(word)


def _word(path: Path) -> str:
    """Return what a file of one short line holds."""
    with path.open("rb") as file:
        content = file.read(_MOST + 1)
    try:
        word = content.decode("ascii").strip()
    except UnicodeDecodeError:
        word = ""
    if not word or len(content) > _MOST or not word.isprintable():
        raise OSError(f"{path.name} holds {content[:20]!r}")
    return word


def _reason(error: OSError) -> str:
    """Return what the system says of an error, without number and path."""
    return error.strerror.lower() if error.strerror else str(error)
