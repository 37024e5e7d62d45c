"""Ten parameters of a force field: one run per round, against central differences of each.

    python benchmarks/central_differences.py

A Lennard-Jones mixture of five types, 100 particles in a NonbondedForce (Reference platform, one
core, some minutes), from equal parameters for all types to those of known ones: their ten partial
g(r) and the potential energy. Both ways take Gauss-Newton steps with the same targets, prior and
lengths of runs. One records features and pools the frames of all rounds; the other has its Jacobian
from two runs for each parameter, at parameters moved by a standard deviation of the prior's third,
and needs no features. Force evaluations are counted until the misfit at the present parameters, in
a run there, is that of the first way's end or within a tenth of it.
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
STEPS, EVERY, LEAD = 2000, 40, 500
PER_FRAME = 2  # evaluations: the energy, and a pass over all pairs for the features
MOST_ROUNDS = 5
OF = np.arange(TYPES * EACH).reshape(TYPES, EACH)
PAIRS = [(k, (k + d) % TYPES) for k in range(TYPES) for d in (0, 1)]
OBSERVABLES: list[Any] = [
    *(diffsim.RDF(CUTOFF, 30, OF[a], None if a == b else OF[b], r_min=0.28) for a, b in PAIRS),
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
    """Targets with the errors of a long run of the known mixture."""
    targets = []
    for observable in OBSERVABLES:
        found = truth.estimate(observable)
        curve = [observable.r] if hasattr(observable, "r") else []
        error = found.standard_error
        targets.append(diffsim.Target(point, observable, *curve, found.value, uncertainty=error))
    return targets


def by_features(point: Any, potential: Any, targets: Any) -> list[tuple[int, float]]:
    """Force evaluations so far and misfit, of each round."""
    fit = diffsim.Refinement(potential, targets)
    fit.run(MOST_ROUNDS, STEPS, EVERY, LEAD, progress=False)
    frames = STEPS // EVERY * PER_FRAME
    return [(r.md_steps + (k + 1) * frames, r.misfit) for k, r in enumerate(fit.history)]


def by_differences(
    point: Any, potential: Any, targets: Any, enough: float
) -> list[tuple[int, float]]:
    """The same; ends where the misfit is ``enough``."""
    first, spread = potential.parameter_prior()
    used, rounds = 0, []
    for _ in range(MOST_ROUNDS):
        theta = flat_parameters(potential)
        fit = diffsim.Refinement(potential, targets)
        fit.run(1, STEPS, EVERY, LEAD, progress=False)
        set_flat_parameters(potential, theta)
        (here,) = fit.comparisons()
        used += STEPS + LEAD
        rounds.append((used, here.misfit()))
        if here.misfit() <= enough:
            break
        columns = []
        for k, h in enumerate(spread / 3):
            ends = []
            for sign in (1, -1):
                moved = theta.clone()
                moved[k] += sign * h
                set_flat_parameters(potential, moved)
                ends.append(predictions(point, targets))
                used += STEPS + LEAD
            columns.append((ends[0] - ends[1]) / (2 * h))
        jacobian = np.array(columns).T
        hessian = jacobian.T @ here.weight @ jacobian + np.diag(spread**-2.0)
        slope = jacobian.T @ here.weight @ here.residual + (theta.numpy() - first) / spread**2
        change = -np.linalg.solve(hessian, slope)
        set_flat_parameters(potential, theta + theta.new_tensor(change))
    return rounds


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
    known = truth.sample(15 * STEPS, EVERY, OBSERVABLES, 5 * LEAD)
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
