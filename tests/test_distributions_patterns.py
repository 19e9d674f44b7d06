"""The symmetric and generalised maps: their definitions, balance, and the volumes they are for.

Oracles: Beaumont, Duchon, Eyraud-Dubois, Langou, Verite, SC'22 (symmetric block-cyclic, theorem 1;
exact counts with borders by enumeration); Beaumont, Collin, Eyraud-Dubois, Verite, IPDPS'23
(g2dbc, gcrm).
"""

import pickle
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla import TaskFlow, distributions
from taskla.algorithms.getrf import getrf_nopiv
from taskla.algorithms.potrf import potrf
from taskla.distributions import (
    Distribution,
    from_function,
    generalized_block_cyclic,
    greedy_colrow,
    sbc,
    sbc_basic,
    sliced_block_cyclic,
    sliced_sbc,
    triangle_block,
)
from taskla.distributions.greedy_colrow import search
from taskla.distributions.pattern import RectangularPattern, SymmetricPattern
from taskla.distributions.symmetric_block_cyclic import diagonals
from taskla.volume import Volumes

PLANES = (6, 7, 12, 13, 21, 30, 31, 56, 57)
SYMMETRIC = [
    *(("sbc", ranks) for ranks in (3, 6, 10, 15, 28)),
    *(("sbc-basic", ranks) for ranks in (2, 8, 18)),
    *(("gcrm", ranks) for ranks in (1, 2, 5, 7, 23)),
    *(("tbc", ranks) for ranks in PLANES),
]
ALL = [*SYMMETRIC, *(("g2dbc", ranks) for ranks in (1, 2, 3, 5, 6, 7, 23))]


def volume(owner: Distribution, tiles: int) -> int:
    """Messages of a Cholesky factorisation of tiles x tiles tiles."""
    flow = TaskFlow()
    potrf(flow, flow.matrix(tiles, tiles, nb=1))
    return Volumes(flow.graph()).under(owner).messages


def loads(owner: Distribution, tiles: int) -> np.ndarray:
    """Tiles of one triangle that each rank owns."""
    return np.bincount(owner(*np.tril_indices(tiles)), minlength=owner.ranks)


def symmetric(owner: Distribution) -> SymmetricPattern:
    pattern = owner.owner
    assert isinstance(pattern, SymmetricPattern)
    return pattern


# -- what all have in common -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ranks"), ALL)
@given(
    i=st.lists(st.integers(0, 10**9), min_size=5, max_size=5),
    j=st.lists(st.integers(0, 10**9), min_size=5, max_size=5),
)
def test_every_tile_has_one_of_the_ranks(name: str, ranks: int, i: list[int], j: list[int]) -> None:
    owner = distributions.get(name, ranks=ranks)
    assert owner.ranks == ranks
    found = owner(i, j)
    assert found.dtype == np.intp
    assert ((found >= 0) & (found < ranks)).all()
    assert [int(owner(a, b)) for a, b in zip(i, j, strict=True)] == found.tolist()


@pytest.mark.parametrize(("name", "ranks"), SYMMETRIC)
def test_a_tile_and_its_mirror_image_have_one_owner(name: str, ranks: int) -> None:
    whole = distributions.get(name, ranks=ranks)(*np.indices((70, 70)))
    np.testing.assert_array_equal(whole, whole.T)


@pytest.mark.parametrize(("name", "ranks"), SYMMETRIC)
def test_a_diagonal_tile_costs_no_more_ranks(name: str, ranks: int) -> None:
    # its owner has other tiles of that row and column already
    owner = distributions.get(name, ranks=ranks)
    pattern = symmetric(owner)
    for tile in range(0 if ranks == 1 else 3 * pattern.r):
        colrow = np.delete(pattern.table[tile % pattern.r], tile % pattern.r)
        assert name == "sbc-basic" or owner(tile, tile) in colrow


@pytest.mark.parametrize(("name", "ranks"), ALL)
def test_a_map_is_a_value(name: str, ranks: int) -> None:
    owner = distributions.get(name, ranks=ranks)
    assert owner == distributions.get(name, ranks=ranks)
    copy = pickle.loads(pickle.dumps(owner))
    assert copy == owner
    np.testing.assert_array_equal(copy(*np.indices((9, 9))), owner(*np.indices((9, 9))))


# -- symmetric block-cyclic ------------------------------------------------------------------------


def test_the_diagonals_are_those_of_the_paper() -> None:
    assert diagonals(3) == [[0, 2, 1]]
    assert diagonals(4) == [[0, 2, 5, 3], [1, 4, 5, 3], [0, 2, 1, 4]]
    assert diagonals(5) == [[0, 2, 5, 9, 6], [1, 4, 8, 3, 7]]
    assert diagonals(6) == [
        [0, 2, 5, 9, 14, 10],
        [1, 4, 8, 13, 6, 11],
        [3, 7, 12, 9, 14, 10],
        [0, 2, 5, 13, 6, 11],
        [1, 4, 8, 3, 7, 12],
    ]


@pytest.mark.parametrize(
    ("ranks", "tiles", "least", "most"), [(6, 40, 136, 137), (10, 50, 127, 128)]
)
def test_extended_sbc_is_balanced(ranks: int, tiles: int, least: int, most: int) -> None:
    owned = loads(sbc(ranks), tiles)
    assert (owned.min(), owned.max()) == (least, most)


@pytest.mark.parametrize(
    ("owner", "messages"),
    [
        (sbc(6), 150),
        (sbc(10), 220),
        (sbc(15), 282),
        (sbc(21), 346),
        (sbc_basic(8), 224),
        (sbc_basic(18), 355),
    ],
)
def test_the_volume_of_cholesky_is_exact(owner: Distribution, messages: int) -> None:
    assert volume(owner, 12) == messages


def test_a_large_matrix_needs_sqrt_2_fewer_messages_than_2dbc() -> None:
    # S (r - 2) against S (p + q - 2), less what borders save: r = 8 on 28 ranks, and 4 x 7
    tiles = 96
    cells = tiles * (tiles + 1) / 2
    assert volume(sbc(28), tiles) / cells == pytest.approx(8 - 2, rel=0.07)
    assert volume(distributions.get("2dbc", ranks=28), tiles) / cells == pytest.approx(9, rel=0.07)
    assert symmetric(sbc(28)).cost == 7


# -- any number of ranks ---------------------------------------------------------------------------


def test_the_patterns_of_g2dbc_are_those_of_the_paper() -> None:
    rows, columns = np.indices((2, 3))
    assert generalized_block_cyclic(3)(rows, columns).tolist() == [[0, 1, 0], [2, 1, 2]]
    rows, columns = np.indices((2, 5))
    assert generalized_block_cyclic(5)(rows, columns).tolist() == [[0, 1, 2, 0, 1], [3, 4, 2, 3, 4]]


@pytest.mark.parametrize("ranks", range(1, 51))
def test_g2dbc_is_balanced_and_costs_what_the_theory_says(ranks: int) -> None:
    pattern = generalized_block_cyclic(ranks).owner
    assert isinstance(pattern, RectangularPattern)
    a = isqrt(ranks - 1) + 1
    b = -(-ranks // a)
    empty = a * b - ranks
    assert pattern.table.shape == ((b * (b - 1), ranks) if empty else (b, a))
    cells = np.bincount(pattern.table.ravel(), minlength=ranks)
    assert set(cells.tolist()) == {b * (b - 1) if empty else 1}
    cost = a + (b * b * (a - empty) + (b - 1) ** 2 * empty) / ranks if empty else a + b
    assert pattern.cost == pytest.approx(cost)


def test_the_volume_of_lu_follows_from_the_cost() -> None:
    tiles = 60
    owner = generalized_block_cyclic(7)
    flow = TaskFlow()
    getrf_nopiv(flow, flow.matrix(tiles, tiles, nb=1))
    messages = Volumes(flow.graph()).under(owner).messages
    assert 2 * messages / tiles**2 == pytest.approx(5.4286 - 2, rel=0.06)


@pytest.mark.parametrize(("ranks", "cost"), [(7, 3.0), (13, 4.4615), (20, 5.6875), (23, 6.0833)])
def test_gcrm_is_as_cheap_as_published(ranks: int, cost: float) -> None:
    assert symmetric(greedy_colrow(ranks)).cost <= cost + 0.15


@pytest.mark.parametrize("ranks", [*range(1, 33), 47, 64])
def test_gcrm_is_balanced(ranks: int) -> None:
    pattern = symmetric(greedy_colrow(ranks))
    pairs = pattern.r * (pattern.r - 1) / 2
    assert pattern.loads().max() <= max(1.10 * pairs / ranks, np.ceil(pairs / ranks))
    tiles = 8 * pattern.r
    owned = loads(greedy_colrow(ranks), tiles)
    assert owned.max() <= 1.10 * owned.mean() + 1
    assert owned.min() > 0


def test_patterns_of_gcrm_are_found_again_by_a_search() -> None:
    first, again, other = (search(11, tries=3, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.table, again.table)
    np.testing.assert_array_equal(first.diagonals, again.diagonals)
    assert first.cost < 2 * np.sqrt(11)
    assert other.table.shape != first.table.shape or (other.table != first.table).any()


def test_the_volume_of_gcrm_on_23_ranks_beats_the_grid() -> None:
    assert volume(greedy_colrow(23), 46) < 0.5 * volume(distributions.get("2dbc", ranks=23), 46)


# -- planes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "tiles", "messages"), [(7, 14, 200), (13, 26, 1015)])
def test_projective_planes_have_the_volume_of_the_theory(
    ranks: int, tiles: int, messages: int
) -> None:
    owner = triangle_block(ranks)
    assert volume(owner, tiles) == messages
    owned = loads(owner, tiles)
    assert owned.min() == owned.max() == tiles * (tiles + 1) // 2 // ranks


@pytest.mark.parametrize("ranks", PLANES)
def test_two_points_lie_on_one_line_and_lines_have_few_points(ranks: int) -> None:
    pattern = symmetric(triangle_block(ranks))
    c = isqrt(ranks)
    assert pattern.r == (ranks if c * c + c + 1 == ranks else c * c)
    assert pattern.cost == c + 1
    # a line of so many points owns their pairs
    points = c + 1 if pattern.r == ranks else c
    assert set(pattern.loads().tolist()) == {points * (points - 1) // 2}


# -- 2.5D ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "base"),
    [
        (sliced_block_cyclic(12, slices=2), distributions.get("2dbc", ranks=6)),
        (sliced_block_cyclic(12, slices=3), distributions.get("2dbc", ranks=4)),
        (sliced_block_cyclic(grid=(2, 3), slices=2), distributions.get("2dbc", grid=(2, 3))),
        (sliced_sbc(16), sbc_basic(8)),
        (sliced_sbc(6), sbc_basic(2)),
    ],
)
def test_a_column_belongs_to_the_slice_of_its_step(owner: Distribution, base: Distribution) -> None:
    i, j = np.tril_indices(20)
    assert owner.ranks == owner.slices * base.ranks
    np.testing.assert_array_equal(owner(i, j) // base.ranks, owner.slice(j))
    np.testing.assert_array_equal(owner(i, j) % base.ranks, base(i, j))
    assert owner.slice([0, 1, owner.slices]).tolist() == [0, 1, 0]
    assert base.slice([0, 5]).tolist() == [0, 0]


def test_by_default_there_are_as_many_slices_as_cost_least() -> None:
    # 18 ranks: 2 slices of 3 x 3 (4 + 1 messages a tile), not 3 of 2 x 3 (3 + 2) or 9 of 1 x 2
    assert sliced_block_cyclic(18).slices == 2
    assert sliced_block_cyclic(27).slices == 3


# -- one's own -------------------------------------------------------------------------------------


def test_a_pattern_from_a_file_repeats(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("2 3\n0 1 2\n3 4 0\n")
    owner = distributions.get(f"file:{path}")
    assert owner.ranks == 5
    assert owner(*np.indices((3, 4))).tolist() == [[0, 1, 2, 0], [3, 4, 0, 3], [0, 1, 2, 0]]
    assert distributions.get(f"file:{path}", ranks=8).ranks == 8
    assert owner.name == f"file:{path}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with"),
        ("2", "does not begin with"),
        ("0 3", "does not begin with"),
        ("2 2 0 1 2", "has 3 ranks after 2 x 2; 4 are wanted"),
        ("1 2 0 -1", "has rank -1; allowed: 0 to 0"),
        ("1 2 0 x", "not a list of integers"),
        ("1 2 0 é", "not a list of integers"),
        ("100000 100000", "does not begin with"),
    ],
)
def test_a_file_that_is_no_pattern_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        distributions.get(f"file:{path}")


def test_a_pattern_must_do_with_the_ranks_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("1 2 0 3")
    with pytest.raises(ValueError, match="has rank 3; allowed: 0 to 1"):
        distributions.get(f"file:{path}", ranks=2)
    with pytest.raises(FileNotFoundError):
        distributions.get(f"file:{tmp_path}/no")


def test_any_function_is_a_map() -> None:
    owner = from_function(lambda i, j: (i + 2 * j) % 5, 5, name="knight")
    assert owner([0, 1], [0, 1]).tolist() == [0, 3]
    assert (owner.name, owner.ranks) == ("knight", 5)
    with pytest.raises(TypeError, match="owner is 3"):
        from_function(3, 5)  # type: ignore[arg-type]


# -- what is impossible ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("sbc", 7, r"sbc has r \(r - 1\) / 2 ranks: use 6 or 10, or gcrm"),
        ("sbc", 1, "use 3, or gcrm"),
        ("sbc-basic", 7, "with r even: use 2 or 8, or gcrm"),
        ("sbc-basic", 1, "use 2, or gcrm"),
        ("tbc", 8, "use 7 or 12, or gcrm"),
        ("tbc", 300, "use 182 or 306, or gcrm"),
        ("2.5d-2dbc", 1, "use 2"),
        ("2.5d-sbc", 7, "use 6 or 8"),
        ("g2dbc", 0, "ranks is 0"),
        ("gcrm", -1, "ranks is -1"),
    ],
)
def test_the_nearest_possible_numbers_of_ranks_are_named(
    name: str, ranks: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        distributions.get(name, ranks=ranks)


@pytest.mark.parametrize("name", ["sbc", "sbc-basic", "g2dbc", "gcrm", "tbc", "2.5d-sbc"])
def test_a_map_without_a_grid_refuses_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"grid is 2x3; {name} has no grid"):
        distributions.get(name, ranks=6, grid=(2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranks": 12, "slices": 5}, "slices is 5; 2.5d-2dbc on 12 ranks has: 2, 3, 4, 6, 12"),
        ({"ranks": 13, "grid": (2, 3)}, "use ranks 12"),
        ({"grid": (2, 3), "slices": 1}, "at least 2 slices: use ranks 12"),
    ],
)
def test_slices_that_do_not_fit_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distributions.get("2.5d-2dbc", **arguments)  # type: ignore[arg-type]


def test_slices_are_for_the_maps_that_have_them() -> None:
    assert distributions.get("2.5d-sbc", ranks=16, slices=2).slices == 2
    with pytest.raises(ValueError, match="slices is 2; sbc has none"):
        distributions.get("sbc", ranks=6, slices=2)
