"""Which box counts, where a topology, a System and a State each have one, and that it is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit
from systems import argon, context_of, empty_system, langevin, lattice, simulate, topology

from openmm_diffsim import Refinement, StatePoint
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.toml import parse_configuration
from openmm_diffsim.errors import ConfigurationError

Array = NDArray[np.float64]

N, SIDE = 64, 1.9
R = np.arange(0.2, 0.85, 0.02)
TRICLINIC = np.array([[2.2, 0, 0], [0.6, 2.1, 0], [-0.5, 0.4, 2.3]])


def written(
    folder: Path,
    pdb: Array | None,
    system_box: Array | None,
    state_box: Array | None = None,
    bonds: int = 0,
) -> dict[str, Any]:
    """The files of a fluid, and a configuration that names them; the positions fill ``pdb``."""
    top = topology(N)
    system = openmm.System()
    for _ in range(N):
        system.addParticle(39.948)
    if system_box is not None:
        system.setDefaultPeriodicBoxVectors(*system_box)
    held = openmm.HarmonicBondForce()
    for k in range(bonds):
        held.addBond(k, k + 1, 0.4, 100.0)
    if bonds:
        system.addForce(held)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    if pdb is not None:
        top.setPeriodicBoxVectors(pdb * unit.nanometer)
    x = lattice(N, np.eye(3) * SIDE if pdb is None else pdb)
    with open(folder / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(top, x * unit.nanometer, stream)
    own = {"topology": "box.pdb", "system": "system.xml"}
    if state_box is not None:
        context = context_of(empty_system(N, state_box), x, "Reference")
        state = context.getState(positions=True, velocities=True)
        (folder / "state.xml").write_text(openmm.XmlSerializer.serialize(state))
        own["state"] = "state.xml"
    g = 1 / (1 + np.exp(-(R - 0.34) / 0.01))
    np.savetxt(folder / "g.csv", np.stack([R, g], axis=1))
    target = {"observable": "rdf", "file": "g.csv", "uncertainty": 0.05}
    return {
        "system": own,
        "dynamics": {"temperature": 120.0, "timestep": 0.004, "platform": "Reference"},
        "potential": {"kind": "lennard-jones", "cutoff": 0.8},
        "target": [target],
        "refine": {"steps": 1000, "every": 25},
    }


def build(folder: Path, raw: dict[str, Any]) -> tuple[Refinement, list[str]]:
    said: list[str] = []
    return build_refinement(parse_configuration(raw, folder), warn=said.append), said


CUBE, LARGE, DEFAULT = np.eye(3) * SIDE, np.eye(3) * 2.4, np.eye(3) * 2.0


@pytest.mark.parametrize(
    ("boxes", "counts", "words"),
    [
        ((LARGE, None, None), LARGE, ("2.4 x 2.4", "2 x 2 x 2 nm, OpenMM's", "topology counts")),
        ((TRICLINIC, None, None), TRICLINIC, ("triclinic", "OpenMM's", "topology counts")),
        ((CUBE, LARGE, None), CUBE, ("1.9 x 1.9", "2.4 x 2.4", "topology counts")),
        ((LARGE, CUBE, TRICLINIC), TRICLINIC, ("2.4 x 2.4", "triclinic", "state counts")),
        ((LARGE, None, DEFAULT), DEFAULT, ("2.4 x 2.4", "2 x 2 x 2", "state counts")),
        ((None, None, None), DEFAULT, ("no file says", "2 nm")),
        ((np.eye(3) * 0.1, LARGE, None), LARGE, ()),  # what stands for no box in a PDB file
        ((None, LARGE, None), LARGE, ()),
        ((CUBE * 1.00001, CUBE, None), CUBE, ()),  # a PDB file's rounding: the System is exact
        ((DEFAULT, None, None), DEFAULT, ()),
    ],
)
def test_the_box_that_the_positions_are_in_counts_and_others_are_told(
    tmp_path: Path, boxes: tuple[Any, Any, Any], counts: Array, words: tuple[str, ...]
) -> None:
    fit, said = build(tmp_path, written(tmp_path, *boxes))
    point = fit.targets[0].state_points[0]
    np.testing.assert_allclose(point.box(), counts, atol=1e-3)
    assert len(said) == bool(words)
    for word in words:
        assert word in said[0]


def test_a_simulation_in_openmms_default_box_is_told() -> None:
    potential = argon()
    system = openmm.System()
    for _ in range(27):
        system.addParticle(39.948)
    potential.attach(system)
    top = topology(27)
    top.setPeriodicBoxVectors(LARGE * unit.nanometer)
    simulation = simulate(system, lattice(27, LARGE), langevin(), top=top)
    with pytest.warns(RuntimeWarning, match=r"default, 2 x 2 x 2 nm.*2\.4 x 2\.4"):
        StatePoint(simulation, potential)
    simulation.context.setPeriodicBoxVectors(*top.getPeriodicBoxVectors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StatePoint(simulation, potential)


def test_a_topology_of_another_kind_is_named(tmp_path: Path) -> None:
    raw = written(tmp_path, CUBE, CUBE)
    (tmp_path / "box.pdb").rename(tmp_path / "box.gro")
    raw["system"]["topology"] = "box.gro"
    with pytest.raises(ConfigurationError, match=r"system\.topology.*expected a PDB or mmCIF"):
        build(tmp_path, raw)
