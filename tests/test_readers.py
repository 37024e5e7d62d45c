"""Parameters of Systems that OpenMM reads from files of Amber, GROMACS and CHARMM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openmm import app, unit
from peptides import alanine_dipeptide, folded
from readers import amber, charmm, gromacs
from test_parameter_terms import check_features

import openmm_diffsim as diffsim
from openmm_diffsim.errors import AttachError, PotentialError

NM = unit.nanometer
PME: dict[str, Any] = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.8 * NM}

pytestmark = pytest.mark.filterwarnings("ignore:.*exceptions .1-4 pairs.*")


def learned(system: Any, *names: str) -> Any:
    potential = diffsim.SystemParameters(system)
    for name in names:
        getattr(potential, name)()
    return potential


@pytest.mark.parametrize("constraints", [None, app.HBonds])
def test_a_prmtop(tmp_path: Path, constraints: Any) -> None:
    prmtop, x = amber(tmp_path)
    system = prmtop.createSystem(**PME, constraints=constraints, hydrogenMass=3 * unit.amu)
    names = ("lennard_jones", "charges", "bonds", "angles", "torsions")
    check_features(learned(system, *names), system, x, tries=10)


@pytest.mark.parametrize("solvent", [app.OBC2, app.GBn2])
def test_a_prmtop_in_implicit_solvent(tmp_path: Path, solvent: Any) -> None:
    prmtop, x = amber(tmp_path, chains=2, waters=1, box=False)
    with pytest.warns(UserWarning, match="Non-optimal GB"):
        system = prmtop.createSystem(implicitSolvent=solvent)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones(["c3", "oh"], types=diffsim.atom_types(prmtop))
    with pytest.warns(RuntimeWarning, match="has the same charges as parameters of its own"):
        potential.charges()
    check_features(potential, system, x, tries=10)


def test_a_topology_of_gromacs(tmp_path: Path) -> None:
    top, x = gromacs(tmp_path, rule=2)
    system = top.createSystem(**PME)
    names = ("lennard_jones", "charges", "bonds", "angles", "torsions", "rb_torsions")
    potential = learned(system, *names)
    potential.custom("k", force="HarmonicTorsionForce")
    check_features(potential, system, x, tries=10)


@pytest.mark.parametrize("nbfix", [False, True])
def test_a_psf(tmp_path: Path, nbfix: bool) -> None:
    topology = alanine_dipeptide()
    psf, parameters = charmm(tmp_path, topology, nbfix)
    system = psf.createSystem(parameters, constraints=app.HBonds)
    potential = learned(system, "angles", "torsions", "cmap")
    potential.pair_tables() if nbfix else potential.lennard_jones()
    with pytest.raises(AttachError, match=r"found 2 among .*force=system.getForce"):
        potential.bonds()
    springs = [f for f in system.getForces() if f.getName() == "HarmonicBondForce"]
    potential.bonds(force=springs[0])
    potential.bonds(force=springs[1], name="urey_bradley")
    check_features(potential, system, folded(system), tries=10)


# Types -------------------------------------------------------------------------------------------


def test_types_as_files_name_them(tmp_path: Path) -> None:
    prmtop, _ = amber(tmp_path, chains=1, waters=1)
    assert diffsim.atom_types(prmtop) == ["c3", "cx", "cx", "oh", "ho", "OW", "HW", "HW"]
    top, _ = gromacs(tmp_path, chains=2, waters=1)
    chain = ["CH3", "CH2", "CH2", "OH", "HO"]
    assert diffsim.atom_types(top) == [*chain, *chain, "OW", "HW", "HW"]
    assert diffsim.atom_types(top, classes=True)[:5] == ["Ch3", "Ch2", "Ch2", "Oh", "Ho"]
    psf, parameters = charmm(tmp_path, alanine_dipeptide())
    before = diffsim.atom_types(psf)
    assert before[:6] == ["HA3", "CT3", "HA3", "HA3", "C", "O"]
    psf.createSystem(parameters)
    assert diffsim.atom_types(psf) == before


def test_what_has_no_types(tmp_path: Path) -> None:
    prmtop, _ = amber(tmp_path, chains=1, waters=1)
    with pytest.raises(PotentialError, match="AmberPrmtopFile has its own topology"):
        diffsim.atom_types(prmtop, prmtop.topology)
    with pytest.raises(PotentialError, match="expected a ForceField and a topology, or an Amber"):
        diffsim.atom_types("system.prmtop")
    with pytest.raises(PotentialError, match="needs the topology"):
        diffsim.atom_types(app.ForceField())


def test_ties_by_types_of_files(tmp_path: Path) -> None:
    top, x = gromacs(tmp_path, rule=2)
    system, types = top.createSystem(**PME), diffsim.atom_types(top)
    potential = diffsim.SystemParameters(system)
    sites = potential.lennard_jones(["CH2", "OW"], types=types)
    assert sites.sigma.names == ("CH2", "OW")
    assert sites.sigma.numbers() == pytest.approx([0.395, 0.315])
    with pytest.raises(PotentialError, match="charge of type 'CH2': expected one value"):
        potential.charges(types=types)
    oxygen = {"O": ["OH"], "H": np.flatnonzero(np.array(types) == "HO")}
    charges = potential.charges(oxygen, types=types)
    assert charges.told()[0] == ["q[O]", "q[H]"]
    turns = potential.torsions([("CH2", "CH2", "OH", "HO")], types=types)
    assert turns.group_names == ["CH2-CH2-OH-HO n=3", "CH2-CH2-OH-HO n=1"]
    check_features(potential, system, x, tries=10)
    with pytest.raises(PotentialError, match="no particle is of type 'XX'; there are CH2, CH3"):
        diffsim.SystemParameters(system).lennard_jones(["XX"], types=types)
    with pytest.raises(PotentialError, match="one for each of 66 particles, got 3"):
        diffsim.SystemParameters(system).lennard_jones(types=types[:3])
    with pytest.raises(PotentialError, match="with types= names of types"):
        diffsim.SystemParameters(system).lennard_jones(["CH2"])
