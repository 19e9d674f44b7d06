"""Whether this process is a rank of a job, judged by what launchers leave in the environment.

MPI is not imported: that alone would make a process a rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Job", "job"]

# Number of ranks and rank, the innermost launcher first: mpirun is often started in a Slurm job.
# srun sets SLURM_STEP_NUM_TASKS; a batch script is not started by it, though SLURM_NTASKS and
# SLURM_PROCID=0 are there. PMIX_RANK tells no number of ranks, and those who set it set others.
_VARIABLES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)


class Job(NamedTuple):
    """What a launcher told: this process is `rank` of `ranks`."""

    rank: int
    ranks: int


def job(environment: Mapping[str, str] | None = None) -> Job:
    """Return what this process is; rank 0 of 1 when no launcher started it.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Default: ``os.environ``.
    """
    environment = os.environ if environment is None else environment
    for size, rank in _VARIABLES:
        try:
            found = Job(int(environment[rank]), int(environment[size]))
        except (KeyError, ValueError):
            continue
        if 0 <= found.rank < found.ranks:
            return found
    return Job(0, 1)
