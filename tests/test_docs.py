"""What the documentation shows is what happens: its code and its commands are run as they stand.

A page's ``python`` and ``console`` blocks run in order, in one folder; Python blocks share their
variables. Lines after a command are the output that it must have; ``...`` stands for any text.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskla.matrix_layout import choose_nb

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
LANGUAGES = {"python", "console", "text"}

# Runs in a process of its own, reads the blocks from standard input, and stops at the first fault.
DRIVER = r"""
import doctest, json, subprocess, sys

flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
checker, namespace = doctest.OutputChecker(), {"__name__": "__main__"}

def python(page, line, code):
    if ">>> " not in code:
        exec(compile("\n" * line + code, page, "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(code, namespace, page, page, line)
    runner = doctest.DocTestRunner(optionflags=flags)
    if runner.run(test, clear_globs=False).failed:
        sys.exit(1)
    namespace.update(test.globs)

def console(page, line, code):
    for part in ("\n" + code).split("\n$ ")[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(command, shell=True, text=True, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"{page}:{line}: $ {command}\n{done.stdout}", flush=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode}")
        if expected.strip() and not checker.check_output(expected, done.stdout, flags):
            sys.exit(f"expected:\n{expected}")

for page, language, line, code in json.load(sys.stdin):
    {"python": python, "console": console}[language](page, line, code)
"""


class Block(NamedTuple):
    page: str
    language: str
    line: int
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(REPO).as_posix()
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(name, match[1], line, match[2])


def commands(page: Path) -> Iterator[str]:
    """The commands of a page's console blocks."""
    for block in blocks(page):
        if block.language == "console":
            yield from re.findall(r"^\$ (.+)$", block.code, re.MULTILINE)


def is_set_up(command: str) -> bool:
    """Whether a command prepares or tests the checkout: those have tests of their own below."""
    return command.startswith(("make ", "python -m pip "))


def without_set_up(block: Block) -> Block:
    return block._replace(
        code="".join(
            line for line in block.code.splitlines(True) if not is_set_up(line.removeprefix("$ "))
        )
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    found = list(blocks(page))
    assert {block.language for block in found} <= LANGUAGES
    # No fence was missed: each block has two.
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(found)
    for block in found:
        if block.language == "console":
            assert block.code.startswith("$ "), f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_and_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    script = [without_set_up(block) for block in blocks(page) if block.language != "text"]
    # The commands are typed in a checkout, where the samples and the examples are.
    for name in ("traces", "examples"):
        (tmp_path / name).symlink_to(REPO / name)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        input=json.dumps(script),
        cwd=tmp_path,
        env=os.environ
        # The commands of the environment that the tests run in, activated or not.
        | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        | {"COLUMNS": "200", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_make_is_asked_for_exists(page: Path) -> None:
    for command in commands(page):
        if command.startswith("make "):
            shown = subprocess.run(
                command.replace("make ", "make --dry-run ", 1),
                shell=True,
                cwd=REPO,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("https://"):
            target, _, heading = link.partition("#")
            file = page.parent / target if target else page
            assert file.exists(), link
            assert not heading or heading in headings(file), link


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_leads_to_every_page() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert len(PAGES) > 4
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme


def test_the_readme_shows_the_two_commands_that_do_everything() -> None:
    shown = list(commands(PAGES[0]))
    assert {"make run", "make test"} <= set(shown)


@pytest.mark.parametrize(
    ("language", "code", "fault"),
    [
        ("python", "assert 1 + 1 == 3", "AssertionError"),
        ("python", ">>> 1 + 1\n3\n", "Expected"),
        ("python", "import warnings\nwarnings.warn('old')", "UserWarning: old"),
        ("console", "$ false\n", "exit code 1"),
        ("console", "$ echo two tasks\ntwo ... threads\n", "expected"),
    ],
)
def test_a_fault_on_a_page_is_found(tmp_path: Path, language: str, code: str, fault: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        input=json.dumps([("page.md", language, 7, code)]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert fault in done.stdout + done.stderr


def test_the_tile_sizes_listed_are_those_chosen_from() -> None:
    page = (REPO / "docs" / "tiles-and-nb.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for dtype, sizes in rows:
        chosen = sorted({choose_nb(n, dtype, workers=1) for n in range(64, 20_000, 64)})
        assert ", ".join(map(str, chosen)) == sizes
