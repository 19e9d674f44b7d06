"""`taskla trace export`, and the table of formats behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_traces import cholesky, made

from taskla.cli import main
from taskla.cli.trace.export import command
from taskla.traces import Trace, write
from taskla.traces.exports import NAMES, get
from taskla.traces.exports.starpu_import import read as read_starpu
from taskla.traces.tables import empty

#: What is written: a file, or a folder that holds this.
MAIN = {"csv": "tasks.csv", "parquet": "tasks.parquet", "otf2": "traces.otf2"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(made(cholesky(3), ranks=2, repeats=3), tmp_path / "run.trace")
    return tmp_path / "run.trace"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["trace", "export", *map(str, arguments)])


def test_the_command_has_every_format() -> None:
    (form,) = [option for option in command.params if option.name == "form"]
    assert tuple(form.type.to_info_dict()["choices"]) == NAMES
    for name in NAMES:
        assert callable(get(name))
    with pytest.raises(ValueError, match="format is 'dot'; allowed: paje, perfetto"):
        get("dot")


@pytest.mark.parametrize("form", NAMES)
def test_one_line_says_what_was_written(form: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = run(source, "--to", form, "-o", target)
    assert done.exit_code == 0, done.output
    files = [entry for entry in [target, *target.rglob("*")] if entry.is_file()]
    size = sum(entry.stat().st_size for entry in files)
    count = f" in {len(files)} files" if form in MAIN else ""
    assert done.stdout == f"{target}: {form}, {size} bytes{count}\n"
    assert (target / MAIN.get(form, "")).is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "run.trace"]
    # once more, in place of the first
    assert run(source, "--to", form, "-o", target, "--run", "0").exit_code == 0


def test_a_run_is_chosen(source: Path, tmp_path: Path) -> None:
    lengths = []
    for number in ([], ["--run", 0], ["--run", 1], ["--run", 2]):
        assert run(source, "--to", "perfetto", "-o", tmp_path / "out", *number).exit_code == 0
        events = json.loads((tmp_path / "out").read_text())["traceEvents"]
        lengths.append(max(e["ts"] + e["dur"] for e in events if e["ph"] == "X"))
    # each repeat takes longer than the one before: the second is the median
    assert lengths[1] < lengths[2] < lengths[3]
    assert lengths[0] == lengths[2]


@pytest.mark.parametrize("form", NAMES)
def test_what_cannot_be_written_is_one_line(form: str, source: Path, tmp_path: Path) -> None:
    done = run(source, "--to", form, "-o", tmp_path / "out", "--run", 3)
    assert (done.exit_code, done.stderr) == (1, "Error: run is 3; the trace has runs 0 to 2\n")
    done = run(source, "--to", form, "-o", tmp_path / "none" / "out")
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path / 'none'}: no such folder\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").touch()
    done = run(source, "--to", form, "-o", tmp_path / "mine")
    assert done.exit_code == 1
    assert "is not replaced" in done.stderr
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["precious.txt"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "run.trace"]


@pytest.mark.parametrize("form", NAMES)
def test_a_run_without_tasks_is_written(form: str, tmp_path: Path) -> None:
    trace = made(cholesky(3), ranks=2)
    # it failed before its first task had ended, messages were on their way
    nothing = Trace(trace.header, {**trace.tables, "tasks": empty("tasks")})
    get(form)(nothing, tmp_path / "out", None)
    assert (tmp_path / "out" / MAIN.get(form, "")).exists()


@pytest.mark.parametrize("form", NAMES)
def test_what_was_imported_is_exported(form: str, tmp_path: Path) -> None:
    get("starpu-rec")(made(ranks=2), tmp_path / "tasks.rec", None)
    get(form)(read_starpu(tmp_path / "tasks.rec"), tmp_path / "out", None)
    assert (tmp_path / "out" / MAIN.get(form, "")).exists()


def test_wrong_use(source: Path, tmp_path: Path) -> None:
    assert run(source, "--to", "paje").exit_code == 2
    assert run(source, "-o", tmp_path / "out").exit_code == 2
    assert run(source, "--to", "dot", "-o", tmp_path / "out").exit_code == 2
    assert run(source, "--to", "paje", "-o", tmp_path / "out", "--run", -1).exit_code == 2
    assert run(tmp_path / "none", "--to", "paje", "-o", tmp_path / "out").exit_code == 2
    (tmp_path / "bad.trace").write_text("nothing")
    done = run(tmp_path / "bad.trace", "--to", "paje", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "not a trace file" in done.stderr


@pytest.mark.parametrize("name", ["export", "import"])
def test_help_imports_nothing_that_computes(name: str) -> None:
    code = (
        "import sys\nfrom taskla.cli import main\n"
        f"try: main(['trace', {name!r}, '--help'])\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'pyarrow'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "line",
    [
        ["export", "FILE", "--to", "paje", "-o", "FILE"],
        ["replay", "FILE", "--policy", "prio", "-o", "FILE"],
        ["import", "FILE", "-o", "FILE"],
    ],
)
def test_what_is_read_is_never_replaced(line: list[str], tmp_path: Path) -> None:
    # by another name for the same file as well
    file, link = tmp_path / "run.trace", tmp_path / "link.trace"
    write(made(cholesky(3)), file)
    link.symlink_to(file)
    before = file.read_bytes()
    arguments = ["trace", *(str(file) if word == "FILE" else word for word in line[:-1]), str(link)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "which is read: give another name" in result.stderr
    assert file.read_bytes() == before
