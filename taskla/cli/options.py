"""Options that commands share, and the values that they take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "DEBUG",
    "Commands",
    "checkpoint_options",
    "debug_option",
    "engine_options",
    "grid",
    "numbers",
    "output_options",
    "precision_option",
    "refuse_same",
    "size_options",
    "terminating",
    "usage",
    "words",
]

#: Where a context keeps whether tracebacks are wanted.
DEBUG = "taskla.debug"

# Values of a range are run one by one: more of them than this are a slip.
_MOST = 10_000

Command = TypeVar("Command", bound=Callable[..., Any])


# -- values: functions of what the user wrote ------------------------------------------------------


def numbers(least: int) -> Callable[[str], tuple[int, ...]]:
    """Return what reads integers: ``a,b,...``, items may be ranges ``start:end[:step]``.

    A range includes its end, as in Chameleon's testers.

    Parameters
    ----------
    least : int
        The smallest integer allowed.
    """

    def convert(text: str) -> tuple[int, ...]:
        found: list[int] = []
        for item in text.split(","):
            try:
                start, end, step = _bounds(item)
            except ValueError:
                raise click.BadParameter(
                    f"{item!r} is not an integer or a range start:end[:step]"
                ) from None
            if start < least:
                raise click.BadParameter(f"{start} is not allowed; it must be at least {least}")
            items = range(start, end + 1, step)
            if not 0 < len(items) <= _MOST:
                raise click.BadParameter(f"{item!r} has {len(items)} values, not 1 to {_MOST}")
            found += items
        return tuple(found)

    return convert


def _bounds(item: str) -> tuple[int, int, int]:
    first, *rest = (int(part) for part in item.split(":"))
    if len(rest) > 2 or (len(rest) == 2 and rest[1] < 1):
        raise ValueError(item)
    return first, rest[0] if rest else first, rest[1] if len(rest) == 2 else 1


def words(allowed: Sequence[str] = ()) -> Callable[[str], tuple[str, ...]]:
    """Return what reads names, ``a,b,...``.

    Parameters
    ----------
    allowed : sequence of str
        The names. Default: any; they are checked where they are used.
    """

    def convert(text: str) -> tuple[str, ...]:
        found = tuple(word.strip() for word in text.split(","))
        for word in found:
            if not word:
                raise click.BadParameter(f"{word!r} in {text!r} is not a name")
            if allowed and word not in allowed:
                raise click.BadParameter(f"{word!r} is not known; allowed: {', '.join(allowed)}")
        return found

    return convert


def grid(text: str) -> tuple[int, int]:
    """Read a grid of ranks, ``PxQ``."""
    p, x, q = text.lower().partition("x")
    if not (x and p.isdecimal() and q.isdecimal() and int(p) and int(q)):
        raise click.BadParameter(f"{text!r} is not a grid PxQ, such as 2x3")
    return int(p), int(q)


class Commands(click.Group):
    """Commands of which each is imported when it is named, from a module that has its name."""

    #: In the order of ``--help``, and where their modules are.
    names: tuple[str, ...] = ()
    package: str = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of ``--help``."""
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, None where there is none."""
        if cmd_name not in self.names:
            return None
        # a module cannot have the name of a keyword
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = import_module(f"{self.package}.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; of one that does not exist, say what does."""
        if args[0] not in self.names:
            close = get_close_matches(args[0], self.names, n=1)
            hint = f"did you mean {close[0]}? There are" if close else "there are"
            ctx.fail(f"no command {args[0]!r}; {hint} {', '.join(self.names)}")
        return super().resolve_command(ctx, args)


def refuse_same(output: Path | None, *read: Path) -> None:
    """Refuse an output that is one of the files that are read: it would be lost."""
    for file in read:
        if output is not None and output.exists() and output.samefile(file):
            raise click.UsageError(f"output is {str(output)!r}, which is read: give another name")


@contextmanager
def terminating() -> Iterator[None]:
    """Leave by SystemExit on SIGTERM, so that what is to be saved is: a batch job's time is up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def usage() -> Iterator[None]:
    """Turn what is wrong with arguments, by `ValueError`, into a wrong use of the command."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


# -- options ---------------------------------------------------------------------------------------


def debug_option(command: Command) -> Command:
    """Add ``--debug``."""

    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = value

    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=note,
        help="Show where an error comes from.",
    )(command)


def _form(name: str, text: str) -> Callable[[Command], Command]:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        form = ctx.params.setdefault("form", None)
        if value and form:
            raise click.UsageError("--csv and --json exclude each other; give one")
        if value:
            ctx.params["form"] = name

    return click.option(f"--{name}", is_flag=True, expose_value=False, callback=note, help=text)


_OUTPUT = (
    _form("csv", "Print comma-separated values."),
    _form("json", "Print one JSON object a line."),
)


def output_options(command: Command) -> Command:
    """Add ``--csv`` and ``--json``, given to the command as ``form``."""
    return _with(_OUTPUT, command)


def _letters(name: str, letters: str, text: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{name}",
        type=click.Choice(list(letters), case_sensitive=False),
        metavar=f"[{'|'.join(letters)}]",
        help=f"{text}.  [default: {letters[0]}]",
    )


_DTYPES = (*"sdcz", "float32", "float64", "complex64", "complex128")

_SIZES = (
    click.option(
        "-n",
        type=numbers(0),
        metavar="LIST",
        required=True,
        help="Columns, or the order: a,b,... and ranges start:end[:step].",
    ),
    click.option(
        "--nb", type=numbers(1), metavar="LIST", help="Tile size, likewise.  [default: from n]"
    ),
    click.option(
        "--dtype",
        type=words(_DTYPES),
        metavar="LIST",
        default="d",
        show_default=True,
        help="s, d, c, z: single, double; complex; or NumPy's names.",
    ),
    click.option("-m", type=click.IntRange(min=0), help="Rows.  [default: n]"),
    click.option("-k", type=click.IntRange(min=0), help="Inner dimension.  [default: n]"),
    click.option("--nrhs", type=click.IntRange(min=0), help="Right-hand sides.  [default: 1]"),
    _letters("uplo", "LU", "Triangle of A, lower or upper"),
    _letters("side", "LR", "A on the left or right"),
    _letters("trans", "NTC", "A as it is, transposed or conjugate-transposed"),
    _letters("transa", "NTC", "The same for gemm"),
    _letters("transb", "NTC", "The same for gemm's B"),
    _letters("diag", "NU", "Diagonal of A, or a unit one"),
)


def size_options(command: Command) -> Command:
    """Add the sizes and BLAS's letters; all but -n and --dtype are None when not given."""
    return _with(_SIZES, command)


def precision_option(text: str) -> Callable[[Command], Command]:
    """Return what adds ``--precision``, given to the command as a tuple.

    It is repeated where others take a list: a value has commas of its own.

    Parameters
    ----------
    text : str
        What its values are.
    """
    return click.option(
        "--precision",
        multiple=True,
        metavar="RULE",
        help=f"{text} Repeat it for several: --precision fp64 --precision fp32.",
    )


_ENGINE = (
    click.option(
        "--engine", help="What runs the tasks.  [default: threads; of several ranks of a job mpi]"
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Threads, of each rank.  [default: usable cores, shared by the ranks on them]",
    ),
    click.option("--policy", default="lws", show_default=True, help="See taskla schedulers."),
)


def engine_options(command: Command) -> Command:
    """Add ``--engine``, ``--workers`` and ``--policy``, one value each."""
    return _with(_ENGINE, command)


_CHECKPOINT = (
    click.option(
        "--checkpoint",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Save in DIR what a factorisation has done; the same command goes on from there.",
    ),
    click.option(
        "--checkpoint-every",
        type=click.IntRange(min=1),
        metavar="K",
        help="Iterations, tile columns of a factorisation, between two checkpoints.  [default: 10]",
    ),
)


def checkpoint_options(command: Command) -> Command:
    """Add ``--checkpoint`` and ``--checkpoint-every``."""
    return _with(_CHECKPOINT, command)


def _with(options: Sequence[Callable[[Any], Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
