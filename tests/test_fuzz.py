"""Malformed inputs: each refused in one line that names its key or file, and nothing touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import malformed
import pytest
from forked import BYTES, SECONDS, Forked
from malformed import FAMILIES, Case

from openmm_diffsim import cli

ENDED = (cli.FINISHED, cli.NOT_CONVERGED)  # of a fit that was left to end

SEED = 12


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    malformed.write_valid(folder)
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """Every file and its bytes; of what is no file, that it is there."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def complaints(case: Case, done: dict[str, Any], untouched: bool) -> list[str]:
    """What is wrong about how an input was refused."""
    said = done["err"].strip()
    wrong = {
        f"exit code {done['code']}": done["code"] != cli.BAD_INPUT,
        "a traceback": "Traceback" in said,
        "not one line": "\n" in said or not said,
        f"names none of {case.names}": not any(name in said for name in case.names),
        "files were changed": not untouched,
        f"{done['seconds']:.0f} s": done["seconds"] > SECONDS,
        f"{done['bytes'] / 2**30:.1f} GB": done["bytes"] > BYTES,
        "too long a line": len(said) > 1000,
    }
    return [what for what, holds in wrong.items() if holds]


def refusal(commands: Forked, folder: Path, valid: Path, make: Callable[[], Case]) -> str | None:
    """A line on how a malformed input was not refused as it should be; None if all is well."""
    shutil.copytree(valid, folder)
    malformed.special_files(folder)
    case = make()
    before = contents(folder)
    done = commands.run(folder, case.arguments)
    wrong = complaints(case, done, contents(folder) == before)
    shutil.rmtree(folder)
    return f"{case.what}: {', '.join(wrong)}: {done['err'].strip()[-300:]!r}" if wrong else None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_malformed_input_is_refused_in_one_line(
    commands: Forked, family: Callable[..., Case], valid: Path, tmp_path: Path
) -> None:
    random = Random(f"{SEED} {family.__name__}")
    wrong = []
    for n in range(FAMILIES[family]):
        folder = tmp_path / str(n)
        found = refusal(commands, folder, valid, lambda here=folder: family(random, here))
        if found is not None:
            wrong.append(found)
    assert not wrong, "\n".join([f"{len(wrong)} of {FAMILIES[family]}", *wrong])


@pytest.mark.parametrize("name", ["fit", "own", "table"])
def test_what_the_malformed_are_made_of_is_right(
    commands: Forked, name: str, valid: Path, tmp_path: Path
) -> None:
    shutil.copytree(valid, tmp_path / "here")
    done = commands.run(tmp_path / "here", ["refine", f"{name}.toml"])
    assert done["code"] in ENDED, done["err"]


def test_the_trajectory_is_right(commands: Forked, valid: Path, tmp_path: Path) -> None:
    shutil.copytree(valid, tmp_path / "here")
    done = commands.run(tmp_path / "here", malformed.RDF_COMMAND)
    assert done["code"] == cli.FINISHED, done["err"]


def test_there_are_300_of_them() -> None:
    assert sum(FAMILIES.values()) == 300
