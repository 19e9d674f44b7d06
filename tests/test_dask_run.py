"""`taskla dask-run` on real ranks: what the script finds, and that all ends however it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli_mpi import errors, is_running, mpirun_command
from test_engine_mpi import mpirun
from test_mpich import mpiexec

from taskla.engines.dask_script import run_script

# Ranks of several runs at once would wait for one another's cores.
pytestmark = pytest.mark.xdist_group("mpi")

COMMAND = ("-m", "taskla", "dask-run")
BEGIN = "import os, signal, sys, time\nfrom distributed import Client, default_client\n"
CURRENT = f"{BEGIN}client = default_client()\n"
#: Seconds that no run of these takes on a slow machine: far less than those of a task that sleeps.
SOON = 60


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def run(
    ranks: int, folder: Path, text: str, *arguments: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script, without a dashboard, whose port others may have.

    Open MPI's launcher has been seen to crash when ranks abort, after they had: then once more.
    """
    line = (*COMMAND, "--no-dashboard", *options, script(folder, text), *arguments)
    for _ in range(2):
        done = mpirun(ranks, *line, timeout=SOON)
        if done.returncode != -signal.SIGSEGV:
            return done
    return mpirun(ranks, *line, timeout=SOON)


def aborted(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Why ranks ended the job; Open MPI may put a zero byte before it, and its rule right after."""
    return re.findall(r"Error: rank .*?(?=-{20,}|$)", done.stderr, re.MULTILINE)


# -- what a script finds ---------------------------------------------------------------------------

FINDS = """
import json
import dask.array as da
import helper

def listening(dask_worker=None, dask_scheduler=None):
    server = dask_worker or dask_scheduler
    return [server.address.split(":")[1], server.http_server.address]

x = da.arange(1000, chunks=100)
places = [client.run_on_scheduler(listening), *client.run(listening).values()]
workers = client.scheduler_info(n_workers=-1)["workers"].values()
print(json.dumps({
    "argv": sys.argv[1:],
    "main": [__name__, sys.argv[0] == __file__, sys.path[0] == os.path.dirname(__file__)],
    "sum": int((x + x).sum().compute()),
    "helper": client.submit(helper.double, 21).result(),
    "workers": sorted((worker["name"], worker["nthreads"]) for worker in workers),
    "places": places,
    "rank": [name for name in os.environ if name.startswith(("OMPI_COMM_WORLD", "PMIX"))],
    "pids": len({os.getpid(), client.run_on_scheduler(os.getpid), *client.run(os.getpid).values()}),
}))
"""


def test_a_script_runs_as_by_python_and_computes_on_the_workers(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    arguments = ("2000", "--help", "--nthreads", "a b")
    done = run(4, tmp_path, CURRENT + FINDS, *arguments, options=("--nthreads", "3"))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.pop("argv") == list(arguments)
    assert found == {
        "main": ["__main__", True, True],
        "sum": 999_000,
        "helper": 42,
        "workers": [[2, 3], [3, 3]],
        # the ranks are on one machine, so nothing listens to others
        "places": [["//127.0.0.1", "127.0.0.1"]] * 3,
        # what the script starts is no rank either
        "rank": [],
        "pids": 4,
    }


def test_new_clients_and_the_engine_use_the_same_cluster(tmp_path: Path) -> None:
    text = """
import numpy as np
import taskla as tla
with Client() as client:
    assert client.scheduler.address == default_client().scheduler.address
    assert client.submit(abs, -3).result() == 3
left = Client()
client = default_client()
with tla.engine("dask") as engine:
    assert engine.client.scheduler.address == client.scheduler.address
    A = tla.TiledMatrix.random((60, 60), nb=16, kind="spd", uplo="lower", seed=1)
    a = A.to_array(fill="symmetric")
    tla.potrf(A)
    L = A.to_array()
np.testing.assert_allclose(L @ L.T, a, atol=1e-10)
print("done")
"""
    done = run(3, tmp_path, BEGIN + text)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_there_is_a_dashboard_and_threads_share_the_cores(tmp_path: Path) -> None:
    text = """
from urllib.request import urlopen
print(urlopen(client.dashboard_link, timeout=30).status)
cores, counts = len(os.sched_getaffinity(0)), client.nthreads().values()
print(len(counts), len(set(counts)), sum(counts) <= max(2, cores))
print(client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.address))
"""
    line = (*COMMAND, "--dashboard-address", "127.0.0.1:0", script(tmp_path, CURRENT + text))
    done = mpirun(4, *line, timeout=SOON)
    assert done.stdout.splitlines() == ["200", "2 1 True", "127.0.0.1"], done.stderr


def test_it_is_a_command_of_dask_as_well(tmp_path: Path) -> None:
    dask = Path(sys.executable).with_name("dask")
    text = "print(client.submit(sum, [1, 2]).result(), *sys.argv[1:])\nsys.exit(4)\n"
    line = ("taskla-run", "--no-dashboard", script(tmp_path, CURRENT + text), "--help")
    done = mpirun(3, dask, *line, timeout=SOON)
    assert (done.returncode, done.stdout) == (4, "3 --help\n"), done.stderr
    shown = mpirun(3, dask, "taskla-run", "--help", timeout=SOON)
    assert (shown.returncode, shown.stdout.count("Usage: dask taskla-run")) == (0, 1)


# -- what cannot be done is said once --------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_three_ranks_are_needed(tmp_path: Path, ranks: int) -> None:
    done = run(ranks, tmp_path, "print('not run')")
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = errors(done)
    assert "at least 3 ranks" in said
    assert said.endswith(f"{'is 1' if ranks == 1 else 'are 2'}: start it by mpirun -n 3, or more")


def test_without_mpirun_there_is_one_rank(tmp_path: Path) -> None:
    command = [sys.executable, *COMMAND, script(tmp_path, "print('not run')")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert (done.returncode, done.stdout) == (2, "")
    assert "at least 3 ranks" in done.stderr
    assert "there is 1: start it by mpirun" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no.py"], "script 'no.py' does not exist"),
        ([], "Missing argument 'SCRIPT'."),
        (["--nthreads", "0", __file__], "0 is not in the range x>=1."),
        (["--interface", "none7", __file__], "'none7' is not a valid network interface."),
        (["--memory-limit", "much", __file__], "memory-limit is 'much'; allowed: bytes"),
        (["--dashboard-address", "a:b", __file__], "dashboard-address is 'a:b'; allowed: HOST"),
    ],
)
def test_what_is_wrong_is_said_once(options: list[str], message: str) -> None:
    done = mpirun(3, *COMMAND, *options, timeout=SOON)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = errors(done)
    assert message in said
    assert "rank" not in said


def test_help_is_shown_once() -> None:
    done = mpirun(3, *COMMAND, "--help", timeout=SOON)
    assert (done.returncode, done.stdout.count("Usage:"), done.stderr) == (0, 1, "")


# -- all end ---------------------------------------------------------------------------------------


def test_an_error_of_the_script_ends_all_though_tasks_run(tmp_path: Path) -> None:
    text = """
future = client.submit(time.sleep, 1000)
print("before")
raise KeyError("the cause")
"""
    done = run(4, tmp_path, CURRENT + text)
    assert (done.returncode, done.stdout) == (1, "before\n")
    trace, _, rest = done.stderr.partition("KeyError: 'the cause'\n")
    assert re.fullmatch(
        r'Traceback .*\n  File ".*/script.py", line 7, in <module>\n    raise KeyError.*\n', trace
    )
    assert "the cause" not in rest
    assert aborted(done) == []


def test_the_same_on_mpich(tmp_path: Path) -> None:
    text = 'print(client.submit(abs, -3).result())\nraise KeyError("the cause")\n'
    line = (sys.executable, *COMMAND, "--no-dashboard", script(tmp_path, CURRENT + text))
    done = mpiexec(3, *line, timeout=SOON)
    assert (done.returncode, done.stdout) == (1, "3\n")
    assert done.stderr.count("KeyError: 'the cause'") == 1


def test_machines_meet_by_their_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MPICH takes each rank for a machine of its own
    monkeypatch.setenv("MPIR_CVAR_NOLOCAL", "1")
    text = """
from distributed.utils import get_ip
from urllib.parse import urlsplit
found = [client.scheduler.address, *client.nthreads()]
print({urlsplit(address).hostname for address in found} == {get_ip()})
print(client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.address))
"""
    line = (sys.executable, *COMMAND, "--no-dashboard", script(tmp_path, CURRENT + text))
    done = mpiexec(3, *line, timeout=SOON)
    assert (done.returncode, done.stdout) == (0, "True\n127.0.0.1\n"), done.stderr


@pytest.mark.parametrize(
    ("text", "code", "words"), [("sys.exit(3)", 3, ""), ("sys.exit('some words')", 1, "some words")]
)
def test_the_exit_code_is_the_scripts(tmp_path: Path, text: str, code: int, words: str) -> None:
    done = run(3, tmp_path, BEGIN + text)
    assert done.returncode == code
    assert done.stderr.count("some words") == bool(words)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "client.submit(os.kill, os.getpid(), 0).result(), client.run(kill)",
        "client.run_on_scheduler(kill)",
        "kill()",
        "client.submit(kill).result()",
    ],
    ids=["workers", "scheduler", "client", "task"],
)
def test_a_rank_that_is_killed_ends_the_job(tmp_path: Path, text: str) -> None:
    kill = "def kill(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    done = run(3, tmp_path, f"{CURRENT}{kill}{text}\nclient.submit(time.sleep, 1000).result()")
    assert done.returncode != 0
    assert "Killed" in done.stderr


@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_what_does_not_start_ends_the_job(
    tmp_path: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DASK_DISTRIBUTED__{who.upper()}__PRELOAD", "no_such_module")
    done = run(3, tmp_path, "print('not run')")
    assert (done.returncode, done.stdout) == (1, "")
    (said,) = aborted(done)
    rank = {"worker": 2, "scheduler": 0}[who]
    assert said == (
        f"Error: rank {rank} ({who}): ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_ranks_wait_for_one_another_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import time\ntime.sleep(1000)\n"
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", text)
    done = run(3, tmp_path, "print('not run')", options=("--death-timeout", "5"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "within 5 s" in aborted(done)[0]


def test_a_worker_that_hears_nothing_ends_the_job(tmp_path: Path) -> None:
    # a match that takes years, and lets no other thread run
    text = """
import re
future = client.submit(re.match, "(a+)+$", "a" * 60 + "b")
while not any(client.processing().values()):
    pass
print("done")
"""
    done = run(3, tmp_path, CURRENT + text)
    assert (done.returncode, done.stdout) == (1, "done\n")
    (said,) = aborted(done)
    assert said.endswith("10 s after the script had ended, these ranks had not: 2")


@pytest.mark.parametrize(
    "text",
    [
        "client.restart()\nassert client.submit(abs, -3).result() == 3\nassert len(names()) == 2",
        "client.retire_workers(list(client.nthreads())[:1])\nassert len(names()) == 1",
        "client.submit(abs, -3).result()\nclient.shutdown()",
        "client.close()",
        "import dask.array as da\nclient.publish_dataset(x=client.persist(da.ones(9, chunks=3)))",
    ],
    ids=["restart", "retire", "shutdown", "close", "publish"],
)
def test_a_script_may_do_what_dask_lets_it_do(tmp_path: Path, text: str) -> None:
    names = "def names():\n    return client.scheduler_info(n_workers=-1)['workers']\n"
    done = run(4, tmp_path, f"{CURRENT}{names}{text}\nprint('done')")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    # of a restart Dask says that there is no nanny
    assert done.stderr == "" or "restart" in text


def test_workers_that_are_lost_come_back(tmp_path: Path) -> None:
    text = """
def lose(dask_worker):
    dask_worker.loop.call_later(0.1, dask_worker.batched_stream.comm.abort)

address = list(client.nthreads())
client.run(lose)
while list(client.nthreads()) in (address, []):
    pass
print(client.submit(abs, -3).result())
"""
    done = run(3, tmp_path, CURRENT + text)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_ctrl_c_on_mpirun_ends_the_job(tmp_path: Path) -> None:
    text = """
print(os.getpid(), client.run_on_scheduler(os.getpid), *client.run(os.getpid).values(), flush=True)
client.submit(time.sleep, 1000).result()
"""
    line = mpirun_command(3, *COMMAND, "--no-dashboard", script(tmp_path, CURRENT + text))
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        ranks = [int(word) for word in process.stdout.readline().split()]
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 10
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode != 0
    assert len(ranks) == 3
    # what mpirun has killed may take an instant longer
    while (left := [pid for pid in ranks if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


# -- a script in this process ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(True)", 1, ""),
        ("raise SystemExit(-1)", 255, ""),
        ("raise SystemExit([1])", 1, "[1]\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("x = = 1", 1, "SyntaxError: invalid syntax\n"),
        ("import json; json.loads('{')", 1, "line 1 column 2 (char 1)\n"),
    ],
)
def test_codes_are_pythons(
    tmp_path: Path,
    text: str,
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    path = script(tmp_path, text)
    assert run_script(path, ["x"]) == code
    said = capsys.readouterr().err
    assert said.endswith(words)
    assert "dask_script" not in said
    alone = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=SOON)
    # a shell sees -2 as 130
    assert (alone.returncode if alone.returncode >= 0 else 128 - alone.returncode) == code
    assert alone.stderr == said
