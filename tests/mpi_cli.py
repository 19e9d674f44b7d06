"""Programs that `test_cli_mpi` runs on real ranks: ``mpirun -n P python mpi_cli.py NAME ...``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from taskla.cli import main
from taskla.launch import job


def command(folder: str, *arguments: str) -> None:
    """The command, after a file in a folder that says which process each rank is."""
    Path(folder, f"{job().rank}.pid").write_text(str(os.getpid()), encoding="ascii")
    main(list(arguments))


def many(*lines: str) -> None:
    """One command after another."""
    codes = []
    for line in lines:
        try:
            main(line.split())
        except SystemExit as end:
            codes.append(end.code)
    if job().rank == 0:
        print(json.dumps(codes))


def wrong(*lines: str) -> None:
    """The same, with one number in the result that is wrong, on the rank that has it."""
    from taskla.cli import measure

    check = measure._check

    def spoiled(p: Any, operands: Any, outcome: Any, *others: Any) -> Any:
        if p.op.startswith("lan"):
            return check(p, operands, outcome * (1 + 1e-3), *others)
        result = operands[-1]
        tile = (0, result.nt - 1) if result.uplo == "upper" else (result.mt - 1, 0)
        if tile in result.own_tiles():
            block = result.block(*tile).copy()
            block[0, 0] += 0.1
            result.put(*tile, block)
        return check(p, operands, outcome, *others)

    measure._check = spoiled
    many(*lines)


def kernel(*arguments: str) -> None:
    """The command, with tasks that fail on rank 1."""
    from taskla.engines.execution import Execution

    def fail(*_: Any) -> None:
        raise OSError("a disk is full")

    if job().rank == 1:
        Execution.__call__ = fail  # type: ignore[method-assign]
    main(list(arguments))


def alone(*arguments: str) -> None:
    """The command with an error that rank 1 has by itself, while others wait for it."""
    from taskla.cli import measure

    if job().rank == 1:

        def fail(*_: Any) -> Any:
            raise MemoryError("no memory for a matrix")

        measure.matrices = fail
    main(list(arguments))


def engines(workers: str) -> None:
    """Which engine is made, and by whom it is complained of."""
    import warnings

    import taskla as tla

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = tla.engine("mpi", workers=int(workers))
    found = [(str(w.message), w.category.__name__, Path(w.filename).name) for w in caught]
    everywhere = made._comm.gather(found)  # type: ignore[attr-defined]
    if job().rank == 0:
        print(json.dumps(everywhere))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
