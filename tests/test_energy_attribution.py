"""Joules of a meter shared out to tasks: an oracle worked by hand, exact fractions, properties."""

import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from taskla.energy import Calibration, attribute, weights_from_calibration

Floats = NDArray[np.float64]


def exact(
    times: Floats, joules: Floats, idle_power: float, start: Floats, end: Floats, weights: Floats
) -> tuple[list[Fraction], Fraction]:
    """The rule as it is written down, interval by interval and task by task, without rounding."""
    shares, idle = [Fraction(0)] * len(start), Fraction(0)
    t, j = list(map(Fraction, times.tolist())), list(map(Fraction, joules.tolist()))
    tasks = list(zip(*(map(Fraction, x.tolist()) for x in (start, end, weights)), strict=True))
    for k in range(len(t) - 1):
        length, grown = t[k + 1] - t[k], j[k + 1] - j[k]
        of_none = min(Fraction(idle_power) * length, grown)
        part = [w * max(Fraction(0), min(b, t[k + 1]) - max(a, t[k])) for a, b, w in tasks]
        idle += of_none if any(part) else grown
        for i, p in enumerate(part):
            if p:
                shares[i] += (grown - of_none) * p / sum(part)
    return shares, idle


@st.composite
def runs(draw: st.DrawFn) -> tuple[Floats, Floats, float, Floats, Floats, Floats]:
    """Readings and tasks on them: times and joules are whole, so exact as floats."""
    s = draw(st.integers(2, 20))
    n = draw(st.integers(0, 12))
    steps = st.lists(st.integers(0, 1000), min_size=s, max_size=s)
    times = np.cumsum([draw(st.integers(-100, 100)), 1, *draw(steps)[2:]]).astype(float)
    joules = np.cumsum([0, *draw(steps)[1:]]).astype(float)
    moment = st.floats(-10, times[-1] - times[0] + 10)
    moments = moment.map(lambda after: times[0] + round(after, 9)) | st.sampled_from(times.tolist())
    ends = np.sort(np.reshape([draw(moments) for _ in range(2 * n)], (n, 2)), axis=1)
    weight = st.sampled_from([0.0, 1.0, 2.5]) | st.floats(1e-9, 1e9)
    weights = np.array([draw(weight) for _ in range(n)])
    return times, joules, draw(st.sampled_from([0.0, 0.5, 3.0])), ends[:, 0], ends[:, 1], weights


def ulps(total: float) -> float:
    """A few units in the last place of a total."""
    return 4 * math.ulp(total)


# -- the rule --------------------------------------------------------------------------------------


def test_two_tasks_in_one_interval_as_worked_by_hand() -> None:
    """100 W idle, 1 s, 260 J: 160 J by .6 s x 1 and .2 s x 2."""
    shares, idle = attribute([0, 1], [0, 260], 100, [0, 0], [0.6, 0.2], [1, 2])
    assert shares.tolist() == [96.0, 64.0]
    assert idle == 100.0


def test_an_interval_without_tasks_is_all_idle() -> None:
    shares, idle = attribute([0, 1, 2, 3], [0, 30, 50, 80], 10, [0, 2.5], [1, 2.75])
    assert shares.tolist() == [20.0, 20.0]
    assert idle == 10 + 20 + 10


def test_idle_power_takes_no_more_than_was_counted() -> None:
    shares, idle = attribute([0, 1, 2], [0, 5, 30], 10, [0], [2])
    assert shares.tolist() == [15.0]
    assert idle == 15.0


def test_a_task_over_many_intervals_gets_its_part_of_each() -> None:
    """Alone in all but the fourth of eight seconds, where a task of half a second joins it."""
    shares, idle = attribute(range(9), range(0, 90, 10), 1, [0.5, 3], [8, 3.5])
    assert shares[0] == pytest.approx(7 * 9 + 9 * 2 / 3, rel=1e-15)
    assert shares[1] == pytest.approx(9 / 3, rel=1e-15)
    assert idle == 8.0


def test_tasks_that_did_not_run_have_no_joules_and_take_none() -> None:
    start, end = [0, np.nan, 7e300, 0], [1, np.nan, np.nan, 0.5]
    shares, idle = attribute([0, 1], [0, 30], 0, start, end)
    np.testing.assert_array_equal(shares, [20, np.nan, np.nan, 10])
    assert idle == 0


def test_outside_of_the_readings_nothing_is_shared() -> None:
    shares, idle = attribute([0, 1], [0, 8], 0, [-3, -3, 1, 2], [-1, 0.5, 2, 4])
    assert shares.tolist() == [0, 8, 0, 0]
    assert idle == 0


def test_tasks_of_weight_zero_leave_their_intervals_idle() -> None:
    shares, idle = attribute([0, 1, 2], [0, 8, 20], 1, [0, 0], [2, 1], [0, 3])
    assert shares.tolist() == [0, 7]
    assert idle == 1 + 12


def test_readings_at_one_moment() -> None:
    """No time, no tasks in it: what was counted there is idle."""
    shares, idle = attribute([0, 1, 1, 2], [0, 3, 5, 9], 1, [0], [2])
    assert shares.tolist() == [5]
    assert idle == 1 + 2 + 1


def test_without_tasks_all_is_idle() -> None:
    shares, idle = attribute([0, 1], [2, 9], 3, [], [])
    assert shares.shape == (0,)
    assert idle == 7


@given(runs())
def test_shares_are_those_of_exact_fractions(
    run: tuple[Floats, Floats, float, Floats, Floats, Floats],
) -> None:
    shares, idle = attribute(*run)
    expected, bucket = exact(*run)
    np.testing.assert_allclose(shares, np.array(expected, float), rtol=1e-11, atol=1e-290)
    assert idle == pytest.approx(float(bucket), rel=1e-14)


@given(runs())
def test_tasks_and_idle_make_up_what_was_counted(
    run: tuple[Floats, Floats, float, Floats, Floats, Floats],
) -> None:
    shares, idle = attribute(*run)
    total = run[1][-1] - run[1][0]
    assert math.fsum([*shares, idle]) == pytest.approx(total, rel=0, abs=ulps(total))
    assert (shares >= 0).all()
    assert idle >= 0


@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_tasks_does_not_matter(
    run: tuple[Floats, Floats, float, Floats, Floats, Floats], random: Random
) -> None:
    times, joules, idle_power, *tasks = run
    order = np.arange(len(tasks[0]))
    random.shuffle(order)  # type: ignore[arg-type]
    shares, idle = attribute(*run)
    shuffled = attribute(times, joules, idle_power, *(column[order] for column in tasks))
    np.testing.assert_allclose(shuffled[0], shares[order], rtol=1e-12, atol=1e-290)
    assert shuffled[1] == idle


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 500)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9)), max_size=8),
    st.lists(st.integers(1, 7), min_size=12, max_size=12),
)
def test_more_readings_at_the_same_power_change_nothing(
    intervals: list[tuple[int, int]], tasks: list[tuple[int, int, int]], eighths: list[int]
) -> None:
    """Where the same tasks run all the time, an interval may be cut anywhere."""
    lengths, grown = np.array(intervals, dtype=float).T
    times, joules = np.append(0, np.cumsum(lengths)), np.append(0, np.cumsum(grown))
    ends = np.array(tasks, dtype=int).reshape(-1, 3)
    first, last = np.sort(np.minimum(ends[:, :2], len(lengths)), axis=1).T
    given_ = times[first], times[last], ends[:, 2]
    part = np.array(eighths[: len(lengths)]) / 8
    finer = np.insert(times, range(1, len(times)), times[:-1] + part * lengths)
    counted = np.insert(joules, range(1, len(times)), joules[:-1] + part * grown)
    shares, idle = attribute(times, joules, 2.0, *given_)
    again = attribute(finer, counted, 2.0, *given_)
    np.testing.assert_allclose(again[0], shares, rtol=1e-12)
    assert again[1] == pytest.approx(idle, rel=1e-12)


def test_the_sum_holds_for_many_tasks_of_very_different_power() -> None:
    rng = np.random.default_rng(7)
    times = np.sort(rng.random(5000))
    joules = np.cumsum(rng.random(times.size) * rng.choice([1e-6, 1, 1e6], times.size))
    start = rng.random(50_000)
    end = start + rng.exponential(rng.choice([1e-6, 1e-3, 0.3], start.size))
    shares, idle = attribute(times, joules, 1e3, start, end, 10.0 ** rng.integers(-6, 6, 50_000))
    total = math.fsum(np.diff(joules))
    assert math.fsum([*shares, idle]) == pytest.approx(total, rel=0, abs=ulps(total))
    assert shares.min() >= 0


@pytest.mark.parametrize(
    ("times", "joules", "reason"),
    [
        ([0], [0], "1 readings; it takes two"),
        ([0, 1], [0, 1, 2], "shapes"),
        ([0, np.nan], [0, 1], "not finite"),
        ([0, 1], [0, np.inf], "not finite"),
        ([0, 2, 1], [0, 1, 2], "went backwards"),
        ([1, 1], [0, 1], "no time went by"),
        ([0, 1, 2], [0, 2, 1], "the counter went backwards"),
    ],
)
def test_what_are_no_readings(times: list[float], joules: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        attribute(times, joules, 0, [], [])


@pytest.mark.parametrize(
    ("idle_power", "end", "weights", "reason"),
    [
        (-1, [1], 1, "idle_power is -1"),
        (math.nan, [1], 1, "idle_power is nan"),
        (0, [1], -1, "weights must be finite and at least 0"),
        (0, [1], [math.inf], "weights must be finite"),
        (0, [1], [1, 2], r"weights have shape \(2,\)"),
        (0, [1, 2], 1, r"end \(2,\)"),
    ],
)
def test_what_are_no_tasks(
    idle_power: float, end: list[float], weights: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        attribute([0, 1], [0, 1], idle_power, [0], end, weights)  # type: ignore[arg-type]


# -- weights ---------------------------------------------------------------------------------------

POWER = {"gemm": 40.0, "potrf": 12.5, "trsm": 30.0}


def calibration(seed: int, kernels: list[str], idle_power: float = 50.0) -> Calibration:
    """A run on two workers whose tasks draw `POWER`: the meter shows just that."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.random((2, 40)), axis=1)
    start, end = np.column_stack([np.zeros(2), ends[:, :-1]]).ravel(), ends.ravel()
    kernel = rng.choice(kernels, end.size)
    times = np.linspace(0, end.max(), 60)
    power = np.array([POWER[name] for name in kernel])
    drawn = [np.sum(power * np.clip(t - start, 0, end - start)) for t in times]
    return Calibration(times, idle_power * times + drawn, idle_power, start, end, kernel)


def test_calibration_finds_the_power_of_each_kernel() -> None:
    run = calibration(1, [*POWER])
    weights = weights_from_calibration([run])
    assert list(weights) == ["gemm", "potrf", "trsm"]
    assert weights == pytest.approx(POWER, rel=1e-9)
    # and with these weights a task is charged its power x its duration
    mine = [weights[name] for name in np.asarray(run.kernel)]
    shares, idle = attribute(*run[:5], mine)
    durations = np.asarray(run.end) - np.asarray(run.start)
    assert idle == pytest.approx(50 * np.asarray(run.times)[-1], rel=1e-12)
    gemm = np.asarray(run.kernel) == "gemm"
    assert shares[gemm].sum() == pytest.approx(40 * durations[gemm].sum(), rel=0.05)


def test_calibration_joins_runs() -> None:
    runs = [calibration(2, ["gemm", "potrf"]), calibration(3, ["trsm"], idle_power=10.0)]
    assert weights_from_calibration(runs) == pytest.approx(POWER, rel=1e-9)


def test_calibration_gives_no_negative_power() -> None:
    """More joules in the first second, without the kernel b, than in the second, with it."""
    run = Calibration([0, 1, 2], [0, 30, 50], 0, [0, 1], [2, 2], ["a", "b"])
    assert weights_from_calibration([run]) == pytest.approx({"a": 25.0, "b": 0.0})


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "0 intervals do not tell apart 0 kernels"),
        ([Calibration([0, 1, 2], [0, 1, 2], 0, [0, 0], [2, 2], ["a", "b"])], "kernels: a, b"),
        ([Calibration([0, 1, 2], [0, 1, 2], 0, [0, 5], [2, 6], ["a", "late"])], "late"),
        ([Calibration([0, 1], [0, 1], -2, [0], [1], ["a"])], "idle_power is -2"),
        ([Calibration([0, 1], [1, 0], 0, [0], [1], ["a"])], "the counter went backwards"),
        ([Calibration([0, 1], [0, 1], 0, [0], [1], ["a", "b"])], r"kernel has shape \(2,\)"),
    ],
)
def test_what_calibrates_nothing(runs: list[Calibration], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        weights_from_calibration(runs)
