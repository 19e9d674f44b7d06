"""When a batch of tile tasks is one call on larger operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskla.operations import Access, Operation
from taskla.tile import Tile

__all__ = ["acts_as_one", "merged"]


def merged(tiles: Sequence[Tile]) -> Tile | None:
    """Return a list of tiles as one, when they lie below or beside one another in memory."""
    count = len(tiles)
    return Tile.merge(tiles, (count, 1)) or Tile.merge(tiles, (1, count))


def acts_as_one(
    operation: Operation, params: tuple[Any, ...], operands: Sequence[Tile], shared: Sequence[bool]
) -> bool:
    """Whether one call on merged operands does what the batch's calls do one after the other.

    Parameters
    ----------
    operation : Operation
    params : tuple
        Values of its parameters.
    operands : sequence of Tile
        The merged tiles, or the tile that all calls share.
    shared : sequence of bool
        Which operands are shared by all calls, rather than merged from one tile a call.

    Returns
    -------
    bool
        False for operations for which this never holds.
    """
    values = dict(zip(operation.params, params, strict=True))
    indices = _indices(operation.name, values)
    if indices is None:
        return False
    # An output that all calls share sums what they add: it is scaled once, or not at all.
    if values.get("beta", 1.0) != 1.0 and any(
        alone and mode != Access.R for alone, mode in zip(shared, operation.modes, strict=True)
    ):
        return False
    # Each operand was extended along one index. If every index still has one length in all operands
    # that have it, the two operands extended have it in common and the third does not: the batch is
    # a partition of the larger operation along that index.
    lengths: dict[str, int] = {}
    for names, tile in zip(indices, operands, strict=True):
        for name, length in zip(names, tile.shape, strict=True):
            if lengths.setdefault(name, length) != length:
                return False
    return True


def _indices(name: str, values: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the row and column index of each operand, or None."""
    left = values.get("side") == "L"
    match name:
        case "gemm":
            a = "mk" if values["transa"] == "N" else "km"
            b = "kn" if values["transb"] == "N" else "nk"
            return a, b, "mn"
        case "symm" | "hemm":
            return ("mm" if left else "nn"), "mn", "mn"
        case "trsm" | "trmm":
            return ("mm" if left else "nn"), "mn"
        case "syrk" | "herk":
            return ("nk" if values["trans"] == "N" else "kn"), "nn"
        case "geadd":
            return ("mn" if values["trans"] == "N" else "nm"), "mn"
        case "lacpy" if values["uplo"] == "G":
            return ("mn" if values["trans"] == "N" else "nm"), "mn"
        case "lascl" if values["uplo"] == "G":
            return ("mn",)
    return None
