"""Random matrices: entry (i, j) is a function of (seed, i, j), as the module defines it."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla.matrix import TiledMatrix
from taskla.matrix_random import KINDS, random_block

DTYPES = ["f4", "f8", "c8", "c16"]
SEEDS = st.integers(0, 2**64 - 1)


def mix(z: int) -> int:
    """SplitMix64's mixing function, from the reference code (https://prng.di.unimi.it)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def entry(seed: int, i: int, j: int, imaginary: bool = False) -> float:
    """The definition in the module's docstring, in Python's integers."""
    golden = 0x9E3779B97F4A7C15
    key = mix((seed + golden) % 2**64)
    if imaginary:
        key ^= 0xD1B54A32D192ED03
    row = mix((key + (i + 1) * golden) % 2**64)
    z = mix((row + (j + 1) * golden) % 2**64)
    signed = z - 2**64 if z >= 2**63 else z
    return (2 * (signed // 2**12) + 1) * 2.0**-53


def test_mix_is_splitmix64() -> None:
    # The first outputs of the reference generator with state 1234567.
    golden = 0x9E3779B97F4A7C15
    outputs = [mix((1234567 + k * golden) % 2**64) for k in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_golden_values() -> None:
    # These never change: matrices made by one version are checked by another.
    block = random_block(42, [0, 1, 1000000], [0, 3], "c16", "general", 4)
    assert block.tolist() == [
        [0.3869742762400409 + 0.0298919367660454j, -0.39650940626243114 + 0.23986764235025604j],
        [0.03375472633327592 + 0.48850569291713597j, 0.08080363635934174 + 0.18460891242858823j],
        [0.40550929617771014 - 0.15478950071221587j, -0.16626051840288392 - 0.3539278651691947j],
    ]


@given(SEEDS, st.integers(0, 2**32), st.integers(0, 2**32))
def test_entries_are_as_defined(seed: int, i: int, j: int) -> None:
    value = random_block(seed, [i], [j], "c16", "general", 1)[0, 0]
    assert value.real == entry(seed, i, j)
    assert value.imag == entry(seed, i, j, imaginary=True)
    assert random_block(seed, [i], [j], "f8", "general", 1)[0, 0] == entry(seed, i, j)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    seed=SEEDS,
    size=st.integers(0, 12),
    nb=st.integers(1, 13),
    uplo=st.sampled_from([None, "lower", "upper"]),
)
def test_tile_size_and_storage_change_nothing(dtype, kind, seed, size, nb, uplo) -> None:
    whole = random_block(seed, range(size), range(size), dtype, kind, size)
    A = TiledMatrix.random((size, size), nb, dtype, uplo, seed=seed, kind=kind)
    keep = {None: lambda a: a, "lower": np.tril, "upper": np.triu}[uplo]
    np.testing.assert_array_equal(A.to_array(), keep(whole))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_block_of_any_indices_is_cut_from_the_whole(kind, data) -> None:
    indices = st.lists(st.integers(0, 9), max_size=6)
    rows, cols = data.draw(indices), data.draw(indices)
    whole = random_block(7, range(10), range(10), "c16", kind, 10)
    block = random_block(7, rows, cols, "c16", kind, 10)
    assert block.shape == (len(rows), len(cols))
    np.testing.assert_array_equal(block, whole[np.ix_(rows, cols)])


def test_long_blocks_are_made_in_strips_without_a_seam() -> None:
    # More rows than a strip has entries, and more entries than one strip.
    for shape in [(20_000, 2), (3, 20_000), (300, 300)]:
        block = random_block(5, range(shape[0]), range(shape[1]), "f8", "general", 1)
        i, j = shape[0] - 1, shape[1] - 1
        assert block[i, j] == entry(5, i, j)
        assert block[i // 2, j // 2] == entry(5, i // 2, j // 2)
        assert len(np.unique(block)) == block.size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("single", "double"), [("f4", "f8"), ("c8", "c16")])
def test_single_precision_holds_the_rounded_double(kind, single, double) -> None:
    blocks = [random_block(3, range(50), range(50), t, kind, 50) for t in (single, double)]
    assert [b.dtype for b in blocks] == [np.dtype(single), np.dtype(double)]
    expected = blocks[1].astype(single)
    off_diagonal = ~np.eye(50, dtype=bool)
    np.testing.assert_array_equal(blocks[0][off_diagonal], expected[off_diagonal])
    # The bump is added to the rounded entry: twice rounded.
    np.testing.assert_allclose(blocks[0].diagonal(), expected.diagonal(), rtol=2**-23)


@pytest.mark.parametrize("dtype", DTYPES)
def test_structure_of_each_kind(dtype: str) -> None:
    n = 40
    general, dominant, symmetric, hermitian, spd = (
        random_block(11, range(n), range(n), dtype, kind, n) for kind in KINDS
    )
    lower = np.tril_indices(n, -1)
    assert not np.array_equal(general, general.T)
    np.testing.assert_array_equal(dominant, general + n * np.eye(n, dtype=dtype))
    np.testing.assert_array_equal(symmetric, symmetric.T)
    np.testing.assert_array_equal(np.tril(symmetric), np.tril(general))
    np.testing.assert_array_equal(hermitian, hermitian.conj().T)
    np.testing.assert_array_equal(hermitian[lower], general[lower])
    assert np.all(hermitian.diagonal().imag == 0)
    np.testing.assert_array_equal(hermitian.diagonal().real, general.diagonal().real)
    np.testing.assert_array_equal(spd, hermitian + n * np.eye(n, dtype=dtype))
    assert np.linalg.eigvalsh(spd).min() > 0
    if np.dtype(dtype).kind == "c":
        assert np.all(symmetric.diagonal().imag != 0)


def test_statistics_are_those_of_independent_uniform_numbers() -> None:
    n = 400
    blocks = [random_block(seed, range(n), range(n), "c16", "general", n) for seed in (0, 1, 2**63)]
    parts = [part for block in blocks for part in (block.real, block.imag)]
    # Standard errors of a sum of n^2 independent terms; 4.5 of them are exceeded once in 10^5.
    bound = 4.5 / n
    for part in parts:
        assert np.abs(part).max() < 0.5
        assert abs(part.mean()) < bound * np.sqrt(1 / 12)
        assert abs((part**2).mean() - 1 / 12) < bound * np.sqrt(1 / 80 - 1 / 144)
        counts, _ = np.histogram(part, bins=16, range=(-0.5, 0.5))
        expected = part.size / 16
        assert ((counts - expected) ** 2).sum() / expected < 45  # chi^2, 15 degrees: p = 1e-4
        # Neighbours in a row, in a column, across the diagonal.
        for other in (part[1:, :], part[:, 1:], part.T):
            rows, cols = other.shape
            mean = (part[:rows, :cols] * other * (1 - np.eye(rows, cols))).mean()
            assert abs(mean) < 1.5 * bound / 12
    for a in range(len(parts)):
        for b in range(a):
            assert abs((parts[a] * parts[b]).mean()) < bound / 12
    # The norm of a matrix with independent entries: 2 sigma sqrt(n) (Bai and Yin).
    norm = np.linalg.norm(parts[0], 2)
    assert norm == pytest.approx(2 * np.sqrt(n / 12), rel=0.05)


def test_the_last_bit_of_the_mantissa_is_used() -> None:
    block = random_block(0, range(50), range(50), "f8", "general", 50)
    scaled = block * 2.0**53
    assert np.all(scaled == np.rint(scaled))
    assert np.all(scaled % 2 == 1)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed is .*; allowed: 0 <= seed < 2\*\*64"):
        random_block(seed, [0], [0], "f8", "general", 1)


def test_unknown_kind_or_dtype() -> None:
    with pytest.raises(ValueError, match="kind is 'normal'; allowed: general, dominant"):
        TiledMatrix.random((0, 0), kind="normal")
    with pytest.raises(ValueError, match="allowed: complex128, complex64, float32, float64"):
        TiledMatrix.random((2, 2), dtype="f2")


@pytest.mark.parametrize("kind", ["symmetric", "hermitian", "spd"])
def test_symmetric_kinds_are_square(kind) -> None:
    with pytest.raises(ValueError, match=rf"kind is '{kind}' and shape \(3, 4\)"):
        TiledMatrix.random((3, 4), kind=kind)


def test_dominant_matrices_may_be_rectangular() -> None:
    a = TiledMatrix.random((7, 4), nb=3, kind="dominant").to_array()
    b = TiledMatrix.random((7, 4), nb=3, kind="general").to_array()
    np.testing.assert_array_equal(a - b == 7, np.eye(7, 4, dtype=bool))
