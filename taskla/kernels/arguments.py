"""What kernels of all kinds do with their parameters and operands before they compute."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from taskla.kernels.pointers import Scalar, is_complex
from taskla.tile import Order, Tile

__all__ = [
    "FLIP_SIDE",
    "FLIP_UPLO",
    "TRANSPOSE",
    "choice",
    "mismatch",
    "number",
    "reordered",
    "transposition",
    "value_of",
]

#: what a side or a triangle becomes when every matrix is replaced by its transpose
FLIP_SIDE = {"L": "R", "R": "L"}
FLIP_UPLO = {"L": "U", "U": "L", "G": "G"}
#: the transposition that reads a matrix out of the memory of its transpose, where there is one
TRANSPOSE = {"N": "T", "T": "N"}


def choice(operation: str, name: str, value: object, allowed: str) -> str:
    """Return an option; ValueError unless it is one of the letters `allowed`."""
    if isinstance(value, str) and len(value) == 1 and value in allowed:
        return value
    letters = ", ".join(repr(letter) for letter in allowed)
    raise ValueError(f"{operation}: {name} is {value!r}; allowed: {letters}")


def transposition(operation: str, name: str, value: object, letter: str) -> str:
    """Return "N", "T" or, for complex types only, "C"."""
    trans = choice(operation, name, value, "NTC")
    return trans if is_complex(letter) else trans.replace("C", "T")


def value_of(operation: str, name: str, value: complex, letter: str) -> float | complex:
    """Return a number that BLAS's type `letter` holds; ValueError for a complex one of a real."""
    scalar = complex(value)
    if is_complex(letter):
        return scalar
    if scalar.imag:
        raise ValueError(f"{operation}: {name} is {value!r}; allowed: real numbers")
    return scalar.real


def number(operation: str, name: str, value: complex, letter: str) -> Scalar:
    """Return the same for BLAS: a scalar in memory."""
    return Scalar(letter, value_of(operation, name, value, letter))


def mismatch(operation: str, *tiles: Tile) -> NoReturn:
    """Raise ValueError for operands whose shapes do not fit together."""
    shapes = ", ".join(f"{tile.rows} x {tile.cols}" for tile in tiles)
    raise ValueError(f"{operation}: tiles of shapes {shapes} do not fit together")


def reordered(tile: Tile, order: Order) -> Tile:
    """Return a copy of a tile in the given order."""
    array = np.array(tile.array, order=order)
    ld = max(1, tile.rows if order == "F" else tile.cols)
    pointer = array.__array_interface__["data"][0]
    # A single row or column is of both orders: Tile would always call it "F".
    return Tile.from_parts(array, pointer, ld, tile.rows, tile.cols, order)
