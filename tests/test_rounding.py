"""Rounding against its definition, the casts of NumPy and ml_dtypes, pychop, published values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chopping import (
    KINDS,
    LOW,
    TYPES,
    as_stored,
    assert_same,
    by_definition,
    exponents,
    layouts,
    samples,
)
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from taskla.formats import FORMATS
from taskla.rounding import pack, round_to, unpack

# -- values ----------------------------------------------------------------------------------------

PUBLISHED = {
    "fp24": (0.10000038146972656, 3.1416015625),
    "fp16": (0.0999755859375, 3.140625),
    "tf32": (0.0999755859375, 3.140625),
    "bf16": (0.10009765625, 3.140625),
    "fp8_e4m3": (0.1015625, 3.25),
    "fp8_e5m2": (0.09375, 3.0),
}


@pytest.mark.parametrize("dtype", KINDS["f"])
@pytest.mark.parametrize("name", LOW)
def test_a_tenth_and_pi(name: str, dtype: str) -> None:
    # The roundings of .1 and of pi, as tables of the formats have them.
    x = np.array([0.1, np.pi, -0.1, -np.pi], dtype)
    tenth, pi = PUBLISHED[name]
    expected = np.array([tenth, pi, -tenth, -pi], dtype)
    assert_same(round_to(x, name), expected)
    assert_same(unpack(*as_stored(x, name), dtype=dtype), expected)


@pytest.mark.parametrize("name", LOW)
def test_nothing_is_rounded_twice(name: str) -> None:
    # 1 + u + 2^-40 lies above the tie 1 + u, which it would become in float32, and then 1.
    u = FORMATS[name].unit_roundoff
    x = np.array([1 + u + 2.0**-40, -1 - u - 2.0**-40])
    expected = np.array([1 + 2 * u, -1 - 2 * u])
    assert_same(round_to(x, name), expected)
    assert_same(unpack(*as_stored(x / 2, name), dtype="float64"), expected / 2)
    assert_same(round_to(x, name, out=np.empty(2, "float32")), expected.astype("float32"))
    if name == "bf16":
        assert expected[0] == 1.0078125


@pytest.mark.parametrize("mode", ["nearest", "toward_zero"])
@pytest.mark.parametrize("dtype", KINDS["f"])
@pytest.mark.parametrize("name", ["fp32", *LOW])
def test_rounding_is_that_of_the_definition(name: str, dtype: str, mode: str) -> None:
    x = samples(FORMATS[name], dtype)
    if name == "fp32" and dtype == "float32":
        assert_same(round_to(x, name, mode), x)  # type: ignore[arg-type]
        return
    expected = by_definition(x, FORMATS[name], mode).astype(dtype)
    assert len(x) > 200_000
    assert_same(round_to(x, name, mode), expected)  # type: ignore[arg-type]


CASTS = [
    ("fp32", "float64"),
    ("fp16", "float32"),
    ("fp16", "float64"),
    ("bf16", "float32"),
    ("fp8_e4m3", "float32"),
    ("fp8_e5m2", "float32"),
]


@pytest.mark.parametrize(("name", "dtype"), CASTS)
def test_rounding_is_that_of_the_casts_of_numpy_and_ml_dtypes(name: str, dtype: str) -> None:
    f = FORMATS[name]
    x = samples(f, dtype)
    with np.errstate(all="ignore"):
        expected = x.astype(f.storage)
        assert_same(round_to(x, name), expected.astype(dtype))
        # Stored as a column each, lest one that is not finite keeps the others from their scale.
        fits = np.abs(x) <= f.max
        stored, scale = pack(x[fits], name)
        expected = (x[fits] * np.dtype(dtype).type(scale)).astype(f.storage)
    bits = f"u{f.nbytes}"
    np.testing.assert_array_equal(stored.view(bits), expected.view(bits))


@pytest.mark.parametrize("dtype", KINDS["f"])
@pytest.mark.parametrize(
    ("name", "x", "nearest"),
    [
        ("fp16", 65519.99, 65504.0),
        ("fp16", 65520.0, np.inf),
        ("bf16", 2.0**128 - 2.0**119, np.inf),
        ("bf16", 2.0**128 - 2.0**120, 3.3895313892515355e38),
        ("fp8_e4m3", 464.0, 448.0),
        ("fp8_e4m3", 464.1, np.nan),
        ("fp8_e5m2", 61439.9, 57344.0),
        ("fp8_e5m2", 61440.0, np.inf),
        ("fp16", np.inf, np.inf),
        ("fp8_e4m3", np.inf, np.nan),
        ("fp8_e4m3", np.nan, np.nan),
        ("bf16", np.nan, np.nan),
    ],
)
def test_overflow_is_inf_or_nan_to_nearest_and_the_largest_otherwise(
    name: str, x: float, nearest: float, dtype: str
) -> None:
    array = np.array([x, -x], dtype)
    assert_same(round_to(array, name), np.array([nearest, -nearest], dtype))
    f = FORMATS[name]
    other = f.max if np.isfinite(x) else nearest
    for mode in ("toward_zero", "stochastic"):
        expected = np.array([other, -other], dtype)
        # Below the largest number plus half a last place, the direction is open.
        if mode == "toward_zero" or x > f.max:
            assert_same(round_to(array, name, mode, rng=0), expected)  # type: ignore[arg-type]


# -- stochastic rounding ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", KINDS["f"])
@pytest.mark.parametrize("name", LOW)
def test_stochastic_rounding_takes_a_neighbour_and_keeps_what_is_exact(
    name: str, dtype: str
) -> None:
    f = FORMATS[name]
    x = samples(f, dtype, 5000)
    x = x[np.abs(x) <= f.max]
    y = round_to(x, name, "stochastic", rng=3)
    down, up = by_definition(x, f, "down").astype(dtype), by_definition(x, f, "up").astype(dtype)
    assert ((y == down) | (y == up)).all()
    assert (y == down).any()
    assert (y == up).any()
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))
    exact = by_definition(x, f) == x
    assert_same(y[exact], x[exact])
    assert_same(round_to(x, name, "stochastic", rng=np.random.default_rng(3)), y)
    assert (round_to(x, name, "stochastic", rng=4) != y).any()


def test_what_is_exact_is_kept_whatever_is_drawn() -> None:
    # One float32 in 2^24 is drawn as 0: four in 2^26.
    x = np.ones(1 << 22, "float32")
    out = np.empty_like(x)
    for seed in range(16):
        assert (round_to(x, "fp16", "stochastic", rng=seed, out=out) == 1).all()


@pytest.mark.parametrize("dtype", KINDS["f"])
def test_a_tenth_goes_up_in_bf16_in_four_of_five(dtype: str) -> None:
    # .1 lies .8 of the way from .099609375 to .10009765625.
    n = 100_000
    x = np.full((n // 100, 100), 0.1, dtype)
    y = round_to(x, "bf16", "stochastic", rng=0)
    assert sorted(np.unique(y)) == [0.099609375, 0.10009765625]
    # Five standard deviations.
    assert (y > 0.1).mean() == pytest.approx(0.8, abs=5 * (0.8 * 0.2 / n) ** 0.5)


@pytest.mark.parametrize("dtype", KINDS["f"])
@pytest.mark.parametrize("fraction", [2.0**-7, 0.3, 0.9])
@pytest.mark.parametrize("at", ["normal", "subnormal"])
@pytest.mark.parametrize("name", LOW)
def test_the_chance_to_go_up_is_the_fraction(
    name: str, at: str, fraction: float, dtype: str
) -> None:
    f, n = FORMATS[name], 40_000
    place, start = 2 * f.unit_roundoff, 1.0
    if at == "subnormal":
        place, start = f.min_subnormal, f.min_subnormal * 2
    x = np.full(n, start + fraction * place).astype(dtype)
    fraction = (float(x[0]) - start) / place
    for sign in (1, -1):
        y = sign * round_to(sign * x, name, "stochastic", rng=7)
        deviation = (fraction * (1 - fraction) / n) ** 0.5
        assert (y > x).mean() == pytest.approx(fraction, abs=5 * deviation)


@pytest.mark.parametrize(
    ("n", "nearest", "stochastic"),
    [(100, 0.022, 0.0027), (1000, 0.47, 0.011), (10_000, 0.95, 0.09)],
)
def test_a_running_sum_stagnates_to_nearest_and_not_stochastically(
    n: int, nearest: float, stochastic: float
) -> None:
    # Relative errors of a sum of n numbers from U[0, 1) in bf16, measured by an independent script:
    # orders of magnitude for the means over 32 sums that are taken here.
    rng = np.random.default_rng(0)
    x = round_to(rng.random((n, 32)), "bf16")

    def error(add: Callable[[NDArray[Any]], NDArray[Any]]) -> float:
        total = np.zeros(32)
        for row in x:
            total = add(total + row)
        return float((np.abs(total - x.sum(axis=0)) / x.sum(axis=0)).mean())

    found = error(lambda s: round_to(s, "bf16"))
    assert nearest / 4 < found < 4 * nearest
    if n >= 1000:
        # What is added is lost where it is below half a last place, from 256 on for all of it.
        assert found == pytest.approx(nearest, abs=0.1)
    found = error(lambda s: round_to(s, "bf16", "stochastic", rng=rng))
    assert stochastic / 4 < found < 4 * stochastic


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_drawn_does_not_depend_on_strides(name: str, dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((70, 600)).astype(dtype)
    expected = round_to(x, name, "stochastic", rng=5)
    for other in layouts(x):
        assert_same(round_to(other, name, "stochastic", rng=5), expected)
        out = np.empty((600, 80), dtype).T[5:75]
        assert_same(round_to(other, name, "stochastic", rng=5, out=out), expected)


# -- properties ------------------------------------------------------------------------------------

floats = {
    "float32": st.floats(width=32),
    "float64": st.floats() | st.floats(-1e5, 1e5) | st.floats(-1, 1),
}
names = st.sampled_from(LOW)
dtypes = st.sampled_from(KINDS["f"])
modes = st.sampled_from(["nearest", "toward_zero"])


@given(st.data(), names, dtypes, modes)
def test_properties_of_rounding(data: st.DataObject, name: str, dtype: str, mode: Any) -> None:
    f = FORMATS[name]
    x = np.sort(np.array(data.draw(st.lists(floats[dtype], max_size=20)), dtype))
    y = round_to(x, name, mode)
    assert_same(y, by_definition(x, f, mode).astype(dtype))
    assert_same(round_to(y, name, mode), y)
    assert_same(round_to(-x, name, mode), -y)
    ordered = y[~np.isnan(y)]
    assert (ordered[1:] >= ordered[:-1]).all()
    normal = (np.abs(x) >= f.min_normal) & (np.abs(x) <= f.max)
    u = f.unit_roundoff if mode == "nearest" else 2 * f.unit_roundoff
    error = np.abs(y[normal].astype(float) - x[normal])
    assert (error <= u * np.abs(x[normal].astype(float))).all()
    if mode == "toward_zero":
        finite = np.isfinite(x)
        assert (np.abs(y[finite]) <= np.abs(x[finite])).all()


# -- pychop ----------------------------------------------------------------------------------------


def compare_with_pychop(x: NDArray[Any], name: str, mode: Any) -> None:
    """Compare where pychop is right; its version 0.6.2 has two roundings, and both have faults.

    `Chop` turns numbers of more than the largest exponent into zeros, rounds twice the subnormal
    ones of more than 53 - t bits and, toward zero, misses those just below a power of two, whose
    logarithm it rounds. `FaultChop` to nearest turns into zero some numbers between a half and one
    of the least subnormal, and warns of numbers that are far below it. Both know of e4m3 only what
    IEEE 754 would make of it, 240 at most; they warn of inf and nan, and lose the sign of zeros.
    """
    pychop = pytest.importorskip("pychop", reason="pychop is an oracle of the tests")
    f = FORMATS[name]
    low, _ = exponents(f)
    x = x[np.abs(x) <= (240.0 if name == "fp8_e4m3" else f.max)]
    if mode == "nearest":
        chop = pychop.Chop(exp_bits=int(np.log2(4 - 2 * low)), sig_bits=f.t - 1, rmode=1)
        x = np.where(np.abs(x) < f.min_normal, x.astype("float32"), x)
    else:
        customs = pychop.Customs(t=f.t, emax=1 - low)
        chop = pychop.FaultChop(customs=customs, rmode=4, subnormal=True)
    x = np.append(x[np.abs(x) >= f.min_subnormal / 4], 0.1)
    np.testing.assert_array_equal(round_to(x, name, mode), chop(x.copy()))


@given(st.data(), st.sampled_from(["fp32", *LOW]), modes)
def test_rounding_is_that_of_pychop(data: st.DataObject, name: str, mode: Any) -> None:
    most = FORMATS[name].max
    number = st.floats(-most, most) | st.floats(-2, 2) | st.floats(-(2.0**-10), 2.0**-10)
    compare_with_pychop(np.array(data.draw(st.lists(number, max_size=20))), name, mode)


@pytest.mark.parametrize("mode", ["nearest", "toward_zero"])
@pytest.mark.parametrize("name", LOW)
def test_many_numbers_are_rounded_as_pychop_does(name: str, mode: Any) -> None:
    compare_with_pychop(samples(FORMATS[name], "float64", 5000), name, mode)
