"""Energy: counters of the machine, a model where there are none, and what each task used.

Every figure is "measured", "modelled" or "unavailable": nothing is 0 because it is not known.
"""

from taskla.energy.account import Account, Tasks, account
from taskla.energy.attribution import Calibration, attribute, weights_from_calibration
from taskla.energy.idle import measure_idle
from taskla.energy.meters import Meter
from taskla.energy.model import Model
from taskla.energy.source import Source, find, found

__all__ = [
    "Account",
    "Calibration",
    "Meter",
    "Model",
    "Source",
    "Tasks",
    "account",
    "attribute",
    "find",
    "found",
    "measure_idle",
    "weights_from_calibration",
]
