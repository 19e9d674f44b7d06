"""The examples run, and what they compute is right."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from test_batch import mpirun

import taskla as tla
from taskla.traces import read

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def kriging() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kriging", EXAMPLES / "kriging.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up there.
    sys.modules["kriging"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def problem(kriging: ModuleType) -> Any:
    """300 places, 60 held out, and the correlation matrix as one array."""
    places = kriging.choose(*kriging.load(kriging.DATA), 300, 0.2, 3)
    A = kriging.Correlation(places.points, 500.0, 0.6)
    return places, A, A(np.arange(300), np.arange(300))


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", EXAMPLES / "kriging.py", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_all_steps_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = run("--n", "700", "--nb", "64", "--workers", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = {step.pop("step"): step for step in map(json.loads, done.stdout.splitlines())}
    names = "read fit assemble cholesky likelihood predict solve check full scipy"
    assert " ".join(steps) == names
    assert all(step["seconds"] > 0 and step["peak_bytes"] > 1e7 for step in steps.values())
    assert steps["read"] | {"n": 700, "observed": 630} == steps["read"]
    # 10 whole tiles of 64 and a rest of 60: one triangle of tiles, diagonal ones in full.
    assert steps["assemble"]["bytes"] == 8 * (55 * 64**2 + 60 * 700)
    assert steps["check"]["residual"] < 1
    assert steps["scipy"]["difference"] < 1e-12
    assert steps["predict"]["rmse"] < steps["predict"]["rmse_mean"]
    assert 0.85 < steps["predict"]["inside"] < 1
    rate = 700**3 / 3e9 / steps["cholesky"]["seconds"]
    assert steps["cholesky"]["gflops"] == pytest.approx(rate)


def test_a_run_can_be_recorded(tmp_path: Path) -> None:
    done = run("--n", "300", "--nb", "64", "--no-scipy", "--trace", "k.trace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    programs = {recorded.program for recorded in read(tmp_path / "k.trace").runs}
    assert {"potrf", "potrs"} <= programs


def test_a_line_a_step_for_people(tmp_path: Path) -> None:
    done = run("--n", "60", "--no-scipy", "--policy", "prio", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split()[:2] == ["step", "seconds"]
    assert [line.split()[0] for line in lines][-2:] == ["solve", "check"]


@pytest.mark.xdist_group("mpi")
def test_the_same_program_runs_on_ranks(tmp_path: Path) -> None:
    arguments = ("--n", "700", "--nb", "64", "--workers", "1", "--json")
    alone = run(*arguments, cwd=tmp_path)
    job = [*mpirun(), "--oversubscribe", "-n", "2"]
    ranks = subprocess.run(
        [*job, sys.executable, EXAMPLES / "kriging.py", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ranks.returncode == 0, ranks.stderr[-3000:]
    one, two = (
        {step.pop("step"): step for step in map(json.loads, done.stdout.splitlines())}
        for done in (alone, ranks)
    )
    # each line once: only rank 0 prints
    assert list(one) == list(two)
    assert len(two) == len(ranks.stdout.splitlines())
    assert two["cholesky"]["engine"].startswith("MPIEngine(ranks=2, workers=1")
    assert two["assemble"]["bytes"] == one["assemble"]["bytes"]
    for name, figures in {
        "fit": ("range_km", "nugget"),
        "likelihood": ("mean", "sill", "log_likelihood"),
        "predict": ("rmse", "rmse_mean", "inside"),
    }.items():
        for figure in figures:
            assert two[name][figure] == pytest.approx(one[name][figure], rel=1e-9)
    assert two["check"]["residual"] < 1
    assert two["scipy"]["difference"] < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n 19", "--n is 19; allowed: 20 to 34006"),
        ("--n 34007", "--n is 34007"),
        ("--held-out 0.6", "--held-out is 0.6; allowed: above 0, up to 0.5"),
        ("--nb 0", "argument --nb: '0' is not a positive integer"),
        ("--seed -1", "--seed is -1"),
        ("--policy fastest", "invalid choice: 'fastest'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    kriging: ModuleType, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        kriging.main(arguments.split())
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_data_are_all_there(kriging: ModuleType) -> None:
    points, values = kriging.load(kriging.DATA)
    assert points.shape == (kriging.PLACES, 3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-15)
    # The largest place of the file has 24 874 500 inhabitants.
    assert 10 ** values.max() == pytest.approx(24874501)
    assert "CC BY 4.0" in (EXAMPLES / "data" / "README.md").read_text(encoding="utf-8")


def test_places_are_chosen_once_each_and_the_same_for_a_seed(kriging: ModuleType) -> None:
    points = np.random.default_rng(0).normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    values = np.arange(200.0)
    first, again = (kriging.choose(points, values, 50, 0.1, 7) for _ in range(2))
    assert first.observed == 45
    assert len(set(first.values)) == 50
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.points, points[first.values.astype(int)])
    assert set(first.values) != set(kriging.choose(points, values, 50, 0.1, 8).values)


def test_morton_order_keeps_octants_together_and_neighbours_near(kriging: ModuleType) -> None:
    points, _ = kriging.load(kriging.DATA)
    points = points[:5000]
    ordered = points[kriging.morton_order(points)]
    octant = (ordered > 0) @ [1, 2, 4]
    assert np.all(np.diff(octant) >= 0)

    def step(points: Any) -> float:
        return float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())

    assert step(ordered) < 0.1 * step(np.random.default_rng(0).permutation(points))


def test_the_correlation_is_that_of_chordal_distances(kriging: ModuleType, problem: Any) -> None:
    places, A, a = problem
    chords = np.linalg.norm(places.points[:, None] - places.points, axis=2)
    expected = 0.4 * np.exp(-6371.0 / 500.0 * chords)
    np.fill_diagonal(expected, 1)
    # 1 - p.q keeps half of the digits where it is tiny.
    np.testing.assert_allclose(a, expected, rtol=0, atol=1e-7)
    block = A(np.arange(7, 90), np.arange(40, 300))
    np.testing.assert_allclose(block, a[7:90, 40:], rtol=1e-10)
    np.testing.assert_array_equal(block[40 - 7 :].diagonal(), 1)


def test_places_at_the_same_coordinates_differ_by_the_nugget(kriging: ModuleType) -> None:
    point = np.array([0.6, 0.0, 0.8])
    a = kriging.Correlation(np.array([point, point]), 100.0, 0.3)(np.arange(2), np.arange(2))
    np.testing.assert_allclose(a, [[1, 0.7], [0.7, 1]], atol=1e-6)


@pytest.mark.parametrize("nb", [64, 77, 300, 512])
def test_estimates_and_predictions_are_those_of_the_textbook(
    kriging: ModuleType, problem: Any, nb: int
) -> None:
    """Generalised least squares, the profile likelihood and ordinary kriging, by inverses.

    Cressie, Statistics for Spatial Data (1993), section 3.4; the variances are those for a known
    mean.
    """
    places, A, a = problem
    m = places.observed
    z, inverse, one = places.values[:m], np.linalg.inv(a[:m, :m]), np.ones(m)
    mean = one @ inverse @ z / (one @ inverse @ one)
    sill = (z - mean) @ inverse @ (z - mean) / m
    log_det = np.linalg.slogdet(sill * a[:m, :m])[1]
    quadratic = (z - mean) @ inverse @ (z - mean) / sill
    likelihood = -0.5 * (m * np.log(2 * np.pi) + log_det + quadratic)
    prediction = mean + a[m:, :m] @ inverse @ (z - mean)
    variance = sill * (1 - np.sum((a[m:, :m] @ inverse) * a[m:, :m], axis=1))

    L = tla.potrf(A.assemble(nb))
    fitted = kriging.estimate(L, places.values, m)
    assert fitted[:3] == pytest.approx((mean, sill, likelihood), rel=1e-10)
    ours, deviation = kriging.predict(L, fitted, m)
    np.testing.assert_allclose(ours, prediction, rtol=1e-10)
    np.testing.assert_allclose(deviation**2, variance, rtol=1e-10)
    # The values held out were not looked at.
    hidden = places.values.copy()
    hidden[m:] = np.nan
    assert kriging.estimate(L, hidden, m)[:3] == fitted[:3]


def test_the_fit_finds_the_model_that_made_the_values(kriging: ModuleType) -> None:
    rng = np.random.default_rng(5)
    points, _ = kriging.load(kriging.DATA)
    chosen = points[rng.choice(len(points), 1500, replace=False)]
    index = np.arange(len(chosen))
    factor = np.linalg.cholesky(kriging.Correlation(chosen, 800.0, 0.7)(index, index))
    values = 4 + 0.3 * factor @ rng.normal(size=len(chosen))
    found = kriging.fit(kriging.Places(chosen, values, len(chosen)), seed=0)
    assert found.range_km in (400, 800, 1600)
    assert found.nugget in (0.6, 0.7, 0.8)


def test_the_residual_tells_a_right_solution_from_a_wrong_one(
    kriging: ModuleType, problem: Any
) -> None:
    places, A, a = problem
    b = places.values
    with tla.engine("threads", workers=2) as engine:
        x = kriging.solve(tla.potrf(A.assemble(77)), b)
        good = kriging.residual(A, x, b, 77, engine)
        x[11] *= 1 + 1e-9
        bad = kriging.residual(A, x, b, 77, engine)
    norm = np.linalg.norm(a, np.inf) * np.abs(x).max() + np.abs(b).max()
    expected = np.abs(a @ x - b).max() / (2.0**-53 * norm * 300)
    assert bad == pytest.approx(expected, rel=1e-4)
    assert good < 1 < 16 < bad
