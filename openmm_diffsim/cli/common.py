"""What all commands share: exit codes, what is said, and a folder that is nobody else's."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import interrupts
from ..errors import ConfigurationError, one_line

FINISHED, FAILED, BAD_INPUT, NOT_TRUSTED, NOT_CONVERGED = 0, 1, 2, 3, 4
INTERRUPTED, TERMINATED = 130, 143


def say(what: object, code: int) -> int:
    """One line to the terminal; the code is given back."""
    print(one_line(f"openmm-diffsim: {what}"), file=sys.stderr)
    return code


def warn(what: str) -> None:
    """A line to the terminal, of what a user should know."""
    print(what, file=sys.stderr)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The output folder is there, and nobody else's; what stays empty is removed again."""
    from ..io.lock import Lock, release_all
    from ..io.temporary import discard

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    interrupts.tidy += [release_all, lambda: discard(folder)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / "fit.lock", str(folder))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigurationError(
            f"refine.output: cannot write to the folder {folder}: {error.strerror or error}",
            key="refine.output",
            got=folder,
        ) from error
    try:
        with lock:
            yield
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def trust_option(command: argparse.ArgumentParser) -> None:
    """That of a command which reads configurations."""
    command.add_argument(
        "--trust",
        action="store_true",
        help="run code that the configuration or system.xml holds or names, and write where it "
        "says: only for what you or somebody you trust wrote",
    )
