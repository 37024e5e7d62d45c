"""A user's Simulation as a state point: what is read, what is run, what is recorded."""

from __future__ import annotations

import io
import json
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from networks import embedded, fluid
from numpy.typing import NDArray
from openmm import app, unit
from systems import (
    BOXES,
    EPSILON,
    SIGMA,
    TEMPERATURE,
    argon,
    argon_simulation,
    assert_parameter_gradient,
    brute_force_pairs,
    context_of,
    empty_system,
    energy_and_forces,
    langevin,
    lattice,
    numerical_derivative,
    simulate,
    topology,
)

from openmm_diffsim import (
    RDF,
    VACF,
    LennardJones,
    PairPotential,
    Pressure,
    SampleReporter,
    Samples,
    SegmentOptions,
    StatePoint,
    TemperatureDependent,
    Yukawa,
    sample_trajectory,
)
from openmm_diffsim.engine import statepoint
from openmm_diffsim.engine.baths import read_pressure, read_temperature
from openmm_diffsim.engine.recorder import FrameRecorder, RestForces, configuration
from openmm_diffsim.engine.statepoint import degrees_of_freedom
from openmm_diffsim.errors import AttachError, FileError, SamplingError, StatePointError
from openmm_diffsim.io.trajectories import reduced_box
from openmm_diffsim.statistics.scaling import SCALING
from openmm_diffsim.units import BAR, MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

RDF_SHORT = RDF(0.6, 20)


class Filming:
    """A user's reporter: keeps positions and boxes, and counts its calls."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.positions: list[Array] = []
        self.boxes: list[Array] = []
        self.steps: list[int] = []

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: Any, state: openmm.State) -> None:
        positions, box = configuration(state)
        self.positions.append(positions)
        self.boxes.append(box)
        self.steps.append(simulation.currentStep)


def barostat(pressure: float = 300.0) -> openmm.MonteCarloBarostat:
    force = openmm.MonteCarloBarostat(pressure * unit.bar, TEMPERATURE, 5)
    force.setRandomNumberSeed(3)
    return force


def lennard_jones_force(n: int, cutoff: float, epsilon: float = 0.3) -> openmm.NonbondedForce:
    """Some other interaction of the System, smooth at its cutoff."""
    force = openmm.NonbondedForce()
    for _ in range(n):
        force.addParticle(0.0, 0.3, epsilon)
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.8 * cutoff)
    force.setUseDispersionCorrection(False)
    return force


def assert_same_samples(a: Samples, b: Samples, rtol: float = 0.0, atol: float = 0.0) -> None:
    for x, y in (
        (a.features, b.features),
        (a.virial_features, b.virial_features),
        (a.volume, b.volume),
        (a.rest_energy, b.rest_energy),
        *((a.records[o], b.records[o]) for o in a.records),
    ):
        scale = float(np.abs(x).max()) if len(x) else 0.0
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol * scale)
    assert a.records.keys() == b.records.keys()


def assert_same_configuration(a: openmm.State, b: openmm.State) -> None:
    """The same positions, velocities and box, to the last bit."""
    for name in ("getPositions", "getVelocities", "getPeriodicBoxVectors"):
        x, y = (getattr(state, name)(asNumpy=True)._value for state in (a, b))
        np.testing.assert_array_equal(x, y)


# What is read from the Simulation ---------------------------------------------------------------

THERMOSTATS: dict[str, tuple[Callable[[], openmm.Integrator], list[openmm.Force]]] = {
    "MTSLangevin": (lambda: openmm.MTSLangevinIntegrator(123.0, 1.0, 0.001, [(0, 1)]), []),
    "Langevin": (lambda: openmm.LangevinIntegrator(123.0, 1.0, 0.001), []),
    "LangevinMiddle": (lambda: openmm.LangevinMiddleIntegrator(123.0, 1.0, 0.001), []),
    "VariableLangevin": (lambda: openmm.VariableLangevinIntegrator(123.0, 1.0, 0.001), []),
    "NoseHoover": (lambda: openmm.NoseHooverIntegrator(123.0, 1.0, 0.001), []),
    "Brownian": (lambda: openmm.BrownianIntegrator(123.0, 1.0, 0.001), []),
    "Andersen and Verlet": (
        lambda: openmm.VerletIntegrator(0.001),
        [openmm.AndersenThermostat(123.0, 1.0)],
    ),
}


@pytest.mark.parametrize("thermostat", THERMOSTATS)
def test_temperature_is_read_from_the_thermostat(thermostat: str) -> None:
    integrator, forces = THERMOSTATS[thermostat]
    simulation = argon_simulation(argon(), integrator=integrator(), forces=forces)
    assert read_temperature(simulation) == pytest.approx(123.0)
    assert read_pressure(simulation) is None


@pytest.mark.parametrize(
    "integrator",
    [
        lambda: openmm.VerletIntegrator(0.001),
        lambda: openmm.CustomIntegrator(0.001),
        lambda: openmm.NoseHooverIntegrator(0.001),
    ],
    ids=["Verlet", "Custom", "NoseHoover without a chain"],
)
def test_simulation_without_a_thermostat_has_no_temperature(
    integrator: Callable[[], openmm.Integrator],
) -> None:
    potential = argon()
    simulation = argon_simulation(potential, integrator=integrator())
    with pytest.raises(StatePointError, match="temperature=") as error:
        StatePoint(simulation, potential)
    assert type(simulation.integrator).__name__ in str(error.value)
    point = StatePoint(simulation, potential, temperature=85 * unit.kelvin)
    assert point.temperature == 85.0


def test_pressure_is_read_from_the_barostat() -> None:
    potential = argon()
    simulation = argon_simulation(potential, forces=[barostat(250.0)])
    point = StatePoint(simulation, potential)
    assert point.pressure == pytest.approx(250.0)
    simulation.context.setParameter(openmm.MonteCarloBarostat.Pressure(), 260.0)
    assert read_pressure(simulation) == pytest.approx(260.0)
    given = StatePoint(simulation, potential, pressure=260 * unit.bar)
    assert given.pressure == pytest.approx(260.0)
    with pytest.raises(StatePointError, match=r"1\.01325 bar, but MonteCarloBarostat at 260 bar"):
        StatePoint(simulation, potential, pressure=1 * unit.atmosphere).sample(1, 1)


HOT, COLD = 1.25 * TEMPERATURE, TEMPERATURE


def thermostatted(kind: str, temperature: float) -> tuple[openmm.Integrator, list[openmm.Force]]:
    if kind == "Andersen":
        force = openmm.AndersenThermostat(temperature, 1.0)
        return openmm.VerletIntegrator(0.001), [force]
    made = {
        "Langevin": lambda: openmm.LangevinMiddleIntegrator(temperature, 1.0, 0.001),
        "NoseHoover": lambda: openmm.NoseHooverIntegrator(temperature, 1.0, 0.001),
        "MTSLangevin": lambda: openmm.MTSLangevinIntegrator(temperature, 1.0, 0.001, [(0, 1)]),
        "Compound": lambda: openmm.CompoundIntegrator(),
    }
    integrator = made[kind]()
    if kind == "Compound":
        integrator.addIntegrator(openmm.VerletIntegrator(0.001))
        integrator.addIntegrator(openmm.LangevinMiddleIntegrator(temperature, 1.0, 0.001))
        integrator.setCurrentIntegrator(1)
    return integrator, []


def heat(simulation: Any, kind: str, temperature: float) -> None:
    integrator = simulation.integrator
    if kind == "Andersen":
        simulation.context.setParameter(openmm.AndersenThermostat.Temperature(), temperature)
    elif kind == "MTSLangevin":
        kt = temperature * MOLAR_GAS_CONSTANT
        integrator.setGlobalVariableByName("kT", kt)
    elif kind == "Compound":
        integrator.getIntegrator(1).setTemperature(temperature)
    else:
        integrator.setTemperature(temperature)


KINDS = ["Langevin", "NoseHoover", "Andersen", "MTSLangevin", "Compound"]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_labelled_with_the_temperature_that_they_were_sampled_at(kind: str) -> None:
    potential = TemperatureDependent(argon(), LennardJones(SIGMA, 1e-3, 0.6, knots=30))
    integrator, forces = thermostatted(kind, COLD)
    system = empty_system(27, 1.5 * np.eye(3))
    potential.attach(system, temperature=COLD)
    for other in forces:
        system.addForce(other)
    simulation = simulate(system, lattice(27, 1.5 * np.eye(3)), integrator)
    point = StatePoint(simulation, potential)
    assert point.sample(2, 1).temperature == pytest.approx(COLD)
    heat(simulation, kind, HOT)
    samples = point.sample(2, 1)
    assert samples.temperature == samples.runs[0].temperature == pytest.approx(HOT)
    expected = potential.coefficients(samples.temperature).detach().numpy()
    np.testing.assert_array_equal(samples.runs[0].coefficients, expected)
    now = simulation.context.getState(energy=True).getPotentialEnergy()
    point.apply()
    assert simulation.context.getState(energy=True).getPotentialEnergy() == now


def test_samples_are_labelled_with_the_pressure_that_they_were_sampled_at() -> None:
    potential = argon()
    simulation = argon_simulation(potential, forces=[barostat(250.0)])
    point = StatePoint(simulation, potential)
    simulation.context.setParameter(openmm.MonteCarloBarostat.Pressure(), 500.0)
    assert point.sample(2, 1).pressure == point.sample(2, 1).runs[0].pressure == 500.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_thermostat_and_a_barostat_that_disagree_are_refused(kind: str) -> None:
    potential = argon()
    integrator, forces = thermostatted(kind, COLD)
    pressing = openmm.MonteCarloBarostat(100.0, HOT, 25)
    simulation = argon_simulation(potential, integrator=integrator, forces=[*forces, pressing])
    both = rf"{COLD:g} K, but MonteCarloBarostat at {HOT:g} K"
    with pytest.raises(StatePointError, match=both):
        StatePoint(simulation, potential)
    heat(simulation, kind, HOT)
    point = StatePoint(simulation, potential)
    simulation.context.setParameter(pressing.Temperature(), COLD)
    before = simulation.currentStep
    with pytest.raises(StatePointError, match=rf"{HOT:g} K, but MonteCarloBarostat at {COLD:g} K"):
        point.sample(2, 1)
    assert simulation.currentStep == before


def test_a_temperature_that_is_given_is_not_another_one_than_the_thermostats() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    with pytest.raises(StatePointError, match=r"temperature= is at 77 K, but Langevin"):
        StatePoint(simulation, potential, temperature=77.0)


def test_a_temperature_that_changes_during_a_run_is_refused() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    point = StatePoint(simulation, potential)
    ramp = lambda n: simulation.integrator.setTemperature(HOT)  # noqa: E731
    with pytest.raises(StatePointError, match=rf"began at {COLD:g} K and ended at {HOT:g} K"):
        point.sample(2, 1, progress=ramp)


def test_a_segment_draws_velocities_of_the_present_temperature() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    point = StatePoint(simulation, potential)
    x = simulation.context.getState(positions=True).getPositions(asNumpy=True)
    cold = point.segment(1, positions=x).velocities[0].detach()
    simulation.integrator.setTemperature(4 * COLD)
    hot = point.segment(1, positions=x).velocities[0].detach()
    np.testing.assert_allclose(hot, 2 * cold, atol=2e-3)  # drawn half a step before


def test_barostat_that_never_acts_is_constant_volume() -> None:
    potential = argon()
    simulation = argon_simulation(
        potential, forces=[openmm.MonteCarloBarostat(1.0, TEMPERATURE, 0)]
    )
    assert StatePoint(simulation, potential).pressure is None


@pytest.mark.parametrize(
    "force",
    [
        openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 2), 120.0),
        openmm.MonteCarloMembraneBarostat(1.0, 0.0, 120.0, 0, 0),
    ],
    ids=["anisotropic", "membrane"],
)
def test_anisotropic_barostat_is_refused(force: openmm.Force) -> None:
    potential = argon()
    simulation = argon_simulation(potential, forces=[openmm.XmlSerializer.clone(force)])
    with pytest.raises(StatePointError, match=type(force).__name__):
        StatePoint(simulation, potential)


def test_degrees_of_freedom_are_those_that_move() -> None:
    system = empty_system(10, BOXES["cubic"])
    assert degrees_of_freedom(system) == 30
    system.setParticleMass(9, 0.0)
    assert degrees_of_freedom(system) == 27
    system.addConstraint(0, 1, 0.1)
    system.addConstraint(1, 2, 0.1)
    assert degrees_of_freedom(system) == 25
    system.addForce(openmm.CMMotionRemover())
    assert degrees_of_freedom(system) == 22


def test_simulation_without_the_potential_is_refused() -> None:
    simulation = argon_simulation(argon(name="attached"))
    with pytest.raises(AttachError, match=r"'absent'.*attach"):
        StatePoint(simulation, argon(name="absent"))


def test_simulation_made_before_attach_is_refused() -> None:
    box = np.eye(3) * 1.3
    system = empty_system(8, box)
    simulation = simulate(system, lattice(8, box))
    potential = argon()
    potential.attach(system)
    with pytest.raises(AttachError, match="before attach"):
        StatePoint(simulation, potential)


def test_density_and_box_are_the_present_ones() -> None:
    potential = argon()
    simulation = argon_simulation(potential, 27, 1.3)
    point = StatePoint(simulation, potential)
    np.testing.assert_allclose(point.box(), np.eye(3) * 1.3)
    assert point.number_density() == pytest.approx(27 / 1.3**3)
    simulation.context.setPeriodicBoxVectors(*(np.eye(3) * 1.5))
    assert point.number_density(n_atoms=10) == pytest.approx(10 / 1.5**3)
    np.testing.assert_allclose(point.box(), np.eye(3) * 1.5)


def test_cutoff_beyond_half_the_box_is_refused_by_openmm() -> None:
    with pytest.raises(openmm.OpenMMException, match="half the periodic box"):
        argon_simulation(argon(cutoff=0.6), length=1.19)


def test_box_that_shrinks_below_twice_the_cutoff_is_refused() -> None:
    potential = argon(cutoff=0.6)
    simulation = argon_simulation(potential, length=1.3)
    recorder = FrameRecorder(potential, simulation.context, [])
    positions = lattice(27, np.eye(3) * 1.3)
    recorder.add(positions, np.eye(3) * 1.3)
    with pytest.raises(SamplingError, match=r"beyond half the box, 0\.5950") as error:
        recorder.add(positions, np.eye(3) * 1.19)
    assert error.value.reason == "box"


# Sampling ---------------------------------------------------------------------------------------


def test_sample_records_every_frame_of_the_run() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    film = Filming(10)
    simulation.reporters.append(film)
    done: list[int] = []
    samples = StatePoint(simulation, potential).sample(
        300, 10, [RDF_SHORT], equilibration=50, progress=done.append
    )
    assert simulation.currentStep == sum(done) == 350
    assert len(samples) == samples.runs[0].n_frames == 30
    assert samples.runs[0].every == 10
    assert samples.temperature == samples.runs[0].temperature == TEMPERATURE
    moved = film.positions[-1] - film.positions[5]
    moved = np.sum((moved - moved.mean(axis=0)) ** 2, axis=1)
    assert samples.runs[0].rms_displacement == pytest.approx(np.mean(moved) ** 0.5)
    context = context_of(simulation.system, film.positions[0], "Reference")
    energies = []
    for positions in film.positions[5:]:
        context.setPositions(positions)
        energies.append(energy_and_forces(context)[0])
    np.testing.assert_allclose(samples.run_energies(), energies, rtol=1e-9)
    c = potential.coefficients().detach().numpy()
    np.testing.assert_array_equal(samples.runs[0].coefficients, c)
    assert np.ptp(energies) > 1


def test_reporters_of_the_user_are_called_on_time_and_kept() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    film, text = Filming(7), io.StringIO()
    simulation.reporters += [film, app.StateDataReporter(text, 25, step=True)]
    before = list(simulation.reporters)
    StatePoint(simulation, potential).sample(100, 10, equilibration=30)
    assert simulation.reporters == before
    assert film.steps == list(range(7, 131, 7))
    assert text.getvalue().split() == ['#"Step"', "25", "50", "75", "100", "125"]


def test_forces_and_constraints_of_the_user_stay() -> None:
    potential = argon()
    simulation = argon_simulation(potential, forces=[lennard_jones_force(27, 0.6)])
    before = openmm.XmlSerializer.serialize(simulation.system)
    StatePoint(simulation, potential).sample(20, 10, [Pressure()])
    assert openmm.XmlSerializer.serialize(simulation.system) == before


def test_parameters_changed_since_reach_the_run() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    point = StatePoint(simulation, potential)
    potential.epsilon.data.mul_(1.1)
    samples = point.sample(20, 10)
    expected = potential.coefficients().detach().numpy()
    np.testing.assert_array_equal(samples.runs[0].coefficients, expected)
    energy, _ = energy_and_forces(simulation.context)
    assert energy == pytest.approx(samples.run_energies()[-1], rel=1e-9)
    potential.epsilon.data.mul_(2)
    np.testing.assert_array_equal(samples.runs[0].coefficients, expected)


def test_temperature_dependent_potential_runs_at_the_temperature_of_its_point() -> None:
    knots = {"cutoff": 0.6, "r_min": 0.27, "knots": 20}
    potential = TemperatureDependent(
        LennardJones(SIGMA, EPSILON, **knots), Yukawa(0.001, 3.0, **knots)
    )
    box = np.eye(3) * 1.3
    system = empty_system(27, box)
    potential.attach(system, temperature=300.0)
    simulation = simulate(system, lattice(27, box))
    samples = StatePoint(simulation, potential).sample(20, 10)
    expected = potential.coefficients(TEMPERATURE).detach().numpy()
    np.testing.assert_array_equal(samples.runs[0].coefficients, expected)
    energy, _ = energy_and_forces(simulation.context)
    assert energy == pytest.approx(samples.run_energies()[-1], rel=1e-9)


def test_rest_energy_is_that_of_the_other_forces() -> None:
    potential, other = argon(), lennard_jones_force(27, 0.6)
    simulation = argon_simulation(potential, forces=[other])
    film = Filming(10)
    simulation.reporters.append(film)
    samples = StatePoint(simulation, potential).sample(50, 10)
    system = empty_system(27, np.eye(3) * 1.3)
    system.addForce(lennard_jones_force(27, 0.6))
    context = context_of(system, film.positions[0], "Reference")
    expected = []
    for positions in film.positions:
        context.setPositions(positions)
        expected.append(energy_and_forces(context)[0])
    np.testing.assert_allclose(samples.rest_energy, expected, rtol=1e-7)


def test_constant_pressure_records_the_volume_of_each_frame() -> None:
    potential = argon()
    simulation = argon_simulation(potential, length=1.5, forces=[barostat(300.0)])
    film = Filming(10)
    simulation.reporters.append(film)
    samples = StatePoint(simulation, potential).sample(200, 10, [RDF_SHORT])
    np.testing.assert_allclose(samples.volume, [np.linalg.det(box) for box in film.boxes])
    assert np.ptp(samples.volume) > 0.01
    assert samples.pressure == pytest.approx(300.0)
    assert samples.runs[0].pressure == pytest.approx(300.0)
    assert samples.n_effective() == pytest.approx(20)


def test_transient_is_cut_off_where_asked() -> None:
    potential = argon()
    simulation = argon_simulation(potential, 64, 1.9, langevin())
    box = np.eye(3) * 1.9
    simulation.context.setPositions(0.75 * lattice(64, box, 0.01))  # far too dense at first
    point = StatePoint(simulation, potential)
    start = point.snapshot()
    whole = point.sample(400, 5)
    point.restore(start)
    cut = point.sample(400, 5, discard_transient=True)
    assert len(whole) == 80
    assert 20 < len(cut) < 80
    assert cut.runs[0].n_frames == len(cut)


@pytest.mark.parametrize(
    ("steps", "every", "words"),
    [
        (5, 10, "steps = 5, every = 10"),
        (10, 0, "every: got 0"),
        (0, 1, "steps: got 0"),
        ("10", 1, "steps: got '10'"),
        (10, 1.5, "every: got 1.5"),
        (True, 1, "steps: got True"),
    ],
)
def test_run_without_a_frame_is_refused(steps: Any, every: Any, words: str) -> None:
    potential = argon()
    point = StatePoint(argon_simulation(potential), potential)
    with pytest.raises(SamplingError, match=words) as error:
        point.sample(steps, every)
    assert error.value.reason == "arguments"


def test_exploding_run_is_told_and_leaves_no_reporter() -> None:
    potential = argon()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.3)
    integrator.setRandomNumberSeed(1)
    simulation = argon_simulation(potential, integrator=integrator)
    with pytest.raises(SamplingError, match="exploded") as error:
        StatePoint(simulation, potential).sample(1000, 10)
    assert error.value.reason == "exploded"
    assert simulation.reporters == []


def test_hot_run_is_told_with_its_temperature() -> None:
    potential = argon()
    simulation = argon_simulation(potential, 64, 1.6, openmm.VerletIntegrator(0.001))
    simulation.context.setVelocitiesToTemperature(1000.0, 1)
    with pytest.raises(SamplingError, match="kinetic temperature") as error:
        StatePoint(simulation, potential, temperature=100.0).sample(10, 10)
    assert 600 < error.value.measured < 1200
    assert error.value.expected == 100.0
    assert error.value.step == 10


def test_position_that_is_not_a_number_is_an_explosion() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    recorder = FrameRecorder(potential, simulation.context, [])
    positions = lattice(27, np.eye(3) * 1.3)
    positions[4, 1] = np.nan
    with pytest.raises(SamplingError, match="not finite") as error:
        recorder.add(positions, np.eye(3) * 1.3)
    assert error.value.reason == "exploded"
    with pytest.raises(SamplingError, match="no frame"):
        recorder.samples(np.zeros(28), 100.0, None, 1)


# The three ways to record -----------------------------------------------------------------------


def pressurized(potential: PairPotential) -> app.Simulation:
    """With a barostat and another force, so that every column of Samples is filled."""
    return argon_simulation(potential, 27, 1.5, forces=[lennard_jones_force(27, 0.6), barostat()])


def test_reporter_gives_the_same_numbers_as_sample() -> None:
    potential, record = argon(), [RDF_SHORT, Pressure()]
    point = StatePoint(pressurized(potential), potential)
    samples = point.sample(100, 10, record)
    # Made only now: on the Reference platform all Contexts draw from one seeded stream.
    simulation = pressurized(potential)
    reporter = SampleReporter(
        10,
        potential,
        record,
        temperature=TEMPERATURE * unit.kelvin,
        pressure=point.pressure * unit.bar,
    )
    simulation.reporters.append(reporter)
    simulation.step(100)
    assert_same_samples(reporter.samples(), samples)
    assert reporter.samples().runs[0].n_frames == 10
    assert reporter.samples().runs[0].temperature == samples.temperature
    assert reporter.samples().pressure == pytest.approx(samples.pressure)
    assert np.ptp(samples.volume) > 0


def molecules_in(box: Array | None, backend: str) -> tuple[PairPotential, openmm.Context]:
    """Trimers of three types, one of them in no pair, with exclusions within each."""
    n = 60
    system = empty_system(n, BOXES["skewed"])
    bonds = openmm.HarmonicBondForce()
    first = range(0, n, 3)
    for a in first:
        bonds.addBond(a, a + 1, 0.1, 100.0)
        bonds.addBond(a + 1, a + 2, 0.1, 100.0)
    system.addForce(bonds)
    potential = argon(0.55, n_types=2)
    potential.attach(
        system,
        atoms=[i for a in first for i in (a, a + 2)],
        types=[0, 1] * len(first),
        exclusions=[(a, a + 2) for a in first],
        periodic=box is not None,
        backend=backend,
    )
    return potential, context_of(system, np.zeros((n, 3)), "Reference")


@pytest.mark.parametrize("shape", ["skewed", None])
@pytest.mark.usefixtures("plugin")
def test_native_and_fallback_record_the_same_numbers(shape: str | None) -> None:
    box = None if shape is None else BOXES[shape]
    record: list[Any] = []
    if box is not None:
        oxygens = np.arange(0, 60, 3)
        record = [RDF(0.9, 30), RDF(0.7, 9, oxygens, np.arange(40)), Pressure()]
        record.append(RDF(0.8, 10, intramolecular=True))
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(3):
        centers = (rng.random((20, 1, 3)) * 1.4 - 0.2) @ BOXES["skewed"]
        frames.append((centers + rng.normal(scale=0.06, size=(20, 3, 3))).reshape(-1, 3))
    samples = []
    for kind in ("native", "table"):
        potential, context = molecules_in(box, kind)
        recorder = FrameRecorder(potential, context, record)
        for positions in frames:
            recorder.add(positions, box, total_energy=1.0)
        c = potential.coefficients().detach().numpy()
        samples.append(recorder.samples(c, 100.0, None, 1))
    assert np.abs(samples[0].virial_features).max() > 1
    assert_same_samples(*samples, atol=1e-11)


def test_trajectory_gives_the_same_numbers_as_sample() -> None:
    potential, record = argon(), [RDF_SHORT, Pressure()]
    simulation = pressurized(potential)
    film = Filming(10)
    simulation.reporters.append(film)
    point = StatePoint(simulation, potential)
    samples = point.sample(100, 10, record)
    trajectory = mdtraj.Trajectory(
        np.array(film.positions), mdtraj.Topology.from_openmm(topology(27))
    )
    trajectory.unitcell_vectors = np.array(film.boxes)
    context = simulation.context
    before = context.getState(positions=True, velocities=True)
    again = sample_trajectory(
        potential,
        trajectory,
        context,
        record,
        temperature=TEMPERATURE * unit.kelvin,
        pressure=point.pressure * unit.bar,
    )
    # mdtraj keeps positions in single precision: sums and energies agree to about 1e-5.
    pressure = record[1]
    counts = [s.records[RDF_SHORT] for s in (again, samples)]
    assert np.mean(counts[0] != counts[1]) < 0.05, "a pair may cross the edge of a bin"
    for s in (again, samples):
        assert set(s.records) == set(record)
    assert_same_samples(without(again, RDF_SHORT), without(samples, RDF_SHORT), atol=2e-5)
    assert np.abs(samples.records[pressure][:, 1]).max() > 1
    after = context.getState(positions=True, velocities=True)
    assert_same_configuration(before, after)


def without(samples: Samples, observable: RDF) -> Samples:
    """The same samples less one observable."""
    return replace(
        samples, records={o: a for o, a in samples.records.items() if o is not observable}
    )


@pytest.mark.parametrize("shape", ["dodecahedron", "octahedron"])
def test_trajectory_in_a_triclinic_box_may_be_rounded(shape: str) -> None:
    """mdtraj rebuilds box vectors from angles: rounding can leave OpenMM's reduced form."""
    potential, pressure, n = argon(), Pressure(), 40
    box = BOXES[shape]
    system = empty_system(n, box)
    system.addForce(lennard_jones_force(n, 0.5))
    potential.attach(system)
    positions = [lattice(n, box, 0.05, seed) for seed in range(3)]
    context = context_of(system, positions[0], "CPU")
    rounded = box.copy()
    rounded[2, :2] *= 1 + 1e-7
    with pytest.raises(openmm.OpenMMException, match="reduced form"):
        context.setPeriodicBoxVectors(*rounded)
    trajectory = SimpleNamespace(
        n_atoms=n, n_frames=3, xyz=positions, unitcell_vectors=[rounded] * 3
    )
    samples = sample_trajectory(potential, trajectory, context, [pressure], temperature=100.0)
    context.setPeriodicBoxVectors(*box)
    for energy, x in zip(samples.run_energies(), positions, strict=True):
        context.setPositions(x)
        assert energy == pytest.approx(energy_and_forces(context)[0], rel=1e-4)
    assert np.all(np.isfinite(samples.at().values(pressure).detach().numpy()))


def test_reduced_box_spans_the_same_lattice() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        box = np.tril(rng.uniform(-3, 3, (3, 3)))
        np.fill_diagonal(box, rng.uniform(1, 2, 3))
        reduced = reduced_box(box)
        steps = reduced @ np.linalg.inv(box)  # whole numbers of the old vectors
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert np.linalg.det(reduced) == pytest.approx(np.linalg.det(box))
        assert 2 * abs(reduced[1, 0]) <= reduced[0, 0]
        assert 2 * abs(reduced[2, 0]) <= reduced[0, 0]
        assert 2 * abs(reduced[2, 1]) <= reduced[1, 1]


def test_trajectory_that_does_not_fit_the_system_is_refused() -> None:
    potential = argon()
    context = argon_simulation(potential).context
    few = mdtraj.Trajectory(np.zeros((1, 5, 3)), mdtraj.Topology.from_openmm(topology(5)))
    with pytest.raises(SamplingError, match=r"5 atoms.*27") as error:
        sample_trajectory(potential, few, context, temperature=100.0)
    assert error.value.reason == "atoms"


def test_trajectory_without_a_box_is_refused_where_the_system_has_one() -> None:
    potential = argon()
    context = argon_simulation(potential).context
    boxless = mdtraj.Trajectory(
        lattice(27, np.eye(3) * 1.3)[None], mdtraj.Topology.from_openmm(topology(27))
    )
    with pytest.raises(SamplingError, match="box"):
        sample_trajectory(potential, boxless, context, temperature=100.0)


def test_recorder_keeps_no_positions() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    recorder = FrameRecorder(potential, simulation.context, [RDF_SHORT, Pressure()])
    frames = []
    for seed in range(5):
        positions = lattice(27, np.eye(3) * 1.3, 0.05, seed)
        recorder.add(positions, np.eye(3) * 1.3)
        frames.append(weakref.ref(positions))
        del positions
    recorder.add(lattice(27, np.eye(3) * 1.3), np.eye(3) * 1.3)
    assert all(reference() is None for reference in frames)
    assert len(recorder) == 6
    recorder.clear()
    assert len(recorder) == 0


# Snapshots --------------------------------------------------------------------------------------


def test_snapshot_is_come_back_to_and_keeps_the_parameters() -> None:
    potential = argon()
    simulation = argon_simulation(potential)
    point = StatePoint(simulation, potential)
    simulation.step(20)
    snapshot = point.snapshot()
    before = simulation.context.getState(positions=True, velocities=True)
    potential.epsilon.data.mul_(2)
    point.sample(50, 10)
    point.restore(snapshot)
    after = simulation.context.getState(positions=True, velocities=True, energy=True)
    assert_same_configuration(before, after)
    c = potential.coefficients().detach().numpy()
    expected = float(np.sum(c * present_sums(point)))
    assert after.getPotentialEnergy()._value == pytest.approx(expected, rel=1e-9)


def present_sums(point: StatePoint) -> Array:
    """Basis sums of the present configuration."""
    recorder = FrameRecorder(point.potential, point.simulation.context, [])
    state = point.simulation.context.getState(getPositions=True)
    recorder.add(*configuration(state))
    c = point.potential.coefficients(point.temperature).detach().numpy()
    return recorder.samples(c, point.temperature, None, 1).features[0]


def test_serialized_point_goes_on_to_the_last_bit() -> None:
    def fresh() -> StatePoint:
        potential = argon()
        return StatePoint(argon_simulation(potential), potential)

    first = fresh()
    first.simulation.step(50)
    text = json.loads(json.dumps(first.serialize()))
    samples = first.sample(50, 10, [RDF_SHORT])
    second = fresh()
    second.simulation.step(13)
    second.deserialize(text)
    assert second.simulation.currentStep == 50
    assert_same_samples(second.sample(50, 10, [RDF_SHORT]), samples)
    assert_same_configuration(
        *(p.simulation.context.getState(positions=True, velocities=True) for p in (first, second))
    )


def charges(n: int) -> openmm.NonbondedForce:
    force = lennard_jones_force(n, 0.6)
    force.setNonbondedMethod(force.PME)
    for i in range(n):
        force.setParticleParameters(i, 0.1 * (-1) ** i, 0.3, 0.3)
    return force


GOES_ON: dict[str, Callable[[], StatePoint]] = {
    "a native force and others": lambda: fluid(
        argon(), 64, 2.0, forces=(lennard_jones_force(64, 0.6),), platform="CPU"
    ),
    "a table and others": lambda: fluid(
        argon(), 64, 2.0, forces=(lennard_jones_force(64, 0.6),), platform="CPU", backend="table"
    ),
    "charges and a barostat": lambda: fluid(
        argon(), 64, 2.0, forces=(charges(64),), pressure=100.0, platform="CPU"
    ),
    "a barostat without a seed": lambda: fluid(
        argon(), 64, 2.0, forces=(openmm.MonteCarloBarostat(100.0, TEMPERATURE, 5),)
    ),
    "a network, charges and a barostat": lambda: fluid(
        embedded(), 64, 2.0, forces=(charges(64),), pressure=100.0, platform="CPU", backend="python"
    ),
}


@pytest.mark.parametrize("kind", GOES_ON)
def test_both_that_was_serialized_and_who_reads_it_go_on_alike(kind: str) -> None:
    """Neighbor lists and a barostat's memory are in no checkpoint: both go on without them."""
    steps = 60 if "network" in kind else 300
    first = GOES_ON[kind]()
    for _ in range(2):
        first.simulation.step(steps)
        text = json.loads(json.dumps(first.serialize()))
        end = after(first, steps)  # before the other begins: they may share random numbers
        second = GOES_ON[kind]()
        second.deserialize(text)
        assert_same_configuration(end, after(second, steps))


def after(point: StatePoint, steps: int) -> openmm.State:
    point.apply()
    point.simulation.step(steps)
    return point.simulation.context.getState(positions=True, velocities=True)


def test_what_a_checkpoint_keeps_is_told_where_it_is_no_state() -> None:
    point = fluid(argon())
    system = openmm.XmlSerializer.serialize(point.simulation.system)
    text = point.serialize() | {"platform": "nowhere", "state": system}
    with pytest.raises(FileError, match=r"checkpoint keeps .* 120 K holds a System, expected a S"):
        point.deserialize(text)


def test_replicas_do_not_share_random_numbers() -> None:
    seeds = set()
    for steps in (10, 11):
        point = fluid(argon())
        point.simulation.step(steps)
        point.serialize()
        seeds.add(point.simulation.integrator.getRandomNumberSeed())
    assert len(seeds) == 2


def test_serialized_point_comes_back_with_its_box() -> None:
    potential = argon()
    simulation = pressurized(potential)
    point = StatePoint(simulation, potential)
    simulation.step(50)
    text, before = point.serialize(), simulation.context.getState(positions=True, velocities=True)
    simulation.step(50)
    assert point.box()[0, 0] != before.getPeriodicBoxVectors(asNumpy=True)._value[0, 0]
    point.deserialize(text)
    after = simulation.context.getState(positions=True, velocities=True)
    assert_same_configuration(before, after)


def test_serialized_point_is_understood_on_another_platform() -> None:
    potential = argon()
    point = StatePoint(argon_simulation(potential), potential)
    point.simulation.step(20)
    text = point.serialize()
    other = StatePoint(argon_simulation(potential, platform="CPU"), potential)
    other.deserialize(text)
    assert other.simulation.currentStep == 20
    old, new = (
        configuration(p.simulation.context.getState(positions=True))[0] for p in (point, other)
    )
    np.testing.assert_allclose(old, new, atol=1e-6)


# Pressure ---------------------------------------------------------------------------------------


def virial_by_differences(simulation: app.Simulation, positions: Array, box: Array) -> float:
    """-3 V dU/dV of the whole System by moving whole molecules, with an independent Context."""
    system = openmm.XmlSerializer.clone(simulation.system)
    system.setDefaultPeriodicBoxVectors(*box)
    context = context_of(system, positions, "Reference")
    molecules = [list(atoms) for atoms in context.getMolecules()]

    def energy(scale: Array) -> float:
        scaled = positions.copy()
        for atoms in molecules:
            scaled[atoms] += (scale - 1) * positions[atoms].mean(axis=0)
        context.setPeriodicBoxVectors(*(box * scale))
        context.setPositions(scaled)
        return energy_and_forces(context)[0]

    return -float(numerical_derivative(energy, np.ones(1), 1e-5)[0])


def test_ideal_gas_has_the_pressure_of_the_gas_law() -> None:
    potential = LennardJones(SIGMA, 0.0, cutoff=0.6, knots=20)
    pressure = Pressure()
    simulation = argon_simulation(potential, 27, 1.5)
    samples = StatePoint(simulation, potential).sample(50, 10, [pressure])
    expected = 27 * MOLAR_GAS_CONSTANT * TEMPERATURE / 1.5**3 * BAR
    np.testing.assert_allclose(samples.at().values(pressure).detach().numpy(), expected, rtol=1e-12)
    in_pascal = 27 * 1.380649e-23 * TEMPERATURE / (1.5e-9) ** 3  # N k_B T / V
    assert expected == pytest.approx(in_pascal / 1e5, rel=1e-9)


def test_pressure_of_a_lennard_jones_fluid_is_that_of_its_pair_forces() -> None:
    potential, pressure = argon(), Pressure()
    simulation = argon_simulation(potential, 27, 1.4)
    film = Filming(20)
    simulation.reporters.append(film)
    samples = StatePoint(simulation, potential).sample(100, 20, [pressure])
    expected = []
    for positions, box in zip(film.positions, film.boxes, strict=True):
        displacements = np.array(list(brute_force_pairs(positions, box, 0.6).values()))
        r = np.linalg.norm(displacements, axis=1)
        virial = float(np.sum(r * potential.force(r).detach().numpy()[0]))
        kinetic = 27 * MOLAR_GAS_CONSTANT * TEMPERATURE
        expected.append(BAR * (kinetic + virial / 3) / 1.4**3)
    np.testing.assert_allclose(samples.at().values(pressure).detach().numpy()[:, 0], expected)


def test_pressure_is_openmms_own_where_velocities_are_thermal() -> None:
    potential, pressure = argon(), Pressure()
    forces = [lennard_jones_force(27, 0.6), barostat()]
    simulation = argon_simulation(potential, 27, 1.5, forces=forces)
    samples = StatePoint(simulation, potential).sample(20, 20, [pressure])
    context = simulation.context
    state = context.getState(getEnergy=True)
    volume = state.getPeriodicBoxVolume()._value
    kinetic = 2 / 3 * state.getKineticEnergy()._value
    thermal = 27 * MOLAR_GAS_CONSTANT * TEMPERATURE
    own = next(f for f in context.getSystem().getForces() if isinstance(f, type(forces[1])))
    openmms = own.computeCurrentPressure(context).value_in_unit(unit.bar)
    expected = openmms + BAR * (thermal - kinetic) / volume
    assert samples.at().values(pressure).item() == pytest.approx(expected, rel=1e-3)


def water(model: str, n: int = 27, length: float = 0.95) -> tuple[app.Simulation, PairPotential]:
    """Rigid water with its own force field, and a learnable potential between oxygens besides."""
    top, positions = app.Topology(), []
    chain = top.addChain()
    rng = np.random.default_rng(1)
    o, h = app.Element.getBySymbol("O"), app.Element.getBySymbol("H")
    angle = np.deg2rad(104.52) / 2
    arms = 0.09572 * np.array(
        [[np.sin(angle), np.cos(angle), 0], [-np.sin(angle), np.cos(angle), 0]]
    )
    for center in lattice(n, np.eye(3) * length):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        residue = top.addResidue("HOH", chain)
        atoms = [top.addAtom(name, e, residue) for name, e in (("O", o), ("H1", h), ("H2", h))]
        top.addBond(atoms[0], atoms[1])
        top.addBond(atoms[0], atoms[2])
        positions += [center, *(center + arms @ rotation)]
    top.setPeriodicBoxVectors(np.eye(3) * length * unit.nanometer)
    field = app.ForceField(model)
    modeller = app.Modeller(top, np.array(positions) * unit.nanometer)
    modeller.addExtraParticles(field)
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.CutoffPeriodic,
        nonbondedCutoff=0.45 * unit.nanometer,
        switchDistance=0.36 * unit.nanometer,
        rigidWater=True,
    )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setReactionFieldDielectric(1e9)  # no kink at the cutoff
    oxygens = [atom.index for atom in modeller.topology.atoms() if atom.name == "O"]
    potential = LennardJones(0.3, 0.4, cutoff=0.44, knots=20)
    potential.attach(system, atoms=oxygens)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 20.0, 0.001)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(
        modeller.topology, system, integrator, openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    return simulation, potential


@pytest.mark.parametrize("model", ["tip3p.xml", "tip4pew.xml"])
@pytest.mark.parametrize(
    ("scaling", "tolerance"),
    # The part of the other forces is a difference over this part of the box length: its error
    # falls with the square of it.
    [(SCALING, 5e-4), (0.1 * SCALING, 1e-5)],
)
def test_pressure_of_rigid_water_is_how_its_energy_answers_to_the_volume(
    model: str, scaling: float, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestForces.virial, "__defaults__", (scaling,))
    simulation, potential = water(model)
    sites = {"tip3p.xml": 3, "tip4pew.xml": 4}[model]
    assert simulation.system.getNumParticles() == 27 * sites
    assert simulation.system.getNumConstraints() == 81
    assert degrees_of_freedom(simulation.system) == 27 * 6 - 3
    oxygens = np.arange(27) * sites
    pressure, rdf = Pressure(), RDF(0.47, 20, atoms=oxygens)
    film = Filming(50)
    simulation.reporters.append(film)
    samples = StatePoint(simulation, potential).sample(100, 50, [pressure, rdf])
    kinetic = 27 * MOLAR_GAS_CONSTANT * 300.0
    values = samples.at().values(pressure).detach().numpy()[:, 0]
    for value, positions, box in zip(values, film.positions, film.boxes, strict=True):
        virial = virial_by_differences(simulation, positions, box)
        expected = BAR * (kinetic + virial / 3) / 0.95**3
        scale = BAR * (kinetic + abs(virial)) / 0.95**3
        assert value == pytest.approx(expected, abs=tolerance * scale)
    learned = samples.virial_features @ samples.runs[0].coefficients
    assert np.abs(learned).min() > 1, "the learned force is to matter"
    assert samples.average(rdf).max() > 0.5


# Whole runs against exact results ---------------------------------------------------------------


@pytest.mark.parametrize("observable", [RDF_SHORT, Pressure()], ids=["RDF", "Pressure"])
def test_gradient_over_recorded_frames_equals_finite_differences(
    observable: RDF | Pressure,
) -> None:
    potential = argon(cutoff=0.6, knots=20)
    simulation = pressurized(potential)
    point = StatePoint(simulation, potential)
    first = point.sample(100, 5, [observable])
    potential.epsilon.data.mul_(1.01)
    potential.sigma.data.mul_(0.999)
    pool = first + point.sample(100, 5, [observable])
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=observable.n_values))
    potential.epsilon.data.mul_(1.005)
    assert_parameter_gradient(potential, lambda: pool.average(observable) @ direction)


class TwoParticles:
    """Two particles in a periodic box: every average is an integral over their distance.

    The cutoff is half the box. p(r) = 4 pi r^2 exp(-beta u(r)) / Z up to there, and the volume
    beyond it has exp(-beta u) = 1: Z = V + int (exp(-beta u) - 1) 4 pi r^2 dr.
    """

    length = 1.1
    cutoff = 0.55

    def __init__(self, epsilon: float, edges: Array) -> None:
        potential = LennardJones(SIGMA, epsilon, self.cutoff, r_min=0.28, knots=30)
        kt = MOLAR_GAS_CONSTANT * TEMPERATURE
        n = 400  # points in each bin, the midpoint rule
        r = np.concatenate(
            [low + (np.arange(n) + 0.5) * (high - low) / n for low, high in pairwise(edges)]
        )
        dr = np.repeat(np.diff(edges) / n, n)
        with torch.no_grad():
            boltzmann = np.exp(-potential.energy(r).numpy()[0] / kt)
            force = potential.force(r).numpy()[0]
        volume, shell = self.length**3, 4 * np.pi * r**2 * dr
        z = volume + np.sum((boltzmann - 1) * shell)
        in_bins = (boltzmann * shell).reshape(-1, n).sum(axis=1)
        self.g = volume / z * in_bins / (4 * np.pi / 3 * np.diff(edges**3))
        virial = np.sum(r * force * boltzmann * shell) / z
        self.pressure = BAR * (2 * kt + virial / 3) / volume


def test_run_of_two_particles_gives_the_exact_averages_and_gradients() -> None:
    epsilon = 1.6
    pressure, rdf = Pressure(), RDF(0.55, 11)
    potential = LennardJones(SIGMA, epsilon, TwoParticles.cutoff, r_min=0.28, knots=30)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, 0.01)
    integrator.setRandomNumberSeed(5)
    simulation = argon_simulation(potential, 2, TwoParticles.length, integrator)
    samples = StatePoint(simulation, potential).sample(
        60_000, 15, [rdf, pressure], equilibration=500
    )
    exact = TwoParticles(epsilon, rdf.edges)
    seen = exact.g > 0.01
    assert seen.sum() >= 5

    estimate = samples.estimate(rdf)
    deviation = (estimate.value - exact.g)[seen] / estimate.standard_error[seen]
    assert np.abs(deviation).max() < 4, f"g(r) is off by {deviation} standard errors"
    assert np.all(estimate.standard_error[seen] < 0.15 * exact.g[seen])
    estimate = samples.estimate(pressure)
    deviation = (estimate.value - exact.pressure) / estimate.standard_error
    assert abs(deviation[0]) < 4, f"the pressure is off by {deviation} standard errors"

    h = 1e-3
    higher, lower = (TwoParticles(epsilon + e, rdf.edges) for e in (h, -h))
    peak = int(np.argmax(exact.g))
    for name, average, slope in (
        ("g(r)", lambda s: s.average(rdf)[peak], (higher.g - lower.g)[peak] / (2 * h)),
        ("P", lambda s: s.average(pressure)[0], (higher.pressure - lower.pressure) / (2 * h)),
    ):
        gradient, error = samples.gradient(average)  # with respect to sigma and epsilon
        deviation = (gradient[1] - slope) / error[1]
        assert abs(deviation) < 4, f"d{name}/d epsilon is off by {deviation} standard errors"
        assert error[1] < 0.25 * abs(slope)


def test_frames_in_one_system_give_averages_within_errors_of_each_other() -> None:
    """Two seeds of the same fluid agree: no state is carried over that should not be."""
    potential, pressure = argon(cutoff=0.6), Pressure()
    estimates = []
    for seed in (1, 2):
        simulation = argon_simulation(potential, 27, 1.35, langevin(seed=seed))
        samples = StatePoint(simulation, potential).sample(4000, 20, [pressure], equilibration=500)
        estimates.append(samples.estimate(pressure))
    difference = estimates[0].value - estimates[1].value
    error = np.hypot(estimates[0].standard_error, estimates[1].standard_error)
    assert abs(difference[0]) < 4 * error[0], f"{difference / error} standard errors"
    assert 0 < error[0] < 200
    assert estimates[0].value[0] != estimates[1].value[0]


# What is counted only as often as it has to be --------------------------------------------------


def test_degrees_of_freedom_are_counted_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    point, counted = fluid(argon()), []
    count = statepoint.degrees_of_freedom
    monkeypatch.setattr(
        statepoint, "degrees_of_freedom", lambda system: counted.append(0) or count(system)
    )
    point.sample(1000, 50)
    assert len(counted) <= 2  # without the recording, and with it


def test_other_forces_are_not_copied_for_each_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor written whole; and what has changed in them counts at once."""
    other = lennard_jones_force(27, 0.6)
    point = fluid(argon(), forces=(other,))
    x = point.snapshot().getPositions(asNumpy=True)._value
    still = np.zeros_like(x)
    options = SegmentOptions(seed=1)

    def gradient() -> tuple[Array, Array]:
        start = torch.tensor(x, requires_grad=True)
        end = point.segment(3, start, still, options).positions[-1]
        (slope,) = torch.autograd.grad(end.square().sum(), [start])
        return end.detach().numpy(), slope.numpy()

    first = gradient()
    kinds: list[str] = []
    write = openmm.XmlSerializer.serialize

    def counted(thing: Any) -> str:
        kinds.append(type(thing).__name__)
        return str(write(thing))

    monkeypatch.setattr(openmm.XmlSerializer, "serialize", staticmethod(counted))
    np.testing.assert_array_equal(gradient(), first)
    assert kinds == ["NonbondedForce"]
    kinds.clear()
    point.sample(60, 20, [VACF(np.arange(3))])
    assert kinds.count("System") <= 3 and len(kinds) <= 6  # of the recorder, not of its frames
    (inside,) = [
        f for f in point.simulation.system.getForces() if isinstance(f, openmm.NonbondedForce)
    ]
    for i in range(27):
        inside.setParticleParameters(i, 0.0, 0.34, 3.0)
    inside.updateParametersInContext(point.simulation.context)
    assert np.abs(gradient()[1] - first[1]).max() > 1e-8


# Whose box counts ---------------------------------------------------------------------------------


def boxed(
    written: Any, present: Any, barostat: bool = False, pressure: float | None = None
) -> list[str]:
    """What a StatePoint says whose topology and Context have these boxes, edges [3, 3] in nm."""
    system = empty_system(27, np.array(present))
    potential = argon(cutoff=0.5)
    potential.attach(system)
    if barostat:
        system.addForce(openmm.MonteCarloBarostat(1.0, 120.0))
    top = topology(27)
    top.setPeriodicBoxVectors(written if written is None else written * unit.nanometer)
    integrator = openmm.LangevinMiddleIntegrator(120.0, 1.0, 0.002)
    reference = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(top, system, integrator, reference)
    simulation.context.setPositions(lattice(27, np.array(present)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        StatePoint(simulation, potential, pressure=pressure)
    return [str(warning.message) for warning in told]


CUBE, WIDE, DEFAULT = (side * np.eye(3) for side in (2.08, 2.3, 2.0))


def test_a_box_that_is_not_the_topologys_is_told_at_constant_volume() -> None:
    (said,) = boxed(CUBE, WIDE)
    assert "is 2.3 x 2.3 x 2.3 nm, and it counts" in said and "is 2.08 x 2.08 x 2.08 nm" in said
    (said,) = boxed(CUBE, CUBE + np.diag([0.0, 0.0, 0.0015]))
    assert "2.0815" in said
    (said,) = boxed(CUBE, np.array([[2.08, 0, 0], [0.3, 2.08, 0], [0, 0, 2.08]]))
    assert "(triclinic)" in said
    for barostat in (True, False):
        (said,) = boxed(CUBE, DEFAULT, barostat)
        assert "OpenMM's default" in said


def test_a_box_is_not_told_that_a_pressure_made_or_a_file_rounded() -> None:
    assert boxed(CUBE, WIDE, barostat=True) == []
    (said,) = boxed(CUBE, WIDE, pressure=1.0)
    assert said.startswith("pressure= is 1 bar, but no barostat is in the System")
    assert (
        boxed(None, WIDE) == boxed(CUBE, CUBE + 4e-4 * np.eye(3)) == boxed(DEFAULT, DEFAULT) == []
    )
    angle = np.deg2rad(70.52877936)
    for length, rounded in ((2.0, 70.53), (25.0, 70.525)):
        written, present = (
            length * np.array([[1, 0, 0], [np.cos(a), np.sin(a), 0], [0, 0, 1]])
            for a in (np.deg2rad(rounded), angle)
        )
        assert boxed(written, present) == []
