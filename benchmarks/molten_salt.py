"""Short-range potentials of ions, learned beside their charges: a molten salt of known truth.

    python benchmarks/molten_salt.py

32 cations and 32 anions with the charges of a NonbondedForce (particle mesh Ewald), which stay, and
a `SplinePair` of two types for all else, at 1300 K and the density of molten NaCl. The truth is
Fumi and Tosi's repulsion of NaCl (J. Phys. Chem. Solids 25, 31 (1964)). Its partial g(r) and its
pressure are the targets; the fit begins at `boltzmann_inversion` of these g(r) beside the charges.
Printed are, round by round, the rms of g(r) and the pressure, and at the end u(r) of each pair of
types beside the truth, with its standard error.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import openmm
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

N, TEMPERATURE, DENSITY = 64, 1300.0, 29.0  # ions, K, ions per nm^3
CUTOFF, R_MIN, KNOTS, STEP = 0.6, 0.16, 45, 0.002  # nm, nm, knots, ps
STRENGTH, DECAY = 25.4, 0.0317  # kJ/mol, nm
CONTACTS = {(0, 0): (1.25, 0.234), (0, 1): (1.0, 0.2755), (1, 1): (0.75, 0.317)}
MASSES = (22.99, 35.45)
PAIRS = list(combinations_with_replacement((0, 1), 2))
TYPES = np.arange(N) % 2
SIDE = (N / DENSITY) ** (1 / 3)


def repulsion(r: Any, pair: tuple[int, int]) -> Any:
    """Of the truth, kJ/mol at nm."""
    factor, contact = CONTACTS[pair]
    return factor * STRENGTH * np.exp((contact - r) / DECAY)


def table() -> diffsim.SplinePair:
    """One of two types, with nothing in it."""
    return diffsim.SplinePair(R_MIN, CUTOFF, KNOTS, n_types=2, name="short")


def truth() -> diffsim.SplinePair:
    """With the truth in it."""
    pair, r = table(), np.linspace(R_MIN, CUTOFF, 400)
    for k, types in enumerate(PAIRS):
        pair.set_table(r, repulsion(r, types), k)
    return pair


def ions(pair: diffsim.SplinePair, seed: int, charge: float = 1.0) -> diffsim.StatePoint:
    """A state point that begins at a crystal, without Lennard-Jones interactions."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * SIDE)
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(CUTOFF)
    for kind in TYPES:
        system.addParticle(MASSES[kind])
        force.addParticle(charge * (1 - 2 * int(kind)), 1.0, 0.0)
    system.addForce(force)
    pair.attach(system, types=TYPES)
    topology = app.Topology()
    chain = topology.addChain()
    for kind in TYPES:
        name = ("Na", "Cl")[kind]
        topology.addAtom(name, app.Element.getBySymbol(name), topology.addResidue(name, chain))
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, STEP)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(rock_salt())
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return diffsim.StatePoint(simulation, pair)


def rock_salt() -> Any:
    """Positions of both kinds by turns, [N, 3], nm."""
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    kind = grid.sum(axis=1) % 2
    places = np.empty((N, 3))
    places[0::2], places[1::2] = grid[kind == 0], grid[kind == 1]
    return places * SIDE / 4


def partial_rdfs(bins: int = 60) -> list[diffsim.RDF]:
    """Of each pair of types."""
    atoms = [np.flatnonzero(kind == TYPES) for kind in (0, 1)]
    return [
        diffsim.RDF(CUTOFF, bins, atoms=atoms[a], atoms2=None if a == b else atoms[b])
        for a, b in PAIRS
    ]


def measured(steps: int, every: int, observables: Any) -> list[Any]:
    """Estimates of the truth."""
    samples = ions(truth(), 1).sample(steps, every, observables, equilibration=2000)
    return [samples.estimate(observable) for observable in observables]


def fit_of(estimates: Any, observables: Any, charge: float = 1.0) -> Any:
    """A fit from Boltzmann inversion, beside the charges."""
    pair = table()
    for k, (a, b) in enumerate(PAIRS):
        charges = ((1 - 2 * a) * charge, (1 - 2 * b) * charge)
        r, g = observables[k].r, estimates[k].value
        diffsim.boltzmann_inversion(pair, r, g, TEMPERATURE, k, charges=charges)
    point = ions(pair, 2, charge)
    targets = [
        diffsim.Target(
            point,
            observable,
            *((observable.r,) if isinstance(observable, diffsim.RDF) else ()),
            e.value,
            uncertainty=np.maximum(e.standard_error, 0.01),
        )
        for observable, e in zip(observables, estimates, strict=True)
    ]
    return diffsim.Refinement(pair, targets)


def deviations(fit: Any, r: Any) -> tuple[Any, Any]:
    """u less the truth, and its standard error, kJ/mol, [pairs of types, len(r)]."""
    u, error = fit.potential_table(r)
    exact = np.array([repulsion(r, types) - repulsion(CUTOFF, types) for types in PAIRS])
    return u - exact, error


def main() -> None:
    observables = [*partial_rdfs(), diffsim.Pressure()]
    estimates = measured(100_000, 50, observables)
    print(f"pressure of the truth: {estimates[-1].value[0]:.0f} bar")
    fit = fit_of(estimates, observables)
    for number in range(8):
        fit.run(number + 1, 10_000, 25, progress=False)
        last = fit.history[-1]
        print(
            f"round {number}: misfit {last.misfit:.2f}, rms of g(r) {last.rdf_rms:.4f}", flush=True
        )
    print(fit.verdict().sentence())
    thermal = MOLAR_GAS_CONSTANT * TEMPERATURE
    r = np.linspace(0.24, 0.55, 9)
    for types, off, error in zip(PAIRS, *deviations(fit, r), strict=True):
        print(f"types {types}: (u - truth) / kT and its standard error")
        for row in zip(r, off / thermal, error / thermal, strict=True):
            print("  {:.3f} nm {:7.3f} {:7.3f}".format(*row))


if __name__ == "__main__":
    main()
