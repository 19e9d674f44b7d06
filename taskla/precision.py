"""Which number format each tile of a matrix is stored in."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS

__all__ = [
    "DEFAULT",
    "NAMES",
    "Accuracy",
    "By",
    "Codes",
    "Precision",
    "PrecisionMap",
    "codes_of",
    "codes_of_rows",
    "has_range",
    "precision_map",
]

#: The names of the formats, the widest first; a code is an index into them.
NAMES = tuple(FORMATS)
#: What an adaptive map chooses from unless it is told.
DEFAULT = ("fp64", "fp32", "fp16")
By: TypeAlias = Literal["tile", "column"]
Codes: TypeAlias = NDArray[np.int8]

#: Numbers up to this, and down to its inverse, leave room in fp32 for sums and subnormal numbers.
_RANGE = 2.0**100
#: Errors of LU with partial pivoting, over those of rounding its matrix, for order 1.
_GROWTH = 0.2

#: The most characters that are read of a file.
_MOST = 2**24


@dataclass(frozen=True)
class Accuracy:
    """How accurate a factorisation is.

    Attributes
    ----------
    error : float
        Estimate of ``||A - L L^H||_F / ||A||_F``, or of the like for LU.
    tol : float or None
        The tolerance that the formats were chosen by.
    """

    error: float
    tol: float | None

    @property
    def kept(self) -> bool | None:
        """Whether the error is at most three times the tolerance; None without one."""
        return None if self.tol is None else self.error <= 3 * self.tol


@dataclass(frozen=True, init=False)
class PrecisionMap:
    """A rule that gives every tile of a matrix its number format.

    Parameters
    ----------
    rule : str
        - A name of a format: every tile has it. "fp64", "fp32", "fp24", "tf32", "fp16", "bf16",
          "fp8_e4m3" or "fp8_e5m2".
        - "adaptive": the lowest of `formats` that the tolerance allows, by the norms of the tiles;
          "adaptive:1e-6" gives `tol` as well.
        - A band, "fp64:2,fp32:8,bf16:rest": so many diagonals of tiles on either side, the main one
          counted, have the first format, the next ones the second, and so on.
        - The path of a file with the name of a format for each tile: a line a tile row, names
          separated by commas or spaces. It has a "/" in it, or ends with ".csv" or ".txt".
    tol : float, optional
        For "adaptive": the relative error in the Frobenius norm, ``||A - A^||_F < tol ||A||_F``,
        between the smallest unit roundoff of `formats` and 1.
    formats : sequence of str, default ("fp64", "fp32", "fp16")
        For "adaptive".
    by : {"tile", "column"}
        For "adaptive": what has one format. "column" is for LU factorisations with pivoting, in
        which rows move from tile to tile; a tile on the diagonal is then as low as its column.

    Attributes
    ----------
    rule, tol, formats, by
        As given, `rule` without the tolerance.

    Raises
    ------
    ValueError
        When something is not allowed.
    FileNotFoundError
        When there is no such file.

    Notes
    -----
    Tile (i, j) of NT tile rows gets the lowest format f with
    ``||A_ij||_F NT / ||A||_F < tol / u_f``, u_f the unit roundoff; tiles on the diagonal the widest
    of `formats` [1]_ [2]_. Tiles of formats with a small range are stored scaled. By column, the
    norm is that of the tile column times sqrt(n) / 5, as errors of LU grow with the order
    (measured on Gaussian matrices). Where the entries are so large or small that fp32 could not
    hold them, all tiles have the widest format.

    References
    ----------
    .. [1] N. J. Higham, T. Mary, "Mixed precision algorithms in numerical linear algebra", Acta
       Numerica 31 (2022) 347-414.
    .. [2] S. Abdulah et al., "Accelerating geostatistical modeling and prediction with
       mixed-precision computations", IEEE TPDS 33 (2022) 964-976.

    Examples
    --------
    >>> PrecisionMap("adaptive", tol=1e-6, formats=("fp64", "fp32", "fp16"))
    PrecisionMap('adaptive', tol=1e-06, formats=('fp64', 'fp32', 'fp16'))
    >>> PrecisionMap("fp64:1,fp32:rest").of_shape(2, 2).tolist()
    [[0, 1], [1, 0]]
    """

    rule: str
    tol: float | None
    formats: tuple[str, ...]
    by: By

    def __init__(
        self,
        rule: str,
        tol: float | None = None,
        formats: Sequence[str] | None = None,
        by: By = "tile",
    ) -> None:
        if isinstance(formats, str):
            raise ValueError(f"formats is {formats!r}; it must be a sequence of names")
        if not isinstance(rule, str):
            raise TypeError(f"rule is {rule!r}; it must be a string")
        adaptive, _, number = rule.partition(":")
        if adaptive == "adaptive":
            rule = adaptive
            tol = _tolerance(number, tol)
        elif tol is not None or formats is not None or by != "tile":
            raise ValueError(
                f"rule is {rule!r}; tol, formats and by are for the rule 'adaptive' only"
            )
        if by not in ("tile", "column"):
            raise ValueError(f"by is {by!r}; allowed: 'tile', 'column'")
        given = DEFAULT if formats is None else tuple(formats)
        for name, value in (("rule", rule), ("tol", tol), ("formats", given), ("by", by)):
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        codes = [_code(name) for name in self.formats]
        if not codes:
            raise ValueError("formats is empty; it must name at least one format")
        object.__setattr__(self, "formats", tuple(NAMES[code] for code in sorted(set(codes))))
        if self.rule == "adaptive":
            least = FORMATS[self.formats[0]].unit_roundoff
            if self.tol is None:
                raise ValueError(
                    "rule is 'adaptive', which needs a tolerance: tol=1e-6, or 'adaptive:1e-6'"
                )
            if not (math.isfinite(self.tol) and least <= self.tol < 1):
                raise ValueError(
                    f"tol is {self.tol}; with the widest format {self.formats[0]} it must be at "
                    f"least {least:.2g}, and less than 1"
                )
        elif not self.is_file:
            self._band()

    @property
    def is_file(self) -> bool:
        """Whether the rule is the path of a file."""
        return os.sep in self.rule or "/" in self.rule or self.rule.endswith((".csv", ".txt"))

    @property
    def needs_norms(self) -> bool:
        """Whether the formats depend on what the tiles hold."""
        return self.rule == "adaptive"

    def moves(self, mt: int) -> bool:
        """Whether the tolerance is lost when rows move between the tiles of a column of mt."""
        return self.needs_norms and self.by == "tile" and mt > 1

    @property
    def uniform(self) -> str | None:
        """The format of every tile, where they have one whatever the matrix is."""
        return self.rule if self.rule in FORMATS else None

    def of_shape(self, mt: int, nt: int) -> Codes:
        """Return the codes of mt x nt tiles by a rule that does not need norms.

        Returns
        -------
        (mt, nt) int8 array
            Indices into `taskla.precision.NAMES`.

        Raises
        ------
        ValueError
            When the rule needs norms, or a file has another number of tiles, or other words.
        FileNotFoundError
            When the file is not there.
        """
        if self.needs_norms:
            raise ValueError("rule is 'adaptive': the formats follow from the norms of the tiles")
        if self.is_file:
            return _from_file(self.rule, mt, nt)
        distance = np.abs(np.subtract.outer(np.arange(mt), np.arange(nt)))
        codes = np.empty((mt, nt), np.int8)
        begin = 0
        for code, width in self._band():
            codes[distance >= begin] = code
            begin += width
        return codes

    def of_norms(self, norms: NDArray[np.float64], total: float, n: int = 0) -> Codes:
        """Return the codes of tiles with given norms.

        Parameters
        ----------
        norms : (mt, nt) array
            Frobenius norms of the tiles; of tiles that are not stored 0.
        total : float
            That of the matrix, both triangles of a symmetric one.
        n : int, default 0
            Order of the matrix, by which errors of LU factorisations grow: for maps by column.

        Returns
        -------
        (mt, nt) int8 array
            All have the widest format where fp32, which holds all others, has not the range.
        """
        if not self.needs_norms:
            return self.of_shape(*norms.shape)
        assert self.tol is not None
        size = max(norms.shape, default=0)
        codes = np.full(norms.shape, _code(self.formats[0]), np.int8)
        if not has_range(total, self.tol * total / max(size, 1)):
            return codes
        if self.by == "column":
            growth = max(1.0, _GROWTH * math.sqrt(n))
            norms = np.broadcast_to(growth * np.sqrt((norms**2).sum(axis=0)), norms.shape)
        for name in self.formats[1:]:
            # ||A_ij|| NT / ||A|| < tol / u
            fits = norms * size * FORMATS[name].unit_roundoff < self.tol * total
            codes[fits | (norms == 0)] = _code(name)
        if self.by == "tile":
            np.fill_diagonal(codes, _code(self.formats[0]))
        return codes

    def _band(self) -> list[tuple[int, int]]:
        """The codes of a band and on how many diagonals of tiles each is."""
        if self.rule in FORMATS:
            return [(_code(self.rule), 1)]
        parts = self.rule.split(",")
        band = []
        for number, part in enumerate(parts):
            name, colon, width = (word.strip() for word in part.partition(":"))
            last = number == len(parts) - 1
            count = 1 if last and width == "rest" else int(width) if width.isdecimal() else 0
            if not colon or not count or (last and width != "rest"):
                raise ValueError(
                    f"rule is {self.rule!r}; allowed: a format ({', '.join(NAMES)}), "
                    "'adaptive:1e-6', a band like 'fp64:2,fp32:8,bf16:rest' (counts from 1 on, and "
                    "rest at the end), or the path of a file"
                )
            band.append((_code(name), count))
        return band

    def __repr__(self) -> str:
        if not self.needs_norms:
            return f"PrecisionMap({self.rule!r})"
        by = ", by='column'" if self.by == "column" else ""
        return f"PrecisionMap('adaptive', tol={self.tol}, formats={self.formats}{by})"

    def __str__(self) -> str:
        """Return the rule in words that `precision_map` takes, for tables."""
        return f"adaptive:{self.tol:g}" if self.needs_norms else self.rule


def has_range(largest: float, smallest: float) -> bool:
    """Whether fp32 holds numbers up to one, and what is lost below it is less than another."""
    return largest < _RANGE and smallest > 1 / _RANGE


Precision: TypeAlias = (
    PrecisionMap | str | os.PathLike[str] | Sequence[Sequence[str]] | NDArray[Any]
)
"""What ``precision=`` takes: a map, its rule in short, or the name of a format for each tile."""


def precision_map(precision: Precision, by: By = "tile") -> PrecisionMap | Codes:
    """Return what ``precision=`` means: a map, or the codes themselves of an array.

    Parameters
    ----------
    precision : PrecisionMap, str, or (mt, nt) array of str
    by : {"tile", "column"}
        For "adaptive" by name.

    Raises
    ------
    ValueError
        When something is not allowed.
    """
    if isinstance(precision, PrecisionMap):
        return precision
    if isinstance(precision, str):
        adaptive = precision.partition(":")[0] == "adaptive"
        return PrecisionMap(precision, by=by) if adaptive else PrecisionMap(precision)
    if isinstance(precision, np.ndarray) and precision.dtype == np.int8:
        return precision
    if isinstance(precision, os.PathLike):
        # a rule that is a path has a separator in it
        path = Path(precision)
        return PrecisionMap(str(path if path.is_absolute() else Path.cwd() / path))
    if isinstance(precision, Real):
        raise ValueError(
            f"precision is {precision!r}; a tolerance is given as 'adaptive:{precision}'"
        )
    return _codes(np.asarray(precision), "precision")


def codes_of(precision: PrecisionMap | Codes, mt: int, nt: int) -> Codes:
    """Return the codes of mt x nt tiles by what does not need norms.

    Raises
    ------
    ValueError
        When an array has another shape; as `PrecisionMap.of_shape`.
    """
    if isinstance(precision, PrecisionMap):
        return precision.of_shape(mt, nt)
    if precision.shape != (mt, nt):
        raise ValueError(
            f"precision has shape {precision.shape}; the matrix has ({mt}, {nt}) tiles"
        )
    return precision


def _code(name: Any) -> int:
    try:
        return NAMES.index(name)
    except ValueError:
        raise ValueError(f"format is {str(name)!r}; allowed: {', '.join(NAMES)}") from None


def _codes(names: NDArray[Any], what: str) -> Codes:
    if names.ndim != 2 or names.dtype.kind not in "UOT":
        raise ValueError(
            f"{what} is {names.dtype} of shape {names.shape}; an array of formats has a name for "
            "each tile"
        )
    return np.array([[_code(name) for name in row] for row in names], np.int8).reshape(names.shape)


def _tolerance(text: str, tol: float | None) -> float | None:
    if not text:
        return None if tol is None else float(tol)
    if tol is not None:
        raise ValueError(f"rule is 'adaptive:{text}' and tol {tol}; one of them is enough")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"rule is 'adaptive:{text}'; the tolerance must be a number") from None


def _from_file(path: str, mt: int, nt: int) -> Codes:
    with Path(path).open(encoding="utf-8") as file:
        text = file.read(_MOST + 1)
    lines = [line.replace(",", " ").split() for line in text.splitlines()]
    rows = [line for line in lines if line and not line[0].startswith("#")]
    try:
        if len(text) > _MOST:
            raise ValueError(f"has more than {_MOST} characters")
        return codes_of_rows(rows, mt, nt)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def codes_of_rows(rows: Sequence[Sequence[str]], mt: int, nt: int) -> Codes:
    """Return the codes of mt x nt tiles from the names of their formats, a row a tile row.

    Raises
    ------
    ValueError
        When there are other numbers of rows or names, or a name is none of a format.
    """
    if len(rows) != mt:
        raise ValueError(f"has {len(rows)} lines of formats; there must be {mt} of {nt}")
    for number, row in enumerate(rows, start=1):
        if len(row) != nt:
            raise ValueError(
                f"line {number} of formats has {len(row)} names; there must be {nt}, for "
                "the tiles of both triangles"
            )
    return np.array([[_code(name) for name in row] for row in rows], np.int8).reshape(mt, nt)
