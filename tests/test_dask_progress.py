"""Programs on a Dask cluster, told by events: what is known of them, by tile and in all."""

import numpy as np
import pytest

from taskla.engines.dask_progress import Fused, Matrix, Program, Progress, State, TileGrid

A = TileGrid("A", 3, 2, "fp64")
NONE, WAITING, RUNNING, DONE, FAILED, PARTLY = (
    State[name] for name in ("NONE", "WAITING", "RUNNING", "DONE", "FAILED", "PARTLY")
)


def fused(*writes: tuple[int, int, int], rank: int = 0, flops: float = 1e9) -> Fused:
    return Fused("gemm", rank, writes, flops)


def program(*grids: TileGrid) -> Program:
    return Program("token", "potrf", grids or (A,))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("waiting", "waiting", WAITING),
        ("running", "waiting", RUNNING),
        ("done", "waiting", PARTLY),
        ("done", "running", RUNNING),
        ("done", "done", DONE),
        ("failed", "running", FAILED),
        ("failed", "waiting", FAILED),
        ("done", "failed", FAILED),
    ],
)
def test_a_tile_is_as_the_tasks_that_write_it(first: str, second: str, expected: State) -> None:
    known = program()
    known.add("first", fused((0, 1, 0)))
    known.add("second", fused((0, 1, 0), (0, 2, 1)))
    known.note("first", first)  # type: ignore[arg-type]
    known.note("second", second)  # type: ignore[arg-type]
    tiles = known.tiles(0)
    assert tiles.state[1, 0] == expected
    assert tiles.tasks.tolist() == [[0, 0], [2, 0], [0, 1]]
    assert tiles.done[1, 0] == [first, second].count("done")
    # what no task writes
    assert tiles.state[0, 0] == tiles.owner[0, 0] == tiles.format[0, 0] == NONE
    assert np.isnan(tiles.seconds[0, 0])


def test_totals() -> None:
    known = program()
    for key in "abcd":
        known.add(key, fused((0, 0, 0), flops=3e9))
    assert known.totals(1000.0)[:5] == (4, 4, 0, 0, 0)
    assert known.totals(1000.0).began is None
    known.note("a", "done", start=100.0, stop=101.0)
    known.note("b", "done", start=100.5, stop=102.0)
    known.note("c", "failed")
    totals = known.totals(1000.0)
    assert (totals.tasks, totals.waiting, totals.running, totals.done, totals.failed) == (
        *(4, 1, 0, 2),
        1,
    )
    assert (totals.flops, totals.flops_done) == (12e9, 6e9)
    # nothing is running: the clock stands
    assert (totals.began, totals.elapsed, totals.gflops) == (100.0, 2.0, 3.0)
    known.note("d", "running", worker="w")
    assert not known.finished
    assert known.totals(106.0)[-2:] == (6.0, 1.0)
    known.note("d", "done", start=102.0, stop=103.0)
    assert known.finished
    assert known.totals(1000.0)[-2:] == (3.0, 3.0)


def test_a_program_without_a_task_has_no_rate() -> None:
    assert program().totals(5.0) == (0, 0, 0, 0, 0, 0, 0.0, 0.0, None, 0.0, 0.0)
    assert not program().finished


def test_to_be_told_again_changes_nothing() -> None:
    known = program()
    known.add("a", fused((0, 0, 0)))
    for state in ("running", "done"):
        known.note("a", state, worker="w", start=1.0, stop=3.0)  # type: ignore[arg-type]
        version, totals, tiles = known.version, known.totals(9.0), known.tiles(0)
        known.note("a", state, worker="w", start=1.0, stop=3.0)  # type: ignore[arg-type]
        assert (known.version, known.totals(9.0)) == (version, totals)
        np.testing.assert_equal(known.tiles(0), tiles)
    assert known.tiles(0).seconds[0, 0] == 2.0
    assert known.totals().recomputed == 0


def test_what_is_lost_is_recomputed() -> None:
    known = program()
    known.add("a", fused((0, 0, 0)))
    known.note("a", "done", worker="one", start=1.0, stop=2.0)
    known.note("a", "waiting")
    assert known.tiles(0).state[0, 0] == WAITING
    totals = known.totals(9.0)
    assert (totals.done, totals.recomputed, totals.flops_done, totals.gflops) == (0, 0, 0.0, 0.0)
    known.note("a", "running", worker="two")
    known.note("a", "done", worker="two", start=3.0, stop=4.5)
    totals = known.totals(9.0)
    assert (totals.done, totals.recomputed, totals.flops_done) == (1, 1, 1e9)
    tiles = known.tiles(0)
    assert known.workers[tiles.worker[0, 0]] == "two"
    # both times were spent
    assert tiles.seconds[0, 0] == 2.5


def test_a_task_that_is_added_again_is_not_recomputed() -> None:
    known = program()
    for key in "ab":
        known.add(key, fused((0, 0, 0), flops=4e9))
        known.note(key, "done", start=1.0, stop=2.0)
    known.add("a", fused((0, 0, 0), flops=4e9))
    assert known.tiles(0).state[0, 0] == PARTLY
    assert known.totals(9.0).began is None
    known.note("a", "running")
    known.note("a", "done", start=101.0, stop=103.0)
    totals = known.totals(999.0)
    # the rate is that of what was done this time
    assert (totals.recomputed, totals.done, totals.elapsed, totals.gflops) == (0, 2, 2.0, 2.0)


def test_owner_worker_format_and_seconds_of_tiles() -> None:
    known = program(A, TileGrid("P", 1, 1, "int32"), TileGrid("B", 1, 2, "fp64"))
    known.add("a", fused((0, 0, 0), (0, 1, 0), rank=3))
    known.add("b", fused((0, 0, 0), (2, 0, 1), (1, 0, 0), rank=5))
    known.note("b", "running", worker="two")
    assert known.tiles(0).worker[0, 0] == 0
    known.note("a", "done", worker="one", start=0.0, stop=3.0)
    known.note("b", "done", worker="two", start=0.0, stop=3.0)
    first, second, third = (known.tiles(grid) for grid in range(3))
    assert known.workers == ["two", "one"]
    # the last one that writes it, and the last one that had it
    assert first.owner.tolist() == [[5, -1], [3, -1], [-1, -1]]
    assert first.worker.tolist() == [[0, -1], [1, -1], [-1, -1]]
    assert known.formats == ("fp64", "int32")
    assert (first.format[0, 0], second.format[0, 0], third.format[0, 1]) == (0, 1, 0)
    # in even shares
    assert (first.seconds[0, 0], first.seconds[1, 0], third.seconds[0, 1]) == (2.5, 1.5, 1.0)
    assert known.writes == [3, 1, 1]


def test_grids_of_one_matrix_are_one() -> None:
    known = program(
        TileGrid("A", 2, 2, "fp64"),
        TileGrid("A", 2, 2, "fp32", more=True),
        TileGrid("A", 2, 2, "fp16", more=True),
        # another one of that name
        TileGrid("A", 1, 2, "fp16"),
        TileGrid("P", 1, 1, "int32"),
    )
    assert known.matrices == (
        Matrix("A", 2, 2, ("fp64", "fp32", "fp16")),
        Matrix("A", 1, 2, ("fp16",)),
        Matrix("P", 1, 1, ("int32",)),
    )
    known.add("a", fused((0, 0, 0), (2, 1, 0)))
    known.add("b", fused((2, 1, 0), (0, 1, 1), (3, 0, 1)))
    known.add("c", fused((0, 0, 1), rank=4))
    # the same tile in another format, which counts from then on
    known.add("d", fused((1, 0, 1), (4, 0, 0), rank=2))
    known.note("c", "done", worker="w", start=0.0, stop=3.0)
    known.note("a", "done", worker="w", start=0.0, stop=1.0)
    first, second, third = (known.tiles(matrix) for matrix in range(3))
    assert known.writes == [6, 1, 1]
    names = np.array([*known.formats, None])
    assert names[first.format].tolist() == [["fp64", "fp32"], ["fp16", "fp64"]]
    assert names[second.format].tolist() == [[None, "fp16"]]
    assert names[third.format].tolist() == [["int32"]]
    assert first.tasks.tolist() == [[1, 2], [2, 1]]
    assert first.state.tolist() == [[DONE, PARTLY], [PARTLY, WAITING]]
    assert first.owner.tolist() == [[0, 2], [0, 0]]
    assert first.seconds.tolist() == [[0.5, 3.0], [0.5, 0.0]]


def test_arrays_may_be_changed() -> None:
    known = program()
    known.add("a", fused((0, 0, 0)))
    expected = known.tiles(0)
    for array in known.tiles(0):
        array[:] = 77
    np.testing.assert_equal(known.tiles(0), expected)


def test_an_empty_matrix_has_no_tiles() -> None:
    assert program(TileGrid("E", 0, 3, "fp64")).tiles(0).state.shape == (0, 3)


def test_tiles_catch_up_however_often_they_are_asked_for() -> None:
    rng = np.random.default_rng(7)
    known, silent = program(A, A), program(A, A)
    state: dict[int, str] = {}
    writes: dict[int, list[tuple[int, int, int]]] = {}
    for step in range(600):
        if step % 10 == 0:
            key = len(state)
            some = rng.choice(12, rng.integers(1, 6), replace=False)
            writes[key] = [(tile // 6, tile % 6 // 2, tile % 2) for tile in some.tolist()]
            for one in (known, silent):
                one.add(key, fused(*writes[key]))
            state[key] = "waiting"
        key = int(rng.integers(len(state)))
        state[key] = str(rng.choice(["waiting", "running", "done", "failed"]))
        for one in (known, silent):
            one.note(key, state[key], start=0.0, stop=1.0)  # type: ignore[arg-type]
        if rng.random() < 0.2:
            known.tiles(int(rng.integers(2)))
    for grid in range(2):
        tiles = known.tiles(grid)
        # sums of seconds in another order
        for found, other in zip(tiles, silent.tiles(grid), strict=True):
            np.testing.assert_allclose(found, other)
        for i in range(3):
            for j in range(2):
                having = [state[key] for key in state if (grid, i, j) in writes[key]]
                assert tiles.tasks[i, j] == len(having)
                assert tiles.done[i, j] == having.count("done")
                assert (tiles.state[i, j] == FAILED) == ("failed" in having)
    assert known.totals(0.0).done == list(state.values()).count("done")


def test_nonsense_is_refused() -> None:
    known = program()
    known.add("a", fused((0, 0, 0)))
    with pytest.raises(ValueError, match=r"state is 'asleep'; allowed: waiting, running, done"):
        known.note("a", "asleep")  # type: ignore[arg-type]
    for place in ((0, 3, 0), (0, 0, 2), (1, 0, 0), (0, -1, 0)):
        with pytest.raises(ValueError, match=r"writes has the tile .*; allowed: .*A of 3 x 2"):
            known.add("b", fused(place))
    assert "b" not in known
    assert known.totals().tasks == 1
    with pytest.raises(ValueError, match="most is 0; allowed: integers from 1"):
        Progress(0)


# -- several programs ------------------------------------------------------------------------------


def test_events_come_to_the_program_of_the_task() -> None:
    progress = Progress()
    one, two = (progress.begin(token, "potrf", [A]) for token in ("one", "two"))
    assert progress.begin("one", "potrf", [A]) is one
    one.add(("k", 1), fused((0, 0, 0)))
    two.add(("k", 2), fused((0, 0, 0)))
    progress.note(("k", 2), "done", worker="w", start=1.0, stop=2.0)
    progress.note("unknown", "done")
    assert (one.totals().done, two.totals().done) == (0, 1)
    assert list(progress.programs) == ["one", "two"]
    assert (one.number, two.number) == (0, 1)


def test_only_the_newest_programs_are_kept() -> None:
    progress = Progress(most=3)
    for token in "abc":
        progress.begin(token, "potrf", [A]).add(token, fused((0, 0, 0)))
    progress.note("b", "done")
    # the one that has finished, then the oldest
    progress.begin("d", "potrf", [A])
    assert list(progress.programs) == ["a", "c", "d"]
    progress.begin("e", "potrf", [A])
    assert list(progress.programs) == ["c", "d", "e"]
    assert progress.programs["e"].number == 4


def test_a_factorisation_stays_when_corrections_come() -> None:
    progress = Progress(most=3)
    for token, flops in (("potrf", 1e9), ("first", 1e6), ("second", 1e6), ("third", 1e6)):
        program = progress.begin(token, token, [A])
        program.add(token, Fused("gemm", 0, ((0, 0, 0),), flops))
        progress.note(token, "done")
    assert list(progress.programs) == ["potrf", "second", "third"]


def test_a_program_that_comes_again_is_the_newest() -> None:
    progress = Progress()
    for token in "ab":
        progress.begin(token, "potrf", [A]).add(token, fused((0, 0, 0)))
    progress.begin("a", "potrf", [A])
    assert list(progress.programs) == ["a", "b"]
    progress.note("a", "done")
    progress.begin("a", "potrf", [A]).add("a", fused((0, 0, 0)))
    assert list(progress.programs) == ["b", "a"]
