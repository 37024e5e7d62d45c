"""The command line: one module a command, which gives ``add(commands)`` and ``run(options)``."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from .. import interrupts
from ..errors import (
    DiffsimError,
    EquilibrationError,
    OverlapError,
    SamplingError,
    one_line,
)
from . import check, compare, export, info, new, predict, rdf, refine, watch
from .common import (
    BAD_INPUT,
    FAILED,
    FINISHED,
    INTERRUPTED,
    NOT_CONVERGED,
    NOT_TRUSTED,
    TERMINATED,
    say,
)

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "FINISHED",
    "INTERRUPTED",
    "NOT_CONVERGED",
    "NOT_TRUSTED",
    "TERMINATED",
    "main",
]

_COMMANDS = (new, check, refine, watch, predict, compare, export, rdf, info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 finished, of a fit: converged; 2 bad input, said in one line; 3 the fit could not be trusted;
    4 it has not converged; 130 interrupted by Ctrl-C, 143 by TERM; 1 anything else, such as a full
    disk.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold anything
    options = _parser().parse_args(arguments)
    try:
        with interrupts.raised():
            return int(options.run(options))
    except BaseException as error:
        return _code_of(error)


def _code_of(error: BaseException) -> int:
    """Say in one line what ended a command; what is a fault of this program is raised again."""
    # On its way an interrupt may have become anything.
    if isinstance(error, KeyboardInterrupt) or interrupts.received() is not None:
        what = error.args if isinstance(error, KeyboardInterrupt) else ()
        return say(": ".join(["interrupted", *map(str, what)]), interrupts.exit_code())
    if isinstance(error, SamplingError | OverlapError | EquilibrationError):
        return say(error, NOT_TRUSTED)
    if isinstance(error, DiffsimError):
        return say(error, BAD_INPUT)
    if isinstance(error, OSError):
        return say(_what_to_do(error), FAILED)
    raise error


def _what_to_do(error: OSError) -> str:
    """What went wrong, with which file, and what helps."""
    help_for = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room, your quota is used up",
        errno.EFBIG: "allow larger files (ulimit -f)",
        errno.EACCES: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
    }
    where = f"{error.filename}: " if error.filename else ""
    advice = help_for.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {advice}" if advice else "")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(BAD_INPUT, one_line(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="openmm-diffsim",
        description="Learn forces until simulation and measurement agree.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
