"""Parameters of forces that are in a System already: features, values in OpenMM, averages."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from systems import (
    EPSILON,
    SIGMA,
    context_of,
    empty_system,
    energy_and_forces,
    lattice,
    simulate,
)

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, bonds_of
from openmm_diffsim.engine.recorder import describe_particles
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

Array = NDArray[np.float64]
Force = openmm.NonbondedForce

BOX = np.diag([2.3, 2.4, 2.6])
SITES = ((-0.6, 0.32, 0.7), (0.25, 0.24, 0.2), (0.25, 0.28, 0.0), (0.1, 0.3, 0.4))  # q, sigma, eps


METHODS = [Force.NoCutoff, Force.CutoffNonPeriodic, Force.CutoffPeriodic, Force.Ewald, Force.PME]


def molecules(n: int = 8, method: int = Force.PME, **settings: Any) -> tuple[Any, Array]:
    """Chains of four sites, with 1-2 and 1-3 exclusions and scaled 1-4 pairs."""
    system = empty_system(4 * n, BOX)
    force = Force()
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.9)
    for _ in range(n):
        for site in SITES:
            force.addParticle(*site)
    bonds = [(4 * m + k, 4 * m + k + 1) for m in range(n) for k in range(3)]
    springs = openmm.HarmonicBondForce()
    for i, j in bonds:
        springs.addBond(i, j, 0.15, 1000.0)
    force.createExceptionsFromBonds(bonds, 0.83, 0.5)
    for name, value in settings.items():
        getattr(force, name)(value)
    system.addForce(springs)
    system.addForce(force)
    rng = np.random.default_rng(3)
    centres = lattice(n, BOX, 0.05)
    steps = np.cumsum(rng.normal(size=(n, 4, 3)) * 0.09, axis=1)
    return system, (centres[:, None] + steps).reshape(-1, 3)


def features_of(potential: Any, context: openmm.Context) -> Array:
    recorder = attached(potential, context.getSystem()).recorder(
        context, describe_particles(context, bonds_of(context.getSystem())), None
    )
    state = context.getState(getPositions=True)
    box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
    return recorder.features(np.array(state.getPositions(asNumpy=True)._value), box)[0]


def check_features(potential: Any, system: Any, x: Array, tries: int = 100) -> None:
    """c . S + a constant is the energy at random parameters."""
    context = context_of(system, x, "Reference")
    adapter = attached(potential, system)
    found = features_of(potential, context)
    start, rng = flat_parameters(potential), np.random.default_rng(1)
    rest = []
    for _ in range(tries):
        change = torch.from_numpy(rng.normal(size=len(start)) * 0.2)
        set_flat_parameters(potential, start + change)
        adapter.update(context, None)
        learned = float(potential.coefficients().detach().numpy() @ found)
        energy = energy_and_forces(context)[0]
        rest.append((energy - learned, learned))
    left, learned = np.array(rest).T
    assert np.ptp(learned) > 10, "the energy does not depend on the parameters"
    size = np.median(np.abs(left) + np.abs(learned))
    assert np.abs(left - np.median(left)).max() < 1e-9 * size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize("dispersion", [False, True])
def test_features_of_lennard_jones_are_its_energy(
    method: int, switch: bool, dispersion: bool
) -> None:
    system, x = molecules(
        method=method,
        setUseSwitchingFunction=switch,
        setSwitchingDistance=0.7,
        setUseDispersionCorrection=dispersion,
    )
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({"A": np.arange(0, 32, 4), "B": np.arange(1, 32, 4)})
    check_features(potential, system, x)


def fluid(n: int = 64, side: float = 1.7, cutoff: float = 0.8) -> Any:
    """A Simulation of argon with a NonbondedForce that is not this package's, and its potential."""
    system = empty_system(n, np.eye(3) * side)
    force = Force()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    for _ in range(n):
        force.addParticle(0.0, SIGMA, EPSILON)
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones()
    return simulate(system, lattice(n, np.eye(3) * side, 0.02)), potential


def test_samples_know_the_energy_at_any_parameters() -> None:
    simulation, potential = fluid()
    point = diffsim.StatePoint(simulation, potential)
    pressure = diffsim.Pressure()
    samples = point.sample(100, 20, [pressure])
    assert samples.features.shape == (5, 2)
    assert np.abs(samples.rest_energy).max() < 1e-9 * np.abs(samples.run_energies()).max()
    assert np.abs(samples.records[pressure][:, 1]).max() < 1e-6  # all of the virial is learned
    set_flat_parameters(potential, flat_parameters(potential) + 0.01)
    assert "terms.lennard_jones.sigma.theta" in dict(potential.named_parameters())
    point.apply()
    sigma = simulation.system.getForce(0).getParticleParameters(3)[1]
    assert sigma._value == pytest.approx(SIGMA * np.exp(0.01))
    now = energy_and_forces(simulation.context)[0]
    assert samples.at().learned_energy[-1].item() == pytest.approx(now)


TYPES = {name: np.arange(k, 32, 4) for k, name in enumerate("ABCD")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("types", ["ABCD", "AB", "BD"])
@pytest.mark.parametrize("neutral", [False, True])
def test_features_of_charges_are_the_energy(method: int, types: str, neutral: bool) -> None:
    system, x = molecules(method=method)
    potential = diffsim.SystemParameters(system)
    term = potential.charges({name: TYPES[name] for name in types}, neutral=neutral)
    assert len(term.free) == len(types) - neutral
    assert term.is_quadratic == (types == "ABCD")
    check_features(potential, system, x)
