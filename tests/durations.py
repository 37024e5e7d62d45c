"""How long tests take, measured and kept in a file: what is slow, and what of it is the slowest.

The processor time of a test is what it takes alone: its call, and the setup of every fixture that
it uses, whoever paid for it. Of a test function the slowest case counts; cases on a device
(``gpu``) are kept apart. Only what takes longer than ``KEPT`` is in the file; what is not there
counts as fast.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

RECORD = Path(__file__).with_name("durations.txt")
DOCUMENT = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
REFRESH = "python -m pytest --record-durations"
SLOW = 1.0  # processor seconds, alone
KEPT = 0.5
GPU = " on a device"

_HEAD = f"""\
# Processor seconds of the slowest case of a test function alone, with its fixtures; slowest first.
# Written by: {REFRESH}
"""


def read(path: Path = RECORD) -> dict[str, float]:
    """Seconds of each ``file::function``; nothing where there is no file."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {name: float(seconds) for seconds, name in pairs}


def write(found: Mapping[str, float], path: Path = RECORD) -> None:
    """Replace the times of the functions that ran, and drop functions that are no more."""
    times = {name: t for name, t in read(path).items() if exists(name, path.parent)} | dict(found)
    ordered = sorted((-round(t, 1), name) for name, t in times.items() if t > KEPT)
    path.write_text(_HEAD + "".join(f"{-t:6.1f} {name}\n" for t, name in ordered), encoding="utf-8")


def slowest(path: Path = RECORD, n: int = 10) -> str:
    """The first lines of the record."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join([line for line in lines if not line.startswith("#")][:n])


def publish(path: Path = RECORD, document: Path = DOCUMENT) -> None:
    """Show the slowest tests in the document, in the block after <!-- slowest tests -->."""
    text = document.read_text(encoding="utf-8")
    block = f"<!-- slowest tests -->\n```\n{slowest(path)}\n```"
    document.write_text(
        re.sub(r"<!-- slowest tests -->\n```\n.*?```", lambda _: block, text, flags=re.DOTALL),
        encoding="utf-8",
    )


def name_of(nodeid: str, gpu: bool = False) -> str:
    """``file::function`` of a case, ``test_io.py::test_x`` of ``tests/test_io.py::test_x[a]``."""
    return nodeid.split("[")[0].rpartition("/")[2] + (GPU if gpu else "")


def exists(name: str, folder: Path = RECORD.parent) -> bool:
    """Is there such a test function?"""
    file, *_, function = name.removesuffix(GPU).split("::")
    return function in _functions(folder / file)


def stale(names: Iterable[str], folder: Path = RECORD.parent) -> list[str]:
    """Those that name no test function."""
    return [name for name in names if not exists(name, folder)]


@cache
def _functions(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
