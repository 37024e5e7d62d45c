"""Ten parameters of a force field: one run a round, against central differences of each.

    python benchmarks/central_differences.py

A Lennard-Jones mixture of five types, 100 particles in a NonbondedForce (Reference platform, one
core, some minutes), from the same parameters for all types toward known ones, by g(r) of each type
about all others, known to 0.02, and the potential energy. Both ways take Gauss-Newton steps with
the same targets, prior and lengths of runs. One records features and pools the frames of all
rounds. The other has its Jacobian from two runs for each parameter, moved up and down by a third of
a standard deviation of the prior, and needs no features. Force evaluations are counted until the
misfit is that of the first way's end, or within a tenth of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import start_disordered
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

Array = Any

TYPES, EACH, KELVIN, SIDE, CUTOFF = 5, 20, 150.0, 1.75, 0.85  # nm
SIGMA = np.array([0.325, 0.335, 0.34, 0.35, 0.36])  # nm
EPSILON = np.array([0.7, 1.2, 0.9, 1.3, 1.0])  # kJ/mol
STEPS, EVERY, LEAD = 3000, 25, 500
PER_FRAME = 2  # evaluations: the energy, and a pass over all pairs for the features
ROUNDS, MOST_JACOBIANS = 6, 2
OF = np.arange(TYPES * EACH).reshape(TYPES, EACH)
OBSERVABLES: list[Any] = [
    *(diffsim.RDF(CUTOFF, 30, own, np.setdiff1d(OF, own), r_min=0.28) for own in OF),
    diffsim.PotentialEnergy(n=TYPES * EACH),
]


def liquid(sigma: Array, epsilon: Array, seed: int) -> tuple[diffsim.StatePoint, Any]:
    """A mixture that has these parameters, and what is learned of it."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * SIDE)
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * SIDE)
    chain = topology.addChain()
    for s, e in zip(np.repeat(sigma, EACH), np.repeat(epsilon, EACH), strict=True):
        system.addParticle(40.0)
        force.addParticle(0.0, s, e)
        topology.addAtom("Ar", app.element.argon, topology.addResidue("Ar", chain))
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({f"T{k}": OF[k] for k in range(TYPES)})
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1.0, 0.01)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    start_disordered(simulation, KELVIN, seed)
    return diffsim.StatePoint(simulation, potential), potential


def measured(point: diffsim.StatePoint, truth: Any) -> list[Any]:
    """Targets from a run of the known mixture."""
    *structure, energy = OBSERVABLES
    found = truth.estimate(energy)
    return [
        *(
            diffsim.Target(
                point, g, g.r, truth.estimate(g).value, uncertainty=0.02, noise="independent"
            )
            for g in structure
        ),
        diffsim.Target(point, energy, found.value, uncertainty=found.standard_error),
    ]


def by_features(point: Any, potential: Any, targets: Any) -> list[tuple[int, float]]:
    """Force evaluations so far and misfit, of each round."""
    fit = diffsim.Refinement(potential, targets)
    fit.run(ROUNDS, STEPS, EVERY, LEAD, progress=False)
    frames = STEPS // EVERY * PER_FRAME
    return [(r.md_steps + (k + 1) * frames, r.misfit) for k, r in enumerate(fit.history)]


def by_differences(
    point: Any, potential: Any, targets: Any, enough: float
) -> list[tuple[int, float]]:
    """The same; ends where the misfit is ``enough``."""
    first, spread = potential.parameter_prior()
    used, rounds = 0, []
    for k in range(MOST_JACOBIANS + 1):
        theta = flat_parameters(potential)
        fit = diffsim.Refinement(potential, targets)
        fit.run(1, STEPS, EVERY, LEAD, progress=False)
        set_flat_parameters(potential, theta)
        (here,) = fit.comparisons()
        used += STEPS + LEAD
        rounds.append((used, here.misfit()))
        if here.misfit() <= enough or k == MOST_JACOBIANS:
            break
        jacobian = differences(point, potential, targets, theta, spread / 3)
        used += 2 * len(theta) * (STEPS + LEAD)
        hessian = jacobian.T @ here.weight @ jacobian + np.diag(spread**-2.0)
        slope = jacobian.T @ here.weight @ here.residual + (theta.numpy() - first) / spread**2
        change = -np.linalg.solve(hessian, slope)
        set_flat_parameters(potential, theta + theta.new_tensor(change))
    return rounds


def differences(point: Any, potential: Any, targets: Any, theta: Any, steps: Array) -> Array:
    """Of all predictions by each parameter, [points, parameters]."""
    columns = []
    for k, h in enumerate(steps):
        ends = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[k] += sign * h
            set_flat_parameters(potential, moved)
            ends.append(predictions(point, targets))
        columns.append((ends[0] - ends[1]) / (2 * h))
    return np.array(columns).T


def predictions(point: Any, targets: Any) -> Array:
    """Of all targets, from a run of the present parameters, [points]."""
    samples = point.sample(STEPS, EVERY, OBSERVABLES, LEAD)
    averages = [samples.at().average(t.observable).detach() for t in targets]
    parts = [t.predict(a).numpy() for t, a in zip(targets, averages, strict=True)]
    return np.concatenate(parts)


def told(name: str, rounds: list[tuple[int, float]]) -> None:
    """Print a table."""
    print(name)
    for k, (evaluations, misfit) in enumerate(rounds, 1):
        print(f"  round {k}: {evaluations:9d} force evaluations, misfit {misfit:.2f}", flush=True)


def main() -> None:
    truth, _ = liquid(SIGMA, EPSILON, 1)
    known = truth.sample(6 * STEPS, EVERY, OBSERVABLES, 3 * LEAD)
    start = np.full(TYPES, SIGMA.mean()), np.full(TYPES, EPSILON.mean())
    point, potential = liquid(*start, 2)
    ours = by_features(point, potential, measured(point, known))
    told("features", ours)
    enough = 1.1 * ours[-1][1]
    point, potential = liquid(*start, 3)
    theirs = by_differences(point, potential, measured(point, known), enough)
    told("central differences", theirs)
    used = next(n for n, misfit in ours if misfit <= enough)
    reached = "" if theirs[-1][1] <= enough else ", and it is not reached"
    print(f"to a misfit of {enough:.2f}: {used} and {theirs[-1][0]} force evaluations{reached}")
    print(f"ratio {used / theirs[-1][0]:.3f}")


if __name__ == "__main__":
    main()
