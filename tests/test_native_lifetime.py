"""Contexts die in any order and on any thread, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_systems import CPU, REFERENCE, Where, why_missing

from openmm_diffsim.engine import native

PROGRAM = Path(__file__).with_name("native_lifetime.py")
OPENCL = Where("OpenCL", "single")


def lifetime(task: str, where: Where) -> list[str]:
    """The lines that ``native_lifetime.py`` printed, but for OpenMM's warning about OpenCL."""
    reason = why_missing(where)
    if reason is not None:
        pytest.skip(reason)
    package = str(native.FOLDER.parents[1])  # the one that is tested, wherever it is
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), task, where.platform],
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return [line for line in done.stdout.splitlines() if not line.startswith("WARNING")]


@pytest.mark.parametrize("where", [REFERENCE, CPU, OPENCL], ids=str)
@pytest.mark.parametrize("task", ["order", "threads"])
def test_contexts_come_and_go(task: str, where: Where) -> None:
    assert lifetime(task, where) == ["done"]


@pytest.mark.parametrize("where", [REFERENCE, CPU], ids=str)
def test_contexts_leave_no_memory_behind(where: Where) -> None:
    """A thousandth of what one Context holds at most, on average of 100."""
    numbers, done = lifetime("memory", where)
    held, left = numbers.split()
    assert done == "done"
    assert float(held) > 50_000  # the measure sees what there is to leak
    assert float(left) < 1e-3 * float(held)
