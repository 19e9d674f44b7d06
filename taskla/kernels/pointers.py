"""The C functions of BLAS and LAPACK by pointer, and the scalars that they take by address.

SciPy exports its BLAS and LAPACK to C as capsules (``scipy.linalg.cython_blas``), with 32-bit
integers whatever library is below. Called through :func:`ctypes.CFUNCTYPE` they run without the
GIL, in place and with leading dimensions; a call costs about a microsecond. With
``TASKLA_BLAS=mkl`` in the environment the same routines come from Intel's MKL.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

__all__ = [
    "CHAR",
    "INFO",
    "INT",
    "Routine",
    "Scalar",
    "function",
    "is_complex",
    "library",
    "mkl_routine",
]

#: a routine of BLAS or LAPACK; every argument is an address
Routine: TypeAlias = Callable[..., Any]

#: BLAS's letter of a type, by NumPy's name of it
LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
#: bytes of an element
SIZES = {"s": 4, "d": 8, "c": 8, "z": 16}

_PARTS: dict[str, type[ctypes.c_float] | type[ctypes.c_double]] = {
    "s": ctypes.c_float,
    "d": ctypes.c_double,
    "c": ctypes.c_float,
    "z": ctypes.c_double,
}

# The number of arguments of each routine, without its type letter.
_BLAS = {
    "gemm": 13,
    "symm": 12,
    "hemm": 12,
    "syrk": 10,
    "herk": 10,
    "trsm": 11,
    "trmm": 11,
    "scal": 4,
    "ger": 9,
    "geru": 9,
    "asum": 3,
}
_LAPACK = {
    "potrf": 5,
    "trtri": 6,
    "lauum": 5,
    "getrf": 6,
    "laswp": 7,
    "lacpy": 7,
    "laset": 7,
    "lantr": 8,
}
# These return a number, of the real type.
_FUNCTIONS = {"asum", "lantr"}


class _Integers(dict[int, int]):
    """Integer -> address of a C int that holds it, made on first use and kept for good."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: list[ctypes.c_int] = []

    def __missing__(self, value: int) -> int:
        integer = ctypes.c_int(value)
        if integer.value != value:
            raise ValueError(f"{value} does not fit the 32-bit integers of BLAS")
        # Two threads may both come here: each address stays valid, whichever is found later.
        self._alive.append(integer)
        self[value] = ctypes.addressof(integer)
        return self[value]


class _Characters(dict[str, int]):
    """One-letter option -> address of a C char that holds it."""

    def __init__(self, letters: str) -> None:
        self._alive = [ctypes.c_char(letter.encode()) for letter in letters]
        super().__init__(zip(letters, map(ctypes.addressof, self._alive), strict=True))


class _Info(threading.local):
    """The ``info`` argument of LAPACK: one C int a thread."""

    def __init__(self) -> None:
        self.value = ctypes.c_int()
        self.at = ctypes.addressof(self.value)


class Workspace(threading.local):
    """A square matrix of BLAS's type `letter` and the given order, one a thread.

    Attributes
    ----------
    at : int
        Address of the first element; the leading dimension is the order.
    """

    def __init__(self, letter: str, order: int) -> None:
        self._memory = (ctypes.c_char * (order * order * SIZES[letter]))()
        self.at = ctypes.addressof(self._memory)


class Scalar:
    """A number of BLAS's type `letter` that stays in memory as long as this object lives.

    A complex one with a zero imaginary part serves where a routine wants a real one, too (`herk`).

    Parameters
    ----------
    letter : {"s", "d", "c", "z"}
        The type.
    value : complex
        The number; the imaginary part is dropped for real types.

    Attributes
    ----------
    at : int
        Its address.
    """

    __slots__ = ("_memory", "at")

    def __init__(self, letter: str, value: complex) -> None:
        value = complex(value)
        self._memory = (_PARTS[letter] * 2)(value.real, value.imag)
        self.at = ctypes.addressof(self._memory)


INT = _Integers()
CHAR = _Characters("NTCLURG1")
INFO = _Info()


def is_complex(letter: str) -> bool:
    """Return whether BLAS's type `letter` is complex."""
    return letter in "cz"


@dataclass(frozen=True)
class Library:
    """Where the routines come from.

    Attributes
    ----------
    name : {"scipy", "mkl"}
        The value of TASKLA_BLAS that chooses it.
    find : callable
        From a routine's name with its type letter to its address.
    """

    name: str
    find: Callable[[str], int]


@cache
def library() -> Library:
    """Return the library that the environment variable TASKLA_BLAS names, loading it if needed.

    Raises
    ------
    ValueError
        When TASKLA_BLAS is neither unset, empty, "scipy" nor "mkl".
    ImportError
        When it is "mkl" and MKL is not installed.
    """
    name = os.environ.get("TASKLA_BLAS") or "scipy"
    if name not in _LOADERS:
        allowed = ", ".join(repr(known) for known in _LOADERS)
        raise ValueError(f"TASKLA_BLAS is {name!r}; allowed: {allowed} (default 'scipy')")
    return _LOADERS[name]()


@cache
def function(name: str) -> Routine:
    """Return a routine of BLAS or LAPACK as a callable that takes addresses.

    Parameters
    ----------
    name : str
        With its type letter: "dgemm".

    Returns
    -------
    callable
        Takes the routine's arguments as addresses (int), checks nothing, releases the GIL.
    """
    letter, stem = name[0], name[1:]
    result = _PARTS[letter] if stem in _FUNCTIONS else None
    arguments = [ctypes.c_void_p] * {**_BLAS, **_LAPACK}[stem]
    return ctypes.CFUNCTYPE(result, *arguments)(library().find(name))


def _load_scipy() -> Library:
    from scipy.linalg import cython_blas, cython_lapack

    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

    def find(name: str) -> int:
        module = cython_blas if name[1:] in _BLAS else cython_lapack
        capsule = module.__pyx_capi__[name]
        address = get_pointer(capsule, get_name(capsule))
        assert isinstance(address, int)
        return address

    return Library("scipy", find)


def mkl_routine(name: str) -> int:
    """Return the address of a routine of MKL, whichever library serves otherwise.

    Raises
    ------
    ImportError
        When MKL is not installed.
    AttributeError
        When it has no such routine.
    """
    return _mkl().find(name)


@cache
def _mkl() -> Library:
    # Parallelism is that of the tasks. MKL reads this when it is loaded.
    os.environ["MKL_THREADING_LAYER"] = "SEQUENTIAL"
    try:
        files = importlib.metadata.files("mkl") or []
        runtime = next(file for file in files if "mkl_rt." in file.name)
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise ImportError(
            "TASKLA_BLAS=mkl and TASKLA_BF16=mkl need the package mkl: pip install 'taskla[mkl]'",
            name="mkl",
        ) from None
    mkl = ctypes.CDLL(str(runtime.locate()))
    # 0 is MKL_INTERFACE_LP64: 32-bit integers, even where MKL_INTERFACE_LAYER asks for others.
    mkl.MKL_Set_Interface_Layer(0)

    def find(name: str) -> int:
        address = ctypes.cast(getattr(mkl, name), ctypes.c_void_p).value
        assert address is not None
        return address

    return Library("mkl", find)


_LOADERS: dict[str, Callable[[], Library]] = {"scipy": _load_scipy, "mkl": _mkl}
