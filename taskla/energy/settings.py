"""Figures in TOML files: taskla's models, the user's own, idle power, weights of kernels."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskla.energy.model import Figure, Model, Static

__all__ = ["Settings", "find_model", "read_settings"]

_OWN = Path(__file__).with_name("models.toml")


@dataclass(frozen=True)
class Settings:
    """What a file holds.

    Attributes
    ----------
    models : dict
        Name -> `Model`.
    default : str or None
        Name of the model that is meant when none is named.
    idle : dict
        Meter's name -> W.
    weights : dict
        Kernel -> W of a running task, beyond the idle power; only their ratios count.
    """

    models: dict[str, Model] = field(default_factory=dict)
    default: str | None = None
    idle: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


def read_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """Return what a file holds.

    Parameters
    ----------
    path : path, optional
        Default: taskla's own models and, over them, the file that the environment's
        ``TASKLA_ENERGY`` names.

    Raises
    ------
    OSError
        When it cannot be read.
    ValueError
        When it is not TOML, or holds what it should not.
    """
    if path is not None:
        return _read(Path(path))
    own = _read(_OWN)
    if not (users := os.environ.get("TASKLA_ENERGY")):
        return own
    theirs = _read(Path(users))
    default = theirs.default or own.default
    return Settings(own.models | theirs.models, default, theirs.idle, theirs.weights)


def find_model(settings: Settings, wanted: str = "") -> Model:
    """Return a model by NAME, FILE or FILE#NAME.

    Parameters
    ----------
    settings : Settings
        Where models with a name are looked up; "" stands for its default.
    wanted : str, default ""

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When there is no such model.
    """
    wanted = wanted or settings.default or ""
    if wanted in settings.models:
        return settings.models[wanted]
    file, name = wanted, ""
    if "#" in wanted and not Path(wanted).exists():
        file, _, name = wanted.rpartition("#")
    if not (file.endswith(".toml") or Path(file).is_file()):
        known = ", ".join(settings.models)
        raise ValueError(f"model {wanted!r} does not exist; there are {known}, and TOML files")
    inside = read_settings(file)
    only = next(iter(inside.models)) if len(inside.models) == 1 else None
    name = name or inside.default or only or ""
    if name not in inside.models:
        known = ", ".join(inside.models) or "none"
        what = f"model {name!r} does not exist" if name else "name one of its models: FILE#NAME"
        raise ValueError(f"{file}: {what}; there are {known}")
    return inside.models[name]


def _read(path: Path) -> Settings:
    try:
        # a long number or deep nesting makes the parser fail in other ways than by its own error
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from error
    try:
        return _parse(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(content: dict[str, Any]) -> Settings:
    _only(content, "the file", {"models", "default", "idle", "weights"})
    models = {
        name: _model(name, _table(entry, f"models.{name}"))
        for name, entry in _table(content.get("models", {}), "models").items()
    }
    default = content.get("default")
    # the user's file may make one of taskla's own models the default
    if default is not None and not (isinstance(default, str) and default):
        raise ValueError(f"default is {default!r}; it must be the name of a model")
    idle, weights = (
        {name: _number(value, f"{key}.{name}") for name, value in table.items()}
        for key, table in ((key, _table(content.get(key, {}), key)) for key in ("idle", "weights"))
    )
    if weights and not any(weights.values()):
        raise ValueError("weights are all 0")
    return Settings(models, default, idle, weights)


def _model(name: str, entry: dict[str, Any]) -> Model:
    where = f"models.{name}"
    _only(entry, where, {"about", "flop", "byte", "static"})
    flop = {
        format: _figure(value, f"{where}.flop.{format}")
        for format, value in _table(entry.get("flop", {}), f"{where}.flop").items()
    }
    byte = _figure(entry.get("byte"), f"{where}.byte")
    static = None
    if "static" in entry:
        table = _table(entry["static"], f"{where}.static")
        _only(table, f"{where}.static", {"watts", "watts_per_worker", "source"})
        watts, per_worker = (
            _number(table.get(key, 0.0), f"{where}.static.{key}")
            for key in ("watts", "watts_per_worker")
        )
        static = Static(watts, per_worker, _text(table.get("source"), f"{where}.static.source"))
    return Model(name, flop, byte, static, _text(entry.get("about", name), f"{where}.about"))


def _figure(value: Any, where: str) -> Figure:
    table = _table(value, where)
    _only(table, where, {"picojoules", "source"})
    picojoules = _number(table.get("picojoules"), f"{where}.picojoules")
    return Figure(picojoules * 1e-12, _text(table.get("source"), f"{where}.source"))


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}; it must be a table")
    return value


def _only(table: dict[str, Any], where: str, allowed: set[str]) -> None:
    if unknown := sorted(table.keys() - allowed):
        raise ValueError(f"{where} has {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")


def _number(value: Any, where: str) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    # the largest is far beyond any figure, and no product of it overflows
    if real and 0 <= value <= 1e30:
        return float(value)
    raise ValueError(f"{where} is {value!r}; it must be a number of at least 0")


def _text(value: Any, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"{where} is {value!r}; it must be a text")
