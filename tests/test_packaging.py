"""What the package requires, and that the README's script does what it says."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm.app import Simulation
from packaging.requirements import Requirement
from packaging.version import Version

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import fluid, start_disordered

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


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


def test_version_is_that_of_the_distribution() -> None:
    assert metadata.version("openmm-diffsim") == diffsim.__version__


def test_every_public_name_is_there_and_documented() -> None:
    for name in diffsim.__all__:
        assert getattr(diffsim, name).__doc__


def test_the_script_of_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    """Word for word, but for the numbers of steps."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    script, by_hand = blocks[0], blocks[1]
    for long, short in (("rounds=20", "rounds=2"), ("20_000", "2_000"), ("1_000_000", "100")):
        script, by_hand = script.replace(long, short), by_hand.replace(long, short)
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
    names["g_measured"] = torch.from_numpy(np.interp(names["rdf"].r, r, names["g_measured"]))
    names["optimizer"] = torch.optim.Adam(names["pair"].parameters(), lr=0.01)
    before = names["pair"].values.detach().clone()
    exec(by_hand, names)
    assert not torch.equal(before, names["pair"].values)


def platform_reference() -> openmm.Platform:
    return openmm.Platform.getPlatform("CPU")
