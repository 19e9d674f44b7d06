"""What is installed is the whole package and nothing else, and importing it costs nothing."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import taskla

REPO = Path(__file__).parents[1]
# Folder in the repository: the package that it is installed as.
ROOMS = {
    "taskla": "taskla",
    "schedulers": "taskla/schedulers",
    "distributions": "taskla/distributions",
    "traces": "taskla/traces",
}


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, away from the repository's own folders."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def installed_files() -> set[str]:
    """The files that a wheel of this tree has to contain, apart from its metadata."""
    return {
        f"{package}/{path.relative_to(REPO / folder).as_posix()}"
        for folder, package in ROOMS.items()
        for path in (REPO / folder).rglob("*")
        if path.suffix in (".js", ".json", ".py", ".toml", ".trace") or path.name == "py.typed"
    }


class Built(NamedTuple):
    """The two distributions, and the Python of an environment with the wheel in it."""

    wheel: Path
    sdist: Path
    python: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, the wheel from it, and install that away from the repository."""
    folder = tmp_path_factory.mktemp("packaging")
    # A copy, since a build leaves files behind in the tree and reads those that others left.
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
    source = shutil.copytree(REPO, folder / "source", ignore=unwanted)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")

    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # NumPy and the rest come from where the tests run. A path in a .pth file is searched last,
    # and its own .pth files are not read: an editable taskla there stays out of sight.
    dependencies = [path for path in sys.path if path.endswith("-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    run(*pip, wheel, cwd=folder)
    return Built(wheel, sdist, python)


# In one test process, so that it is built once.
pytestmark = pytest.mark.xdist_group("packaging")


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == installed_files()
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_the_sdist_holds_the_sources_in_their_places(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "taskla/py.typed", "schedulers/__init__.py"} <= names


def test_every_module_of_the_wheel_imports(built: Built, tmp_path: Path) -> None:
    walk = """
import importlib, pkgutil, taskla
names = ["taskla", *(m.name for m in pkgutil.walk_packages(taskla.__path__, "taskla."))]
for name in names:
    print(importlib.import_module(name).__file__)
"""
    files = run(built.python, "-W", "error", "-c", walk, cwd=tmp_path).splitlines()
    (site,) = (built.python.parents[1] / "lib").glob("python*/site-packages")
    imported = {Path(file).relative_to(site).as_posix() for file in files}
    assert imported == {name for name in installed_files() if name.endswith(".py")}


def test_the_command_runs_from_the_wheel(built: Built, tmp_path: Path) -> None:
    script = run(built.python.with_name("taskla"), "--help", cwd=tmp_path)
    module = run(built.python, "-m", "taskla", "--help", cwd=tmp_path)
    for command in ("bench", "info", "plan", "schedulers", "solve"):
        assert command in script
        assert command in module


def test_importing_taskla_imports_no_dependency(tmp_path: Path) -> None:
    show = "import sys, taskla; print(*sys.modules, sep='\\n')"
    loaded = {
        name.partition(".")[0] for name in run(sys.executable, "-c", show, cwd=tmp_path).split()
    }
    assert "taskla" in loaded
    assert loaded.isdisjoint({"click", "numpy", "rich", "scipy", "threadpoolctl"})


def test_type_checkers_see_the_names_that_exist() -> None:
    """The imports under TYPE_CHECKING and the lazy table are one list, written twice."""
    tree = ast.parse(Path(taskla.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() == set(taskla.__all__) - {"__version__"}
    for name, module in seen.items():
        if module == "taskla":
            assert getattr(taskla, name) is import_module(f"taskla.{name}")
        else:
            assert getattr(taskla, name) is getattr(import_module(module), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'taskla' has no attribute 'choleski'"):
        taskla.choleski  # noqa: B018
