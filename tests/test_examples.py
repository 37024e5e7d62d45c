"""Every example runs to its end, where its own assertions are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))
DATA = {"6_rdf_and_vacf": ["diffsim/lj_rdf_rho0.3_T1.2.csv"]}  # beside the repository, or not


def test_there_are_numbered_examples() -> None:
    numbers = sorted(int(path.name.partition("_")[0]) for path in NUMBERED)
    assert numbers == list(range(1, len(NUMBERED) + 1)) and len(NUMBERED) >= 10


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_example_holds(path: Path, tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    data = [str(shared_data(name).parent) for name in DATA.get(path.stem, [])]
    done = subprocess.run(
        [sys.executable, str(path), *data],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_example_is_short_and_ends_in_an_assertion(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 65
    assert lines[-1].startswith("assert ")
