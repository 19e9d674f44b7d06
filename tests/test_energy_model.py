"""Models: figures per flop, byte and second, from files that anyone may have written."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from taskla.energy import Model, find
from taskla.energy.model import Figure, significand
from taskla.energy.settings import read_settings
from taskla.formats import FORMATS

MINE = """
default = "two"
[models.one]
flop.fp32 = { picojoules = 3, source = "a paper" }
byte = { picojoules = 0, source = "all in the cache" }
[models.two]
about = "with static power"
flop.fp64 = { picojoules = 2.5, source = "a paper" }
flop.fp16 = { picojoules = 0.5, source = "another" }
byte = { picojoules = 100.0, source = "measured" }
static = { watts = 20, watts_per_worker = 1.5, source = "measured" }
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TASKLA_ENERGY", raising=False)
    file = tmp_path / "mine.toml"
    file.write_text(MINE)
    return file


def model(spec: str) -> Model:
    found = find(spec).model
    assert found is not None
    return found


# -- figures ---------------------------------------------------------------------------------------


def test_the_processors_model_is_that_of_the_published_figures() -> None:
    """28 nm: 40 pJ for a fused multiply-add, 2 flops; 16000 pJ for a line of DRAM, 64 B."""
    cpu = model("model")
    assert cpu.name == "cpu"
    assert cpu.per_flop("fp64") == (
        Figure(pytest.approx(40e-12 / 2), cpu.flop["fp64"].source),
        False,
    )
    assert cpu.byte.joules == pytest.approx(16000e-12 / 64)
    assert cpu.static is None


@pytest.mark.parametrize(
    ("format", "tflops"),
    [("fp64", 66.9), ("tf32", 495), ("fp16", 989), ("bf16", 989), ("fp8_e4m3", 1979)],
)
def test_the_h100s_model_is_its_power_over_its_peak(format: str, tflops: float) -> None:
    figure, by_rule = model("model:h100").per_flop(format)
    assert figure.joules == pytest.approx(700 / (tflops * 1e12), rel=0.02)
    assert not by_rule


def test_every_figure_has_its_source() -> None:
    models = read_settings().models
    assert set(models) == {"cpu", "h100"}
    for found in models.values():
        for figure in [*found.flop.values(), found.byte]:
            assert len(figure.source) > 20


@pytest.mark.parametrize(
    ("known", "format", "ratio"),
    [
        ({"fp64": 1.0}, "fp32", (24 / 53) ** 2),
        ({"fp32": 1.0}, "fp64", (53 / 24) ** 2),
        ({"fp64": 1.0, "fp32": 7.0}, "fp16", 7 * (11 / 24) ** 2),
        ({"fp64": 1.0, "fp16": 7.0}, "fp32", 7 * (24 / 11) ** 2),
        ({"bf16": 1.0, "fp64": 7.0}, "fp32", 7 * (24 / 53) ** 2),
        ({"fp32": 1.0}, "bf16", (8 / 24) ** 2),
        ({"fp16": 5.0, "tf32": 5.0}, "fp8_e5m2", 5 * (3 / 11) ** 2),
    ],
)
def test_formats_without_a_figure_go_by_the_square_of_the_significand(
    known: dict[str, float], format: str, ratio: float
) -> None:
    figures = {name: Figure(joules, "made up") for name, joules in known.items()}
    figure, by_rule = Model("some", figures, Figure(0.0, "made up")).per_flop(format)
    assert figure.joules == pytest.approx(ratio, rel=1e-15)
    assert by_rule
    assert figure.source.startswith("rule: ")


def test_formats_have_a_precision() -> None:
    assert {name: significand(name) for name in FORMATS} == {n: f.t for n, f in FORMATS.items()}
    assert significand("fp8") == 4
    with pytest.raises(ValueError, match=r"format is 'int32'; allowed: fp64, fp32, fp24, tf32"):
        significand("int32")


def test_a_task_costs_its_flops_and_its_bytes(mine: Path) -> None:
    two = model(f"model:{mine}")
    joules = two.joules(
        np.array(["fp64", "fp32", "fp16", "int32"]),
        np.array([1e9, 1e9, 1e9, 0.0]),
        np.array([0, 0, 10**6, 3]),
    )
    # fp32 lies nearer to fp16 than to fp64: 24/11 = 2.182, 53/24 = 2.208
    expected = [2.5e-3, 0.5e-3 * (24 / 11) ** 2, 0.5e-3 + 1e-4, 3e-10]
    np.testing.assert_allclose(joules, expected, rtol=1e-14)
    with pytest.raises(ValueError, match="format is 'int32'"):
        two.joules(np.array(["int32"]), np.array([1.0]), np.array([0]))


def test_static_power_is_of_the_machine_and_of_each_worker(mine: Path) -> None:
    assert model(f"model:{mine}").static_power(8) == 32.0
    assert model("model:cpu").static_power(8) == 0.0


def test_a_description_is_of_what_was_used(mine: Path) -> None:
    formats, flops = np.array(["fp64", "fp32", "fp16"]), np.array([1.0, 1.0, 0.0])
    about = json.loads(json.dumps(model(f"model:{mine}").describe(formats, flops)))
    assert about["name"] == "two"
    assert about["flop"]["fp64"] == {"joules": 2.5e-12, "source": "a paper"}
    assert set(about["flop"]) == {"fp32", "fp64"}
    assert about["rule"] == ["fp32"]
    assert about["static"] == {"watts": 20.0, "watts_per_worker": 1.5, "source": "measured"}
    assert "note" not in about
    cpu = model("model").describe(formats, flops)
    assert cpu["note"] == "dynamic only: no static power is set"
    assert cpu["static"] is None


# -- files -----------------------------------------------------------------------------------------


def test_models_by_name_and_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model("model:h100").name == "h100"
    assert model(f"model:{mine}").name == "two"
    assert model(f"model:{mine}#one").name == "one"
    assert model(f"model:{mine}#one").static is None
    # a file by any name
    other = mine.rename(mine.with_name("odd#name"))
    assert model(f"model:{other}").name == "two"
    assert model(f"model:{other}#one").name == "one"
    monkeypatch.setenv("TASKLA_ENERGY", str(other))
    assert model("model").name == "two"
    assert model("model:one").flop == {"fp32": Figure(3e-12, "a paper")}
    assert model("model:h100").name == "h100"


def test_the_users_model_replaces_one_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(MINE.replace("models.one", "models.cpu").replace('"two"', '"h100"'))
    monkeypatch.setenv("TASKLA_ENERGY", str(file))
    assert list(model("model:cpu").flop) == ["fp32"]
    assert model("model").name == "h100"


def test_the_only_model_of_a_file_needs_no_name(tmp_path: Path) -> None:
    head, _, rest = MINE.partition("[models.two]")
    file = tmp_path / "a.toml"
    file.write_text(head.replace('default = "two"', ""))
    assert model(f"model:{file}").name == "one"
    file.write_text(head.replace('default = "two"', "") + "[models.two]" + rest)
    with pytest.raises(
        ValueError, match=r"a\.toml: name one of its models: FILE#NAME; there are one, two"
    ):
        find(f"model:{file}")


def test_models_that_do_not_exist(mine: Path) -> None:
    with pytest.raises(ValueError, match="model 'b200' does not exist; there are cpu, h100, and"):
        find("model:b200")
    with pytest.raises(
        ValueError, match=r"mine\.toml: model 'x' does not exist; there are one, two"
    ):
        find(f"model:{mine}#x")
    with pytest.raises(FileNotFoundError):
        find("model:none.toml")


def test_a_missing_file_of_settings_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKLA_ENERGY", "nowhere/energy.toml")
    with pytest.raises(FileNotFoundError, match=r"nowhere/energy\.toml"):
        find("auto")
    assert find("off").kind == "unavailable"


BYTE = 'byte = { picojoules = 1, source = "s" }\n'
FLOP = 'flop.fp64 = { picojoules = 1, source = "s" }\n'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"= 1", "not TOML"),
        (b"\xff", "not TOML"),
        (b"a = " + b"[" * 100_000, "not TOML"),
        (b"a = " + b"9" * 10_000, "not TOML"),
        (b"model = 1", "the file has 'model'; allowed: default, idle, models, weights"),
        (b"models = 1", "models is 1; it must be a table"),
        (b"default = 1", "default is 1"),
        (b"[models]\ncpu = 3", "models.cpu is 3; it must be a table"),
        (f"[models.m]\n{BYTE}", "model 'm' has no figure per flop"),
        (f"[models.m]\n{FLOP}", "models.m.byte is None; it must be a table"),
        (f"[models.m]\n{FLOP}{BYTE}watts = 3", "models.m has 'watts'"),
        (f"[models.m]\n{FLOP}{BYTE}about = 3", "models.m.about is 3; it must be a text"),
        (f"[models.m]\n{BYTE}flop = 3", "models.m.flop is 3"),
        (f"[models.m]\n{BYTE}{FLOP.replace('fp64', 'fp63')}", "format is 'fp63'; allowed: fp64"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', '-1')}", "models.m.flop.fp64.picojoules is -1"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', 'nan')}", "picojoules is nan"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', 'inf')}", "picojoules is inf"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', 'true')}", "picojoules is True"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', repr('1'))}", "picojoules is '1'"),
        (f"[models.m]\n{BYTE}{FLOP.replace('1', '1' + '0' * 400)}", "picojoules is 1000"),
        (
            f"[models.m]\n{BYTE}{FLOP.replace('picojoules', 'joules')}",
            "has 'joules'; allowed: pico",
        ),
        (f"[models.m]\n{BYTE}flop.fp64 = {{ picojoules = 1 }}", "fp64.source is None"),
        (f"[models.m]\n{FLOP}{BYTE}static = 1", "static is 1"),
        (f"[models.m]\n{FLOP}{BYTE}static = {{ watts = -1 }}", "static.watts is -1"),
        (f"[models.m]\n{FLOP}{BYTE}static = {{ watts = 1 }}", "static.source is None"),
        (b'[idle]\n"package-0" = -5', "idle.package-0 is -5"),
        (b"[idle]\na.b = 5", "idle.a is {'b': 5}"),
        (b"idle = [5]", "idle is"),
        (b"[weights]\ngemm = nan", "weights.gemm is nan"),
        (b"[weights]\ngemm = 0\ntrsm = 0.0", "weights are all 0"),
    ],
)
def test_what_a_file_must_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, reason: str
) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for spec, name in (("auto", str(file)), (f"model:{file}", "")):
        monkeypatch.setenv("TASKLA_ENERGY", name)
        with pytest.raises(ValueError, match="bad") as caught:
            find(spec)
        assert reason in str(caught.value)


def test_the_figures_are_in_the_package() -> None:
    """What the documentation quotes is in a file of the form that users write."""
    import taskla.energy

    file = Path(taskla.energy.__file__).with_name("models.toml")
    assert tomllib.loads(file.read_text(encoding="utf-8"))["default"] == "cpu"
    assert model(f"model:{file}#h100") == model("model:h100")
