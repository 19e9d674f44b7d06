"""The examples run, and what they compute is right."""

import importlib
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
from taskla import energy
from taskla.traces import read

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    """An example as a module, which finds its neighbours as a script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def kriging() -> ModuleType:
    return example("kriging")


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    return example("accuracy")


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
    assert steps["assemble"]["tiles"] == {"fp64": 66}
    assert steps["check"]["residual"] < 1
    assert steps["scipy"]["difference"] < 1e-12
    assert steps["predict"]["rmse"] < steps["predict"]["rmse_mean"]
    assert 0.85 < steps["predict"]["inside"] < 1
    rate = 700**3 / 3e9 / steps["cholesky"]["seconds"]
    assert steps["cholesky"]["gflops"] == pytest.approx(rate)


def test_mixed_precision_is_put_beside_double(tmp_path: Path) -> None:
    done = run("--n", "1500", "--nb", "100", "--tol", "1e-6", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = list(map(json.loads, done.stdout.splitlines()))
    each = "assemble cholesky likelihood predict error"
    assert " ".join(step["step"] for step in found) == f"read fit {each} {each} compare"
    wide, low = ({step["step"]: step for step in found[k : k + 5]} for k in (2, 7))
    compare = found[-1]
    assert wide["assemble"]["tiles"] == {"fp64": 120}
    assert low["assemble"]["precision"] == "adaptive:1e-06"
    tiles = low["assemble"]["tiles"]
    assert tiles["fp64"] == 15
    assert tiles["fp16"] > 0
    assert sum(tiles.values()) == 120
    sizes = {"fp64": 8, "fp32": 4, "fp16": 2}
    assert low["assemble"]["bytes"] == sum(100**2 * sizes[f] * tiles[f] for f in tiles)
    assert compare["share_of_bytes"] == low["assemble"]["bytes"] / wide["assemble"]["bytes"] < 0.6
    # a task in the wrong precision would be seen on either side
    assert wide["error"]["error"] < 1e-14 < 1e-9 < low["error"]["error"] < 3e-6
    assert compare["error"] == [step["error"]["error"] for step in (wide, low)]
    likelihoods = [step["likelihood"]["log_likelihood"] for step in (wide, low)]
    assert compare["log_likelihood_difference"] == likelihoods[1] - likelihoods[0]
    assert 0 < abs(likelihoods[1] / likelihoods[0] - 1) < 1e-6
    assert 0 < compare["prediction_difference"] < 1e-5
    assert compare["speedup"] > 0
    assert all(busy > 0 for busy in compare["busy"])
    # meters that can be read give joules, others nothing
    readable = bool(energy.find("meters").meters)
    assert [joules is not None for joules in compare["joules"]] == [readable] * 2
    if sys.platform == "linux":
        assert all(0 <= grown < 1e9 for grown in compare["grown"])


def test_the_two_precisions_make_a_table_for_people(tmp_path: Path) -> None:
    formats = ("--tol", "1e-3", "--formats", "fp64,bf16,fp32")
    done = run("--n", "300", "--nb", "50", *formats, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _, table = done.stdout.split("\n\n")
    lines = {line[:19].strip(): line[19:].split() for line in table.splitlines()}
    assert lines[""] == ["fp64", "adaptive:0.001"]
    assert list(lines)[1:3] == ["assembly, s", "factorisation, s"]
    assert lines["factorisation, s"][-3:] == ["times", "as", "fast"]
    assert lines["tiles"][:2] == ["21", "fp64"]
    assert set(lines["tiles"][2:]) & {"bf16", "fp16"} == {"bf16"}
    assert float(lines["matrix, GB"][1]) < float(lines["matrix, GB"][0])
    for name in ("|A - L L^T| / |A|", "log-likelihood", "RMSE of predictions"):
        assert np.isfinite(np.array(lines[name][:2], float)).all()


def test_the_error_of_a_factor_is_that_of_the_whole_matrix(
    kriging: ModuleType, problem: Any
) -> None:
    _, A, a = problem
    with tla.engine("threads", workers=2) as engine:
        L = tla.potrf(A.assemble(77, tla.PrecisionMap("adaptive", 1e-4)))
        found = kriging.factor_error(A, L, engine, probes=300)
    factor = L.to_array()
    expected = np.linalg.norm(a - factor @ factor.T) / np.linalg.norm(a)
    assert found == pytest.approx(expected, rel=0.15)


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
        ("--tol 2", "--tol, --formats: tol is 2.0; with the widest format fp64 it must be"),
        ("--tol 1e-6 --formats fp64,fp9", "--tol, --formats: format is 'fp9'; allowed: fp64,"),
        ("--formats fp64,fp32", "--formats is for --tol"),
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


# -- the covariances of a Matern field -------------------------------------------------------------


def test_the_tiles_of_matern_matrices_have_the_formats_of_the_field(accuracy: ModuleType) -> None:
    """The tiles by format of an independent script, for 16 x 16 tiles and a range of 0.03."""
    found = list(accuracy.rows(1024, 64, [0.03]))
    assert [row["tol"] for row in found] == [None, 1e-4, 1e-6, 1e-8]
    assert [
        tuple(row["tiles"].get(name, 0) for name in ("fp64", "fp32", "fp16")) for row in found
    ] == [
        (136, 0, 0),
        (16, 24, 96),
        (16, 42, 78),
        (40, 58, 38),
    ]
    for row in found:
        sizes = {"fp64": 8, "fp32": 4, "fp16": 2}
        assert row["bytes"] == sum(64**2 * sizes[f] * k for f, k in row["tiles"].items())
        assert row["share"] == row["bytes"] / (136 * 64**2 * 8)
        assert row["seconds"] > 0
    wide, *low = found
    assert wide["error"] < 1e-14
    for row in low:
        assert row["tol"] / 1e3 < row["error"] < 3 * row["tol"]
        assert 0 < row["log_det_error"] < row["tol"]


def test_the_norm_of_a_matern_matrix_is_that_of_an_independent_script(accuracy: ModuleType) -> None:
    index = np.arange(4096)
    a = accuracy.Covariance(accuracy.morton_grid(64), 0.03)(index, index)
    assert np.linalg.norm(a) == pytest.approx(154.33551765, rel=1e-10)


def test_a_grid_in_morton_order_has_each_point_once(accuracy: ModuleType) -> None:
    points = accuracy.morton_grid(6)
    assert len(np.unique(points, axis=0)) == 36
    np.testing.assert_allclose(points[:4] * 6, [[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [1.5, 1.5]])


def test_what_is_not_positive_definite_any_more_is_told(
    accuracy: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ("--formats", "fp64,fp8_e5m2", "--tol", "0.5", "--beta", "0.3")
    accuracy.main(["--n", "256", "--nb", "16", *formats])
    *_, line = capsys.readouterr().out.splitlines()
    assert "not positive definite" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n 1000", "--n is 1000; it must be a square, at least 16"),
        ("--tol 2", "tol is 2.0"),
        ("--repeat 0", "--repeat is 0"),
    ],
)
def test_a_wrong_option_of_accuracy_is_one_clear_line(
    accuracy: ModuleType, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        accuracy.main(arguments.split())
    assert message in capsys.readouterr().err.splitlines()[-1]
