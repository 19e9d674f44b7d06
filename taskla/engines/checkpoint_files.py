"""Checkpoints in a folder: their names, their contents, and what is refused.

A checkpoint, version 1, is a folder ``taskla-run-<run>-iteration-<iteration>`` with a file
``rank-<rank>`` for each rank and ``manifest.json``. A rank's file holds the tiles that it owns and
that the run has written so far, one after the other by tile number, each column by column. The
manifest says what was run, on what, and has the size and checksum of each file. It all is written
under another name, which begins with a dot, and renamed when it is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import flush
from taskla.tile import Tile

__all__ = [
    "Folder",
    "Manifest",
    "digest",
    "fault_of_file",
    "load",
    "lock",
    "raw",
    "read_manifest",
    "write",
]

Manifest = dict[str, Any]

_FORMAT = "taskla-checkpoint"
_VERSION = 1
_MANIFEST = "manifest.json"
_LONGEST_MANIFEST = 2**24
_NAME = re.compile(r"(\.?)taskla-run-(\d{4,})-iteration-(\d{6,})")


class Folder:
    """Where the checkpoints of one run are; other files there are left alone.

    Parameters
    ----------
    path : Path
    run : int
        Number of the run in its program.
    """

    def __init__(self, path: Path, run: int) -> None:
        self.path = path
        self.run = run

    def checkpoint(self, iteration: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / f"taskla-run-{self.run:04d}-iteration-{iteration:06d}"

    def unfinished(self, iteration: int) -> Path:
        """Return the folder of a checkpoint that is being written."""
        whole = self.checkpoint(iteration)
        return whole.with_name(f".{whole.name}")

    def file(self, checkpoint: Path, rank: int) -> Path:
        """Return the file of a rank in a checkpoint."""
        return checkpoint / f"rank-{rank:04d}"

    def found(self) -> list[tuple[int, Path]]:
        """Return the iterations that have checkpoints, the newest first."""
        return sorted(self._entries(""), reverse=True)

    def clear(self) -> None:
        """Remove what a crash has left of checkpoints half written or removed."""
        for _, path in self._entries("."):
            shutil.rmtree(path)

    def keep(self, iterations: Iterable[int]) -> None:
        """Remove the other checkpoints of the run."""
        kept = set(iterations)
        for iteration, path in self.found():
            if iteration not in kept:
                # half removed it would pass for a damaged one
                aside = self.unfinished(iteration)
                path.rename(aside)
                shutil.rmtree(aside)

    def _entries(self, dot: str) -> list[tuple[int, Path]]:
        names = [(_NAME.fullmatch(path.name), path) for path in self.path.iterdir()]
        return [
            (int(name[3]), path)
            for name, path in names
            if name and name[1] == dot and int(name[2]) == self.run
        ]

    def finish(self, iteration: int, manifest: Manifest) -> None:
        """Put a checkpoint, of which all ranks have written their files, in its place.

        Raises
        ------
        OSError
            When the files of other ranks are not here, or something cannot be written.
        """
        new, whole = self.unfinished(iteration), self.checkpoint(iteration)
        for rank, entry in enumerate(manifest["files"]):
            file = self.file(new, rank)
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                raise OSError(
                    f"{self.path}: the file of rank {rank} is not seen by rank 0; the folder of "
                    "checkpoints must be on a file system that all ranks share"
                )
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **manifest}, indent=1)
        (new / _MANIFEST).write_text(text + "\n", encoding="utf-8")
        flush(new / _MANIFEST)
        flush(new)
        if whole.exists():  # damaged: a whole one would have been resumed from
            shutil.rmtree(whole)
        new.rename(whole)
        flush(self.path)


def read_manifest(checkpoint: Path, expected: Manifest) -> Manifest | str:
    """Return the manifest of a checkpoint, or what is wrong with it.

    Parameters
    ----------
    checkpoint : Path
    expected : dict
        Names and values of the same types as the manifest's.
    """
    file = checkpoint / _MANIFEST
    try:
        with file.open("rb") as stream:
            text = stream.read(_LONGEST_MANIFEST + 1)
        manifest = json.loads(text)
    except FileNotFoundError:
        return f"{file} is missing"
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        return f"{file}: not JSON: {error}"
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        return f"{file}: not the manifest of a checkpoint (format {_FORMAT!r})"
    if manifest.get("version") != _VERSION:
        return f"{file}: version is {manifest.get('version')!r}; this program reads {_VERSION}"
    for name, value in expected.items():
        if type(manifest.get(name)) is not type(value):
            return f"{file}: {name} is {manifest.get(name)!r}"
    ranks = manifest.get("ranks")
    for name in ("files", "contents"):
        if not isinstance(manifest.get(name), list) or len(manifest[name]) != ranks:
            return f"{file}: {name} are not those of {ranks} ranks"
    return manifest


def digest() -> Any:
    """Return what takes bytes to a checksum."""
    return blake2b(digest_size=16)


def raw(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a tile, column by column."""
    return np.ascontiguousarray(array.T).reshape(-1).view(np.uint8)


def write(path: Path, tiles: Iterable[Tile]) -> Manifest:
    """Write tiles to a file, through to the disk; return its size and checksum."""
    path.parent.mkdir(exist_ok=True)
    check, size = digest(), 0
    with path.open("wb") as stream:
        for tile in tiles:
            data = raw(tile.array)
            check.update(data)
            stream.write(data.data)
            size += data.size
    flush(path)
    return {"bytes": size, "checksum": check.hexdigest()}


def fault_of_file(path: Path, entry: Any) -> str | None:
    """Return what is wrong with a rank's file, None when it is as the manifest has it."""
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "checksum"}:
        return f"{path}: the manifest has {entry!r} for it"
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{path} has {size} bytes, and had {entry['bytes']} when it was written"
    with path.open("rb") as stream:
        if file_digest(stream, digest).hexdigest() != entry["checksum"]:
            return f"{path} is not as it was written: its checksum is another"
    return None


def load(path: Path, tiles: Iterable[Tile]) -> None:
    """Read tiles from a file that `write` has written for tiles of the same shapes and types."""
    with path.open("rb") as stream:
        for tile in tiles:
            array = tile.array
            data = np.frombuffer(stream.read(array.nbytes), array.dtype)
            array[...] = data.reshape(array.shape, order="F")


def lock(folder: Path) -> list[int]:
    """Lock a folder until the descriptor that is returned is closed; none if it cannot be done."""
    try:
        import fcntl
    except ImportError:
        return []
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(f"{folder}: another run is using this folder of checkpoints") from None
    except OSError:
        # not every file system can
        os.close(descriptor)
        return []
    return [descriptor]
