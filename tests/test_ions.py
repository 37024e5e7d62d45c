"""Short-range potentials learned beside the charges of ions: a molten salt of known truth."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from systems import simulate

import openmm_diffsim as diffsim
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters
from openmm_diffsim.units import COULOMB, MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

N, KELVIN, SIDE, CUTOFF = 64, 1300.0, 1.3, 0.6
TYPES = np.arange(N) % 2
PAIRS = {(0, 0): (31.8, 0.234), (0, 1): (25.4, 0.2755), (1, 1): (19.1, 0.317)}  # of Born and Mayer
R = np.linspace(0.24, 0.5, 14)


def table(r_min: float = 0.16) -> diffsim.SplinePair:
    return diffsim.SplinePair(r_min, CUTOFF, 40, n_types=2, name="short")


def repulsion(r: Array) -> Array:
    """Of the truth, kJ/mol, [pairs of types, len(r)]."""
    return np.array([a * np.exp((contact - r) / 0.0317) for a, contact in PAIRS.values()])


def truth() -> diffsim.SplinePair:
    pair, r = table(), np.linspace(0.16, CUTOFF, 300)
    for k, u in enumerate(repulsion(r)):
        pair.set_table(r, u, k)
    return pair


def salt(pair: diffsim.SplinePair, seed: int) -> diffsim.StatePoint:
    """Cations and anions by turns, with PME and no Lennard-Jones interactions."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * SIDE)
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(CUTOFF)
    for kind in TYPES:
        system.addParticle(30.0)
        force.addParticle(1.0 - 2.0 * kind, 1.0, 0.0)
    system.addForce(force)
    pair.attach(system, types=TYPES)
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = grid[np.argsort(grid.sum(axis=1) % 2, kind="stable")].reshape(2, -1, 3)
    simulation = simulate(system, x.transpose(1, 0, 2).reshape(-1, 3) * SIDE / 4, integrator, "CPU")
    simulation.context.setVelocitiesToTemperature(KELVIN, seed)
    return diffsim.StatePoint(simulation, pair)


def partial_rdfs() -> list[diffsim.RDF]:
    atoms = [np.flatnonzero(kind == TYPES) for kind in (0, 1)]
    return [
        diffsim.RDF(CUTOFF, 40, atoms=atoms[a], atoms2=None if a == b else atoms[b])
        for a, b in PAIRS
    ]


def test_a_table_beside_charges_starts_from_its_g_and_comes_to_the_truth() -> None:
    """Nothing explodes, although the charges alone would; u(r) within its errors."""
    rdfs = partial_rdfs()
    samples = salt(truth(), 1).sample(6000, 30, rdfs, equilibration=1000)
    estimates = [samples.estimate(rdf) for rdf in rdfs]
    pair = table()
    for k, (a, b) in enumerate(PAIRS):
        charges = (1 - 2 * a, 1 - 2 * b)
        g = estimates[k].value
        diffsim.boltzmann_inversion(pair, rdfs[k].r, g, KELVIN, k, charges=charges)
    thermal = MOLAR_GAS_CONSTANT * KELVIN
    exact = repulsion(R) - repulsion(np.array([CUTOFF]))
    found = np.array([np.interp(R, rdfs[k].r, estimates[k].value) > 0.5 for k in range(3)])
    first = pair.energy(R).detach().numpy() - exact
    assert np.abs(first)[found].max() < 2 * thermal
    point = salt(pair, 2)
    targets = [
        diffsim.Target(point, rdf, rdf.r, e.value, uncertainty=np.maximum(e.standard_error, 0.02))
        for rdf, e in zip(rdfs, estimates, strict=True)
    ]
    fit = diffsim.Refinement(pair, targets).run(6, 4000, 20, progress=False)
    assert not any(entry.event for entry in fit.history)
    assert fit.history[-1].rdf_rms < 0.3 * fit.history[0].rdf_rms
    u, error = fit.potential_table(R)
    z = ((u - exact) / error)[found]
    assert np.abs(z).max() < 3, z
    assert np.sqrt(np.mean((u - exact)[found] ** 2)) < 2 * thermal


def test_the_core_of_unlike_charges_holds_whatever_is_learned() -> None:
    """It falls by more than their attraction, so that they never meet."""
    pair, attraction = table(0.1), COULOMB
    pair.set_core([0.25, 0.22, 0.0], [0.0, attraction, attraction])
    rng = np.random.default_rng(1)
    start = flat_parameters(pair)
    r = np.linspace(0.12, 0.21, 30)
    for _ in range(20):
        noise = torch.from_numpy(rng.normal(size=len(start)) * 500.0)
        set_flat_parameters(pair, start + noise)
        force = pair.force(r).detach().numpy()
        assert (force[0] > 0).all()
        assert (force[1] > attraction / r**2).all()
    assert (force[2] < 0).any()  # the last has no core
    slope = flat_parameters(pair).clone().requires_grad_(True)
    assert torch.autograd.grad(pair.coefficients_at(slope).sum(), slope)[0].isfinite().all()
