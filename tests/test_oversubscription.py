"""More workers than cores on a machine are complained of; what fits is not."""

import pytest

from taskla.engines.oversubscription import Share, complaint, fair

BOTH = frozenset({0, 1})


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([Share(1, BOTH, 2)] * 2, None),
        ([Share(2, BOTH, 2)] * 2, "2 ranks x 2 workers on 2 cores"),
        ([Share(1, BOTH, 2)] * 3, "3 ranks x 1 worker on 2 cores"),
        ([Share(2, BOTH, 2), Share(1, BOTH, 2)], "2 ranks with 3 workers on 2 cores"),
        # one rank, as the engine on threads: its user asked for it
        ([Share(9, BOTH, 2)], None),
        # each rank bound to a core of its own
        ([Share(1, frozenset({k}), 1) for k in range(4)], None),
        ([Share(2, frozenset({k}), 1) for k in range(4)], "4 ranks x 2 workers on 4 cores"),
        # a quota of 2 cores on a machine of 8
        ([Share(1, frozenset(range(8)), 2)] * 4, "4 ranks x 1 worker on 2 cores"),
        # where the system tells no mask
        ([Share(1, frozenset(), 4)] * 4, None),
        ([Share(2, frozenset(), 4)] * 4, "4 ranks x 2 workers on 4 cores"),
    ],
)
def test_workers_are_counted_against_cores(shares: list[Share], text: str | None) -> None:
    found = complaint(shares)
    assert found is None if text is None else found is not None and found.startswith(text)


def test_the_advice_would_do() -> None:
    told = complaint([Share(4, BOTH, 2)] * 2)
    assert told is not None
    assert told.endswith("give workers=1")
    told = complaint([Share(1, BOTH, 2)] * 3)
    assert told is not None
    assert told.endswith("start fewer ranks")


@pytest.mark.parametrize(
    ("shares", "workers"),
    [
        ([Share(0, BOTH, 2)], [2]),
        ([Share(0, BOTH, 2)] * 2, [1, 1]),
        ([Share(0, BOTH, 2)] * 3, [1, 1, 1]),
        ([Share(0, frozenset(range(12)), 12)] * 3, [4, 4, 4]),
        # bound to cores of their own, all or some
        ([Share(0, frozenset(range(4)), 4), Share(0, frozenset(range(4, 16)), 12)], [4, 12]),
        ([Share(0, frozenset(range(4)), 4), Share(0, frozenset(range(8)), 8)], [2, 6]),
        # a quota of 4 cores on a machine of 8; no mask
        ([Share(0, frozenset(range(8)), 4)] * 2, [2, 2]),
        ([Share(0, frozenset(), 6)] * 2, [3, 3]),
    ],
)
def test_ranks_share_cores(shares: list[Share], workers: list[int]) -> None:
    assert [fair(shares, rank) for rank in range(len(shares))] == workers
