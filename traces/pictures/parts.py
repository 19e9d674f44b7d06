"""Pieces of pages: callbacks in JavaScript, and names with their colours."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from taskla.traces.pictures.palette import INK

__all__ = ["columns", "models", "script", "swatches", "words"]

# More names than that say nothing.
_MOST = 24


def columns(names: str) -> dict[str, list[float]]:
    """Return empty columns of those names, for a callback to fill."""
    return {name: [] for name in names.split()}


def models() -> Any:
    """Return `bokeh.models`, without the types: Bokeh's stubs lack many of its names."""
    from bokeh import models

    return models


def script(name: str) -> str:
    """Return the JavaScript of a callback, a file beside this one."""
    return files("taskla.traces.pictures").joinpath(name).read_text(encoding="utf-8")


def swatches(named: list[tuple[str, str]], before: str = "") -> str:
    """Return colours and names, escaped, as HTML."""
    shown = "".join(
        "<span style='white-space:nowrap;margin-right:1.2em'><span style='display:inline-block;"
        f"width:12px;height:12px;border:1px solid {INK};background:{colour};margin-right:5px;"
        f"vertical-align:-1px'></span>{escape(name)}</span> "
        for colour, name in named[:_MOST]
    )
    more = f"and {len(named) - _MOST} more" if len(named) > _MOST else ""
    return f"<div style='font:13px sans-serif;line-height:1.7'>{before}&ensp;{shown}{more}</div>"


def words(name: str, text: str) -> Any:
    """Return HTML as a part of a page, in which no formula is looked for."""
    return models().Div(name=name, text=text, disable_math=True, sizing_mode="stretch_width")
