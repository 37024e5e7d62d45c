"""What the package requires and installs, and that the README's script does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import yaml
from openmm.app import Simulation
from packaging.requirements import Requirement
from packaging.version import Version

import openmm_diffsim as diffsim
from openmm_diffsim.engine import native
from openmm_diffsim.engine.native import libraries
from openmm_diffsim.fluid import fluid, start_disordered

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = (ROOT / "docs/install.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

needs_native = pytest.mark.skipif(
    native.why_not is not None, reason=f"no native force: {native.why_not}"
)


def requirement(name: str) -> Requirement:
    found = map(Requirement, metadata.requires("openmm-diffsim") or [])
    return next(r for r in found if r.name == name)


def test_torch_has_an_upper_bound_and_this_torch_is_within() -> None:
    torch_range = requirement("torch").specifier
    assert any(bound.operator in ("<", "<=") for bound in torch_range)
    assert Version(Version(torch.__version__).base_version) in torch_range
    assert Version("2.14.0") not in torch_range


def test_openmm_is_one_of_those_supported() -> None:
    assert Version(openmm.__version__) in requirement("openmm").specifier


def test_native_force_is_built_for_the_openmm_that_gets_installed() -> None:
    """One version, pinned at both places; else a new installation might have no native force."""
    build = next(
        found
        for found in map(Requirement, PYPROJECT["build-system"]["requires"])
        if found.name == "openmm"
    )
    assert re.fullmatch(r"==[\d.]+", str(build.specifier))
    assert requirement("openmm").specifier == build.specifier


def test_how_to_install_names_the_pinned_openmm() -> None:
    pinned = str(requirement("openmm").specifier)
    assert f'"openmm[cuda13]{pinned}"' in INSTALL
    assert f"installs, {pinned.removeprefix('==')}." in INSTALL


# What is released --------------------------------------------------------------------------------


def test_version_is_that_of_the_distribution() -> None:
    assert metadata.version("openmm-diffsim") == diffsim.__version__


def test_the_version_stands_in_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    read = {"pyproject.toml", "setup.py", "README.md", "CITATION.cff", "docs/conf.py"}
    read |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipe").iterdir()}
    found = [name for name in read if diffsim.__version__ in (ROOT / name).read_text()]
    assert found == []
    assert f"## {diffsim.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_sdist_is_complete(tmp_path: Path) -> None:
    """It holds what the repository does, but for what is of the repository itself."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not in a clone")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    for name in tracked:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    command = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path / "tree", check=True, timeout=120)
    (path,) = tmp_path.glob("*.tar.gz")
    assert path.name == f"openmm_diffsim-{diffsim.__version__}.tar.gz"
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - held == {".ci/run", ".gitignore"}


def test_the_recipe_asks_for_what_the_package_does() -> None:
    """But for vesin-torch, which conda-forge does not have."""
    recipe = yaml.safe_load((ROOT / "recipe/recipe.yaml").read_text(encoding="utf-8"))
    asked = [entry for entry in recipe["requirements"]["run"] if isinstance(entry, str)]
    asked = [entry.replace("${{ openmm }}", recipe["context"]["openmm"]) for entry in asked]
    found = {r.name: r.specifier for r in map(Requirement, asked)}
    conda = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    needed = map(Requirement, PYPROJECT["project"]["dependencies"])
    expected = {conda.get(r.name, r.name): r.specifier for r in needed if r.marker is None}
    del expected["vesin-torch"], found["python"]
    assert found == expected


def test_the_citation_says_what_is_needed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license", "type"} <= citation.keys()
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] == PYPROJECT["project"]["authors"]
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", work["doi"]) for work in citation["references"])


def test_every_public_name_is_there_and_documented() -> None:
    for name in diffsim.__all__:
        assert getattr(diffsim, name).__doc__


# The native libraries ----------------------------------------------------------------------------


@needs_native
def test_libraries_lie_in_the_package_with_the_version_they_are_for() -> None:
    lib = native.FOLDER
    assert (lib / "openmm_version.txt").read_text().strip() == openmm.__version__
    assert not (lib / "why_not.txt").exists()
    assert "Reference" in native.loaded
    found = {path.stem.removeprefix("libOpenMMDiffSim") for path in lib.glob("*.so")}
    assert found - {""} == {*native.loaded, *native.not_loaded}


def package_with(folder: Path, files: dict[str, str]) -> Path:
    """A copy of this package in ``folder``, with files added to its lib/ or replaced there."""
    package = folder / "openmm_diffsim"
    shutil.copytree(native.FOLDER.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "lib").mkdir(exist_ok=True)
    for name, text in files.items():
        (package / "lib" / name).write_text(text)
    return package


def info_of(folder: Path) -> str:
    """What ``openmm-diffsim info`` says in a process of its own, with the package of a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "openmm_diffsim", "info"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_native
def test_info_names_the_platforms_of_the_native_force(tmp_path: Path) -> None:
    package_with(tmp_path, {"libOpenMMDiffSimBroken.so": "not a library"})
    said = info_of(tmp_path)
    assert f"native force: present, built for OpenMM {openmm.__version__}" in said
    assert re.search(r"^  Reference +yes$", said, flags=re.MULTILINE)
    assert re.search(r"^  Broken +no: OpenMM has no Broken platform", said, flags=re.MULTILINE)


@needs_native
def test_another_openmm_is_refused(tmp_path: Path) -> None:
    package_with(tmp_path, {"openmm_version.txt": "7.0\n"})
    said = info_of(tmp_path)
    assert (
        f"native force: missing: it was built for OpenMM 7.0, but this is OpenMM "
        f"{openmm.__version__}: pip install openmm==7.0"
    ) in said
    assert "learned forces run as a CustomNonbondedForce" in said


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "lib has no libraries; if this is a source tree, pip install -e . puts them there"),
        ({"why_not.txt": "no compiler was found\n"}, "no compiler was found"),
        (
            {"libOpenMMDiffSim.so": "not a library", "openmm_version.txt": openmm.__version__},
            "libOpenMMDiffSim.so cannot be loaded: ",
        ),
    ],
    ids=["source tree", "no compiler", "broken library"],
)
def test_missing_libraries_are_a_reason_not_an_error(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    folder = tmp_path if files else tmp_path / "lib"
    assert reason in (libraries.load(folder) or "")


def build_native(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run that part of setup.py which builds the plugin, into a folder."""
    command = [sys.executable, "setup.py", "-q", "build_native", "--build-lib", str(folder)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_compiler_the_reason_is_installed(tmp_path: Path) -> None:
    stale = tmp_path / "openmm_diffsim" / "lib" / "libOpenMMDiffSim.so"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = build_native(tmp_path, CXX="/nonexistent", OPENMM_DIFFSIM_REQUIRE_NATIVE="0")
    assert done.returncode == 0, done.stderr
    assert "CMake Error" in done.stdout and "/nonexistent" in done.stdout
    assert "going on without the native plugin: no working C++ compiler" in done.stderr
    assert [path.name for path in stale.parent.iterdir()] == ["why_not.txt"]
    why_not = (stale.parent / "why_not.txt").read_text()
    assert why_not.startswith("no working C++ compiler was found") and "g++" in why_not


def test_a_plugin_that_is_required_and_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    done = build_native(tmp_path, CXX="/nonexistent", OPENMM_DIFFSIM_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert "the native plugin cannot be built: no working C++ compiler" in done.stderr


def test_code_that_does_not_compile_is_named(tmp_path: Path) -> None:
    """A compiler that passes CMake's own trial, and then complains."""
    compiler = tmp_path / "c++"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *plugin/*) echo "x.cpp:1:1: error: no" >&2; exit 1;; esac\n'
        'exec g++ "$@"\n'
    )
    compiler.chmod(0o755)
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    done = build_native(tmp_path, CXX=str(compiler), OPENMM_DIFFSIM_REQUIRE_NATIVE="0")
    assert done.returncode == 0, done.stderr
    why_not = (tmp_path / "openmm_diffsim" / "lib" / "why_not.txt").read_text()
    assert why_not.startswith("its build failed (pip install -v shows all of it): x.cpp:1:1: error")


# The README --------------------------------------------------------------------------------------


def test_the_script_of_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    """Word for word, but for the numbers of steps."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (script,) = blocks
    for long, short in (("rounds=20", "rounds=2"), ("20_000", "2_000"), ("1_000_000", "100")):
        script = script.replace(long, short)
    topology, system = fluid(180, 20.0, 18.0)
    r = np.arange(0.2, 1.0, 0.01)
    x6 = (0.27 / r) ** 6
    integrator = openmm.LangevinMiddleIntegrator(298, 1, 0.004)
    integrator.setRandomNumberSeed(1)
    scratch = Simulation(
        topology, system, openmm.LangevinMiddleIntegrator(298, 1, 0.004), platform_reference()
    )
    start_disordered(scratch, 298, 1)
    names = {
        "topology": topology,
        "system": system,
        "integrator": integrator,
        "platform": platform_reference(),
        "positions": scratch.context.getState(getPositions=True).getPositions(),
        "Simulation": Simulation,
        "oxygens": range(180),
        "r": r,
        "g_measured": np.exp(-2 * (x6**2 - x6)),
        "g_error": 0.05,
    }
    script = script.replace("liquid =", "settle(simulation); liquid =")
    names["settle"] = lambda s: openmm.LocalEnergyMinimizer.minimize(s.context, 10.0, 200)
    exec(script, names)
    assert len(names["fit"].history) == 2 or names["fit"].converged
    assert np.isfinite(names["u_error"]).all()


def platform_reference() -> openmm.Platform:
    return openmm.Platform.getPlatform("CPU")
