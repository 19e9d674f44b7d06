"""Checkpoint and restart: a run in pieces, with the tiles saved in between."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numpy.linalg import LinAlgError

from taskla.atomic import check_folder
from taskla.engines.base import TileSource, at_least_one
from taskla.engines.checkpoint_contents import OwnTiles, checksum_of_graph
from taskla.engines.checkpoint_files import (
    Folder,
    Manifest,
    fault_of_file,
    load,
    lock,
    read_manifest,
    write,
)
from taskla.graph import TaskGraph
from taskla.operations import Access
from taskla.pieces import cuts, iterations, piece
from taskla.tile import Tile

__all__ = ["EVERY", "Checkpoints", "Share", "alone"]

Result = TypeVar("Result")

#: Iterations of an algorithm's loop between two checkpoints.
EVERY = 10

#: What a run is told apart by, and how a message calls it.
_SIGNATURE = {
    "name": "algorithm",
    "engine": "engine",
    "ranks": "number of ranks",
    "fuse": "fuse",
    "graph": "tasks (sizes, tile size, data type, options)",
    "owners": "distribution of tiles",
}


class Share(Protocol):
    """Tells all ranks what each of them has to say."""

    def __call__(self, value: Any, error: BaseException | None = None) -> list[Any]:
        """Return the values of all ranks; raise, on all of them, if one has an error."""


def alone(value: Any, error: BaseException | None = None) -> list[Any]:
    """`Share` where there is one process."""
    if error is not None:
        raise error
    return [value]


class Checkpoints:
    """Saves what runs have done, and resumes one that was cut short.

    A run is cut into pieces of some iterations of its algorithm's loop; after each piece but the
    last the tiles that the run has written are saved, and when the run is done what was saved is
    removed. The same program started again computes the runs before the one that was cut short
    once more, and resumes that one; the result has the same bits. Of a run the two newest
    checkpoints are kept, and a new one appears whole or not at all.

    Parameters
    ----------
    folder : path
        Made if it is missing; all ranks see the same one. Files of others in it are left alone.
    every : int
        Iterations between two checkpoints.
    engine : str
        The engine's name.
    fuse : int
        Of the engine: results depend on it.
    rank, ranks : int
    share : Share
        How ranks agree.

    Attributes
    ----------
    resumed : bool
        Whether a run was resumed, and so was shorter than it is.

    Raises
    ------
    OSError
        When `folder` is not one, or nothing can be written to it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int,
        *,
        engine: str,
        fuse: int,
        rank: int = 0,
        ranks: int = 1,
        share: Share = alone,
    ) -> None:
        self.path = Path(folder).resolve()
        self.every = every
        self.rank = rank
        self.ranks = ranks
        self.share = share
        self.settings = {"engine": engine, "ranks": ranks, "fuse": fuse}
        self.resumed = False
        self._run = 0
        self.path.mkdir(parents=True, exist_ok=True)
        check_folder(self.path)

    @classmethod
    def wanted(
        cls, folder: str | os.PathLike[str] | None, every: Any, **settings: Any
    ) -> Checkpoints | None:
        """Return what an engine's options ask for, None when no folder is given.

        Raises
        ------
        ValueError
            When `every` is not an integer of at least 1, or is given without a folder.
        """
        if every is not None:
            every = at_least_one("checkpoint_every", every)
            if folder is None:
                raise ValueError(
                    f"checkpoint_every is {every}; it is for checkpoints: give checkpoint as well"
                )
        return None if folder is None else cls(folder, every or EVERY, **settings)

    def run(
        self,
        graph: TaskGraph,
        matrices: Sequence[TileSource],
        run: Callable[[TaskGraph, Sequence[TileSource]], None],
    ) -> None:
        """Run a graph in pieces, from where it was cut short.

        Parameters
        ----------
        graph, matrices
            See `Engine.run`.
        run : callable
            ``run(graph, matrices)`` runs a piece.

        Raises
        ------
        ValueError
            When the folder has a checkpoint of another run or of other data, or none that is whole.
        OSError
            When a checkpoint cannot be written or read, or another run is using the folder.
        Exception
            What `run` raises.
        """
        begins = iterations(graph)
        last = begins.size - 1
        if last < 2:
            run(graph, matrices)
            self._run += 1
            return
        at = cuts(graph, self.every)
        if not at and last > self.every and self.rank == 0:
            warnings.warn(
                f"{graph.name or 'a graph'} cannot be cut into pieces, as its scratch tiles are in "
                "use from one iteration to the next: there will be no checkpoints of it",
                RuntimeWarning,
                stacklevel=4,
            )
        with self._locked():
            state = _State(self, graph, matrices, self._run, last)
            done = state.resume()
            self.resumed |= done > 0
            try:
                for end in [*(iteration for iteration in at if iteration > done), last]:
                    run(piece(graph, int(begins[done]), int(begins[end])), matrices)
                    done = end
                    if end < last:
                        state.save(end)
            except LinAlgError:
                # so it would be again: the run is over
                self._over(state)
                raise
            self._over(state)

    def _over(self, state: _State) -> None:
        state.discard()
        self._run += 1

    def all(self, action: Callable[[], Result]) -> list[Result]:
        """Do something on all ranks and return what it gave on each; raise if one fails."""
        value: Result | None = None
        error: BaseException | None = None
        try:
            value = action()
        except BaseException as raised:
            error = raised
        return self.share(value, error)

    def first(self, action: Callable[[], Result]) -> Result:
        """Do something on rank 0 and return to all what it gave; raise if it fails."""
        return self.all(lambda: action() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs out of the folder, where the system can."""
        held: list[int] = []
        try:
            self.first(lambda: held.extend(lock(self.path)))
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)


class _State:
    """What one run saves and resumes from."""

    def __init__(
        self,
        whole: Checkpoints,
        graph: TaskGraph,
        matrices: Sequence[TileSource],
        number: int,
        last: int,
    ) -> None:
        self._whole = whole
        self._folder = Folder(whole.path, number)
        self._graph = graph
        self._tiles = OwnTiles(graph, matrices, whole.rank)
        self._begins = iterations(graph)
        self._last = last
        self._signature: Manifest = {
            "name": graph.name,
            **whole.settings,
            "graph": checksum_of_graph(graph, whole.every),
            "owners": self._tiles.owners(),
        }
        self._contents: list[str] = whole.all(self._tiles.contents)

    def save(self, iteration: int) -> None:
        """Write a checkpoint; those before the one before it are removed."""
        whole, folder = self._whole, self._folder

        def own() -> Manifest:
            if whole.rank == 0:
                folder.keep([step for step, _ in folder.found()[:1]])
            file = folder.file(folder.unfinished(iteration), whole.rank)
            return write(file, self._written(iteration))

        files = whole.all(own)
        manifest = {
            **self._signature,
            "iteration": iteration,
            "iterations": self._last,
            "files": files,
            "contents": self._contents,
        }
        whole.first(lambda: folder.finish(iteration, manifest))

    def resume(self) -> int:
        """Bring the tiles to the newest checkpoint that is whole; return its iteration or 0."""
        whole = self._whole
        found = whole.first(self._manifests)
        faults: list[str] = []
        for manifest in found:
            fault = manifest if isinstance(manifest, str) else self._fault(manifest)
            if not (fault or isinstance(manifest, str)):
                iteration = int(manifest["iteration"])
                self._load(iteration, damaged=bool(faults))
                return iteration
            faults.append(str(fault))
            self._say(f"a checkpoint is damaged and is not used: {fault}")
        if faults:
            raise ValueError(
                f"{whole.path}: no checkpoint of run {self._folder.run} is whole ({faults[0]}); "
                "remove its folders to start anew"
            )
        return 0

    def discard(self) -> None:
        """Remove all checkpoints of the run."""
        if self._whole.rank == 0:
            try:
                self._folder.keep([])
            except OSError as error:
                # the results are there, and what is left belongs to them
                self._say(f"a checkpoint could not be removed: {error}")

    def _manifests(self) -> list[Manifest | str]:
        self._folder.clear()
        expected = {**self._signature, "iteration": 0, "iterations": 0}
        return [read_manifest(path, expected) for _, path in self._folder.found()]

    def _fault(self, manifest: Manifest) -> str | None:
        """Return what is wrong with the files of a checkpoint; refuse that of another run."""
        whole = self._whole
        mine = self._signature
        other = [words for name, words in _SIGNATURE.items() if manifest[name] != mine[name]]
        if other:
            raise ValueError(
                f"{whole.path} has a checkpoint of another run: of {manifest['name']} by the "
                f"engine {manifest['engine']!r} on {manifest['ranks']} ranks, and this run has "
                f"another {', '.join(other)}; give another folder, or remove what is in this one"
            )
        if manifest["contents"] != self._contents:
            raise ValueError(
                f"{whole.path} has a checkpoint of the same algorithm on other data: the matrices "
                "have other contents; give another folder, or remove what is in this one"
            )
        if not 0 < manifest["iteration"] < self._last:
            return f"iteration is {manifest['iteration']} of {self._last}"
        file = self._file(manifest["iteration"])
        faults = whole.all(lambda: fault_of_file(file, manifest["files"][whole.rank]))
        return next((fault for fault in faults if fault is not None), None)

    def _load(self, iteration: int, damaged: bool) -> None:
        self._whole.all(lambda: load(self._file(iteration), self._written(iteration)))
        if damaged:
            # else the next ones to be kept would be those
            self._whole.first(lambda: self._folder.keep([iteration]))
        name = self._graph.name or "a run"
        self._say(
            f"resumed {name} from iteration {iteration} of {self._last} "
            f"({self._folder.checkpoint(iteration)})"
        )

    def _file(self, iteration: int) -> Path:
        return self._folder.file(self._folder.checkpoint(iteration), self._whole.rank)

    def _written(self, iteration: int) -> Iterator[Tile]:
        """The tiles of this rank that the iterations before one write."""
        graph = self._graph
        end = graph.indptr[graph.calls[self._begins[iteration]]]
        written = graph.tiles[:end][graph.modes[:end] != Access.R]
        return (tile for _, tile in self._tiles.of(written))

    def _say(self, words: str) -> None:
        if self._whole.rank == 0:
            print(f"taskla: {words}", file=sys.stderr, flush=True)
