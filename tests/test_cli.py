"""The commands as a whole: help, errors, output; `bench` and `solve` have files of their own."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import taskla as tla
from taskla import distributions, engines, kernels, schedulers
from taskla.cli import COMMANDS, main, options
from taskla.cli.table import emit
from taskla.cli.trace import COMMANDS as OF_TRACES
from taskla.operations import OPERATIONS
from taskla.plan import PLANNED, plan
from taskla.routines import ROUTINES, problem


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def rows(*arguments: str) -> list[dict[str, object]]:
    """What a command that succeeds prints with --json."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskla", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


# -- help ------------------------------------------------------------------------------------------


# Every command as it is typed; those of traces are a level deeper.
TYPED = [[name] for name in COMMANDS if name != "trace"]
TYPED += [["trace", name] for name in OF_TRACES] + [["distributions", "show"]]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["trace", "--help"], *([*names, "--help"] for names in TYPED)]
)
def test_help_imports_nothing_that_computes(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom taskla.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'scipy', 'rich'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_command_there_is_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("names", TYPED)
def test_the_help_of_a_command_ends_with_an_example(names: list[str]) -> None:
    command: click.Command | None = main
    for name in names:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    before, _, example = (command.epilog or "").partition(f"Example: taskla {' '.join(names)} ")
    assert before == ""
    taken = {flag for parameter in command.params for flag in parameter.opts}
    flags = [word for word in example.split() if word.startswith("-")]
    assert flags
    assert set(flags) <= taken
    assert run(*names, "--help").stdout.rstrip().endswith(example)


def test_the_help_names_all_operations() -> None:
    words = set(run("bench", "--help").stdout.replace(",", " ").replace(".", " ").split())
    assert set(ROUTINES) <= words
    words = set(run("plan", "--help").stdout.replace(",", " ").replace(".", " ").split())
    assert set(PLANNED) <= words


def test_the_version() -> None:
    assert run("--version").stdout == f"taskla, version {tla.__version__}\n"


def test_python_m_taskla_is_the_command() -> None:
    done = process("schedulers", "--csv")
    assert done.returncode == 0
    assert done.stdout.startswith("policy,description\n")
    assert done.stderr == ""


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("plna", 2, "no command 'plna'; did you mean plan? There are bench, solve,"),
        ("xyzzy", 2, "no command 'xyzzy'; there are bench,"),
        ("--nonsense", 2, "No such option"),
        ("bench", 2, "Missing"),
        ("bench potrf", 2, "Missing option '-n'"),
        ("bench portf -n 10", 2, "no operation 'portf'; did you mean potrf? There are potrf, "),
        ("bench potrf -n 10 --nb 0", 2, "'--nb': 0 is not allowed; it must be at least 1"),
        ("bench potrf -n ten", 2, "'ten' is not an integer or a range start:end[:step]"),
        ("bench potrf -n 1:2:3:4", 2, "'1:2:3:4' is not an integer or a range"),
        ("bench potrf -n 10:5", 2, "'10:5' has 0 values"),
        ("bench potrf -n 1:10:0", 2, "'1:10:0' is not an integer or a range"),
        ("bench potrf -n 1:99999999", 2, "'1:99999999' has 99999999 values, not 1 to 10000"),
        ("bench potrf -n 10 --dtype d,q", 2, "'q' is not known; allowed: s, d, c, z, float32,"),
        ("bench potrf -n 10 --csv --json", 2, "--csv and --json exclude each other; give one"),
        ("bench potrf -n 20000 --nb 1", 2, "1.3e+12 tile tasks, and 2e+07 is the limit; nb from"),
        ("bench potrf -n 9000000 --nb 9999", 2, "GB, and the memory is "),
        ("plan potrf -n 1000000 --nb 100", 2, "1.7e+11 tile tasks, and 2e+07 is the limit; nb"),
        ("bench potrf -n 10 --engine gpu", 2, "engine is 'gpu'; allowed: threads, mpi, dask"),
        ("bench potrf -n 10 --policy fifo", 2, "policy 'fifo' does not exist; there are eager"),
        ("bench potrf -n 10 --dist sbd", 2, "distribution 'sbd' does not exist; there are 2dbc"),
        ("bench potrf -n 10 --grid 2x2", 2, "grid is 2x2, which has 4 ranks, and ranks is 1"),
        ("bench potrf -n 10 --workers 0", 2, "0 is not allowed"),
        ("bench potrf -n 10 -m 20", 2, "potrf has no option m; it has precision, uplo"),
        ("bench syrk -n 10 --trans C --dtype z", 1, "trans must be one of N, T, not 'C'"),
        ("plan portf -n 10", 2, "no operation 'portf'; did you mean potrf?"),
        ("plan potrf -n 10 --grid 2by2", 2, "'2by2' is not a grid PxQ, such as 2x3"),
        ("plan potrf -n 10 --ranks 0", 2, "0 is not allowed; it must be at least 1"),
        ("plan lange -n 10", 2, "lange cannot be planned; there are potrf"),
        ("solve nowhere.npy b.npy -o x.npy", 2, "nowhere.npy"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(line: str, code: int, message: str) -> None:
    result = run(*line.split())
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""


def fault(error: BaseException) -> Callable[..., None]:
    def raising(*_: object, **__: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("nb is 3"), 1, "Error: nb is 3\n"),
        (ValueError("two\n lines"), 1, "Error: two lines\n"),
        (FileNotFoundError(2, "No such file", "a.npy"), 1, "Error: a.npy: No such file\n"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device\n"),
        (MemoryError(), 1, "Error: not enough memory\n"),
        (np.linalg.LinAlgError("singular"), 1, "Error: singular\n"),
        (KeyError("x"), 1, "Error: KeyError: 'x' (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
    ],
)
def test_an_error_of_any_kind_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr(schedulers, "available", fault(error))
    result = run("schedulers")
    assert (result.exit_code, result.stderr, result.stdout) == (code, line, "")


def test_notes_of_an_error_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("no")
    error.add_note("in task potrf on tile A(1, 1)")
    monkeypatch.setattr(schedulers, "available", fault(error))
    assert run("schedulers").stderr == "Error: no; in task potrf on tile A(1, 1)\n"


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("no")
    monkeypatch.setattr(schedulers, "available", fault(error))
    result = run("schedulers", "--debug")
    assert result.exception is error
    assert result.exit_code == 1


def test_debug_shows_a_traceback_and_its_absence_does_not(tmp_path: os.PathLike[str]) -> None:
    wrong = os.path.join(tmp_path, "a.npy")
    np.save(wrong, np.zeros((3, 4)))
    arguments = ("solve", wrong, wrong, "-o", os.path.join(tmp_path, "x.npy"))
    quiet, loud = process(*arguments), process(*arguments, "--debug")
    assert quiet.returncode == loud.returncode == 1
    assert quiet.stderr == f"Error: {wrong}: A must be square, not 3 x 4\n"
    assert "Traceback" in loud.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    arguments = [sys.executable, "-m", "taskla", "plan", "potrf", "-n", "10:3000:10", "--nb", "500"]
    with subprocess.Popen(
        [*arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as taskla:
        assert taskla.stdout is not None
        assert taskla.stderr is not None
        json.loads(taskla.stdout.readline())
        taskla.stdout.close()
        assert taskla.stderr.read() == ""
        taskla.wait(timeout=60)


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5", (5,)),
        ("4096,8192", (4096, 8192)),
        ("256:1024:256", (256, 512, 768, 1024)),
        ("1:3", (1, 2, 3)),
        ("1:6:2", (1, 3, 5)),
        ("7,1:2,9", (7, 1, 2, 9)),
    ],
)
def test_lists_and_ranges_of_numbers(text: str, values: tuple[int, ...]) -> None:
    assert options.numbers(1)(text) == values


def test_a_grid_and_words() -> None:
    assert options.grid("2x3") == (2, 3)
    assert options.grid("10X1") == (10, 1)
    assert options.words()("prio, lws") == ("prio", "lws")
    for wrong in ("2x", "x3", "0x3", "-1x3", "6"):
        with pytest.raises(click.BadParameter):
            options.grid(wrong)
    with pytest.raises(click.BadParameter, match="'' in 'a,' is not a name"):
        options.words()("a,")


# -- output ----------------------------------------------------------------------------------------

TABLE = [
    {"op": "potrf", "n": 100, "grid": "2x3", "time": 0.000123456, "joules": None, "messages": 0},
    {"op": "potrf", "n": 20, "grid": "1x1", "time": 123456.0, "joules": None, "messages": 0},
]


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    emit(TABLE, None)
    assert capsys.readouterr().out.splitlines() == [
        "op       n  PxQ       time  joules  messages",
        "potrf  100  2x3  0.0001235       -         0",
        "potrf   20  1x1  1.235e+05       -         0",
    ]


def test_csv_and_json_have_every_digit_and_nothing_for_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit(TABLE, "csv")
    first, second = csv.DictReader(StringIO(capsys.readouterr().out))
    assert first == {key: "" if v is None else str(v) for key, v in TABLE[0].items()}
    assert float(second["time"]) == 123456.0
    emit(TABLE, "json")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == TABLE


def test_json_stays_json_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"residual": float("nan")}, {"residual": float("inf")}], "json")
    assert capsys.readouterr().out == '{"residual": null}\n{"residual": null}\n'


def test_a_table_has_the_rows_that_came_before_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> object:
        yield from TABLE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit(broken(), None)  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_no_rows_are_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    for form in (None, "csv", "json"):
        emit([], form)
    assert capsys.readouterr().out == ""


def drawn(
    monkeypatch: pytest.MonkeyPatch, table: Sequence[dict[str, object]], settings: Sequence[str]
) -> list[list[str]]:
    """The words in each line of a table at a terminal."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    emit(table, None, settings)
    return [words for line in terminal.getvalue().splitlines() if (words := line.split())]


def test_a_terminal_gets_a_drawn_table_of_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    title, heading, line, *body = drawn(monkeypatch, TABLE, ["op", "n"])
    assert title == ["op=potrf"]
    assert heading == ["n", "PxQ", "time"]
    assert set("".join(line)) == {"─"}
    assert body == [["100", "2x3", "0.0001235"], ["20", "1x1", "1.235e+05"]]


def test_large_numbers_are_short_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, body = drawn(monkeypatch, [{"bytes": 1_028_990_000_000, "flops": 3.3e14}], [])
    assert body == ["1.03T", "330.00T"]


# -- plan ------------------------------------------------------------------------------------------


def test_plan_prints_the_rows_of_plan() -> None:
    line = "plan potrf -n 600,1200 --nb 100:200:100 --ranks 4,6 --dtype s,z --dist row,2dbc"
    found = rows(*line.split())
    expected = [
        asdict(row)
        for n in (600, 1200)
        for nb in (100, 200)
        for dtype in "sz"
        for ranks in (4, 6)
        for row in plan("potrf", n, ranks=ranks, dist=["row", "2dbc"], nb=nb, dtype=dtype)
    ]
    assert found == expected


def test_plan_compares_all_distributions_by_default() -> None:
    line = "plan getrf -n 1200 --nb 100 --grid 2x3"
    found = rows(*line.split(), "--pivot", "none")
    by_name = {row["dist"]: row for row in found}
    # those that exist for 6 ranks, but for the 2.5D ones
    assert set(by_name) == {"2dbc", "row", "col", "sbc", "g2dbc", "gcrm", "tbc"}
    assert by_name["2dbc"]["messages"] == 229
    assert by_name["sbc"]["messages"] > 229
    assert {row["pivot_messages"] for row in found} == {0}
    (pivoting,) = rows(
        "plan", "getrf", "-n", "1200", "--nb", "100", "--grid", "2x3", "--dist", "2dbc"
    )
    assert pivoting["pivot"] == "partial"
    assert pivoting["pivot_messages"] > 0


def test_plan_passes_all_options_on() -> None:
    line = "plan trsm -n 300 -m 500 --nb 100 --side R --uplo U --trans T --diag U --ranks 4"
    (first, *_) = rows(*line.split())
    choices = {"m": 500, "side": "R", "uplo": "U", "trans": "T", "diag": "U"}
    assert first == asdict(plan("trsm", 300, nb=100, ranks=4, dist="all", **choices)[0])
    line = "plan gemm -n 300 -m 500 -k 700 --transa T --transb c --nb 100 --ranks 4"
    (first, *_) = rows(*line.split())
    choices = {"m": 500, "k": 700, "transa": "T", "transb": "C"}
    assert first == asdict(plan("gemm", 300, nb=100, ranks=4, dist="all", **choices)[0])


def test_all_distributions_may_stand_among_others() -> None:
    found = rows("plan", "potrf", "-n", "600", "--nb", "100", "--ranks", "4", "--dist", "row,all")
    assert sorted(row["dist"] for row in found) == [
        *("2.5d-2dbc", "2.5d-sbc", "2dbc", "col", "g2dbc", "gcrm", "row")
    ]


def test_types_have_numpys_names_too() -> None:
    for command in ("plan", "bench"):
        line = f"{command} potrf -n 30 --dtype s,complex128"
        assert {row["type"] for row in rows(*line.split())} == {"s", "z"}


@pytest.mark.parametrize("op", PLANNED)
def test_tile_tasks_are_estimated(op: str) -> None:
    (row,) = plan(op, 2000, nb=50)
    assert row.tasks / 2 <= problem(op, 2000, 50).tile_tasks <= row.tasks * 1.1


# -- info and schedulers ---------------------------------------------------------------------------


def test_info_tells_what_is_found() -> None:
    (found,) = rows("info")
    assert found["taskla"] == tla.__version__
    assert found["numpy"] == np.__version__
    assert found["engines"] == list(engines.available())
    assert found["policies"] == list(schedulers.available())
    assert found["distributions"] == list(distributions.available())
    assert found["operations"] == len(OPERATIONS)
    assert found["devices"] == ["cpu"]
    (serving,) = [blas for blas in kernels.blas_info() if blas["serves"]]
    assert found["blas_path"] == serving["path"]
    cores = found["cores_usable"]
    assert isinstance(cores, int)
    assert 1 <= cores <= (os.cpu_count() or 1)


def test_info_is_two_columns_for_people() -> None:
    lines = run("info").stdout.splitlines()
    assert lines[0].split() == ["what", "value"]
    table = dict(line.split(maxsplit=1) for line in lines[1:])
    assert table["taskla"] == tla.__version__
    assert table["policies"] == ", ".join(schedulers.available())
    assert "GPU" not in table["devices"]


def test_schedulers_are_listed_with_their_lines() -> None:
    assert rows("schedulers") == [
        {"policy": name, "description": line} for name, line in schedulers.available().items()
    ]


# -- distributions ---------------------------------------------------------------------------------


def test_distributions_are_listed() -> None:
    found = {row["distribution"]: row["description"] for row in rows("distributions")}
    assert found == distributions.available()
    assert run("distributions").stdout.splitlines()[0].split() == ["distribution", "description"]


def test_a_distribution_is_shown() -> None:
    result = run("distributions", "show", "sbc", "--ranks", "3", "--tiles", "4")
    # pairs {0,1}, {0,2}, {1,2} are ranks 0, 1, 2; the diagonal goes round
    assert result.stdout == (
        "0 0 1 0\n0 2 2 0\n1 2 1 1\n0 0 1 0\n\n"
        "tiles of a rank, matrix: 3 to 8\ntiles of a rank, triangle: 2 to 5\n"
        "cost of the pattern: 2\n"
    )
    (shown,) = rows("distributions", "show", "2dbc", "--grid", "2x3", "--tiles", "3")
    assert shown == {
        **{"distribution": "2dbc", "ranks": 6, "grid": [2, 3], "slices": 1},
        "owners": [[0, 1, 2], [3, 4, 5], [0, 1, 2]],
    }
    (shown,) = rows("distributions", "show", "2.5d-2dbc", "--ranks", "8", "--slices", "4")
    assert shown["slices"] == 4
    cells = run("distributions", "show", "row", "--ranks", "2", "--tiles", "2", "--csv").stdout
    assert cells.splitlines() == ["i,j,rank", "0,0,0", "0,1,0", "1,0,1", "1,1,1"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_distribution_is_drawn(tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"sbc.{ending}"
    result = run("distributions", "show", "sbc", "--ranks", "10", "-o", str(picture))
    assert result.stdout == f"{picture}\n", result.stderr
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert picture.read_bytes().startswith(start)
    if ending == "svg":
        # twelve rows of twelve ranks are written into the tiles
        assert picture.read_text().count("</text>") >= 144


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("show sbc --ranks 7", 2, "use 6 or 10, or gcrm"),
        ("show sbd --ranks 7", 2, "'sbd' does not exist"),
        ("show sbc", 2, "ranks is None; sbc needs a number of ranks"),
        ("show sbc --ranks 6 -o x.txt", 1, "a figure ends in .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_shown_is_told(line: str, code: int, message: str) -> None:
    result = run("distributions", *line.split())
    assert result.exit_code == code
    assert message in result.stderr
