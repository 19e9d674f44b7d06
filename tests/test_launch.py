"""Whether this process is a rank of a job, told from what launchers leave in the environment."""

import pytest

from taskla.launch import Job, job

# What each of them sets, as far as it matters here: Open MPI's mpirun(1), MPICH's Hydra and Intel
# MPI, srun(1) and sbatch(1) under "output environment variables".
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2"}
MPICH = {"PMI_SIZE": "3", "PMI_RANK": "0", "MPI_LOCALNRANKS": "3"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SRUN = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Job(0, 1)),
        (OPEN_MPI, Job(2, 4)),
        (MPICH, Job(0, 3)),
        (SRUN, Job(5, 8)),
        (SRUN | {"PMIX_RANK": "5"}, Job(5, 8)),
        # a batch script is one process, whatever has been asked for
        (BATCH, Job(0, 1)),
        # mpirun in a batch script or in a shell that srun has started
        (BATCH | OPEN_MPI, Job(2, 4)),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"} | MPICH, Job(0, 3)),
        # no number of ranks is told
        ({"PMIX_RANK": "1"}, Job(0, 1)),
        # what nobody sets
        ({"PMI_SIZE": "two", "PMI_RANK": "0"}, Job(0, 1)),
        ({"PMI_SIZE": "2", "PMI_RANK": "2"}, Job(0, 1)),
        ({"PMI_SIZE": "2"}, Job(0, 1)),
    ],
)
def test_the_environment_tells(environment: dict[str, str], found: Job) -> None:
    assert job(environment) == found


def test_the_process_itself_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    assert job() == Job(2, 4)
