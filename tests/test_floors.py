"""Who may import whom: each floor only from floors below it, and nothing in a circle.

The modules are parsed, not imported, so that an import inside a function counts as well.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
# Top-level folders that are imported as taskla.*.
MAPPED = ("distributions", "schedulers", "traces")

# From the ground up; a set is a group of rooms that may import each other, though not in a circle.
FLOORS = (
    (
        {
            "atomic",
            "dependencies",
            "errors",
            "formats",
            "fusion",
            "graph",
            "launch",
            "machine",
            "mixed_precision",
            "operations",
            "pieces",
            "precision",
            "product_formats",
            "reductions",
            "rewriting",
            "rounding",
            "tile",
        },
        {"distributions"},
    ),
    (
        {"flow", "flow_blas", "tiles"},
        {
            "matrix",
            "matrix_files",
            "matrix_folder",
            "matrix_layout",
            "matrix_making",
            "matrix_mixed",
            "matrix_place",
            "matrix_random",
            "matrix_saving",
            "matrix_store",
            "matrix_tiles",
        },
        {"kernels"},
        {"schedulers"},
        {"traces"},
        {"energy"},
        {"coarsening", "exchange", "interchanges", "partial_sums", "placement", "volume"},
    ),
    ({"algorithms"},),
    ({"engines"},),
    (
        {
            "accuracy",
            "lapack",
            "level3",
            "linalg",
            "mixed_run",
            "norms",
            "operands",
            "plan",
            "programs",
            "refinement",
            "refinement_gmres",
            "refinement_tiled",
            "routines",
        },
    ),
    ({"cli"},),
    ({"__main__"},),
)
FLOOR = {room: level for level, groups in enumerate(FLOORS) for group in groups for room in group}
GROUP = {room: group for groups in FLOORS for group in groups for room in group}
# An algorithm is written against the flow alone; a decision knows no thread, clock or process.
ONLY = {"algorithms": {"algorithms", "flow"}}
PURE = {"distributions", "schedulers"}
IMPURE = {"asyncio", "concurrent", "multiprocessing", "queue", "socket", "threading", "time"}
OPTIONAL = {
    "bokeh",
    "cupy",
    "dask",
    "distributed",
    "matplotlib",
    "mkl",
    "mpi4py",
    "networkx",
    "numba",
    "otf2",
}
OPTIONAL |= {"pyarrow", "pynvml"}


def modules(repo: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder in ("taskla", *MAPPED):
        for path in (repo / folder).rglob("*.py"):
            parts = path.relative_to(repo).with_suffix("").parts
            parts = parts if folder == "taskla" else ("taskla", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """What a module imports, as absolute dotted names, and whether that happens on its import."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]

    def visit(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        match node:
            case ast.Import():
                yield from ((alias.name, eager) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) + 1 - node.level] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                yield from ((f"{base}.{alias.name}", eager) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield target, eager
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                eager = False
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for child in node.body:
                    yield from visit(child, False)
                for child in node.orelse:
                    yield from visit(child, eager)
                return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, eager)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def room(module: str) -> str:
    return module.split(".")[1]


def fault(importer: str, imported: str) -> str | None:
    """What is wrong when one room imports another, if anything."""
    if importer == imported:
        return None
    if imported not in ONLY.get(importer, {imported}):
        return f"{importer} may import only {', '.join(sorted(ONLY[importer]))}"
    if FLOOR[imported] > FLOOR[importer]:
        return "upward"
    if FLOOR[imported] == FLOOR[importer] and imported not in GROUP[importer]:
        return "another room of the same floor"
    return None


def violations(repo: Path) -> list[str]:
    """Every breach of the rules in the package under `repo`, one line each."""
    known = modules(repo)
    edges: dict[str, set[str]] = {}
    found = []
    for name in sorted(known.keys() - {"taskla"}):
        if room(name) not in FLOOR:
            found.append(f"{name}: on no floor")
            continue
        edges[name] = set()
        for target, eager in imports(name, known[name]):
            top = target.split(".")[0]
            if top in OPTIONAL and eager:
                found.append(f"{name} -> {top}: optional, so imported inside a function only")
            if top in IMPURE and room(name) in PURE:
                found.append(f"{name} -> {top}: a decision is pure")
            if top != "taskla" or target == "taskla.__version__":
                continue
            # `from a.b import c` names the module a.b.c or something inside a.b.
            module = target if target in known else target.rpartition(".")[0]
            if module not in known or module == "taskla":
                found.append(f"{name} -> {target}: not a module (public names are for users)")
            elif room(module) in FLOOR:
                edges[name].add(module)
                if wrong := fault(room(name), room(module)):
                    found.append(f"{name} -> {module}: {wrong}")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found.append(f"cycle: {' <- '.join(error.args[1])}")
    return found


def test_the_package_keeps_to_its_floors() -> None:
    assert len(modules(REPO)) > 10
    assert violations(REPO) == []


@pytest.mark.parametrize(
    ("files", "breach"),
    [
        ({"graph": "import taskla.flow"}, "taskla.graph -> taskla.flow: upward"),
        ({"graph": "def f():\n    from taskla import flow"}, "taskla.graph -> taskla.flow: upward"),
        ({"graph": "from .flow import TaskFlow"}, "taskla.graph -> taskla.flow: upward"),
        (
            {"kernels/blas": "from ..engines.threads import run"},
            "taskla.kernels.blas -> taskla.engines.threads: upward",
        ),
        (
            {"flow": "from importlib import import_module\nimport_module('taskla.engines')"},
            "taskla.flow -> taskla.engines: upward",
        ),
        (
            {"flow": "from taskla.kernels import blas"},
            "taskla.flow -> taskla.kernels.blas: another room of the same floor",
        ),
        (
            {"graph": "from taskla.distributions import get"},
            "taskla.graph -> taskla.distributions: another room of the same floor",
        ),
        (
            {"algorithms/potrf": "from taskla.graph import TaskGraph"},
            "taskla.algorithms.potrf -> taskla.graph: algorithms may import only algorithms, flow",
        ),
        (
            {"engines/threads": "from taskla import cholesky"},
            "taskla.engines.threads -> taskla.cholesky: not a module",
        ),
        ({"flow": "import taskla.grpah"}, "taskla.flow -> taskla.grpah: not a module"),
        (
            {"../schedulers/eager": "import taskla.engines"},
            "taskla.schedulers.eager -> taskla.engines: upward",
        ),
        (
            {"../schedulers/eager": "def f():\n    from time import perf_counter"},
            "taskla.schedulers.eager -> time: a decision is pure",
        ),
        (
            {"flow": "try:\n    import dask.array\nexcept ImportError:\n    pass"},
            "taskla.flow -> dask: optional, so imported inside a function only",
        ),
        ({"extra": ""}, "taskla.extra: on no floor"),
        (
            {"tile": "from taskla import errors", "errors": "def f():\n    import taskla.tile"},
            "cycle: ",
        ),
        (
            {"kernels/__init__": "from .blas import f", "kernels/blas": "from . import g"},
            "cycle: ",
        ),
    ],
)
def test_a_breach_is_found(tmp_path: Path, files: dict[str, str], breach: str) -> None:
    build(tmp_path, files)
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(breach)


def test_what_is_allowed_is_not_a_breach(tmp_path: Path) -> None:
    build(
        tmp_path,
        {
            "__init__": "from taskla.linalg import cholesky",
            "graph": "from taskla import errors\ndef f():\n    import networkx",
            "flow": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dask",
            "kernels/blas": "from .cholesky import g\nfrom taskla.tile import Tile",
            "algorithms/potrf": "from math import inf\nfrom taskla.flow import TaskFlow",
            "lapack": "from taskla import engines, matrix",
            "linalg": "from taskla import lapack",
            "cli/__init__": "from taskla import __version__\nfrom taskla.linalg import cholesky",
            "../schedulers/eager": "from taskla.graph import TaskGraph",
        },
    )
    assert violations(tmp_path) == []


def build(repo: Path, files: dict[str, str]) -> None:
    """A package with a module or two in most rooms, and the given ones in place of them."""
    rooms = ["__init__", "errors", "tile", "graph", "flow", "matrix", "lapack", "linalg"]
    packages = ["kernels", "algorithms", "engines", "cli", "../schedulers", "../distributions"]
    inner = ["kernels/blas", "kernels/cholesky", "algorithms/potrf", "engines/threads"]
    tree = dict.fromkeys([*rooms, *(f"{package}/__init__" for package in packages), *inner], "")
    for name, source in (tree | files).items():
        path = (repo / "taskla" / f"{name}.py").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
