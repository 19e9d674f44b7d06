"""Random programs on integers, and what sequential consistency says of them, told naively."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from interpreter import tile_tasks

from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.operations import OPERATIONS, Access, register
from taskla.tiles import Tiles

MODULUS = 1_000_003

# What a task of one of these writes is a function of its salt and of all that it reads.
MODES = (
    *("R", "W", "RW", "REDUX", "R RW", "R W", "W R", "RW RW", "R REDUX", "REDUX R"),
    *("R R RW", "R R REDUX", "RW REDUX", "REDUX REDUX"),
)
NAMES = {f"random_{modes.replace(' ', '_')}": modes for modes in MODES}


@contextmanager
def random_operations() -> Iterator[None]:
    """While this lasts, there are the operations that random programs consist of."""
    with patch.dict(OPERATIONS):
        for name, modes in NAMES.items():
            register(name, "salt", modes)
        yield


@st.composite
def programs(draw: st.DrawFn) -> TaskGraph:
    """A few calls on selections of the tiles of a few small matrices."""
    calls = draw(st.integers(0, 14))
    # Hypothesis would rather choose single tiles and one and the same call.
    chance = random.Random(draw(st.integers(0, 2**32)))
    flow = TaskFlow()
    matrices = [
        flow.matrix(chance.randint(1, 4), chance.randint(1, 4), nb=1, name="A")
        for _ in range(chance.randint(1, 3))
    ]
    for salt in range(calls):
        name = chance.choice(list(NAMES))
        shape = chance.randint(1, 4), chance.randint(1, 4)
        operands = [selection(chance, matrices, shape) for _ in OPERATIONS[name].modes]
        flow.submit(name, *operands, params=(salt,))
    return flow.graph()


def selection(chance: random.Random, matrices: list[Tiles], shape: tuple[int, int]) -> Tiles:
    """A block of one of the matrices that broadcasts to a shape, or one tile."""
    matrix = chance.choice(matrices)
    if chance.random() < 0.5:
        matrix = matrix.T
    slices = []
    for length, available in zip(shape, (matrix.mt, matrix.nt), strict=True):
        size = length if length <= available and chance.random() < 0.8 else 1
        start = chance.randint(0, available - size)
        slices.append(slice(start, start + size))
    block = matrix[slices[0], slices[1]]
    return block.below_diagonal if chance.random() < 0.1 else block


def execute(graph: TaskGraph, order: Iterable[int] | None = None) -> dict[int, int]:
    """The values of all tiles that are not scratch after the tasks have run in an order."""
    tiles = {t: 0 if g.scratch else t + 1 for g in graph.grids for t in range(g.base, g.end)}
    for task in range(graph.n) if order is None else order:
        kind = graph.kinds[graph.kind[task]]
        for operands in tile_tasks(graph, task):
            run_tile_task(kind.operation, kind.params, [t for (t,) in operands], tiles)
    scratch = {t for g in graph.grids if g.scratch for t in range(g.base, g.end)}
    return {number: value for number, value in tiles.items() if number not in scratch}


def run_tile_task(
    operation: str, params: tuple[object, ...], operands: list[int], tiles: dict[int, int]
) -> None:
    if operation == "laset":
        assert params == ("G", 0.0, 0.0)
        tiles[operands[0]] = 0
        return
    if operation == "geadd":
        assert params == ("N", 1.0, 1.0)
        source, target = operands
        tiles[target] = (tiles[target] + tiles[source]) % MODULUS
        return
    modes = OPERATIONS[operation].modes
    mixed = int(str(params[0])) + 1
    for tile, mode in zip(operands, modes, strict=True):
        if mode in (Access.R, Access.RW):
            mixed = (mixed * 4099 + tiles[tile]) % MODULUS
    for number, (tile, mode) in enumerate(zip(operands, modes, strict=True)):
        value = (mixed * 31 + number) % MODULUS
        if mode == Access.REDUX:
            tiles[tile] = (tiles[tile] + value) % MODULUS
        elif mode != Access.R:
            tiles[tile] = value


def random_order(graph: TaskGraph, seed: int) -> list[int]:
    """One of the orders that the graph's edges allow."""
    chance = random.Random(seed)
    missing = graph.indegree.tolist()
    ready = [task for task in range(graph.n) if not missing[task]]
    order = []
    while ready:
        task = ready.pop(chance.randrange(len(ready)))
        order.append(task)
        for successor in graph.succ[graph.succ_ptr[task] : graph.succ_ptr[task + 1]].tolist():
            missing[successor] -= 1
            if not missing[successor]:
                ready.append(successor)
    assert len(order) == graph.n
    return order


def conflicts(graph: TaskGraph) -> np.ndarray:
    """[a, b]: task a comes before b, and they may not be exchanged. By definition, in O(n^2)."""
    accesses = [
        list(zip(graph.tiles[a:b].tolist(), graph.modes[a:b].tolist(), strict=True))
        for a, b in zip(graph.indptr[:-1], graph.indptr[1:], strict=True)
    ]
    result = np.zeros((graph.n, graph.n), dtype=bool)
    for a in range(graph.n):
        for b in range(a + 1, graph.n):
            result[a, b] = any(
                tile == other and not (mode == other_mode and mode in (Access.R, Access.REDUX))
                for tile, mode in accesses[a]
                for other, other_mode in accesses[b]
            )
    return result


def edges(graph: TaskGraph) -> np.ndarray:
    """[a, b]: whether the graph has that edge."""
    result = np.zeros((graph.n, graph.n), dtype=bool)
    result[graph.edges()] = True
    return result


def closure(relation: np.ndarray) -> np.ndarray:
    """What can be reached; the relation leads forward only."""
    reach = relation.copy()
    for a in reversed(range(len(reach))):
        reach[a] |= reach[reach[a]].any(axis=0)
    return reach


def check_consistent(graph: TaskGraph, expected: dict[int, int], seed: int) -> None:
    """The graph orders what must be ordered, nothing else, and any order it allows is as good."""
    edge, conflict = edges(graph), conflicts(graph)
    assert not (edge & ~conflict).any()
    assert (closure(edge) == closure(conflict)).all()
    source, target = graph.edges()
    assert len(source) == edge.sum(), "an edge is there twice"
    assert (graph.indegree == edge.sum(axis=0)).all()
    assert (np.diff(target)[np.diff(source) == 0] > 0).all()
    assert execute(graph) == expected
    for shift in range(3):
        assert execute(graph, random_order(graph, seed + shift)) == expected
