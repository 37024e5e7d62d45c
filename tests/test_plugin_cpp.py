"""The C++ tests of the plugin: built, and run by ctest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import openmm
import pytest

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"
# Without an activated environment the programs are beside its Python.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def program(*names: str) -> str:
    """The first of these programs that is installed."""
    found = [path for path in (shutil.which(name, path=PATH) for name in names) if path]
    if not found:
        pytest.skip(f"no {' or '.join(names)}, which the C++ tests are built or run with")
    return found[0]


def run(*command: object, status: int = 0) -> str:
    """What a program says; it must end as expected."""
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PATH": PATH, "OPENMM_CPU_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == status, done.stdout[-10_000:]
    return done.stdout


@pytest.mark.slow
def test_ctest(tmp_path: Path) -> None:
    """All pass, those of Reference and CPU at least; ctest names what is skipped."""
    cmake, ctest = program("cmake"), program("ctest")
    program("ninja")
    program("c++", "g++", "clang++")
    libraries = Path(openmm.version.openmm_library_path).parent
    options = [
        f"-DOPENMM_DIR={libraries}",
        "-DDIFFSIM_BUILD_TESTS=ON",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    run(cmake, "-S", PLUGIN, "-B", tmp_path, "-G", "Ninja", *options)
    run(cmake, "--build", tmp_path)
    said = run(ctest, "--test-dir", tmp_path, "--output-on-failure")
    for name in ("Serialization", "Reference", "CPU", "CPU-vec4"):
        assert re.search(rf": {name} [ .]+ +Passed", said), said
    assert "100% tests passed" in said
