import pickle
from collections.abc import Callable
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla import distributions
from taskla.distributions import Distribution, block_cyclic, column_cyclic, row_cyclic

OWN = ("2dbc", "row", "col")


# -- the maps --------------------------------------------------------------------------------------


@given(p=st.integers(1, 7), q=st.integers(1, 7), i=st.integers(0, 10**9), j=st.integers(0, 10**9))
def test_2d_block_cyclic_deals_tiles_to_a_grid_of_ranks(p: int, q: int, i: int, j: int) -> None:
    assert block_cyclic(grid=(p, q))(i, j) == (i % p) * q + j % q


def test_ranks_are_numbered_along_the_rows_of_the_grid() -> None:
    owner = distributions.get("2dbc", ranks=6, grid=(2, 3))
    rows, columns = np.indices((4, 5))
    expected = [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4], [0, 1, 2, 0, 1], [3, 4, 5, 3, 4]]
    np.testing.assert_array_equal(owner(rows, columns), expected)


def test_rows_and_columns_are_dealt_out_in_turn() -> None:
    rows, columns = np.indices((4, 4))
    np.testing.assert_array_equal(row_cyclic(3)(rows, columns), rows % 3)
    np.testing.assert_array_equal(column_cyclic(3)(rows, columns), columns % 3)
    assert row_cyclic(3).grid == (3, 1)
    assert column_cyclic(3).grid == (1, 3)


@pytest.mark.parametrize(
    ("ranks", "grid"),
    [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (6, (2, 3)), (7, (1, 7)), (12, (3, 4)), (36, (6, 6))],
)
def test_the_default_grid_is_the_squarest(ranks: int, grid: tuple[int, int]) -> None:
    assert block_cyclic(ranks).grid == grid


@pytest.mark.parametrize("name", OWN)
@given(ranks=st.integers(1, 12))
def test_every_rank_owns_as_many_tiles_of_whole_patterns(name: str, ranks: int) -> None:
    owner = distributions.get(name, ranks=ranks)
    assert owner.grid is not None
    p, q = owner.grid
    owned = np.bincount(owner(*np.indices((2 * p, 3 * q))).ravel(), minlength=ranks)
    assert owned.tolist() == [6] * ranks


@pytest.mark.parametrize("name", OWN)
def test_indices_broadcast(name: str) -> None:
    owner = distributions.get(name, ranks=6)
    whole = owner(*np.indices((5, 7)))
    np.testing.assert_array_equal(owner(np.arange(5)[:, None], np.arange(7)), whole)
    np.testing.assert_array_equal(owner([3], [2, 4]), whole[3, [2, 4]])
    assert owner(3, 2) == whole[3, 2]
    assert owner([], []).shape == (0,)
    assert owner(3, 2).dtype == np.intp


@pytest.mark.parametrize("name", OWN)
def test_a_map_is_a_value(name: str) -> None:
    owner = distributions.get(name, ranks=6)
    assert owner == distributions.get(name, ranks=6)
    assert owner != distributions.get(name, ranks=8)
    assert len({owner, distributions.get(name, ranks=6)}) == 1
    copy = pickle.loads(pickle.dumps(owner))
    assert copy == owner
    assert copy(4, 5) == owner(4, 5)
    assert distributions.get(owner) is owner


# -- by name ---------------------------------------------------------------------------------------


def test_the_maps_are_listed_with_a_line_each() -> None:
    assert tuple(distributions.available())[:3] == OWN
    assert distributions.available()["row"] == "Row-cyclic: tile row i belongs to rank i mod ranks."


def test_a_grid_alone_says_how_many_ranks() -> None:
    assert distributions.get("2dbc", grid=(2, 5)).ranks == 10
    assert distributions.get("row", grid=(4, 1)).ranks == 4
    assert distributions.get("col", grid=(1, 4)).ranks == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distributions.get("sbd", 4), "'sbd' does not exist; there are 2dbc, row, col"),
        (lambda: distributions.get("2dbc"), "ranks is None; 2dbc needs a number of ranks"),
        (lambda: distributions.get("2dbc", 0), "ranks is 0; it must be an integer of at least 1"),
        (lambda: distributions.get("row", -2), "ranks is -2; it must be"),
        (lambda: block_cyclic(2.0), r"ranks is 2\.0; it must be"),  # type: ignore[arg-type]
        (lambda: column_cyclic(True), "ranks is True; it must be"),
        (lambda: row_cyclic(), "ranks is None; it must be"),
        (lambda: block_cyclic(grid=(0, 3)), "grid is 0x3; both must be at least 1"),
        (
            lambda: block_cyclic(6, (2, 2)),
            "grid is 2x2, which has 4 ranks, and ranks is 6; nearest: ranks 4, or grid 2x3",
        ),
        (lambda: block_cyclic(7, (3, 3)), "nearest: ranks 9, or grid 1x7"),
        (
            lambda: row_cyclic(4, (2, 2)),
            r"grid is 2x2; row on 4 ranks has the grid 4x1 \(2dbc has others\)",
        ),
        (lambda: column_cyclic(4, (4, 1)), "col on 4 ranks has the grid 1x4"),
        (lambda: distributions.get(row_cyclic(4), 5), "ranks is 5 and grid None; the map given is"),
    ],
)
def test_what_is_impossible_is_told_with_the_nearest_possible(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# -- those of other packages -----------------------------------------------------------------------


def diagonal(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Tile diagonals in turn."""
    count = ranks or 1
    return Distribution("diagonal", count, grid, lambda i, j: (i + j) % count)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {
        "diagonal": diagonal,
        "2dbc": diagonal,
        "a-lambda": lambda ranks, grid: "no map",
        "absent": None,
    }

    class Entry(EntryPoint):
        def load(self) -> object:
            if targets[self.name] is None:
                raise ModuleNotFoundError("No module named 'absent'")
            return targets[self.name]

    entries = [Entry(name, "a_test:" + name, distributions.GROUP) for name in targets]
    monkeypatch.setattr(distributions, "entry_points", lambda group: entries)


@pytest.mark.usefixtures("plugins")
def test_a_map_of_another_package_comes_by_entry_point() -> None:
    assert distributions.get("diagonal", ranks=3)([0, 1, 2], [2, 2, 2]).tolist() == [2, 0, 1]
    assert distributions.available()["diagonal"] == "Tile diagonals in turn."
    with pytest.raises(ValueError, match=r"2\.5d-sbc, a-lambda, absent, diagonal, file:PATH"):
        distributions.get("sbd", 2)


@pytest.mark.usefixtures("plugins")
def test_no_other_package_replaces_a_map_of_ours() -> None:
    assert distributions.get("2dbc", ranks=6).name == "2dbc"


@pytest.mark.usefixtures("plugins")
def test_a_bad_plugin_is_named() -> None:
    with pytest.raises(TypeError, match="distribution 'a-lambda': its entry point made 'no map'"):
        distributions.get("a-lambda", ranks=2)
    with pytest.raises(ModuleNotFoundError, match="absent"):
        distributions.get("absent", ranks=2)
    assert distributions.available()["absent"] == "cannot be loaded: No module named 'absent'"
