"""NVML, the library of NVIDIA's driver: a counter of millijoules per card since Volta.

The driver refreshes the counter every 20 to 100 ms, so a figure wants runs of seconds.
"""

from __future__ import annotations

from typing import Any

from taskla.energy.meters import Absent, Meter

__all__ = ["NvmlMeter", "find_nvml"]


class NvmlMeter(Meter):
    """A graphics card, its memory included.

    Parameters
    ----------
    number : int
        As the driver counts them.

    Raises
    ------
    OSError
        When the card has no counter of energy, or it cannot be read.
    """

    def __init__(self, number: int) -> None:
        import pynvml

        super().__init__(f"gpu-{number}", "gpu")
        self._nvml: Any = pynvml
        self._last = 0.0
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error
        self._last = self.read()

    def read(self) -> float:
        """Return the joules since the driver was loaded."""
        try:
            joules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000.0
        except self._nvml.NVMLError as error:
            raise OSError(str(error)) from error
        if joules < self._last:
            raise OSError("the counter started again: the driver was loaded anew")
        self._last = joules
        return float(joules)


def find_nvml() -> tuple[list[Meter], list[Absent]]:
    """Return the graphics cards that count energy, and those that do not.

    Returns
    -------
    meters : list of Meter
    absent : list of Absent
        With reasons. One of them stands for all without the package, the driver or a card.
    """
    try:
        import pynvml
    except ImportError:
        reason = "needs the package nvidia-ml-py: pip install 'taskla[energy]'"
        return [], [Absent("nvml", "gpu", reason)]
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return [], [Absent("nvml", "gpu", str(error))]
    if not count:
        return [], [Absent("nvml", "gpu", "no card")]
    meters: list[Meter] = []
    absent = []
    for number in range(count):
        try:
            meters.append(NvmlMeter(number))
        except OSError as error:
            absent.append(Absent(f"gpu-{number}", "gpu", f"no counter of energy: {error}"))
    return meters, absent
