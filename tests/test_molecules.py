"""Molecules: what holds them together, their centres, and what a box that cut them changes."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit
from systems import BOXES, argon, context_of, empty_system, lattice, topology

from openmm_diffsim import (
    RDF,
    LennardJones,
    PairPotential,
    Pressure,
    SampleReporter,
    sample_trajectory,
)
from openmm_diffsim.engine.adapters import bonds_of
from openmm_diffsim.engine.recorder import FrameRecorder, molecules_of
from openmm_diffsim.errors import FramesError, ObservableError, SamplingError
from openmm_diffsim.statistics.molecules import (
    Bonding,
    minimum_image,
    molecule_centres,
    pairs_within,
)

Array = NDArray[np.float64]

PRESSURE = Pressure()
CHAINS, BEADS = 6, 12  # as long as 11 bonds of 0.15 nm, in a box of 1.3 nm


def cut(positions: Array, box: Array) -> Array:
    """Every particle in the box, as programs write it."""
    fractions = positions @ np.linalg.inv(box)
    return np.asarray((fractions - np.floor(fractions)) @ box)


def chains(box: Array, periodic: bool = False) -> tuple[openmm.System, LennardJones, Array]:
    """Stretched chains, some longer than half the box, with a learned force between them."""
    system = empty_system(CHAINS * BEADS, box)
    bonds, rest = openmm.HarmonicBondForce(), openmm.NonbondedForce()
    bonds.setUsesPeriodicBoundaryConditions(periodic)
    rng = np.random.default_rng(4)
    positions = []
    for chain in range(CHAINS):
        direction = rng.normal(size=3)
        direction *= 0.15 / np.linalg.norm(direction)
        start = rng.random(3) @ box
        positions += [start + k * direction + 0.02 * rng.normal(size=3) for k in range(BEADS)]
        for k in range(BEADS - 1):
            bonds.addBond(BEADS * chain + k, BEADS * chain + k + 1, 0.15, 1e3)
    system.addForce(bonds)
    for _ in range(CHAINS * BEADS):
        rest.addParticle(0.0, 0.2, 0.1)
    rest.createExceptionsFromBonds([bonds.getBondParameters(k)[:2] for k in range(66)], 1, 1)
    rest.setNonbondedMethod(rest.CutoffPeriodic)
    rest.setCutoffDistance(0.5)
    system.addForce(rest)
    potential = argon(cutoff=0.5)
    potential.attach(system)
    return system, potential, np.array(positions)


def stored(frames: list[Array], box: Array, n_atoms: int) -> mdtraj.Trajectory:
    made = mdtraj.Trajectory(np.array(frames), mdtraj.Topology.from_openmm(topology(n_atoms)))
    made.unitcell_vectors = np.array([box] * len(frames))
    return made


def pressures(
    potential: Any, trajectory: Any, context: openmm.Context, kelvin: float = 200.0
) -> Array:
    samples = sample_trajectory(potential, trajectory, context, [PRESSURE], temperature=kelvin)
    return samples.at().values(PRESSURE).detach().numpy()[:, 0]


@pytest.mark.parametrize("shape", ["cubic", "skewed", "dodecahedron"])
@pytest.mark.parametrize("periodic", [True, False])
def test_chains_cut_by_the_box_have_the_pressure_and_energy_of_whole_ones(
    shape: str, periodic: bool
) -> None:
    box = 0.65 * BOXES[shape]
    system, potential, positions = chains(box, periodic)
    assert np.ptp(positions[:BEADS], axis=0).max() > 0.5 * box[0, 0]
    context = context_of(system, positions, "Reference")
    whole = stored([positions], box, len(positions))
    wrapped = stored([cut(positions, box)], box, len(positions))
    assert np.abs(wrapped.xyz - whole.xyz).max() > 0.5
    expected, found = (pressures(potential, t, context) for t in (whole, wrapped))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    samples = [sample_trajectory(potential, t, context, temperature=200) for t in (whole, wrapped)]
    energies = [s.run_energies()[0] for s in samples]
    assert energies[1] == pytest.approx(energies[0], rel=1e-4)


def test_a_running_simulation_may_start_from_molecules_that_are_cut() -> None:
    box = 0.65 * BOXES["skewed"]
    system, potential, positions = chains(box, periodic=True)
    found = []
    for x in (positions, cut(positions, box)):
        recorder = FrameRecorder(potential, context_of(system, x, "Reference"), [PRESSURE], 200.0)
        recorder.add(x, box, 0.0)
        samples = recorder.samples(potential.coefficients().detach().numpy(), 200.0, None, 1)
        found.append(samples.at().values(PRESSURE).item())
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("model", ["spce", "tip4pew"])
def test_rigid_water_cut_by_the_box_has_the_pressure_of_whole_water(model: str) -> None:
    field = app.ForceField(f"amber14/{model}.xml")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.topology.setPeriodicBoxVectors(np.eye(3) * 1.3 * unit.nanometer)
    modeller.addSolvent(field, model=model, numAdded=40)
    box = np.eye(3) * 1.3
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.6, rigidWater=True
    )
    system.setDefaultPeriodicBoxVectors(*box)
    oxygens = [atom.index for atom in modeller.topology.atoms() if atom.name == "O"]
    potential = LennardJones(0.3, 0.4, cutoff=0.6, knots=20)
    potential.attach(system, atoms=oxygens)
    rng = np.random.default_rng(2)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer)) + rng.random(3)
    context = context_of(system, positions, "CPU")
    whole, wrapped = (stored([x], box, len(x)) for x in (positions, cut(positions, box)))
    assert np.abs(wrapped.xyz - whole.xyz).max() > 1.0
    expected, found = (pressures(potential, t, context) for t in (whole, wrapped))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=3.0)  # single precision


@pytest.mark.parametrize("where", ["live", "stored"])
def test_a_bond_that_spans_the_box_has_no_pressure(where: str) -> None:
    """Bonds of no strength that join all particles: the molecules that OpenMM has are none."""
    system, potential, positions = chains(0.65 * BOXES["cubic"], periodic=True)
    loose = openmm.HarmonicBondForce()
    loose.setUsesPeriodicBoundaryConditions(True)
    for k in range(0, len(positions) - BEADS, BEADS):
        loose.addBond(k, k + BEADS, 0.4, 1e-9)
    system.addForce(loose)
    context = context_of(system, positions, "Reference")
    assert len(context.getMolecules()) == 1
    recorder = FrameRecorder(potential, context, [PRESSURE], 200.0, stored=where == "stored")
    with pytest.raises(ObservableError, match=r"Pressure.*bond.*nm long.*half the box"):
        recorder.add(positions, 0.65 * BOXES["cubic"], 0.0)
    unconcerned = FrameRecorder(potential, context, [RDF(0.5, 5, intramolecular=True)], 200.0)
    unconcerned.add(positions, 0.65 * BOXES["cubic"], 0.0)


def test_molecules_are_those_of_openmm_and_their_bonds_span_them() -> None:
    """Of every force that OpenMM takes for a bond."""
    n = 40
    system = empty_system(n, BOXES["cubic"])
    bond, custom = openmm.HarmonicBondForce(), openmm.CustomBondForce("r")
    bond.addBond(0, 1, 0.1, 1.0)
    custom.addBond(2, 3, [])
    system.addConstraint(4, 5, 0.1)
    system.setParticleMass(6, 0)
    system.setVirtualSite(6, openmm.ThreeParticleAverageSite(7, 8, 9, 0.3, 0.3, 0.4))
    inner, varied = openmm.HarmonicBondForce(), openmm.CustomCVForce("b")
    inner.addBond(10, 11, 0.1, 1.0)
    varied.addCollectiveVariable("b", inner)
    groups = openmm.CustomCentroidBondForce(2, "distance(g1, g2)")
    groups.addGroup([12, 13])
    groups.addGroup([14, 15, 0])
    groups.addBond([0, 1], [])
    alchemical, within = openmm.ATMForce(0, 0, 0, 0, 0, 0, 0, 0, 1), openmm.HarmonicBondForce()
    within.addBond(20, 21, 0.1, 1.0)
    alchemical.addForce(within)
    for _ in range(n):
        alchemical.addParticle(openmm.Vec3(0, 0, 0))
    for force in (bond, custom, varied, groups, alchemical):
        system.addForce(force)
    context = context_of(system, lattice(n, BOXES["cubic"]), "Reference")
    found = bonds_of(system).bonding(n, stored=True).part_of
    expected = molecules_of(context)
    same = [(a[:, None] == a) for a in (found, expected)]
    np.testing.assert_array_equal(*same)


def held(kind: str, box: Array) -> tuple[openmm.System, Array]:
    """Molecules of four, which no bond of OpenMM holds together; some lie across the faces."""
    system, rng = empty_system(24, box), np.random.default_rng(5)
    lengths = " + ".join(f"(distance(p{k}, p{k + 1}) - 0.15)^2" for k in (1, 2, 3))
    pair = openmm.CustomCompoundBondForce(2, "1e4 * (distance(p1, p2) - 0.15)^2")
    four = openmm.CustomCompoundBondForce(4, f"1e4 * ({lengths})")
    angle, torsion = openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for a in range(0, 24, 4):
        for k in (a, a + 1, a + 2):
            pair.addBond([k, k + 1])
        four.addBond([a, a + 1, a + 2, a + 3])
        angle.addAngle(a, a + 1, a + 2, 1.8, 50.0)
        angle.addAngle(a + 1, a + 2, a + 3, 1.8, 50.0)
        torsion.addTorsion(a, a + 1, a + 2, a + 3, 1, 0.3, 5.0)
    system.addForce({"pair": pair, "four": four, "angle": angle, "torsion": torsion}[kind])
    shape = np.array([[0, 0, 0], [0.16, 0, 0], [0.2, 0.14, 0], [0.3, 0.2, 0.1]])
    starts = rng.random((6, 1, 3)) @ box
    return system, (starts + shape + 0.01 * rng.normal(size=(6, 4, 3))).reshape(-1, 3)


@pytest.mark.parametrize("shape", ["cubic", "skewed"])
@pytest.mark.parametrize("kind", ["pair", "four", "angle", "torsion"])
def test_what_no_bond_holds_together_is_made_whole_too(kind: str, shape: str) -> None:
    """To OpenMM such particles are molecules of their own; where their images are counts still."""
    box = 0.65 * BOXES[shape]
    system, positions = held(kind, box)
    potential = argon(cutoff=0.5)
    potential.attach(system, exclude_bonds=0)
    context = context_of(system, positions, "Reference")
    whole, wrapped = (stored([x], box, 24) for x in (positions, cut(positions, box)))
    assert np.abs(wrapped.xyz - whole.xyz).max() > 0.5
    expected, found = (pressures(potential, t, context) for t in (whole, wrapped))
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # the file's single precision
    recorder = FrameRecorder(
        potential, context, [PRESSURE], 200.0
    )  # what runs has been cut by none
    assert recorder.whole(cut(positions, box), box) == pytest.approx(cut(positions, box))


@pytest.mark.parametrize("where", ["live", "stored"])
def test_a_long_restraint_between_nearest_images_is_no_molecule(where: str) -> None:
    """OpenMM makes none of it, and it has the same energy whatever the images."""
    system, potential, positions = chains(0.65 * BOXES["cubic"])
    for n, energy in ((2, "distance(p1, p2)"), (3, "distance(p1, p2) + distance(p2, p3)")):
        far = openmm.CustomCompoundBondForce(n, energy)
        far.setUsesPeriodicBoundaryConditions(True)
        for k in range(len(positions) - 2 * BEADS):
            far.addBond([k, k + BEADS, k + 2 * BEADS][:n])
        system.addForce(far)
    context = context_of(system, positions, "Reference")
    recorder = FrameRecorder(potential, context, [PRESSURE], 200.0, stored=where == "stored")
    recorder.add(positions, 0.65 * BOXES["cubic"], 0.0)


def test_what_joins_particles_too_far_apart_to_tell_their_images_has_no_pressure() -> None:
    box = 0.65 * BOXES["cubic"]
    system, positions = held("angle", box)
    far = openmm.CustomCompoundBondForce(2, "distance(p1, p2)")
    positions[4:8] += positions[0] + 0.48 * box[0] - positions[4]
    far.addBond([0, 4])
    system.addForce(far)
    potential = argon(cutoff=0.5)
    potential.attach(system, exclude_bonds=0)
    context = context_of(system, positions, "Reference")
    with pytest.raises(ObservableError, match=r"Pressure.*bond.*nm long.*half the box"):
        pressures(potential, stored([cut(positions, box)], box, 24), context)


def test_what_joins_parts_in_a_ring_moves_each_part_as_one() -> None:
    """Bonds hold three parts, and more than enough else joins them."""
    system = empty_system(6, np.eye(3) * 2)
    for a in (0, 2, 4):
        system.addConstraint(a, a + 1, 0.2)
    loose = openmm.CustomCompoundBondForce(3, "distance(p1, p2) + distance(p2, p3)")
    for triple in ((1, 2, 0), (3, 4, 2), (5, 0, 4), (0, 4, 3), (0, 1, 2)):
        loose.addBond(list(triple))
    system.addForce(loose)
    bonding = bonds_of(system).bonding(6, stored=True)
    x = np.array([[0.2 * k, 0.1 * (k % 2), 0] for k in range(6)]) + 0.01
    for seed in range(5):
        images = 2.0 * np.random.default_rng(seed).integers(-2, 3, (6, 3))
        found = bonding.whole(x + images, np.eye(3) * 2)[0]
        np.testing.assert_allclose(found - found[0], x - x[0], atol=1e-12)
    assert len(bonding.bonds) == 5


@pytest.mark.parametrize("shape", BOXES)
def test_a_branched_molecule_is_made_whole_bond_by_bond(shape: str) -> None:
    box = BOXES[shape]
    rng = np.random.default_rng(7)
    n = 300
    bonds = np.array([(k, rng.integers(max(0, k - 4), k)) for k in range(1, n) if k % 60])
    x = np.zeros((n, 3))
    for k in range(n):
        parent = dict(bonds.tolist()).get(k)
        step = rng.normal(size=3)
        x[k] = (
            rng.random(3) @ box if parent is None else x[parent] + 0.3 * step / np.linalg.norm(step)
        )
    order = rng.permutation(n)  # the first particle of a molecule need not be the first of a bond
    x, bonds = x[np.argsort(order)], order[bonds]
    bonding = Bonding(n, bonds, np.ones(len(bonds), dtype=bool))
    assert bonding.whole(x, box)[0] is x
    found, longest = bonding.whole(cut(x, box), box)
    assert longest == pytest.approx(0.3)
    moved = found - x
    for molecule in range(5):
        of = bonding.part_of == molecule
        np.testing.assert_allclose(moved[of], moved[of][:1].repeat(of.sum(), 0), atol=1e-9)


def test_a_bond_that_is_not_between_images_is_as_long_as_it_is() -> None:
    bonding = Bonding(2, np.array([(0, 1)]), np.array([False]))
    x = np.array([[0.1, 0, 0], [1.9, 0, 0]])
    assert bonding.whole(x, np.eye(3) * 2)[0] is x


@pytest.mark.parametrize("shape", BOXES)
def test_the_nearest_image_is_the_nearest(shape: str) -> None:
    box = BOXES[shape]
    rng = np.random.default_rng(3)
    around = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), axis=-1).reshape(-1, 3) @ box
    short = rng.normal(size=(200, 3))
    short *= 0.49 * box.diagonal().min() / np.linalg.norm(short, axis=1)[:, None]
    shifted = short + around[rng.integers(len(around), size=200)]
    np.testing.assert_allclose(minimum_image(shifted, box), short, atol=1e-12)


def test_centres_are_means_whatever_the_order() -> None:
    rng = np.random.default_rng(1)
    molecule_of = rng.permutation(np.repeat(np.arange(7), [1, 2, 3, 4, 1, 5, 9]))
    x = rng.normal(size=(3, len(molecule_of), 3))
    expected = np.stack([x[:, molecule_of == k].mean(axis=1) for k in range(7)], axis=1)
    np.testing.assert_allclose(molecule_centres(x, molecule_of), expected, atol=1e-13)


def test_pairs_within_a_few_bonds() -> None:
    bonds = [(0, 1), (1, 2), (2, 3), (1, 0), (5, 4)]  # one of them twice
    ends = [(a, b) for a, b in combinations(range(4), 2)]
    for most in range(4):
        expected = [(a, b) for a, b in ends if b - a <= most] + ([(4, 5)] if most else [])
        assert pairs_within(bonds, 7, most).tolist() == [list(pair) for pair in expected]


# Stored trajectories ----------------------------------------------------------------------------


def frames(box: Array, n: int = 250) -> tuple[Any, openmm.Context, mdtraj.Trajectory]:
    """More frames than fit into one chunk."""
    potential = argon(cutoff=0.5)
    system = empty_system(27, box)
    potential.attach(system)
    positions = [lattice(27, box, 0.1, seed) for seed in range(n)]
    return potential, context_of(system, positions[0], "Reference"), stored(positions, box, 27)


def test_a_path_and_an_iterator_give_the_same_as_the_trajectory(tmp_path: Path) -> None:
    box = np.diag([1.3, 1.4, 1.5])
    potential, context, trajectory = frames(box)
    expected = sample_trajectory(potential, trajectory, context, [PRESSURE], temperature=100)
    trajectory.save_dcd(str(tmp_path / "run.dcd"))
    chunks = mdtraj.iterload(str(tmp_path / "run.dcd"), top=trajectory.topology, chunk=60)
    for source in (tmp_path / "run.dcd", str(tmp_path / "run.dcd"), chunks):
        found = sample_trajectory(potential, source, context, [PRESSURE], temperature=100)
        assert len(found) == 250
        np.testing.assert_allclose(found.features, expected.features, atol=1e-3)


def test_what_is_no_trajectory_is_refused(tmp_path: Path) -> None:
    potential, context, trajectory = frames(np.eye(3) * 1.3, 3)
    with pytest.raises(SamplingError, match="path"):
        sample_trajectory(potential, [np.zeros((27, 3))], context, temperature=100)
    trajectory.xyz[1, 3, 2] = np.nan
    with pytest.raises(FramesError, match="frame 1 "):
        sample_trajectory(potential, trajectory, context, temperature=100)
    with pytest.raises(SamplingError, match="no frame"):
        sample_trajectory(potential, iter([]), context, temperature=100)
    trajectory[0].save_dcd(str(tmp_path / "other.dcd"))
    few = argon(cutoff=0.5)
    system = empty_system(5, np.eye(3) * 1.3)
    few.attach(system)
    context = context_of(system, np.eye(5, 3), "Reference")
    with pytest.raises(FramesError, match=r"other\.dcd.*5 atoms"):
        sample_trajectory(few, tmp_path / "other.dcd", context, temperature=100)


def test_a_pressure_of_rounded_coordinates_is_told_with_its_size(tmp_path: Path) -> None:
    box = np.eye(3) * 1.1
    potential = argon(cutoff=0.5)
    system = empty_system(27, box)
    potential.attach(system)
    positions = lattice(27, box, 0.02)
    context = context_of(system, positions, "Reference")
    stored([positions] * 3, box, 27).save_xtc(str(tmp_path / "run.xtc"))
    exact = pressures(potential, stored([positions], box, 27), context)[0]
    with pytest.warns(RuntimeWarning, match="rounded to 0.001 nm") as told:
        found = pressures(potential, tmp_path / "run.xtc", context)[0]
    assert len(told) == 1
    size = float(str(told[0].message).split("about ")[1].split(" bar")[0])
    assert abs(found - exact) < 4 * size < 40 * abs(found - exact)
    sample_trajectory(potential, tmp_path / "run.xtc", context, temperature=200)  # says nothing


def test_a_lattice_is_not_taken_for_rounding() -> None:
    box = np.eye(3) * 1.5
    potential = argon(cutoff=0.5)
    system = empty_system(27, box)
    potential.attach(system)
    exact = [lattice(27, box), lattice(27, box, 0.03)]  # at 0.25, 0.75 and 1.25 nm; and near it
    context = context_of(system, exact[0], "Reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pressures(potential, stored(exact, box, 27), context)


# What steps past the reporters --------------------------------------------------------------------


def argon_in_a_box() -> tuple[PairPotential, Array, Any]:
    """27 atoms at 100 K on Reference."""
    potential = argon()
    box = np.eye(3) * 1.3
    system = empty_system(27, box)
    potential.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(100, 1, 0.002)
    simulation = app.Simulation(
        topology(27), system, integrator, openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(lattice(27, box, 0.02))
    return potential, box, simulation


def test_frames_are_recorded_where_nothing_goes_by_simulation_step() -> None:
    potential, box, simulation = argon_in_a_box()
    integrator = simulation.integrator
    reporter = SampleReporter(10, potential, [PRESSURE], temperature=100)
    simulation.reporters.append(reporter)
    stills, states = [], []
    for _ in range(5):
        integrator.step(10)
        reporter.record_now(simulation)
        states.append(simulation.context.getState(positions=True, velocities=True))
        x = states[-1].getPositions(asNumpy=True)._value
        stills.append(stored([x], box, 27))
    samples = reporter.samples()
    assert len(samples) == 5
    expected = [pressures(potential, t, simulation.context, 100)[0] for t in stills]
    found = samples.at().values(PRESSURE).detach().numpy()[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)

    again = SampleReporter(10, potential, [PRESSURE], temperature=100)
    for state in states:
        again.record_now(simulation, state)
    np.testing.assert_array_equal(again.samples().features, samples.features)
    x = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_array_equal(x, states[-1].getPositions(asNumpy=True)._value)


@pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM before 8.5")
def test_a_replica_exchange_gives_the_frames_of_one_temperature() -> None:
    potential, _, simulation = argon_in_a_box()
    reporter = SampleReporter(10, potential, temperature=100)
    sampler = app.ReplicaExchangeSampler(
        [{"temperature": 100.0}, {"temperature": 110.0}], simulation, 10
    )

    def cold_replica(sampler: Any) -> None:
        replica = sampler.replicaStateIndex.index(0)
        reporter.record_now(sampler.simulation, sampler.replicaConformation[replica])

    sampler.reporters.append(cold_replica)
    sampler.simulate(4)
    assert len(reporter.samples()) == 4
