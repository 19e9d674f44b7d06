"""How many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["cores"]


def cores(root: Path = Path("/")) -> int:
    """Return the number of cores that the affinity mask and the cgroups' CPU quota leave.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are found.

    Returns
    -------
    int
        At least 1. A quota of 1.5 cores counts as 2.
    """
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # Not on macOS.
        affinity = os.cpu_count() or 1
    quotas = (_quota(directory) for directory in _cgroups(root))
    return max(1, min([affinity, *(quota for quota in quotas if quota is not None)]))


def _cgroups(root: Path) -> Iterator[Path]:
    """Iterate over the directories that may limit this process: its cgroups and those above."""
    mounts = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = [".", "unified"]
        elif "cpu" in controllers.split(","):
            names = [controllers, "cpu"]
        else:
            continue
        # In a container the path may be the host's while the mount shows the container's own
        # cgroup as its top; directories that do not exist are passed over.
        relative = PurePosixPath(path.lstrip("/"))
        for name in names:
            yield from (mounts / name / part for part in (relative, *relative.parents))


def _quota(directory: Path) -> int | None:
    """Return the quota of one cgroup in cores, rounded up; None when it sets none."""
    try:
        if (unified := directory / "cpu.max").exists():
            quota, period = unified.read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text()
            period = (directory / "cpu.cfs_period_us").read_text()
        # "max" in version 2 and -1 in version 1 say that there is no limit.
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
