"""Random test matrices whose entry (i, j) is a function of (seed, i, j) and nothing else.

No stream is shared: each process makes its own tiles, a check makes the matrix again instead of
keeping a copy, and tile size, storage and engine change nothing.

The generator is SplitMix64 (Steele, Lea and Flood 2014) used as a counter: with the 64-bit mixing
function M of its reference code, G = 0x9E3779B97F4A7C15, and all arithmetic modulo 2^64,

    k_s   = M(seed + G)                      one key a seed
    k_i   = M(k_s + (i + 1) G)               one key a row; for imaginary parts
                                             M((k_s XOR 0xD1B54A32D192ED03) + (i + 1) G)
    z     = M(k_i + (j + 1) G)               64 bits
    part  = (2 floor(z' / 2^12) + 1) 2^-53   z' is z read as a signed number

so that real and imaginary parts are uniform on 2^52 equally spaced numbers inside (-1/2, 1/2), the
range of Chameleon's ``plrnt``. The definition is fixed for ever.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla.formats import format_of

__all__ = ["KINDS", "Kind", "random_block"]

Kind: TypeAlias = Literal["general", "dominant", "symmetric", "hermitian", "spd"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_IMAGINARY = np.uint64(0xD1B54A32D192ED03)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST = np.uint64(31)
# Entries made at a time: they and one temporary of the same size stay in the second-level cache.
_STRIP = 16384

_Words: TypeAlias = NDArray[np.uint64]


def random_block(
    seed: int, rows: ArrayLike, cols: ArrayLike, dtype: DTypeLike, kind: Kind, n: int
) -> NDArray[Any]:
    """Return the entries of a random matrix in given rows and columns.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    rows, cols : array_like of int, 1-D
        Row and column indices, at least 0, in any order.
    dtype : dtype-like
        float32, float64, complex64 or complex128. Single precision holds the same entries, rounded.
    kind : {"general", "dominant", "symmetric", "hermitian", "spd"}
        - "general": all entries independent, real and imaginary parts in (-1/2, 1/2);
        - "dominant": the same plus `n` on the diagonal, so that LU needs no pivots;
        - "symmetric": a_ij = a_ji (complex too); entry (i, j) for i >= j is the general one;
        - "hermitian": a_ij = conj(a_ji), real diagonal;
        - "spd": Hermitian plus `n` on the diagonal, strictly diagonally dominant, hence positive
          definite; the bump is that of Chameleon's ``plghe``.
    n : int
        The larger of the matrix's two dimensions.

    Returns
    -------
    ndarray, shape (len(rows), len(cols)), Fortran order

    Raises
    ------
    ValueError
        When `seed`, `dtype` or `kind` is not allowed.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; allowed: 0 <= seed < 2**64")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    format = format_of(dtype)
    is_complex = np.dtype(dtype).kind == "c"
    r, c = np.asarray(rows, dtype=np.uint64), np.asarray(cols, dtype=np.uint64)
    block = np.empty((r.size, c.size), format.complex if is_complex else format.real, order="F")
    hermitian = is_complex and kind in ("hermitian", "spd")
    if block.size == 0:
        return block
    if kind in ("general", "dominant") or r.min() >= c.max():
        _fill(block, seed, r, c)
    elif r.max() < c.min():
        _fill(block.T, seed, c, r)
        if hermitian:
            np.conjugate(block, out=block)
    else:
        _fill(block, seed, r, c)
        mirrored = np.empty((c.size, r.size), block.dtype)
        _fill(mirrored, seed, c, r)
        if hermitian:
            np.conjugate(mirrored, out=mirrored)
        np.copyto(block, mirrored.T, where=r[:, None] < c[None, :])
    _finish_diagonal(block, r, c, hermitian, n if kind in ("dominant", "spd") else 0)
    return block


def _finish_diagonal(block: NDArray[Any], r: _Words, c: _Words, real: bool, bump: int) -> None:
    """Make the matrix's diagonal entries real if asked, and add `bump` to them."""
    if (real or bump) and r.min() <= c.max() and c.min() <= r.max():
        i, j = np.nonzero(r[:, None] == c[None, :])
        diagonal = block[i, j]
        block[i, j] = (diagonal.real if real else diagonal) + bump


def _fill(block: NDArray[Any], seed: int, rows: _Words, cols: _Words) -> None:
    """Set block[x, y] to the general entry (rows[x], cols[y])."""
    # _mix overwrites its argument, and one-element arrays wrap around silently where scalars warn.
    key = _mix(np.array([seed], np.uint64) + _GOLDEN)
    if block.dtype.kind == "c":
        _fill_part(block.real, key, rows, cols)
        _fill_part(block.imag, key ^ _IMAGINARY, rows, cols)
    else:
        _fill_part(block, key, rows, cols)


def _fill_part(block: NDArray[Any], key: _Words, rows: _Words, cols: _Words) -> None:
    """Set one real part of a block, in strips of columns."""
    one = np.uint64(1)
    row_keys = _mix(key + (rows + one) * _GOLDEN)
    counters = (cols + one) * _GOLDEN
    width = max(1, min(cols.size, _STRIP // rows.size))
    words = np.empty((width, rows.size), np.uint64)
    spare = np.empty_like(words)
    scale = 2.0**-53
    for start in range(0, cols.size, width):
        stop = min(cols.size, start + width)
        z = words[: stop - start]
        np.add(counters[start:stop, None], row_keys, out=z)
        _mix(z, spare[: stop - start])
        signed = z.view(np.int64)
        np.right_shift(signed, 11, out=signed)
        np.bitwise_or(signed, 1, out=signed)
        # The product is exact in float64; the one rounding, to float32, happens on the way out.
        np.multiply(
            signed, scale, out=block[:, start:stop].T, dtype=np.float64, casting="same_kind"
        )


def _mix(z: _Words, spare: _Words | None = None) -> _Words:
    """Apply SplitMix64's mixing function to z in place and return it."""
    if spare is None:
        spare = np.empty_like(z)
    for shift, factor in _MIX:
        np.right_shift(z, shift, out=spare)
        np.bitwise_xor(z, spare, out=z)
        np.multiply(z, factor, out=z)
    np.right_shift(z, _LAST, out=spare)
    return np.bitwise_xor(z, spare, out=z)
