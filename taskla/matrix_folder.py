"""The folder of tiles: its header and the files of its tiles, as they are written and read.

It holds ``header.json`` and one ``tile_<i>_<j>.npy`` per tile of the layout, indices counted from 0
and padded to four digits. The header is a JSON object:

    format "taskla-tiles", version 1, shape [m, n], nb, dtype ("float64", ...),
    uplo (null, "lower", "upper": the tiles present), order ("F" or "C")

and the files hold tiles of that dtype. Tiles with number formats of their own make it version 2,
which has one field more:

    formats, a string a tile row: the names of the formats, of both triangles, with spaces between

A file then holds an array of the dtype in which its format is computed, if it is stored so too. If
not, it holds bytes: the scale, a float64, then the numbers as the format stores them, column after
column. The least significant byte of each is the first, and the real part before the imaginary one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from taskla.atomic import flush
from taskla.formats import FORMATS, dtype_of, format_of
from taskla.matrix_layout import Layout
from taskla.matrix_mixed import PackedTile
from taskla.precision import NAMES, Codes, codes_of_rows
from taskla.tile import Order

__all__ = [
    "HEADER",
    "TILE_NAME",
    "Header",
    "header_text",
    "read_header",
    "read_tile",
    "tile_path",
    "unreadable",
    "write_tile",
]

HEADER = "header.json"
TILE_NAME = re.compile(r"tile_\d{4,}_\d{4,}\.npy")

_FORMAT = "taskla-tiles"
_PLAIN, _MIXED = 1, 2
# Room for the formats of two million tiles, a file each.
_LONGEST_HEADER = 2**24
_SCALE = np.dtype(np.float64)


@dataclass(frozen=True)
class Header:
    """What the header of a folder of tiles says.

    Attributes
    ----------
    layout : Layout
    dtype : numpy.dtype
        That of the matrix.
    order : {"F", "C"}
    codes : (mt, nt) int8 array, optional
        The formats of tiles that have their own, indices into `taskla.precision.NAMES`.
    """

    layout: Layout
    dtype: np.dtype[Any]
    order: Order
    codes: Codes | None = None

    def format(self, i: int, j: int) -> str:
        """Return the name of the format of tile (i, j)."""
        return format_of(self.dtype).name if self.codes is None else NAMES[self.codes[i, j]]


# The header -------------------------------------------------------------------------------------


def header_text(header: Header) -> str:
    """Return the text of a header.

    Raises
    ------
    ValueError
        When it would be too long to be read.
    """
    layout = header.layout
    fields = {
        "format": _FORMAT,
        "version": _PLAIN if header.codes is None else _MIXED,
        "shape": [layout.m, layout.n],
        "nb": layout.nb,
        "dtype": header.dtype.name,
        "uplo": layout.uplo,
        "order": header.order,
    }
    if header.codes is not None:
        fields["formats"] = [" ".join(NAMES[code] for code in row) for row in header.codes]
    text = json.dumps(fields, indent=1) + "\n"
    if len(text) > _LONGEST_HEADER:
        raise ValueError(f"{layout.mt} x {layout.nt} tiles are too many for one folder")
    return text


def read_header(folder: Path) -> Header:
    """Return what the header of a folder says; ValueError for the first field at fault."""
    file = folder / HEADER
    if not file.is_file():
        raise ValueError(f"{folder}: not a folder of tiles, it has no {HEADER}")
    try:
        with file.open("rb") as stream:
            text = stream.read(_LONGEST_HEADER + 1)
        if len(text) > _LONGEST_HEADER:
            raise ValueError(f"longer than {_LONGEST_HEADER} bytes")
        return _checked(json.loads(text))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _checked(fields: Any) -> Header:
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise ValueError(f"not the header of a folder of tiles (format {_FORMAT!r})")
    version = fields.get("version")
    if version not in (_PLAIN, _MIXED):
        raise ValueError(f"version is {version!r}; this program reads {_PLAIN} and {_MIXED}")
    shape, nb, uplo, order = (fields.get(name) for name in ("shape", "nb", "uplo", "order"))
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_size, shape)):
        raise ValueError(f"shape is {shape!r}; allowed: two integers from 0 to 2**63 - 1")
    if not isinstance(nb, int) or not _is_size(nb):
        raise ValueError(f"nb is {nb!r}; allowed: an integer from 1 to 2**63 - 1")
    if order not in ("F", "C"):
        raise ValueError(f"order is {order!r}; allowed: 'F', 'C'")
    if not isinstance(fields.get("dtype"), str):
        raise ValueError(f"dtype is {fields.get('dtype')!r}; it must be a string")
    format_of(fields["dtype"])
    layout, dtype = Layout(shape[0], shape[1], nb, uplo), np.dtype(fields["dtype"])
    if version == _PLAIN:
        return Header(layout, dtype, order)
    return Header(layout, dtype, order, _codes(fields.get("formats"), layout, dtype))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _codes(rows: object, layout: Layout, dtype: np.dtype[Any]) -> Codes:
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise ValueError(f"formats is {str(rows)[:80]}; it must be a list of strings")
    codes = codes_of_rows([row.split() for row in rows], layout.mt, layout.nt)
    widest = NAMES.index(format_of(dtype).name)
    if (codes < widest).any():
        raise ValueError(f"formats has {NAMES[codes.min()]}, which is wider than {dtype}")
    return codes


# The tiles --------------------------------------------------------------------------------------


def tile_path(folder: Path, i: int, j: int) -> Path:
    """Return the file of tile (i, j) in a folder of tiles."""
    return folder / f"tile_{i:04d}_{j:04d}.npy"


def write_tile(file: Path, tile: PackedTile, order: Order) -> None:
    """Write the file of a tile, to the disk."""
    array = np.asarray(tile.numbers, order=order)
    if array.dtype != tile.dtype:
        scale = np.array([tile.scale], _SCALE)
        array = np.concatenate([part.view(np.uint8) for part in (scale, array.ravel("F"))])
    np.save(file, array, allow_pickle=False)
    flush(file)


def read_tile(folder: Path, header: Header, i: int, j: int) -> PackedTile:
    """Return tile (i, j) of a folder, mapped into memory.

    Raises
    ------
    ValueError
        When its file is missing, damaged, or not as the header says.
    """
    file = tile_path(folder, i, j)
    if not file.is_file():
        raise ValueError(f"{folder}: {file.name} is missing")
    with unreadable(file):
        array: NDArray[Any] = np.asarray(open_memmap(file, mode="r"))
    rows, cols = header.layout.rows(i), header.layout.cols(j)
    m, n = rows.stop - rows.start, cols.stop - cols.start
    name, is_complex = header.format(i, j), header.dtype.kind == "c"
    stored = FORMATS[name].complex_storage if is_complex else FORMATS[name].storage
    if stored == dtype_of(name, is_complex):
        _check_array(file, array, stored, (m, n), name)
        return PackedTile(name, array)
    size = _SCALE.itemsize + m * n * stored.itemsize
    _check_array(file, array, np.dtype(np.uint8), (size,), f"{name} of shape {(m, n)}")
    scale = float(array[: _SCALE.itemsize].view(_SCALE)[0])
    if math.frexp(scale)[0] != 0.5:
        raise ValueError(f"{file}: scale is {scale}; allowed: powers of two")
    numbers = array[_SCALE.itemsize :].view(stored).reshape((m, n), order="F")
    return PackedTile(name, numbers, scale)


def _check_array(
    file: Path, array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...], what: str
) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{file}: holds {array.dtype} of shape {array.shape}; the header asks for {dtype} "
            f"of shape {shape}, as {what} is stored"
        )


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turn what the parsers of NumPy and SciPy raise into a ValueError that names the file."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # NumPy reads headers with Python's own tokenizer and parser: a broken one raises anything.
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable {path.suffix} file: {reason}") from error
