"""Sampling as data: in another process, or here, to the last bit the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import openmm
import pytest
from networks import CUTOFF, LENGTH, embedded
from systems import argon, empty_system, langevin, lattice, simulate

from openmm_diffsim import RDF, Pressure, Samples, SplinePair, StatePoint, TemperatureDependent
from openmm_diffsim.engine.job import Recording, SamplingJob, SamplingResult
from openmm_diffsim.errors import SamplingError
from openmm_diffsim.potentials import Potential, flat_parameters, set_flat_parameters

N = 27
RECORD = (RDF(0.5, 8), Pressure())


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """A worker that shares nothing with this process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


def others() -> tuple[openmm.Force, openmm.Force]:
    """Bonds, and a field whose strength is a parameter of the Context."""
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.4, 1000.0)
    field = openmm.CustomExternalForce("strength*periodicdistance(x,0,0,0,0,0)^2")
    field.addGlobalParameter("strength", 0.0)
    for i in range(N):
        field.addParticle(i)
    return bonds, field


def point_of(potential: Potential, backend: str | None = None, step: float = 0.004) -> StatePoint:
    """The learned Forces stand between two others, some in groups of their own."""
    box = np.eye(3) * LENGTH
    system = empty_system(N, box)
    bonds, field = others()
    system.addForce(bonds)
    forces = potential.attach(system, temperature=None, backend=backend)
    for group, force in enumerate(forces if isinstance(forces, list) else [forces]):
        force.setForceGroup(3 + group)
    system.addForce(field)
    integrator = langevin()
    integrator.setStepSize(step)
    simulation = simulate(system, lattice(N, box, 0.02), integrator)
    simulation.context.setParameter("strength", 3.0)
    simulation.step(7)
    return StatePoint(simulation, potential)


KINDS: dict[str, Callable[[], tuple[Potential, str | None]]] = {
    "native": lambda: (argon(CUTOFF, 14), "native"),
    "table": lambda: (argon(CUTOFF, 14), "table"),
    "network": lambda: (embedded(), "python"),
    "sum of pairs": lambda: (argon(0.5, 14) + SplinePair(0.28, 0.5, 12), None),
    "sum with a network": lambda: (embedded() + SplinePair(0.28, 0.5, 12), None),
}


def recording_of(kind: str, folder: Path) -> Recording:
    trajectory = folder / "run.dcd" if "network" in kind else None
    return Recording(60, 10, RECORD, equilibration=20, trajectory=trajectory)


def assert_same_arrays(result: SamplingResult, samples: Samples) -> None:
    here = samples.arrays(RECORD, Path())
    assert result.arrays.keys() == here.keys()
    for name, array in here.items():
        assert array.dtype == result.arrays[name].dtype
        np.testing.assert_array_equal(result.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_gives_what_sampling_here_does(
    kind: str, pool: ProcessPoolExecutor, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    potential, backend = KINDS[kind]()
    if backend == "native":
        request.getfixturevalue("plugin")
    point = point_of(potential, backend)
    set_flat_parameters(potential, 1.001 * flat_parameters(potential))
    plan = recording_of(kind, tmp_path)
    job = SamplingJob.of(point, plan)
    result = pool.submit(job.run).result()
    here = point.sample(60, 10, RECORD, equilibration=20, trajectory=plan.trajectory)
    assert result.md_steps == 80
    assert_same_arrays(result, here)
    assert result.state == point.serialize()

    other = point_of(potential, backend)
    taken = result.take(other, job.recording)
    assert other.simulation.currentStep == 87
    for observable in RECORD:
        np.testing.assert_array_equal(
            taken.estimate(observable).covariance, here.estimate(observable).covariance
        )
    text = other.serialize()
    on = other.sample(20, 10, RECORD)
    point.deserialize(text)
    np.testing.assert_array_equal(on.run_energies(), point.sample(20, 10, RECORD).run_energies())


def test_a_job_sees_nothing_of_what_happens_after_it_was_made(tmp_path: Path) -> None:
    """It is data: run twice, here, with other parameters in between."""
    potential, _ = KINDS["table"]()
    point = point_of(potential, "table")
    job = pickle.loads(pickle.dumps(SamplingJob.of(point, recording_of("table", tmp_path))))
    first = job.run()
    set_flat_parameters(potential, 1.1 * flat_parameters(potential))
    point.sample(20, 10)
    second = job.run()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(second.arrays[name], array)


def test_a_job_knows_the_temperature_of_its_potential() -> None:
    """And all that the Force was attached with."""
    potential = TemperatureDependent(argon(0.5, 14), SplinePair(0.272, 0.5, 14))
    system = empty_system(N, np.eye(3) * LENGTH)
    atoms = np.arange(2, N)
    potential.attach(system, atoms=atoms, exclusions=[(4, 9)], temperature=100.0)
    simulation = simulate(system, lattice(N, np.eye(3) * LENGTH, 0.02))
    point = StatePoint(simulation, potential)
    simulation.integrator.setTemperature(130.0)
    job = SamplingJob.of(point, Recording(20, 10))
    ((place, group, _, options),) = job.blueprint.learned
    assert (place, group) == (0, 0)
    assert (options.temperature, options.exclusions, options.periodic) == (130.0, [[4, 9]], True)
    np.testing.assert_array_equal(options.atoms, atoms)
    result = job.run()
    point.deserialize(dict(job.state))  # on Reference, all Contexts draw from one stream
    here = point.sample(20, 10).arrays([], Path())
    for name, array in here.items():
        np.testing.assert_array_equal(result.arrays[name], array)
    np.testing.assert_array_equal(
        result.arrays["coefficients"][0], potential.coefficients(130.0).detach()
    )


def test_a_worker_runs_at_the_present_temperature_and_pressure() -> None:
    """And not at those that the barostat was made with."""
    potential = argon(0.5, 14)
    system = empty_system(N, np.eye(3) * LENGTH)
    potential.attach(system)
    barostat = openmm.MonteCarloBarostat(1.0, 120.0, 25)
    system.addForce(barostat)
    simulation = simulate(system, lattice(N, np.eye(3) * LENGTH, 0.02))
    point = StatePoint(simulation, potential)
    simulation.integrator.setTemperature(130.0)
    simulation.context.setParameter(barostat.Temperature(), 130.0)
    simulation.context.setParameter(barostat.Pressure(), 30.0)
    recording = Recording(20, 10)
    samples = SamplingJob.of(point, recording).run().take(point, recording)
    assert (samples.temperature, samples.pressure) == (130.0, 30.0)


def test_a_network_that_is_not_learned_goes_along(pool: ProcessPoolExecutor) -> None:
    system = empty_system(N, np.eye(3) * LENGTH)
    network, pair = embedded(), SplinePair(0.28, 0.5, 12)
    network.attach(system, backend="python", atoms=np.arange(9, N)).setForceGroup(2)
    pair.attach(system)
    point = StatePoint(simulate(system, lattice(N, np.eye(3) * LENGTH, 0.02)), pair)
    result = pool.submit(SamplingJob.of(point, Recording(30, 10, RECORD)).run).result()
    here = point.sample(30, 10, RECORD)
    assert np.ptp(here.rest_energy) > 0.1
    assert_same_arrays(result, here)


def test_a_worker_says_why_it_failed(pool: ProcessPoolExecutor) -> None:
    point = point_of(argon(CUTOFF, 14), "table", step=0.3)
    job = SamplingJob.of(point, Recording(1000, 10))
    with pytest.raises(SamplingError, match="exploded") as error:
        pool.submit(job.run).result()
    assert error.value.reason == "exploded"


def test_a_network_without_a_trajectory_is_refused_before_it_runs() -> None:
    """A temporary file would be gone with the worker."""
    point = point_of(embedded(), "python")
    with pytest.raises(SamplingError, match=r"trajectory.*worker") as error:
        SamplingJob.of(point, Recording(20, 10))
    assert error.value.reason == "arguments"
