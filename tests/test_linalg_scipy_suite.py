"""SciPy's and NumPy's own tests, run with taskla's functions in the place of theirs.

A pytest plugin replaces the functions before a test module can import them, in another process.
Once they are as they are: nearly all matrices are small enough to be SciPy's. Once tiles are 2 x 2:
hardly any is.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
import functools

import numpy
import scipy.linalg

from taskla import engine, linalg
from taskla.linalg import _inputs, _products

NB = {nb}
SCIPY = "cho_factor cho_solve cholesky det inv lu lu_factor lu_solve norm solve solve_triangular"


def replacement(name):
    function = getattr(linalg, name)
    if NB is None or name == "norm":
        return function
    return functools.wraps(function)(functools.partial(function, nb=NB))


if NB is not None:
    _inputs.ONE_TILE = NB
    _products.LARGE = NB
    # Thousands of tiny graphs: no threads for each.
    engine("threads", workers=1).set_default()
for name in SCIPY.split():
    setattr(scipy.linalg, name, replacement(name))
numpy.linalg.slogdet = replacement("slogdet")
# A partial object is not bound to the class that holds it; nor is NumPy's function.
numpy.matmul = functools.partial(linalg.matmul, nb=NB)
"""

# Whole files, or what in them concerns the replaced functions.
SUITES = {
    "scipy.linalg": (
        "test_decomp_cholesky.py",
        "test_decomp_lu.py",
        "test_basic.py",
        "test_batch.py",
        "test_solvers.py",
    ),
    "numpy": (
        "linalg/tests/test_linalg.py::TestDet",
        "_core/tests/test_multiarray.py::TestMatmul",
    ),
}

# What cannot hold by tiles, with the reason.
EXCEPT = {
    "TestLUFactor and test_hrectangular_complex": "two factorisations are compared to a relative "
    "1e-7, and one element is zero but for rounding, which depends on the order of summation",
    "test_solve[float32-bdim2]": "single-precision solutions are compared to 3e-6, which is less "
    "than their condition allows; SciPy's own error is 1.9e-6 there",
    "test_lu_solve[float32-bdim2]": "the same matrices",
}


def paths(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    if package == "scipy.linalg":
        folder /= "tests"
    found = [folder / name for name in SUITES[package]]
    for path in found:
        if not Path(str(path).partition("::")[0]).exists():
            pytest.skip(f"{package} is installed without its tests")
    return [str(path) for path in found]


@pytest.mark.parametrize("nb", [None, 2], ids=["as_is", "tiles_of_2"])
@pytest.mark.parametrize(("package", "least"), [("scipy.linalg", 3000), ("numpy", 60)])
def test_the_tests_of(package: str, least: int, nb: int | None, tmp_path: Path) -> None:
    (tmp_path / "taskla_in_place.py").write_text(PLUGIN.format(nb=nb))
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "taskla_in_place", "-p", "no:cacheprovider"),
        *("-c", os.devnull, "--rootdir", str(tmp_path), "--tb=short", "-W", "ignore"),
        *paths(package),
    ]
    if nb is not None:
        command += ["-k", " and ".join(f"not ({names})" for names in EXCEPT)]
    environment = dict(os.environ, PYTHONPATH=str(tmp_path), OPENBLAS_NUM_THREADS="1")
    environment.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    report = run.stdout[-6000:] + run.stderr[-2000:]
    assert run.returncode == 0, report
    # "2426 passed, 2 skipped in 4.00s"
    passed = [
        int(before)
        for before, after in zip(report.split(), report.split()[1:], strict=False)
        if after.startswith("passed")
    ]
    assert passed[-1] >= least, report
