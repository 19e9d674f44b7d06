"""The readers of counters, on made-up trees of files and on a made-up library."""

import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskla.energy import Meter, find, found, measure_idle
from taskla.energy.nvml import find_nvml
from taskla.energy.rapl import find_rapl

RANGE = 262_143_328_850  # of a Xeon's package


def zone(folder: Path, name: str, energy: object = 0, top: object = RANGE) -> Path:
    """A zone as powercap shows it."""
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{top}\n")
    return folder


@pytest.fixture
def two_sockets(tmp_path: Path) -> Path:
    """Two packages, of which one has its parts, the platform, and the copies by memory."""
    for name in ("intel-rapl", "intel-rapl-mmio", "dtpm"):
        (tmp_path / name).mkdir()
    zone(tmp_path / "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path / "intel-rapl:0:0", "core", 1)
    zone(tmp_path / "intel-rapl:0:1", "dram", 2_000_000, 65_712_999_613)
    zone(tmp_path / "intel-rapl:0:2", "uncore", 3)
    zone(tmp_path / "intel-rapl:1", "package-1", 7_000_000)
    zone(tmp_path / "intel-rapl:1:0", "dram", 1_000_000)
    zone(tmp_path / "intel-rapl:2", "psys", 4)
    zone(tmp_path / "intel-rapl:2:0", "dram", 9)
    zone(tmp_path / "intel-rapl-mmio:0", "package-0", 5_000_000)
    zone(tmp_path / "intel-rapl-mmio:0:0", "dram", 2_000_000)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_settings_and_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the machine and the user."""
    for name in ("TASKLA_POWERCAP", "TASKLA_ENERGY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def names(meters: Iterable[Meter]) -> list[tuple[str, str]]:
    return [(meter.name, meter.kind) for meter in meters]


# -- RAPL ------------------------------------------------------------------------------------------


def test_packages_and_their_memories_are_read_and_nothing_else(two_sockets: Path) -> None:
    meters, absent = find_rapl(two_sockets)
    assert absent == []
    assert names(meters) == [
        ("package-0", "package"),
        ("dram-0", "dram"),
        ("package-1", "package"),
        ("dram-1", "dram"),
    ]
    assert [meter.read() for meter in meters] == [5.0, 2.0, 7.0, 1.0]


def test_children_may_lie_in_their_parents(tmp_path: Path) -> None:
    """As in /sys/devices/virtual/powercap, where the links of /sys/class/powercap lead."""
    package = zone(tmp_path / "intel-rapl" / "intel-rapl:0", "package-0-die-1", 3_000_000)
    zone(package / "intel-rapl:0:0", "core")
    zone(package / "intel-rapl:0:1", "dram", 4_000_000)
    for folder in (tmp_path, tmp_path / "intel-rapl"):
        meters, absent = find_rapl(folder)
        assert names(meters) == [("package-0-die-1", "package"), ("dram-0-die-1", "dram")]
        assert absent == []


def test_links_are_followed_and_counted_once(tmp_path: Path) -> None:
    package = zone(tmp_path / "devices" / "intel-rapl:0", "package-0")
    zone(package / "intel-rapl:0:0", "dram")
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "intel-rapl:0").symlink_to(package)
    (tmp_path / "class" / "intel-rapl:0:0").symlink_to(package / "intel-rapl:0:0")
    meters, absent = find_rapl(tmp_path / "class")
    assert [name for name, _ in names(meters)] == ["package-0", "dram-0"]
    assert absent == []


def test_zones_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        zone(tmp_path / f"intel-rapl:{number}", f"package-{number}")
    assert [n for n, _ in names(find_rapl(tmp_path)[0])] == ["package-0", "package-2", "package-10"]


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path / "intel-rapl:0", "package-0", 900, top=1000)
    (meter,), _ = find_rapl(tmp_path)
    readings = [meter.read()]
    for raw in (950, 30, 30, 1000, 0, 999):
        (package / "energy_uj").write_text(f"{raw}\n")
        readings.append(meter.read())
    grown = [round((b - a) * 1e6) for a, b in pairwise(readings)]
    assert grown == [50, 80, 0, 970, 0, 999]


def test_the_folder_is_a_setting(two_sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKLA_POWERCAP", str(two_sockets))
    assert len(find_rapl()[0]) == 4
    assert len(find().meters) == 4
    # an argument wins
    assert find_rapl(two_sockets / "intel-rapl")[0] == []


def test_without_powercap_there_is_a_reason(tmp_path: Path) -> None:
    (nowhere,) = find_rapl(tmp_path / "none")[1]
    assert nowhere[:2] == ("rapl", "package")
    assert nowhere.reason.endswith("none: no such file or directory")
    zone(tmp_path / "intel-rapl:0", "psys")
    assert find_rapl(tmp_path)[1][0].reason.endswith(": no package")


def _denied(path: Path) -> None:
    path.unlink()
    path.mkdir()  # as unreadable to root as the file is to others


def _gone(path: Path) -> None:
    path.unlink()


def _holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_denied, "is a directory"),
        (_gone, "no such file or directory"),
        (_holding(b""), "holds b''"),
        (_holding(b"\xff\x00\n"), "holds b'\\xff"),
        (_holding(b"many\n"), "is 'many', not a number"),
        (_holding(b"-5\n"), "is '-5', not a number"),
        (_holding(b"1.5\n"), "is '1.5', not a number"),
        (_holding(b"1_000\n"), "is '1_000', not a number"),
        (_holding(b"9" * 5000), "holds b'999"),
    ],
)
def test_what_cannot_be_read_is_no_meter_and_says_why(
    two_sockets: Path, file: str, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(two_sockets / "intel-rapl:1" / file)
    meters, absent = find_rapl(two_sockets)
    assert [name for name, _ in names(meters)] == ["package-0", "dram-0", "dram-1"]
    ((name, kind, why),) = absent
    assert (name, kind) == ("package-1", "package")
    assert why.startswith("not readable: ")
    assert reason in why


def test_permission_denied_is_said(two_sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file cannot be made unreadable to root, who may run the tests: opening it is refused."""
    opened = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "energy_uj" and path.parent.name == "intel-rapl:0":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    _, absent = find_rapl(two_sockets)
    assert absent == [("package-0", "package", "not readable: permission denied")]


@pytest.mark.parametrize(
    ("number", "energy", "top", "reason"),
    [
        ("3", 0, 0, "max_energy_range_uj is 0"),
        ("3", 11, 10, "energy_uj is 11, more than max_energy_range_uj, 10"),
    ],
)
def test_counters_that_make_no_sense(
    tmp_path: Path, number: str, energy: int, top: int, reason: str
) -> None:
    zone(tmp_path / f"intel-rapl:{number}", "package-0", energy, top)
    assert find_rapl(tmp_path) == ([], [("package-0", "package", f"not readable: {reason}")])


def test_a_zone_without_a_name_is_listed_by_its_folder(tmp_path: Path) -> None:
    (zone(tmp_path / "intel-rapl:0", "package-0") / "name").unlink()
    assert find_rapl(tmp_path)[1] == [
        ("intel-rapl:0", "package", "not readable: no such file or directory")
    ]


def test_a_name_is_given_once(tmp_path: Path) -> None:
    for number in (0, 1):
        zone(tmp_path / f"intel-rapl:{number}", "package-0")
    meters, absent = find_rapl(tmp_path)
    assert names(meters) == [("package-0", "package")]
    assert absent[0].reason == "not readable: intel-rapl:1 has the name of another zone"


@pytest.mark.parametrize("content", [b"", b"x", b"2000\n"])
def test_a_counter_that_breaks_later_raises(tmp_path: Path, content: bytes) -> None:
    package = zone(tmp_path / "intel-rapl:0", "package-0", 5, top=1000)
    (meter,), _ = find_rapl(tmp_path)
    (package / "energy_uj").write_bytes(content)
    with pytest.raises(OSError, match="energy_uj"):
        meter.read()
    (package / "energy_uj").write_text("7")
    assert meter.read() == 7e-6


# -- NVML ------------------------------------------------------------------------------------------


class NVMLError(Exception):
    pass


class NVMLErrorNotSupported(NVMLError):
    def __str__(self) -> str:
        return "Not Supported"


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cards of a made-up driver: millijoules each, or what asking for them raises."""
    cards: list[Any] = []

    def consumption(handle: int) -> int:
        if isinstance(cards[handle], Exception):
            raise cards[handle]
        return int(cards[handle])

    def start() -> None:
        if not cards:
            raise NVMLError("Driver Not Loaded")

    nvml: Any = ModuleType("pynvml")
    nvml.NVMLError = NVMLError
    nvml.nvmlInit = start
    nvml.nvmlDeviceGetCount = lambda: len(cards)
    nvml.nvmlDeviceGetHandleByIndex = lambda number: number
    nvml.nvmlDeviceGetTotalEnergyConsumption = consumption
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return cards


def test_cards_count_millijoules(cards: list[Any]) -> None:
    cards[:] = [1500, 20_000]
    meters, absent = find_nvml()
    assert names(meters) == [("gpu-0", "gpu"), ("gpu-1", "gpu")]
    assert absent == []
    cards[1] += 250
    assert [meter.read() for meter in meters] == [1.5, 20.25]


def test_an_old_card_has_no_counter(cards: list[Any]) -> None:
    cards[:] = [NVMLErrorNotSupported(), 1000]
    meters, absent = find_nvml()
    assert names(meters) == [("gpu-1", "gpu")]
    assert absent == [("gpu-0", "gpu", "no counter of energy: Not Supported")]


def test_a_card_that_goes_away_raises_what_the_others_do(cards: list[Any]) -> None:
    cards[:] = [1000]
    (meter,), _ = find_nvml()
    cards[0] = NVMLError("GPU is lost")
    with pytest.raises(OSError, match="GPU is lost"):
        meter.read()
    cards[0] = 10
    with pytest.raises(OSError, match="started again"):
        meter.read()


def test_without_driver_or_package_there_is_a_reason(
    cards: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_nvml() == ([], [("nvml", "gpu", "Driver Not Loaded")])
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", lambda: None)
    assert find_nvml() == ([], [("nvml", "gpu", "no card")])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    ((_, _, reason),) = find_nvml()[1]
    assert "pip install 'taskla[energy]'" in reason


# -- what there is ---------------------------------------------------------------------------------


def test_all_that_was_found(two_sockets: Path, cards: list[Any]) -> None:
    cards[:] = [NVMLErrorNotSupported(), 5]
    (two_sockets / "intel-rapl:1:0" / "energy_uj").write_text("?")
    rows = found(root=two_sockets)
    assert [(row["name"], row["readable"]) for row in rows] == [
        ("package-0", True),
        ("dram-0", True),
        ("package-1", True),
        ("gpu-1", True),
        ("dram-1", False),
        ("gpu-0", False),
    ]
    assert [row["reason"] for row in rows[:4]] == [None] * 4
    assert rows[4] == {
        "name": "dram-1",
        "kind": "dram",
        "readable": False,
        "reason": "not readable: energy_uj is '?', not a number",
    }


def test_meters_come_before_the_model(two_sockets: Path, cards: list[Any], tmp_path: Path) -> None:
    cards[:] = [5]
    for spec in ("auto", "meters"):
        source = find(spec, root=two_sockets)
        assert [meter.name for meter in source.meters][-2:] == ["dram-1", "gpu-0"]
        assert (source.model, source.kind) == (None, "measured")
    nowhere = tmp_path / "none"
    cards.clear()
    assert find("auto", root=nowhere).kind == "modelled"
    nothing = find("meters", root=nowhere)
    assert nothing.kind == "unavailable"
    assert nothing.reason is not None
    assert "rapl: " in nothing.reason
    assert "nvml: Driver Not Loaded" in nothing.reason
    assert find("model", root=two_sockets).kind == "modelled"
    off = find("off", root=two_sockets)
    assert (off.meters, off.model, off.kind, off.reason) == (
        (),
        None,
        "unavailable",
        "switched off",
    )


@pytest.mark.parametrize("spec", ["", "on", "Auto", "auto:cpu", "off:", "model:", "meters:rapl"])
def test_what_no_source_is_called(spec: str) -> None:
    with pytest.raises(ValueError, match="allowed: auto, meters, model, model:NAME"):
        find(spec)


# -- idle power ------------------------------------------------------------------------------------


class Clockwork(Meter):
    """Counts so many watts on a clock of its own, until it breaks."""

    now = 0.0

    def __init__(self, name: str, power: float, breaks: float = 1e9) -> None:
        super().__init__(name, "package")
        self.power, self.breaks = power, breaks

    def read(self) -> float:
        if Clockwork.now >= self.breaks:
            raise OSError("gone")
        return self.power * Clockwork.now


def test_idle_power_is_what_is_drawn_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clockwork, "now", 3.0)
    meters = [
        Clockwork("package-0", 35.0),
        Clockwork("still", 0.0),
        Clockwork("breaks", 5.0, 3.25),
        Clockwork("broken", 5.0, 2.0),
        Clockwork("told", 5.0),
    ]
    meters[-1].idle_power, meters[-1].idle_source = 4.0, "file"

    def sleep(seconds: float) -> None:
        Clockwork.now += seconds

    powers = measure_idle(meters, 0.5, clock=lambda: Clockwork.now, sleep=sleep)
    assert powers == {"package-0": 35.0}
    assert [(meter.idle_power, meter.idle_source) for meter in meters] == [
        (35.0, "measured"),
        (0.0, "unknown"),
        (0.0, "unknown"),
        (0.0, "unknown"),
        (4.0, "file"),
    ]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_idle_power_takes_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds is"):
        measure_idle([], seconds)


def test_idle_power_from_a_file(
    two_sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "energy.toml"
    file.write_text('[idle]\n"package-0" = 35.5\n"gpu-7" = 60\n[weights]\ngemm = 30.0\n')
    monkeypatch.setenv("TASKLA_ENERGY", str(file))
    source = find("meters", root=two_sockets)
    first, second = source.meters[:2]
    assert (first.idle_power, first.idle_source) == (35.5, "file")
    assert (second.idle_power, second.idle_source) == (0.0, "unknown")
    assert source.weights == {"gemm": 30.0}
