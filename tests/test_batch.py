"""Batch scripts and the lines of docs/batch.md, run with small sizes on real ranks.

There is no Slurm: `srun` is a script that takes its options and starts the ranks by mpirun.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_mpich import mpiexec

REPO = Path(__file__).parents[1]
SCRIPTS = sorted((REPO / "examples" / "batch").glob("*.sbatch"))
PAGE = REPO / "docs" / "batch.md"
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.xdist_group("mpi")

# sbatch(1), "Options": those that the scripts have, and what they allow
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "time": r"\d\d:\d\d:\d\d",
    "output": r"%x-%(j|A_%a)\.out",
    "array": r"0-\d+",
    "requeue": "",
    "signal": r"B:USR1@\d+",
    "open-mode": "append|truncate",
}

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    case $1 in
        --mpi=pmix | --cpus-per-task=1 | --cpu-bind=cores) shift ;;
        *) echo "srun: $1?" >&2; exit 2 ;;
    esac
done
echo "$@" >>"$CALLS"
if [[ -n ${ONLY_SHOW:-} ]]; then exit; fi
echo $$ >"$STEP"
# mpirun would look for the nodes of a job of Slurm
unset ${!SLURM_*}
exec MPIRUN -n 2 "$@"
"""

# The job's processes get SIGTERM, and the job waits in the queue again.
SCONTROL = """#!/usr/bin/env bash
[[ "$*" == "requeue $SLURM_JOB_ID" ]] || exit 2
kill "$(<"$STEP")"
"""


def mpirun() -> list[str]:
    """Open MPI's launcher."""
    own = shutil.which("mpirun", path=str(BIN)) or shutil.which("mpirun")
    if own is None:
        assert "CI" not in os.environ, "CI has an MPI"
        pytest.skip("there is no mpirun here")
    return [own, *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script: of Slurm, for small sizes, with our commands."""
    commands = tmp_path / "commands"
    commands.mkdir()
    start = " ".join([*mpirun(), "--oversubscribe"])
    text = {"srun": SRUN.replace("MPIRUN", start), "scontrol": SCONTROL}
    for name, script in text.items():
        (commands / name).write_text(script, encoding="utf-8")
        (commands / name).chmod(0o755)
    slurm = {"JOB_ID": "77", "CPUS_PER_TASK": "1", "ARRAY_JOB_ID": "76", "ARRAY_TASK_ID": "0"}
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(commands), str(BIN), os.environ["PATH"]]),
        **{f"SLURM_{name}": value for name, value in slurm.items()},
        **{"N": "300", "NB": "50", "TASKLA": str(REPO), "SCRATCH": str(tmp_path)},
        **{"CALLS": str(tmp_path / "calls"), "STEP": str(tmp_path / "step")},
    }


def batch(name: str, job: dict[str, str], folder: Path) -> str:
    """What a script prints that ends well."""
    done = subprocess.run(
        ["bash", REPO / "examples" / "batch" / f"{name}.sbatch"],
        env=job,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_one_that_bash_and_sbatch_read(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True, timeout=20)
    first, *lines = script.read_text(encoding="utf-8").splitlines()
    assert first == "#!/usr/bin/env bash"
    options = [line for line in lines if line.startswith("#SBATCH")]
    # sbatch reads none after the first command
    assert lines[: len(options)] == options
    for option in options:
        name, _, value = option.removeprefix("#SBATCH --").partition("=")
        assert re.fullmatch(SBATCH[name], value), option


def test_the_page_names_every_script() -> None:
    named = re.findall(r"^\| `([\w-]+\.sbatch)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == [script.name for script in SCRIPTS]


def test_one_node(job: dict[str, str], tmp_path: Path) -> None:
    row = json.loads(batch("one-node", job, tmp_path))
    assert (row["n"], row["nb"], row["status"]) == (300, 50, "PASSED")
    # of two ranks
    assert row["messages"] > 0


def test_several_nodes(job: dict[str, str], tmp_path: Path) -> None:
    shown = batch("several-nodes", job, tmp_path)
    assert "MPIEngine(ranks=2, workers=1" in shown
    assert "workers 2, ranks 2, engine mpi" in shown
    assert (tmp_path / "kriging-77.trace").exists()


def test_an_array_has_each_combination_once(job: dict[str, str], tmp_path: Path) -> None:
    text = (REPO / "examples" / "batch" / "array.sbatch").read_text(encoding="utf-8")
    (last,) = re.findall(r"^#SBATCH --array=0-(\d+)$", text, re.MULTILINE)
    del job["NB"]
    for index in range(int(last) + 1):
        batch("array", job | {"SLURM_ARRAY_TASK_ID": f"{index}", "ONLY_SHOW": "1"}, tmp_path)
    calls = Path(job["CALLS"]).read_text(encoding="utf-8").splitlines()
    found = {re.search(r"--nb (\d+) --dist (\S+)", call).groups() for call in calls}  # type: ignore[union-attr]
    assert len(calls) == len(found) == int(last) + 1
    assert found == {(nb, d) for nb in ("256", "384", "512") for d in ("2dbc", "g2dbc", "gcrm")}


def test_a_job_of_an_array_leaves_its_line(job: dict[str, str], tmp_path: Path) -> None:
    batch("array", job | {"SLURM_ARRAY_TASK_ID": "5", "NB": "40 50 60"}, tmp_path)
    row = json.loads((tmp_path / "bench-76-5.json").read_text(encoding="utf-8"))
    assert (row["nb"], row["dist"], row["n"]) == (60, "g2dbc", 300)


def test_a_job_goes_on_after_it_was_requeued(job: dict[str, str], tmp_path: Path) -> None:
    job |= {"N": "1600", "NB": "32", "EVERY": "4"}
    saved = tmp_path / "saved-77"
    script = subprocess.Popen(
        ["bash", REPO / "examples" / "batch" / "restart.sbatch"],
        env=job,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not list(saved.glob("taskla-run-*")):
            assert script.poll() is None, script.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.002)
        script.send_signal(signal.SIGUSR1)
        assert script.wait(timeout=60) != 0
    finally:
        script.kill()
        script.communicate()
    assert list(saved.glob("taskla-run-*"))
    done = subprocess.run(
        ["bash", REPO / "examples" / "batch" / "restart.sbatch"],
        env=job | {"SLURM_RESTART_COUNT": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "taskla: resumed potrf from iteration" in done.stderr
    assert json.loads(done.stdout)["status"] == "PASSED"


# What a machine with two cores can do of what the page shows for two times sixteen.
SMALL = [
    (r"ppr:1:package:PE=16", "ppr:2:package:PE=1"),
    (r"-bind-to core:16", "-bind-to core:1"),
    (r"node1:2,node2:2", "localhost:2"),
    (r"-n \d0000 --nb 500", "-n 300 --nb 50"),
    (r"--workers 16", "--workers 1"),
    (r"-n 4 ", "-n 2 "),
]


def lines(command: str) -> list[str]:
    """The page's lines that begin with a launcher."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^\$ {command} (.* --workers 16)$", text, re.MULTILINE)


def small(line: str) -> list[str]:
    """Return a line of the page with sizes for tests, and its program by our interpreter."""
    for pattern, instead in SMALL:
        line = re.sub(pattern, instead, line)
    flags, _, program = line.partition("taskla ")
    return [*flags.split(), sys.executable, "-m", "taskla", *program.split(), "--json"]


def test_lines_of_open_mpi() -> None:
    shown = lines("mpirun")
    assert len(shown) == 5
    for line in shown:
        done = subprocess.run(
            [*mpirun(), *small(line)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, line + done.stdout[-2000:] + done.stderr[-3000:]
        assert json.loads(done.stdout)["messages"] > 0


def test_lines_of_mpich() -> None:
    shown = lines("mpiexec")
    assert len(shown) == 3
    for line in shown:
        n, ranks, *rest = small(line)
        assert (n, ranks) == ("-n", "2")
        done = mpiexec(2, *rest, timeout=60)
        assert done.returncode == 0, line + done.stdout[-2000:] + done.stderr[-3000:]
        assert json.loads(done.stdout)["messages"] > 0
