"""taskla info."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from taskla.cli.options import debug_option, output_options
from taskla.cli.table import emit

__all__ = ["command"]


@click.command(epilog="Example: taskla info --json")
@output_options
@debug_option
def command(form: str | None) -> None:
    """Show the machine, the libraries, and what taskla has to offer on them."""
    found = _facts()
    if form is None:
        emit(({"what": what, "value": _words(what, value)} for what, value in found.items()), form)
    else:
        emit([found], form)


def _facts() -> dict[str, Any]:
    import numpy
    import scipy

    from taskla import __version__, distributions, energy, engines, kernels, schedulers
    from taskla.engines.cores import cores
    from taskla.machine import memory, processor
    from taskla.operations import OPERATIONS

    serving = next((blas for blas in kernels.blas_info() if blas["serves"]), None)
    affinity = getattr(os, "sched_getaffinity", None)
    total, available = memory()
    return {
        "taskla": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "cores_usable": cores(),
        "affinity": sorted(affinity(0)) if affinity else None,
        "memory": total,
        "memory_available": available,
        "blas": f"{serving['name']} {serving['version']}" if serving else None,
        "blas_architecture": serving["architecture"] if serving else None,
        "blas_threads": serving["threads"] if serving else None,
        "blas_path": serving["path"] if serving else None,
        "products": kernels.product_facts(),
        "meters": [_meter(about) for about in energy.found()],
        "devices": sorted({device for _, device, _ in kernels.TABLE}),
        "engines": list(engines.available()),
        "policies": list(schedulers.available()),
        "distributions": list(distributions.available()),
        "operations": len(OPERATIONS),
    }


def _meter(about: dict[str, Any]) -> str:
    """A meter of energy, or why there is none."""
    return about["name"] if about["readable"] else f"{about['name']}: {about['reason']}"


def _words(what: str, value: Any) -> str | None:
    if value is None:
        return None
    if what == "products":
        return ", ".join(f"{name} {made}" for name, made in value.items())
    if what.startswith("memory"):
        return f"{value / 2**30:.1f} GiB"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
