"""Checkpoint and restart on threads: a program that was cut short gives the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import taskla as tla
from taskla.engines import checkpoint, checkpoint_files
from taskla.engines.threads import ThreadsEngine
from taskla.graph import TaskGraph
from taskla.pieces import cuts, iterations, piece
from taskla.reductions import ordered_reductions

Program = Callable[[str], list[NDArray[Any]]]

N, NB = 150, 16  # ten tiles, the last one smaller
TYPES = ("f4", "f8", "c8", "c16")


def potrf(dtype: str = "f8", seed: int = 1) -> list[NDArray[Any]]:
    A = tla.TiledMatrix.random((N, N), NB, dtype, "lower", seed=seed, kind="spd")
    tla.potrf(A)
    return [A.to_array()]


def getrf(dtype: str = "f8", pivot: Any = "partial") -> list[NDArray[Any]]:
    A = tla.TiledMatrix.random((N + 13, N), NB, dtype, seed=2)
    piv = tla.getrf(A, pivot)
    return [A.to_array(), piv]


def tournament(dtype: str = "f8") -> list[NDArray[Any]]:
    return getrf(dtype, "tournament")


def gemm(dtype: str = "f8", stationary: Any = "C") -> list[NDArray[Any]]:
    A = tla.TiledMatrix.random((N, N), NB, dtype, seed=3)
    # nobody looks at what C holds before: it is another thing each time
    noise = np.random.default_rng().random((N, N)).astype(A.dtype)
    C = tla.TiledMatrix.from_array(noise, NB, copy=True)
    tla.gemm(1.5, A, A, 0.0, C, stationary=stationary)
    return [C.to_array()]


def two(dtype: str = "f8") -> list[NDArray[Any]]:
    """Two runs; the second works on what the first has made."""
    A = tla.TiledMatrix.random((N, N), NB, dtype, seed=2)
    B = tla.TiledMatrix.random((N, N), NB, dtype, seed=4)
    piv = tla.getrf(A)
    tla.getrs(A, piv, B)
    return [A.to_array(), piv, B.to_array()]


PROGRAMS: dict[str, Program] = {f.__name__: f for f in (potrf, getrf, tournament, gemm, two)}


def run(folder: Path | None, program: Program = potrf, dtype: str = "f8", **options: Any) -> Any:
    if folder is not None:
        options = {"checkpoint": folder, "checkpoint_every": 3, **options}
    with tla.engine("threads", workers=2, **options):
        return program(dtype)


def assert_same(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def interrupted(folder: Path, pieces: int, program: Program = potrf, **options: Any) -> None:
    """Run a program that Ctrl-C ends after so many pieces."""
    whole, left = ThreadsEngine._run, pieces

    def counted(self: ThreadsEngine, graph: TaskGraph, matrices: Any) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        whole(self, graph, matrices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadsEngine, "_run", counted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, program, **options)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# -- what is killed comes back ---------------------------------------------------------------------


def killed(program: str, dtypes: tuple[str, ...], where: str, number: int, folder: Path) -> None:
    """In a process of its own for each type, run a program that kills itself."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_checkpoint as t
for dtype in {dtypes!r}:
    pid = os.fork()
    if not pid:
        t.kill_itself({where!r}, {number})
        t.run(Path({str(folder)!r}) / dtype, t.PROGRAMS[{program!r}], dtype)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def kill_itself(where: str, number: int) -> None:
    """Have this process end with SIGKILL at so many calls of something."""
    left = number

    def lethal(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left:
                return function(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    from taskla.engines.execution import Execution

    owner, name = {
        "task": (Execution, "__call__"),
        "tile": (checkpoint_files, "raw"),
        "rename": (Path, "rename"),
        "file": (checkpoint_files, "flush"),
    }[where]
    setattr(owner, name, lethal(getattr(owner, name)))


@pytest.mark.parametrize(("program", "tasks"), [("potrf", 80), ("getrf", 130), ("tournament", 200)])
def test_a_killed_run_goes_on_with_the_same_bits(
    program: str, tasks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(program, TYPES, "task", tasks, tmp_path)
    for dtype in TYPES:
        expected = run(None, PROGRAMS[program], dtype)
        assert names(tmp_path / dtype) != []
        assert_same(run(tmp_path / dtype, PROGRAMS[program], dtype), expected)
        assert "taskla: resumed " in capsys.readouterr().err
        assert names(tmp_path / dtype) == []


# 55 tiles: those of the second checkpoint begin after them; the folder, the manifest, the parent
@pytest.mark.parametrize(
    ("where", "number", "iteration"),
    [("tile", 80, 3), ("file", 5, 3), ("file", 6, 3), ("rename", 2, 3), ("file", 8, 6)],
)
def test_a_crash_in_a_checkpoint_leaves_the_one_before_whole(
    where: str, number: int, iteration: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed("potrf", ("f8",), where, number, tmp_path)
    capsys.readouterr()
    assert_same(run(tmp_path / "f8"), run(None))
    assert f"resumed potrf from iteration {iteration} of 10" in capsys.readouterr().err
    assert names(tmp_path / "f8") == []


# -- where a program goes on -----------------------------------------------------------------------


def test_the_two_newest_are_kept_and_none_when_all_is_done(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("not a checkpoint")
    (tmp_path / ".taskla-run-0000-iteration-000099").mkdir()
    (tmp_path / "taskla-run-0007-iteration-000003").mkdir()
    others = ["mine", "taskla-run-0007-iteration-000003"]
    interrupted(tmp_path, 3)
    mine = ["taskla-run-0000-iteration-000006", "taskla-run-0000-iteration-000009"]
    assert names(tmp_path) == sorted([*others, *mine])
    run(tmp_path)
    assert names(tmp_path) == others


@pytest.mark.parametrize("pieces", [1, 5, 8])
def test_runs_before_the_one_cut_short_are_computed_again(
    pieces: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, pieces, two)
    assert {name[:15] for name in names(tmp_path)} == {f"taskla-run-000{pieces > 6:d}"}
    assert_same(run(tmp_path, two), run(None, two))
    assert f"resumed {'getrs' if pieces > 6 else 'getrf'} from" in capsys.readouterr().err


@pytest.mark.parametrize("every", [1, 2, 4, 9, 100])
def test_another_number_of_iterations_gives_the_same_bits(every: int, tmp_path: Path) -> None:
    expected = run(None)
    assert_same(run(tmp_path, checkpoint_every=every), expected)
    interrupted(tmp_path, 2)
    assert_same(run(tmp_path, checkpoint_every=every), expected)
    assert names(tmp_path) == []


def test_products_are_resumed_whatever_the_result_held_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, 2, gemm)
    assert_same(run(tmp_path, gemm), run(None, gemm))
    assert "resumed gemm from iteration 6 of 10" in capsys.readouterr().err


def test_sums_across_a_cut_give_the_same_bits_with_and_without_a_restart(tmp_path: Path) -> None:
    def stationary(dtype: str) -> list[NDArray[Any]]:
        return gemm(dtype, "A")

    expected = run(tmp_path, stationary)
    interrupted(tmp_path, 2, stationary)
    assert_same(run(tmp_path, stationary), expected)
    interrupted(tmp_path, 2, stationary)
    with pytest.raises(ValueError, match=r"another tasks"):
        run(tmp_path, stationary, checkpoint_every=2)


def test_the_same_engine_may_be_used_again_after_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tla.engine("threads", workers=2, checkpoint=tmp_path, checkpoint_every=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), engine:
            potrf()
    assert names(tmp_path) == []
    with engine:
        assert_same(potrf(), run(None))


def test_a_run_that_numbers_make_fail_is_over(tmp_path: Path) -> None:
    with tla.engine("threads", workers=1, checkpoint=tmp_path, checkpoint_every=2):
        A = tla.TiledMatrix.random((N, N), NB, kind="spd", uplo="lower")
        A.tile(8, 8).array[2, 2] = -1e9
        with pytest.raises(np.linalg.LinAlgError, match=str(8 * NB + 3)):
            tla.potrf(A)
        assert names(tmp_path) == []
        # the same graph, other data
        assert_same(potrf(), run(None))


def test_what_workers_run_and_what_has_no_iterations_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "write", None)
    A = tla.TiledMatrix.random((N, N), NB)
    with tla.engine("threads", workers=2, checkpoint=tmp_path, checkpoint_every=1) as engine:
        assert tla.lange("F", A) > 0
        tla.potrf(tla.TiledMatrix.random((NB, NB), NB, kind="spd"))
        found = engine.map(potrf, [("f8",), ("f4",)])
    assert_same(found[0], run(None))


# -- what is refused -------------------------------------------------------------------------------


def test_other_data_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    with pytest.raises(ValueError, match=f"^{tmp_path} has a checkpoint .* on other data"):
        run(tmp_path, lambda dtype: potrf(dtype, seed=2))
    assert_same(run(tmp_path), run(None))


@pytest.mark.parametrize(
    ("other", "options", "words"),
    [
        (getrf, {}, "algorithm, tasks"),
        (lambda _: potrf("c16"), {}, "tasks"),
        (potrf, {"fuse": 1}, "fuse"),
    ],
)
def test_another_run_is_refused(
    other: Program, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    interrupted(tmp_path, 2)
    before = names(tmp_path)
    with pytest.raises(ValueError, match=f"of another run: of potrf .* another {words}"):
        run(tmp_path, other, **options)
    assert names(tmp_path) == before


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _changed(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("rank-0000", _shorter, "bytes, and had"),
        ("rank-0000", _flipped, "its checksum is another"),
        ("rank-0000", Path.unlink, "is missing"),
        ("manifest.json", Path.unlink, "is missing"),
        ("manifest.json", _shorter, "not JSON"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff"), "not JSON"),
        ("manifest.json", lambda path: path.write_text("[]"), "not the manifest"),
        ("manifest.json", _changed("version", 2), "version is 2; this program reads 1"),
        ("manifest.json", _changed("iteration", "9"), "iteration is '9'"),
        ("manifest.json", _changed("iteration", 10), "iteration is 10 of 10"),
        ("manifest.json", _changed("files", []), "files are not those of 1 ranks"),
        ("manifest.json", _changed("files", [3]), "the manifest has 3 for it"),
    ],
)
def test_a_damaged_one_is_refused_and_the_one_before_is_used(
    file: str,
    damage: Callable[[Path], None],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupted(tmp_path, 3)
    damage(tmp_path / "taskla-run-0000-iteration-000009" / file)
    # the next one that is written must not make the good one go
    interrupted(tmp_path, 0)
    assert names(tmp_path) == ["taskla-run-0000-iteration-000006"]
    said = capsys.readouterr().err
    assert words in said
    assert "resumed potrf from iteration 6 of 10" in said
    damage(tmp_path / "taskla-run-0000-iteration-000006" / file)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: no checkpoint .*: .* to start anew|whole"):
        run(tmp_path)


def test_a_full_disk_ends_the_run_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def full(path: Path) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "flush", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    assert_same(run(tmp_path), run(None))
    assert "resumed potrf from iteration 3 of 10" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder_at_a_time(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="another run is using this folder"):
        run(tmp_path)
    os.close(descriptor)
    assert_same(run(tmp_path), run(None))


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint_every is 0; it must be an integer of at"):
        tla.engine("threads", checkpoint=tmp_path, checkpoint_every=0)
    with pytest.raises(ValueError, match="give checkpoint as well"):
        tla.engine("threads", checkpoint_every=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        tla.engine("threads", checkpoint=tmp_path / "file")
    assert tla.engine("threads", checkpoint=tmp_path / "a" / "b").checkpoints.every == 10
    assert (tmp_path / "a" / "b").is_dir()


# -- the commands ----------------------------------------------------------------------------------


def taskla(*words: str | Path, tasks: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command, which kills itself after so many tasks."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_checkpoint as t
if {tasks}:
    t.kill_itself("task", {tasks})
from taskla.cli import main
main(sys.argv[1:])
"""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", ["bench", "solve"])
def test_a_command_goes_on(command: str, tmp_path: Path) -> None:
    a = np.random.default_rng(0).random((N, N)) + N * np.eye(N)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", a.sum(axis=1))
    words: list[str | Path] = ["bench", "getrf", "-n", f"{N}", "--warmup", "0", "--check"]
    if command == "solve":
        words = ["solve", tmp_path / "a.npy", tmp_path / "b.npy", "-o", tmp_path / "x.npy"]
    folder = tmp_path / "saved"
    words += ["--nb", "16", "--checkpoint", folder, "--checkpoint-every", "3"]
    assert taskla(*words, tasks=110).returncode == -signal.SIGKILL
    done = taskla(*words)
    assert done.returncode == 0, done.stderr
    assert "taskla: resumed getrf from iteration" in done.stderr
    assert names(folder) == []
    if command == "solve":
        x = np.load(tmp_path / "x.npy")
        np.testing.assert_allclose(x.ravel(), np.ones(N), rtol=1e-12)
    else:
        assert "PASSED" in done.stdout


def test_a_bench_of_several_runs_has_no_checkpoints(tmp_path: Path) -> None:
    words = ("bench", "potrf", "-n", "40", "--checkpoint", tmp_path)
    for more in ([], ["--warmup", "0", "--repeat", "2"], ["--warmup", "0", "--nb", "16,32"]):
        done = taskla(*words, *more)
        assert done.returncode == 2
        assert "give one value to each list, --repeat 1 and --warmup 0" in done.stderr
    done = taskla("bench", "potrf", "-n", "40", "--checkpoint-every", "3", "--warmup", "0")
    assert done.returncode == 2
    assert "give checkpoint as well" in done.stderr


# -- pieces of graphs ------------------------------------------------------------------------------


def graph_of(*loops: range, before: int = 0, carried: range = range(0)) -> TaskGraph:
    """A chain on one tile; a scratch tile is written and read in the iterations `carried`."""
    flow = tla.TaskFlow()
    A = flow.matrix(4, 4, nb=2)
    S = flow.matrix(2, 2, nb=2, scratch=True)
    for _ in range(before):
        flow.submit("noop", A[0, 0])
    for steps in loops:
        for k in flow.iterate(steps):
            flow.submit("noop", A)
            if k in carried and k == carried[0]:
                flow.submit("laset", S, params=("G", 0.0, 0.0))
            elif k in carried:
                flow.submit("noop", S)
    return flow.graph("chain")


def test_iterations_are_steps_of_loops() -> None:
    assert iterations(graph_of(range(3), range(1, 3), before=2)).tolist() == [0, 3, 4, 5, 6, 7]
    assert iterations(graph_of(before=3)).tolist() == [0, 3]
    assert iterations(graph_of()).tolist() == [0, 0]


def test_cuts_wait_until_no_scratch_tile_is_in_use() -> None:
    assert cuts(graph_of(range(10)), 3) == [3, 6, 9]
    assert cuts(graph_of(range(10)), 10) == []
    assert cuts(graph_of(range(10), carried=range(2, 5)), 3) == [5, 6, 9]
    assert cuts(graph_of(range(10), carried=range(10)), 3) == []


def test_a_graph_without_a_cut_is_said_to_have_none(tmp_path: Path) -> None:
    A = tla.TiledMatrix.random((4, 4), 2)
    with tla.engine("threads", workers=1, checkpoint=tmp_path, checkpoint_every=2) as engine:
        with pytest.warns(RuntimeWarning, match="chain cannot be cut into pieces"):
            engine.run(graph_of(range(9), carried=range(9)), [A])
        # short ones have none anyway
        engine.run(graph_of(range(2)), [A])
    assert names(tmp_path) == []


def test_pieces_make_up_the_graph() -> None:
    from taskla.plan import graphs
    from taskla.routines import problem

    (graph,) = graphs(problem("gemm", N, NB, "d", stationary="A"))
    graph = ordered_reductions(graph)
    bounds = [0, 5, 6, graph.calls.size - 1]
    parts = [piece(graph, a, b) for a, b in pairwise(bounds)]
    assert sum(part.n for part in parts) == graph.n
    for name in ("kind", "tiles", "operand", "modes", "iterations"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(graph, name))
    np.testing.assert_array_equal(
        np.concatenate([part.priorities() for part in parts]), graph.priorities()
    )
    for part in parts:
        assert part.calls[-1] == part.n == part.indptr.size - 1
        assert part.indptr[-1] == part.tiles.size
    assert piece(graph, 0, bounds[-1]) is graph
