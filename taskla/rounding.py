"""Rounding to a number format, and the conversion of arrays to and from the way it is stored.

Nothing is rounded twice: a float64 goes to bf16 or to fp8 directly, not by way of float32.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla.formats import FORMATS, Format, format_of, get_format

__all__ = ["Mode", "Seed", "pack", "round_to", "scale_of", "unpack"]

Mode: TypeAlias = Literal["nearest", "toward_zero", "stochastic"]
Draw: TypeAlias = np.random.Generator | None
Seed: TypeAlias = Draw | int | Sequence[int]

_MODES = get_args(Mode)
# Bytes of an array that are worked on at a time. All that is needed for them then stays in the
# cache of a core, and each call of NumPy is long against its overhead; all of them let go the GIL.
#
# Milliseconds per million numbers of float32 (float64) tiles of 512 on a core of an AMD EPYC:
# nearest 1.8 (3.5), but bf16 .8 and fp24 and tf32 1.2 of float32, and fp32 (.8); stochastic 2.3 to
# 5.3 (8); pack 3 (6), but bf16 .5 (3.8); unpack .5 to 2. NumPy's own cast to float16 takes 5, that
# of ml_dtypes to fp8 10, by frexp and ldexp 38.
_CHUNK = 1 << 17


def round_to(
    x: ArrayLike,
    format: str,
    mode: Mode = "nearest",
    *,
    rng: Seed = None,
    scaled: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the values of an array rounded to a format, in the array's own dtype.

    Parameters
    ----------
    x : array_like of float32, float64, complex64 or complex128
        The numbers, with any strides. Both parts of a complex number are rounded.
    format : str
        A name in `taskla.formats.FORMATS`. One that is as wide as the dtype changes nothing.
    mode : {"nearest", "toward_zero", "stochastic"}, default "nearest"
        "nearest" breaks ties to even, and what is too large becomes inf (nan in fp8_e4m3).
        "stochastic" takes one of the two neighbours, the nearer one more often, so that the
        expected value is the number itself. With it and "toward_zero", finite numbers stay finite.
    rng : Generator, int or sequence of int, optional
        The generator, or its seed, that "stochastic" demands. What is drawn for an element depends
        on the shape, not on the strides.
    scaled : bool, default False
        Give the values that `unpack` makes of what `pack` stores: for a format of narrow range, a
        tile times its `scale_of` is rounded, and the result is divided by it.
    out : ndarray, optional
        Where the result goes. It may be `x` itself, or have the other precision of the same kind,
        if that can hold it.

    Raises
    ------
    ValueError
        When the format, the mode or a dtype is none of these, `rng` is missing, or `out` does not
        fit.

    Examples
    --------
    >>> round_to(np.float64([1 + 2**-8 + 2**-40, 0.1]), "bf16")
    array([1.0078125 , 0.10009766])
    """
    f, draw = get_format(format), _generator(mode, rng)
    x = _operand(x)
    t = format_of(x.dtype).t
    held = x.dtype
    if out is not None and out.dtype.kind == held.kind and format_of(out.dtype).t >= min(f.t, t):
        held = out.dtype.newbyteorder("=")
    out = _result(out, x, held)
    exponent = _exponent(scale_of(x, format)) if scaled else 0
    x = _apart(x, out)
    with np.errstate(all="ignore"):
        if f.t >= t:
            np.copyto(out, x, casting="same_kind")
            return out
        for source, target in _pieces(x, out, any_order=draw is None):
            _shift(_rounded(_scaled(source, exponent), f, mode, draw), -exponent, target)
    return out


def scale_of(x: ArrayLike, format: str) -> float:
    """Return the power of two by which a tile is multiplied to be stored in a format.

    Parameters
    ----------
    x, format
        As in `round_to`.

    Returns
    -------
    float
        ``2**-ceil(log2(max|x|))``, which brings the largest part of a number into (1/2, 1], but at
        most ``2**1023``. 1 when the format needs no scale, or `x` is zero, empty or not finite.

    Examples
    --------
    >>> scale_of(np.array([3.0, -5.0]), "fp16"), scale_of(np.array([3.0, -5.0]), "bf16")
    (0.125, 1.0)
    """
    x = _operand(x)
    if not get_format(format).scaled or not x.size:
        return 1.0
    bounds = [
        bound for part, _ in _pieces(x, x, any_order=True) for bound in (part.max(), -part.min())
    ]
    largest = float(np.max(bounds))
    if not 0.0 < largest < math.inf:
        return 1.0
    significand, exponent = math.frexp(largest)
    if significand == 0.5:
        exponent -= 1
    return math.ldexp(1.0, min(-exponent, 1023))


def pack(
    x: ArrayLike,
    format: str,
    mode: Mode = "nearest",
    *,
    rng: Seed = None,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """Return a tile as a format stores it: its scaled numbers, rounded, and the scale.

    Parameters
    ----------
    x, format, mode, rng
        As in `round_to`.
    out : ndarray, optional
        Where the numbers go: of the shape of `x` and the format's ``storage``, or its
        ``complex_storage``.

    Returns
    -------
    stored : ndarray
        `x` times the scale, rounded.
    scale : float
        A power of two: `scale_of` the tile.

    Examples
    --------
    >>> stored, scale = pack(np.float32([3.0, -5.0]), "fp8_e5m2")
    >>> stored.dtype.name, stored.nbytes, scale
    ('float8_e5m2', 2, 0.125)
    >>> unpack(stored, "fp8_e5m2", scale)
    array([ 3., -5.], dtype=float32)
    """
    f, draw = get_format(format), _generator(mode, rng)
    x = _operand(x)
    out = _result(out, x, f.complex_storage if x.dtype.kind == "c" else f.storage)
    scale = scale_of(x, format)
    exponent = _exponent(scale)
    x = _apart(x, out)
    with np.errstate(all="ignore"):
        for source, target in _pieces(x, out, any_order=draw is None):
            _store(_scaled(source, exponent), f, mode, draw, target)
    return out, scale


def unpack(
    stored: NDArray[Any],
    format: str,
    scale: float = 1.0,
    *,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the numbers of a tile that `pack` stored.

    Parameters
    ----------
    stored : ndarray
        Of the format's ``storage`` or ``complex_storage``, with any strides.
    format : str
        A name in `taskla.formats.FORMATS`.
    scale : float, default 1.0
        The scale that `pack` returned, a power of two.
    dtype : dtype-like, optional
        float32 or float64, complex for complex numbers; that in which the format is computed by
        default.
    out : ndarray, optional
        Where the result goes, of the shape of `stored`; its dtype stands for `dtype`.

    Raises
    ------
    ValueError
        When `stored` has another dtype than the format stores, `scale` is not a power of two, or
        `dtype` or `out` does not fit.
    """
    f = get_format(format)
    complex = stored.dtype == f.complex_storage
    if not complex and stored.dtype != f.storage:
        allowed = f"{f.storage} or {f.complex_storage}"
        raise ValueError(f"stored has dtype {stored.dtype}; {format} is stored as {allowed}")
    if dtype is None:
        dtype = (f.complex if complex else f.real) if out is None else out.dtype
    format_of(dtype)
    held = np.dtype(dtype).newbyteorder("=")
    if (held.kind == "c") != complex:
        raise ValueError(f"dtype is {held}; the numbers stored have {stored.dtype}")
    out = _result(out, stored, held)
    exponent = -_exponent(scale)
    stored = _apart(stored, out)
    with np.errstate(all="ignore"):
        for target, source in _pieces(out, stored, any_order=True):
            _load(source, f, target)
            if exponent:
                _shift(target, exponent, target)
    return out


def _operand(x: ArrayLike) -> NDArray[Any]:
    array = np.asarray(x)
    format_of(array.dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _generator(mode: str, rng: Seed) -> Draw:
    """Return what draws random numbers, if the mode needs any."""
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(_MODES)}")
    if mode != "stochastic":
        return None
    if rng is None:
        raise ValueError("rng is None; stochastic rounding needs a Generator or a seed")
    return np.random.default_rng(rng)


def _result(out: NDArray[Any] | None, like: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if out is None:
        return np.empty_like(like, dtype)
    if out.shape != like.shape or out.dtype != dtype:
        raise ValueError(
            f"out has shape {out.shape} and dtype {out.dtype}; needed are {like.shape} and {dtype}"
        )
    return out


def _apart(x: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Return `x`, or a copy of it if writing `out` piece by piece would change what is unread."""
    if not np.may_share_memory(x, out):
        return x
    places = [array.__array_interface__["data"] for array in (x, out)]
    same = places[0] == places[1] and x.strides == out.strides and x.dtype == out.dtype
    return x if same else x.copy()


def _exponent(scale: float) -> int:
    significand, exponent = math.frexp(scale)
    if significand != 0.5:
        raise ValueError(f"scale is {scale!r}; allowed are powers of two")
    return exponent - 1


class _Memory(threading.local):
    """Arrays to work in, of this thread.

    New ones would come from the operating system, and be zeroed by it, for every chunk: that takes
    several times as long as all the rest.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, NDArray[np.uint8]] = {}

    def array(self, use: str, like: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of a shape and a dtype, what it contains being left from its last use."""
        dtype = np.dtype(dtype)
        nbytes = like.size * dtype.itemsize
        if nbytes > 2 * _CHUNK:
            return np.empty(like.shape, dtype, order="F")
        if use not in self._bytes:
            self._bytes[use] = np.empty(2 * _CHUNK, np.uint8)
        return self._bytes[use][:nbytes].view(dtype).reshape(like.shape, order="F")


_memory = _Memory()


def _shift(x: NDArray[Any], exponent: int, out: NDArray[Any]) -> None:
    """Write ``x * 2**exponent`` to `out`."""
    if not exponent:
        np.copyto(out, x, casting="same_kind")
    # Powers that are normal numbers of the dtype: multiplying by one is the same and faster.
    elif abs(exponent) <= np.finfo(x.dtype).maxexp - 2:
        np.multiply(x, x.dtype.type(2.0**exponent), out=out, casting="same_kind")
    else:
        np.ldexp(x, exponent, out=out, casting="same_kind")


def _scaled(x: NDArray[Any], exponent: int) -> NDArray[Any]:
    y = _memory.array("scaled", x, x.dtype) if exponent else x
    if exponent:
        _shift(x, exponent, y)
    return y


def _pieces(
    a: NDArray[Any], b: NDArray[Any], any_order: bool
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield two arrays of one shape as pairs of real views, no longer than a chunk if possible.

    Both are real, or both are complex, or pairs of a structured dtype. `any_order` is whether the
    pieces may depend on the strides, and `a` tells their size.
    """
    if not a.size:
        return
    if not a.ndim:
        a, b = a.reshape(1), b.reshape(1)
    if any_order and abs(a.strides[0]) > abs(a.strides[-1]):
        a, b = a.T, b.T
    for left, right in _parts(a, b, any_order):
        width = max(1, _CHUNK * left.shape[-1] // (left.size * left.itemsize))
        for j in range(0, left.shape[-1], width):
            yield left[..., j : j + width], right[..., j : j + width]


def _parts(
    a: NDArray[Any], b: NDArray[Any], any_order: bool
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    if a.dtype.kind != "c" and a.dtype.names is None:
        return [(a, b)]
    kinds = [_part(a.dtype), _part(b.dtype)]
    if any_order and a.strides[0] == a.itemsize and b.strides[0] == b.itemsize:
        # Both parts at once, side by side along the columns.
        return [(a.T.view(kinds[0]).T, b.T.view(kinds[1]).T)]
    pair = [np.dtype([("real", kind), ("imag", kind)]) for kind in kinds]
    a, b = a.view(pair[0]), b.view(pair[1])
    return [(a[name], b[name]) for name in ("real", "imag")]


def _part(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the real part of a complex one or of a pair."""
    return dtype["real"] if dtype.names else np.dtype(f"f{dtype.itemsize // 2}")


def _rounded(x: NDArray[Any], f: Format, mode: Mode, draw: Draw) -> NDArray[Any]:
    """Return the real numbers `x` rounded to a format narrower than their dtype, in our memory."""
    if mode == "nearest" and _casts(x, f):
        y, cast = _memory.array("y", x, x.dtype), _memory.array("cast", x, f.storage)
        np.copyto(cast, x, casting="unsafe")
        np.copyto(y, cast)
        return y
    if x.dtype == np.float32 and f.min_normal == FORMATS["fp32"].min_normal:
        y = _cut(x, f, mode, draw)
    else:
        y, quantum = _significands(x, f, mode, draw)
        y *= quantum
    if not _fits(x, f):
        _repair(y, x, f, mode)
    return y


def _casts(x: NDArray[Any], f: Format) -> bool:
    """Whether NumPy's cast to a narrower format rounds once, and faster than we do."""
    return f.name == "fp32" or (f.name == "bf16" and x.dtype == np.float32)


def _cut(x: NDArray[Any], f: Format, mode: Mode, draw: Draw) -> NDArray[Any]:
    """Return float32 numbers rounded to a format that has their exponents: the upper bits of them.

    This is right for subnormals as well, and overflows to inf as it should to nearest.
    """
    drop = 24 - f.t
    bits = x.view(np.int32)
    y = _memory.array("y", x, np.int32)
    if draw is not None:
        # The part that is cut off is a fraction of 2^drop: added to a number below that, drawn
        # evenly, it carries as often as it is large.
        low = draw.integers(0, 1 << drop, bits.shape[::-1], dtype=np.uint16).T
        np.add(bits, low, out=y)
    elif mode == "nearest":
        np.right_shift(bits, drop, out=y)
        y &= 1
        y += (1 << (drop - 1)) - 1
        y += bits
    else:
        np.copyto(y, bits)
    y &= -(1 << drop)
    return y.view(np.float32)


def _significands(
    x: NDArray[Any], f: Format, mode: Mode, draw: Draw
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return real numbers rounded to integers below ``2**t`` in magnitude, and their last places.

    Each product of the two is a number rounded as if the format had no largest one; inf and nan
    give nan. All steps but the rounding are exact.
    """
    bits = _INTEGERS[x.dtype]
    place = _memory.array("quantum", x, bits)
    # The power of two below each number, or below the smallest normal one.
    np.bitwise_and(x.view(bits), x.dtype.type(np.inf).view(bits), out=place)
    np.maximum(place, x.dtype.type(f.min_normal).view(bits), out=place)
    quantum: NDArray[Any] = place.view(x.dtype)
    quantum *= x.dtype.type(2.0 ** (1 - f.t))
    y = _memory.array("y", x, x.dtype)
    np.divide(x, quantum, out=y)
    if draw is not None:
        down, drawn = (_memory.array(use, x, x.dtype) for use in ("down", "drawn"))
        draw.random(dtype=x.dtype.type, out=drawn.T)
        np.floor(y, out=down)
        y -= down
        down += y > drawn
        np.copysign(down, x, out=y)
    elif mode == "nearest":
        np.rint(y, out=y)
    else:
        np.trunc(y, out=y)
    return y, quantum


# Integers as wide as a dtype, to look at its bits.
_INTEGERS = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


def _fits(x: NDArray[Any], f: Format) -> bool:
    """Whether all numbers are in the range of a format, hence none is inf or nan."""
    return bool(-f.max <= x.min() and x.max() <= f.max)


def _repair(y: NDArray[Any], x: NDArray[Any], f: Format, mode: Mode) -> None:
    """Put right in `y` what rounding made of the numbers in `x` that a format cannot hold."""
    over = ~(np.abs(y) <= f.max)
    if mode == "nearest":
        limit: Any = f.overflow
    else:
        limit = np.where(np.isinf(x), f.overflow, f.max)
    np.copyto(y, np.copysign(limit, x), where=over, casting="same_kind")
    np.copyto(y, np.nan, where=np.isnan(x))


def _store(x: NDArray[Any], f: Format, mode: Mode, draw: Draw, target: NDArray[Any]) -> None:
    """Round real numbers into an array of a format's storage."""
    narrow = f.min_normal > FORMATS["fp32"].min_normal
    if narrow and _fits(x, f):
        np.copyto(target.view(f"u{f.nbytes}"), _pattern(x, f, mode, draw), casting="unsafe")
    elif f.t >= format_of(x.dtype).t or (mode == "nearest" and _casts(x, f)):
        np.copyto(target, x, casting="unsafe")
    elif f.name == "fp24":
        y = _memory.array("down", x, np.float32)
        np.copyto(y, _rounded(x, f, mode, draw), casting="same_kind")
        for name in _UPPER.names or ():
            target.view(_UPPER)[name] = y.view(_BYTES)[name]
    else:
        # Of the formats stored here, float32 has all numbers: no cast to one rounds a second time.
        y = _rounded(x, f, mode, draw)
        np.copyto(target, y.astype(np.float32, copy=False), casting="unsafe")


def _pattern(x: NDArray[Any], f: Format, mode: Mode, draw: Draw) -> NDArray[Any]:
    """Return the bits of real numbers that fit a format, rounded to it, as wider integers."""
    bits = _INTEGERS[x.dtype]
    mantissa = np.finfo(x.dtype).nmant
    y, quantum = _significands(x, f, mode, draw)
    # The exponent field is one less than its number, and a normal number's leading bit adds one.
    pattern: NDArray[Any] = quantum.view(bits)
    pattern >>= mantissa
    pattern -= int(x.dtype.type(f.min_subnormal).view(bits)) >> mantissa
    pattern <<= f.t - 1
    part = _memory.array("down", x, bits)
    np.copyto(part, np.abs(y, out=y), casting="unsafe")
    pattern += part
    np.right_shift(x.view(bits), 8 * x.itemsize - 1, out=part)
    part &= 1 << (8 * f.nbytes - 1)
    pattern |= part
    return pattern


# The bytes of a float32 in memory, and those that fp24 keeps.
_BYTES = np.dtype([(f"b{i}", "u1") for i in range(4)])
_UPPER = np.dtype([(f"b{i}", "u1") for i in range(1, 4)])


def _load(source: NDArray[Any], f: Format, target: NDArray[Any]) -> None:
    """Copy real numbers of a format's storage into a float array."""
    y = _memory.array("y", source, np.float32)
    if f.name == "fp24":
        y.fill(0)
        for name in _UPPER.names or ():
            y.view(_BYTES)[name] = source.view(_UPPER)[name]
    elif f.nbytes == 1:
        # Three to nine times as fast as the cast.
        index = _memory.array("index", source, np.intp)
        np.copyto(index, source.view(np.uint8))
        np.take(_values(f.name), index.T, out=y.T, mode="clip")
    else:
        y = source
    np.copyto(target, y, casting="unsafe")


@functools.cache
def _values(format: str) -> NDArray[np.float32]:
    """Return the 256 numbers of an 8-bit format."""
    return np.arange(256, dtype=np.uint8).view(get_format(format).storage).astype(np.float32)
