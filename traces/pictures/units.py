"""Numbers and names as pictures show them."""

from __future__ import annotations

from math import isfinite
from re import sub

__all__ = ["ago", "plain", "quantity", "time_unit"]

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit for an axis that is so long, and its seconds: ``("ms", 0.001)``."""
    for size, prefix in _SMALL:
        if seconds >= size:
            return f"{prefix}s", size
    return ("ns", 1e-9) if seconds > 0 else ("s", 1.0)


def ago(seconds: float) -> str:
    """Return a length of time with four digits: ``12.35 ms``."""
    unit, size = time_unit(seconds)
    value = seconds / size
    # no exponent: 12410 s
    return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.4g} {unit}"


def quantity(value: float, unit: str) -> str:
    """Return a number with four digits and a unit, prefixed: ``1.235 kJ``, ``3.2 mJ``."""
    if not isfinite(value):
        return "unavailable"
    for size, prefix in (*_PREFIXES, *_SMALL[1:]):
        if abs(value) >= size:
            return f"{value / size:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def plain(text: object, length: int = 40) -> str:
    r"""Return text of a trace, which may be anything, for one line of a picture.

    Line breaks become blanks, what is long is cut, and a blank goes into what would start a formula
    for Bokeh, which would then fetch a library for it: ``$$``, ``\(`` and ``\[``.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    words = words if len(words) <= length else words[: length - 1] + "…"
    return sub(r"(?<=\$)(?=\$)|(?<=\\)(?=[(\[])", " ", words)
