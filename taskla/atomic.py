"""Files that appear whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["beside", "check_file", "check_folder", "flush", "replacing", "swap"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a name to write a file to, and put it in place of `path` when all went well.

    A link stays, what it points to is replaced.

    Raises
    ------
    OSError
        As `check_file`.
    """
    check_file(path)
    path = Path(path).resolve()
    with beside(path) as temporary:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse a path where no file can be written.

    Raises
    ------
    OSError
        When the parent folder does not exist or cannot be written to.
    FileExistsError
        When `path` exists and is not a file.
    """
    path = Path(path).resolve()
    check_folder(path.parent)
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path}: exists and is not a file; it is not replaced")


def check_folder(path: Path) -> None:
    """Refuse a folder in which nothing can be written.

    Raises
    ------
    FileNotFoundError
        When it does not exist.
    PermissionError
        When it is read-only.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path}: nothing can be written to this folder")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give an unused name beside `path`, and remove what is left there at the end."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def swap(new: Path, path: Path) -> None:
    """Rename `new` to `path`; what was there is put aside, then removed, or put back on failure."""
    if not path.exists():
        new.rename(path)
        return
    with beside(path) as old:
        try:
            path.rename(old)
            new.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
