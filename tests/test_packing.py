"""Tiles in the storage of their formats: strides, scales, complex pairs, and what is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from chopping import (
    KINDS,
    LOW,
    MODES,
    TYPES,
    as_stored,
    assert_same,
    by_definition,
    layouts,
    samples,
)
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from taskla.formats import FORMATS
from taskla.rounding import pack, round_to, scale_of, unpack

SCALED = ["fp16", "fp8_e4m3", "fp8_e5m2"]


@pytest.mark.parametrize("name", SCALED)
def test_packing_what_does_not_fit_is_a_cast(name: str) -> None:
    f = FORMATS[name]
    x = np.array([np.inf, -np.inf, np.nan, 3.0, -0.0, 1e30], "float32")
    stored, scale = pack(x, name)
    with np.errstate(all="ignore"):
        expected = x.astype(f.storage)
    assert scale == 1.0
    assert_same(stored.astype("float32"), expected.astype("float32"))


def joined(parts: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers of a type from their parts along the last axis, of which a real one has the first."""
    with np.errstate(under="ignore"):
        narrow = parts.astype(np.empty(0, dtype).real.dtype)
    return narrow.view(dtype)[..., 0] if dtype[0] == "c" else narrow[..., 0]


def separate(x: NDArray[Any]) -> NDArray[np.float64]:
    """The parts of numbers along a last axis, as `joined` takes them."""
    return np.stack([x.real, x.imag], axis=-1).astype(np.float64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_tile_with_any_strides_is_rounded_packed_and_unpacked(name: str, dtype: str) -> None:
    f = FORMATS[name]
    parts = np.random.default_rng(2).standard_normal((65, 600, 2)) * 2.0**-9
    x = joined(parts, dtype)
    s = scale_of(x, name)
    expected = joined(by_definition(separate(x) * s, f) / s, dtype)
    storage = f.complex_storage if dtype[0] == "c" else f.storage
    kept = x.copy()
    for array in layouts(x):
        assert_same(round_to(array, name, scaled=True), expected)
        for out in (None, np.zeros((600, 99), storage).T[2:67], np.zeros((99, 600), storage)[2:67]):
            stored, scale = pack(array, name, out=out)
            assert scale == s
            assert stored.dtype == storage
            assert out is None or stored is out
            target = np.empty((600, 70), dtype).T[:65]
            assert unpack(stored, name, scale, out=target) is target
            assert_same(target, expected)
            assert_same(unpack(stored, name, scale, dtype=dtype), expected)
        assert round_to(array, name, scaled=True, out=array) is array
        assert_same(array, expected)
    assert_same(x, kept)


def test_what_unpack_returns_by_default() -> None:
    for name, f in FORMATS.items():
        assert unpack(np.zeros(3, f.storage), name).dtype == f.real
        assert unpack(np.zeros(3, f.complex_storage), name).dtype == f.complex


def test_fp24_is_the_upper_three_bytes() -> None:
    x = np.array([1.0, -np.pi, 0.1], "float32")
    stored, scale = pack(x, "fp24")
    expected = round_to(x, "fp24").astype("<f4").view("u1").reshape(3, 4)[:, 1:]
    np.testing.assert_array_equal(stored.view("u1").reshape(3, 3), expected)
    assert (stored.nbytes, scale) == (9, 1.0)


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        ([3.0, -5.0], 0.125),
        ([1.0], 1.0),
        ([-4.0, 1.0], 0.25),
        ([4.0000001], 0.125),
        ([0.3], 2.0),
        ([0.0, -0.0], 1.0),
        ([], 1.0),
        ([5e-324], 2.0**1023),
        ([2.0**-1000], 2.0**1000),
        ([np.finfo(float).max], 2.0**-1024),
        (np.array([1e-45], "float32"), 2.0**149),
        (np.array([3.4e38], "float32"), 2.0**-128),
        ([1 - 9j, 3 + 2j], 0.0625),
        ([np.nan, 3.0], 1.0),
        ([3.0, -np.inf], 1.0),
        ([complex(1, np.nan), 9.0], 1.0),
        (np.array([complex(1, np.nan), 0, 9, 0])[::2], 1.0),
    ],
)
def test_the_scale_brings_the_largest_number_below_one(x: Any, scale: float) -> None:
    array = np.asarray(x) if len(x) else np.zeros((0, 3))
    for name in FORMATS:
        assert scale_of(array, name) == (scale if FORMATS[name].scaled else 1.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_scaled_rounding_gives_what_packing_keeps(name: str, dtype: str, mode: Any) -> None:
    rng = np.random.default_rng(6)
    last = np.finfo(dtype).maxexp
    for top in (0, -3, 40, -60, last, 1 - last, -last - 20):
        parts = np.ldexp(rng.uniform(-1, 1, (40, 30, 2)), top - rng.integers(0, 30, (40, 30, 2)))
        parts[3, 4] = np.ldexp([0.9, -0.7], top)
        x = joined(parts, dtype)
        y = round_to(x, name, mode, rng=9, scaled=True)
        assert_same(y, unpack(*as_stored(x, name, mode=mode, rng=9), dtype=dtype))
        if name in SCALED:
            # The large numbers have the format's precision, whatever their magnitude.
            x, y = separate(x), separate(y)
            assert np.isfinite(y).all() or top == last
            large = np.isfinite(y) & (np.abs(x) >= 2.0 ** max(top - 4, np.finfo(dtype).minexp))
            ratio = y[large] / x[large]
            assert (np.abs(ratio - 1) <= 2 * FORMATS[name].unit_roundoff).all()


@pytest.mark.parametrize("name", LOW)
def test_no_shape_is_special(name: str) -> None:
    for shape in [
        (),
        (0,),
        (1,),
        (0, 4),
        (3, 0),
        (1, 7),
        (7, 1),
        (2, 3, 4),
        (100_000,),
        (1, 70_000),
    ]:
        x = np.full(shape, 0.3)
        expected = by_definition(x, FORMATS[name])
        for mode in MODES:
            y = round_to(x, name, mode, rng=1)  # type: ignore[arg-type]
            assert y.shape == shape
        assert_same(round_to(x, name), expected)
        stored, scale = pack(x, name)
        assert stored.shape == shape
        assert_same(unpack(stored, name, scale, dtype="float64"), expected)


def test_overlapping_memory_and_other_byte_orders() -> None:
    x = np.random.default_rng(0).standard_normal(200_000)
    expected = by_definition(x[:-1], FORMATS["bf16"])
    swapped = x[:-1].astype(">f8")
    assert_same(round_to(swapped, "bf16"), expected)
    assert_same(unpack(pack(swapped, "bf16")[0], "bf16", dtype=">f8"), expected)
    round_to(x[:-1], "bf16", out=x[1:])
    assert_same(x[1:], expected)


def test_threads_do_not_share_what_they_work_in() -> None:
    tiles = list(np.random.default_rng(0).standard_normal((16, 300, 200)))

    def work(tile: NDArray[Any]) -> list[NDArray[Any]]:
        return [unpack(*as_stored(tile, name)) for name in LOW for _ in range(3)]

    expected = [work(tile) for tile in tiles]
    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(work, tiles), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_no_signal_of_the_floating_point_unit_escapes() -> None:
    for name in FORMATS:
        for dtype in KINDS["f"]:
            x = samples(FORMATS[name], dtype, 100) if name != "fp64" else np.array([1e-310, np.nan])
            with np.errstate(all="raise"):
                for mode in MODES:
                    round_to(x, name, mode, rng=1, scaled=True)  # type: ignore[arg-type]
                    stored, scale = pack(x, name, mode, rng=1)  # type: ignore[arg-type]
                    unpack(stored, name, scale, dtype="float32")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: round_to(x, "fp12"), "format is 'fp12'; allowed: fp64, fp32, fp24"),
        (lambda x: round_to(x, "bf16", "up"), "mode is 'up'; allowed: nearest, toward_zero"),
        (lambda x: round_to(x, "bf16", "stochastic"), "rng is None; stochastic"),
        (lambda x: pack(x, "fp16", "stochastic"), "rng is None; stochastic"),
        (lambda x: round_to(x.astype("float16"), "bf16"), "dtype is dtype.'float16'.; allowed"),
        (lambda x: pack(x.astype("int64"), "bf16"), "dtype is dtype.'int64'.; allowed"),
        (lambda x: scale_of(x.astype("O"), "bf16"), "dtype is dtype.'O'.; allowed"),
        (lambda x: round_to(x, "bf16", out=np.zeros(3)), "out has shape .3,. and dtype float64"),
        (lambda x: round_to(x, "fp64", out=np.zeros(2, "f4")), "needed are .2,. and float64"),
        (lambda x: round_to(x, "bf16", out=np.zeros(2, "c16")), "needed are .2,. and float64"),
        (lambda x: pack(x, "bf16", out=np.zeros(2, "f4")), "needed are .2,. and bfloat16"),
        (lambda x: unpack(x, "bf16"), "stored has dtype float64; bf16 is stored as bfloat16"),
        (lambda x: unpack(x, "fp64", 3.0), "scale is 3.0; allowed are powers of two"),
        (lambda x: unpack(x, "fp64", np.nan), "scale is nan; allowed are powers of two"),
        (lambda x: unpack(x, "fp64", dtype="c16"), "dtype is complex128; the numbers stored"),
        (lambda x: unpack(x, "fp64", dtype="f2"), "dtype is 'f2'; allowed"),
    ],
)
def test_what_is_refused(call: Callable[[NDArray[Any]], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.zeros(2))


@given(st.data(), st.sampled_from(list(FORMATS)), st.booleans(), st.booleans())
def test_what_a_format_has_comes_back_from_storage(
    data: st.DataObject, name: str, complex: bool, slice_: bool
) -> None:
    f = FORMATS[name]
    # 2^-10 leaves room for what the scale takes from the smallest of them.
    part = st.floats(-f.max * 2.0**-10, f.max * 2.0**-10, width=64 if name == "fp64" else 32)
    rows = data.draw(st.integers(0, 4))
    numbers = data.draw(st.lists(st.tuples(part, part), min_size=rows * 3, max_size=rows * 3))
    pairs = np.array(numbers, f.real).reshape(rows, 3, 2)
    if f.scaled:
        # Near each other: all of them keep their bits under a common scale.
        pairs = np.sign(pairs) * (1 + np.abs(pairs) / f.max)
    pairs = round_to(pairs, name)
    x = pairs.view(f.complex)[..., 0] if complex else pairs[..., 0]
    storage = f.complex_storage if complex else f.storage
    out = np.zeros((rows + 2, 3), storage, order="F")[1:-1] if slice_ else None
    stored, scale = pack(x, name, out=out)
    assert_same(unpack(stored, name, scale), x)
