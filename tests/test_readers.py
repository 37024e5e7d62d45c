"""Parameters of Systems that OpenMM reads from files of Amber, GROMACS and CHARMM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from peptides import alanine_dipeptide, folded
from readers import amber, charmm, gromacs
from systems import context_of, empty_system, energy_and_forces, lattice, simulate
from test_parameter_terms import check_features
from test_system_parameters import features_of

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, bonds_of
from openmm_diffsim.engine.recorder import describe_particles
from openmm_diffsim.errors import AttachError, PotentialError
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters
from openmm_diffsim.statistics.molecules import molecule_centres
from openmm_diffsim.statistics.scaling import SCALING

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
    with pytest.warns(RuntimeWarning, match="do not say how their products follow"):
        potential.charges()
    assert len(potential.terms["charges"].places) == 2  # those of the solvent follow
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


def test_forces_without_entries_are_not_meant(tmp_path: Path) -> None:
    """A reader's Force for what a molecule does not have, beside one that has all."""
    prmtop, _ = amber(tmp_path, chains=1, waters=1)
    system = prmtop.createSystem(**PME)
    system.addForce(openmm.HarmonicBondForce())
    assert len(learned(system, "bonds").terms["bonds"].group_names) == 3
    alone = empty_system(3, np.eye(3))
    alone.addForce(openmm.HarmonicAngleForce())
    with pytest.raises(AttachError, match="HarmonicAngleForce has no entries: rigid water"):
        learned(alone, "angles")
    with pytest.raises(AttachError, match=r"expected a NonbondedForce .* none, only \['Harmonic"):
        learned(alone, "charges")


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
    with pytest.raises(PotentialError, match="names of types are taken with types="):
        diffsim.SystemParameters(system).lennard_jones(["CH2"])


# OPLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [1, 3])
@pytest.mark.parametrize("switch", [None, 0.7])
def test_geometric_rules_of_gromacs(tmp_path: Path, rule: int, switch: float | None) -> None:
    """With the 1-4 pairs of its CustomBondForce, and what is charged elsewhere."""
    top, x = gromacs(tmp_path, rule)
    system = top.createSystem(**PME, switchDistance=switch, useDispersionCorrection=False)
    potential = learned(system, "charges")
    term = potential.lennard_jones(types=diffsim.atom_types(top))
    assert term.sigma.names == ("CH3", "CH2", "OH", "HO", "OW")
    assert term.sigma.numbers() == pytest.approx([0.39, 0.395, 0.307, 0.1, 0.315])
    assert term.epsilon.numbers() == pytest.approx([0.73, 0.5, 0.71, 0.05, 0.636])
    check_features(potential, system, x, tries=20)


def test_pairs_of_opls_follow_their_particles(tmp_path: Path) -> None:
    """By the geometric rule, with the half that the file says."""
    top, _ = gromacs(tmp_path)
    system = top.createSystem(**PME)
    potential = diffsim.SystemParameters(system)
    term = potential.lennard_jones({"O": np.arange(3, 30, 5)}, force="LennardJonesForce")
    with torch.no_grad():
        term.sigma.theta += 0.1
        term.epsilon.theta += 0.2
    attached(potential, system).update(None, None)
    pairs = next(f for f in system.getForces() if f.getName() == "LennardJonesExceptions")
    (c, a), own = pairs.getBondParameters(0)[2], (0.307 * np.exp(0.1), 0.71 * np.exp(0.2))
    sigma, epsilon = np.sqrt(0.39 * own[0]), 0.5 * np.sqrt(0.73 * own[1])
    assert [c, a] == pytest.approx([4 * epsilon * sigma**6, 4 * epsilon * sigma**12], rel=1e-8)


def test_the_correction_of_opls_beyond_the_cutoff(tmp_path: Path) -> None:
    """OpenMM integrates it, to five digits."""
    top, x = gromacs(tmp_path)
    energies, found = [], []
    for corrected in (True, False):
        system = top.createSystem(**PME, useDispersionCorrection=corrected)
        potential, context = learned(system, "lennard_jones"), context_of(system, x, "Reference")
        energies.append(energy_and_forces(context)[0])
        c = potential.coefficients().detach().numpy()
        found.append(c @ features_of(potential, context))
    assert found[0] - found[1] == pytest.approx(energies[0] - energies[1], rel=1e-5)
    assert energies[0] - energies[1] < -1.0


@pytest.mark.parametrize(
    ("energy", "rows"),
    [
        ("4*e*((s/r)^12-(s/r)^6); s=sqrt(s1*s2); e=sqrt(e1*e2)", [(0.3, 0.5), (0.35, 0.9)]),
        ("4*e*((s/r)^12-(s/r)^6); s=0.5*(s1+s2); e=sqrt(e1*e2)", [(0.3, 0.5), (0.35, 0.9)]),
    ],
)
def test_sigma_and_epsilon_of_a_custom_force(energy: str, rows: Any) -> None:
    """As XML files have them for OPLS."""
    system, force = empty_system(27, 1.4 * np.eye(3)), openmm.CustomNonbondedForce(energy)
    for name in "se":
        force.addPerParticleParameter(name)
    for k in range(27):
        force.addParticle(rows[k % 2])
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    force.addExclusion(0, 1)
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    term = potential.lennard_jones()
    assert term.sigma.numbers() == pytest.approx([0.3, 0.35])
    check_features(potential, system, lattice(27, 1.4 * np.eye(3), 0.05), tries=20)


def test_what_is_no_lennard_jones_force_is_refused() -> None:
    system, force = empty_system(4, np.eye(3)), openmm.CustomNonbondedForce("a1*a2*exp(-b1*b2*r)")
    for name in "ab":
        force.addPerParticleParameter(name)
    for _ in range(4):
        force.addParticle([1.0, 2.0])
    system.addForce(force)
    with pytest.raises(AttachError, match="expected a CustomNonbondedForce of Lennard-Jones"):
        diffsim.SystemParameters(system).lennard_jones()
    force.setEnergyFunction("a1*a2/r^12-b1*b2/r^6")
    force.setParticleParameters(2, [0.5, 0.0])
    with pytest.raises(AttachError, match=r"particle 2 has \[0.5, 0.0\], one of its coefficients"):
        diffsim.SystemParameters(system).lennard_jones()


@pytest.mark.parametrize("rule", [1, 2, 3])
def test_tables_of_gromacs_know_their_rule(tmp_path: Path, rule: int) -> None:
    top, x = gromacs(tmp_path, rule, nbfix=True)
    system = top.createSystem(**PME, useDispersionCorrection=False)
    potential = diffsim.SystemParameters(system)
    assert potential.pair_tables().sigma.names == ("0", "1", "2", "3", "4", "0-4")
    check_features(potential, system, x, tries=10)


def test_opls_goes_to_another_system(tmp_path: Path) -> None:
    """A vapour of one molecule has the parameters of the liquid."""
    top, _ = gromacs(tmp_path)
    vapour, x = gromacs(tmp_path, chains=1, waters=0)
    liquid, gas = top.createSystem(**PME), vapour.createSystem()
    potential = learned(liquid, "lennard_jones")
    potential.attach(gas)
    check_features(potential, gas, x, tries=5)


# Sampled -----------------------------------------------------------------------------------------


def simulation_of(system: openmm.System, x: Any, pressure: float | None = None) -> app.Simulation:
    """Minimised, and warm."""
    if pressure is not None:
        barostat = openmm.MonteCarloBarostat(pressure, 300, 5)
        barostat.setRandomNumberSeed(1)
        system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.0005)
    integrator.setRandomNumberSeed(1)
    simulation = simulate(system, x, integrator)
    openmm.LocalEnergyMinimizer.minimize(simulation.context, 10, 50)
    simulation.context.setVelocitiesToTemperature(300, 1)
    return simulation


def opls(folder: Path, **options: Any) -> tuple[openmm.System, Any, Any]:
    """Its System, positions, and Lennard-Jones parameters, charges and angles that are learned."""
    top, x = gromacs(folder)
    system = top.createSystem(**{**PME, "nonbondedCutoff": 0.6 * NM, **options})
    potential = learned(system, "lennard_jones", "angles")
    potential.charges(range(30))
    return system, x, potential


def test_pressure_of_opls_is_a_difference_over_the_box(tmp_path: Path) -> None:
    """N k T / V - dU/dV, moving whole molecules, at parameters other than those of the run.

    By the difference that also counts pairs which cross the cutoff, where the direct part of PME
    jumps; its own error of second order is 2e-5 here.
    """
    system, x, potential = opls(tmp_path, switchDistance=0.5)
    simulation = simulation_of(system, x)
    point, pressure = diffsim.StatePoint(simulation, potential), diffsim.Pressure()
    samples = point.sample(1, 1, [pressure])
    theta = flat_parameters(potential) + 0.05
    found = samples.at(theta).average(pressure)
    set_flat_parameters(potential, theta)
    point.apply()
    context = simulation.context
    at = np.array(context.getState(getPositions=True).getPositions(True)._value)
    of = describe_particles(context, bonds_of(system)).molecule_of
    centres = molecule_centres(at, of)[of]

    def energy(scale: float) -> float:
        context.setPeriodicBoxVectors(*(scale * 1.9 * np.eye(3)))
        context.setPositions(at + (scale - 1) * centres)
        return energy_and_forces(context)[0]

    slope = (energy(1 + SCALING) - energy(1 - SCALING)) / (2 * SCALING) / (3 * 1.9**3)
    bar = 16.6053906717  # of kJ/mol/nm^3
    expected = bar * (18 * 0.00831446261815324 * 300 / 1.9**3 - slope)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_opls_at_constant_pressure_goes_through_a_file(tmp_path: Path) -> None:
    system, x, potential = opls(tmp_path, useDispersionCorrection=True)
    point = diffsim.StatePoint(simulation_of(system, x, 1.0), potential)
    density = diffsim.Density()
    samples = point.sample(100, 10, [density])
    samples.save(tmp_path / "samples.npz")
    again = diffsim.Samples.load(tmp_path / "samples.npz", potential, [density])
    start = flat_parameters(potential)
    assert torch.equal(samples.average(density), again.average(density))
    found = torch.from_numpy(again.gradient(lambda s: s.average(density)[0])[0])
    slopes = torch.zeros_like(start)
    for k in range(len(start)):
        h = torch.zeros_like(start)
        h[k] = 1e-4
        both = [again.at(start + sign * h).average(density)[0] for sign in (1, -1)]
        slopes[k] = (both[0] - both[1]) / 2e-4
    assert torch.allclose(found, slopes, rtol=1e-5, atol=1e-6 * float(slopes.abs().max()))


# What is not learned -----------------------------------------------------------------------------


def test_ions_of_12_6_4(tmp_path: Path) -> None:
    """Amber's c / r^4 is a force of its own, and stays."""
    _, x = amber(tmp_path)
    path = tmp_path / "system.prmtop"
    rows = "".join(f"{20.0 * (k == 10):16.8E}" + "\n" * (k % 5 == 4) for k in range(21))
    path.write_text(f"{path.read_text()}%FLAG LENNARD_JONES_CCOEF\n%FORMAT(5E16.8)\n{rows}\n")
    system = app.AmberPrmtopFile(str(path)).createSystem(**PME)
    check_features(learned(system, "lennard_jones", "charges"), system, x, tries=5)
    with pytest.raises(AttachError, match="expected a CustomNonbondedForce with two Discrete2D"):
        learned(system, "pair_tables")


def test_a_soft_core_stays_beside_what_is_learned() -> None:
    """One molecule is bound to all others by an alchemical force, with interaction groups."""
    box = 1.4 * np.eye(3)
    system, nonbonded = empty_system(27, box), openmm.NonbondedForce()
    soft = openmm.CustomNonbondedForce("lam*4*e*x*(x-1); x=1/(0.5*(1-lam)+(r/s)^6)")
    for name, value in (("lam", 0.7), ("e", 0.8), ("s", 0.3)):
        soft.addGlobalParameter(name, value)
    for k in range(27):
        nonbonded.addParticle(0.0, 0.3, 0.8 * (k > 0))
        soft.addParticle([])
    soft.addInteractionGroup([0], range(1, 27))
    for force in (nonbonded, soft):
        force.setNonbondedMethod(force.CutoffPeriodic)
        force.setCutoffDistance(0.6)
        system.addForce(force)
    potential = learned(system, "lennard_jones")
    potential.global_parameters("e")
    assert potential.energy_is_linear
    check_features(potential, system, lattice(27, box, 0.05), tries=5)
    assert not diffsim.SystemParameters(system).global_parameters("lam").energy_is_linear
