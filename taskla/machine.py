"""What is known of the machine that this process runs on."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["boot", "memory", "processor", "resident"]

_PAGES = Path("/proc/self/statm")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def processor() -> str | None:
    """Return the processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory in all, and available, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None, None
    sizes = {key: int(size.split()[0]) * 1024 for key, _, size in (s.partition(":") for s in lines)}
    return sizes.get("MemTotal"), sizes.get("MemAvailable")


def resident() -> int | None:
    """Return the bytes of memory that this process holds, where the system tells."""
    try:
        from resource import getpagesize

        return int(_PAGES.read_text(encoding="ascii").split()[1]) * getpagesize()
    except (ImportError, OSError):
        return None


def boot() -> str:
    """Return what processes share that have one clock and one machine: its start, or its name."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
