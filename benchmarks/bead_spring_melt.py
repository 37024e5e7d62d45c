"""Pair table, bond table and angle table of a melt in one fit, against the truth.

    python benchmarks/bead_spring_melt.py

20 chains of 10 beads: Lennard-Jones beyond 1-3 pairs, harmonic bonds and angles. From g(r) between
chains and the distributions of bonds and angles, each from its Boltzmann inversion: Gauss-Newton,
and iterative Boltzmann inversion in the same number of steps. One core, some minutes; what is done
is kept in ``benchmarks/melt`` and not done again. Prints a table, and draws ``melt.png`` there.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openmm
from matplotlib.figure import Figure

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = Any

FOLDER = Path(__file__).parent / "melt"
CHAINS, LENGTH, KELVIN = 20, 10, 300.0
SIGMA, EPSILON, CUTOFF, R_MIN = 0.4, 2.0, 0.9, 0.3  # nm, kJ/mol
BOND, STIFF = 0.38, 8000.0  # nm, kJ/mol/nm^2
ANGLE, BENDING = 2.0, 20.0  # rad, kJ/mol/rad^2
DENSITY = 0.7 / SIGMA**3
SIDE = (CHAINS * LENGTH / DENSITY) ** (1 / 3)
THERMAL = MOLAR_GAS_CONSTANT * KELVIN
MASS, TIMESTEP, EVERY = 40.0, 0.01, 50  # amu, ps, steps

BEADS = np.arange(CHAINS * LENGTH).reshape(CHAINS, LENGTH)
BONDS = np.concatenate([BEADS[:, k : k + 2] for k in range(LENGTH - 1)])
TRIPLES = np.concatenate([BEADS[:, k : k + 3] for k in range(LENGTH - 2)])
EXCLUDED = np.concatenate([BONDS, TRIPLES[:, ::2]]).tolist()

OBSERVABLES: dict[str, Any] = {
    "pairs": diffsim.RDF(0.49 * SIDE, 100),
    "bonds": diffsim.BondDistribution(0.30, 0.46, 64, bonds=BONDS),
    "angles": diffsim.AngleDistribution(triples=TRIPLES, bins=60),
}


@dataclass(frozen=True)
class Function:
    """One of the three, as it is in truth."""

    u: Callable[[Array], Array]
    unit: str
    least: float  # of the distribution, or of its maximum: what is populated
    is_free: bool  # of a constant?


def lennard_jones(r: Array) -> Array:
    """As it runs: switched at the cutoff."""
    pair = diffsim.LennardJones(SIGMA, epsilon=EPSILON, cutoff=CUTOFF, r_min=R_MIN)
    return pair.energy(r)[0].detach().numpy()


TRUTH = {
    "pairs": Function(lennard_jones, "nm", 0.1, False),
    "bonds": Function(lambda r: STIFF * (r - BOND) ** 2 / 2, "nm", 0.02, True),
    "angles": Function(lambda t: BENDING * (t - ANGLE) ** 2 / 2, "rad", 0.02, True),
}


def simulation(potential: diffsim.Potential, seed: int, learned: bool) -> diffsim.StatePoint:
    """The melt, relaxed; what is not learned are OpenMM's own forces."""
    topology, system = fluid(CHAINS * LENGTH, DENSITY, MASS)
    if learned:
        pairs, bonds, angles = potential
        bonds.attach(system, bonds=BONDS, periodic=True)
        angles.attach(system, triples=TRIPLES, periodic=True)
        pairs.attach(system, exclusions=EXCLUDED)
    else:
        add_springs(system)
        potential.attach(system, exclusions=EXCLUDED)
    dynamics = Dynamics(KELVIN, timestep=TIMESTEP, threads=1)
    made = dynamics.simulation(topology, system, seed)
    made.context.setPositions(start(seed))
    openmm.LocalEnergyMinimizer.minimize(made.context, 50.0, 500)
    made.context.setVelocitiesToTemperature(KELVIN, seed + 1)
    made.step(5000)
    return diffsim.StatePoint(made, potential)


def add_springs(system: openmm.System) -> None:
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for i, j in BONDS.tolist():
        bonds.addBond(i, j, BOND, STIFF)
    for i, j, k in TRIPLES.tolist():
        angles.addAngle(i, j, k, ANGLE, BENDING)
    for force in (bonds, angles):
        force.setUsesPeriodicBoundaryConditions(True)
        system.addForce(force)


def start(seed: int) -> Array:
    """Random chains, stretched a little."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(CHAINS, LENGTH, 3))
    steps = np.cumsum(0.7 * steps, axis=1) + 3 * steps[:, :1]
    steps *= BOND / np.linalg.norm(steps, axis=-1, keepdims=True)
    starts = rng.random((CHAINS, 1, 3)) * SIDE
    return (starts + np.cumsum(steps, axis=1)).reshape(-1, 3)


def measured(frames: int, seed: int) -> dict[str, Array]:
    """Averages of the truth, with errors; kept."""
    path = FOLDER / f"truth_{frames}_{seed}.npz"
    if not path.exists():
        pair = diffsim.LennardJones(SIGMA, epsilon=EPSILON, cutoff=CUTOFF, r_min=R_MIN)
        melt = simulation(pair, seed + 1000, learned=False)
        observables = list(OBSERVABLES.values())
        samples = melt.sample(frames * EVERY, EVERY, observables, equilibration=20_000)
        found = {}
        for name, observable in OBSERVABLES.items():
            estimate = samples.estimate(observable)
            found |= {name: estimate.value, f"{name} error": estimate.standard_error}
        np.savez(path, **found)
    with np.load(path) as kept:
        return dict(kept)


def places(name: str) -> Array:
    return OBSERVABLES[name].axis(TIMESTEP).values


def first_guess(data: dict[str, Array]) -> diffsim.Sum:
    """Boltzmann inversion of each distribution, as if there were no other."""
    pairs = diffsim.SplinePair(R_MIN, CUTOFF, 40, name="pairs")
    diffsim.boltzmann_inversion(pairs, places("pairs"), data["pairs"], KELVIN)
    bonds = diffsim.BondSpline(0.30, 0.46, 30, name="bonds")
    angles = diffsim.AngleSpline(30, name="angles")
    bonds.boltzmann_inversion(places("bonds"), data["bonds"], KELVIN)
    angles.boltzmann_inversion(places("angles"), data["angles"], KELVIN)
    return pairs + bonds + angles


def refined(
    method: str, data: dict[str, Array], options: argparse.Namespace
) -> tuple[diffsim.Refinement, dict[str, Any]]:
    """A fit after so many rounds, and its tables: u, error at places of each function."""
    potential = first_guess(data)
    melt = simulation(potential, options.seed, learned=True)
    targets = []
    for name, observable in OBSERVABLES.items():
        error = data[f"{name} error"]
        error = np.maximum(error, error[error > 0].min())
        targets.append(
            diffsim.Target(melt, observable, places(name), data[name], uncertainty=error)
        )
    path = FOLDER / f"{method}_{options.frames}_{options.seed}_{options.steps}.npz"
    fit = diffsim.Refinement(potential, targets, method, checkpoint=path)
    if path.exists():
        fit.resume(path)
    fit.run(options.rounds, options.steps, EVERY, options.steps // 10)
    tables = {name: fit.potential_table(places(name), term=name) for name in TRUTH}
    return fit, {name: (u[0], error[0]) for name, (u, error) in tables.items()}


@dataclass(frozen=True)
class Judged:
    """A function where it is populated, beside the truth; energies in kT."""

    q: Array
    off: Array
    claim: Array

    @classmethod
    def of(cls, name: str, table: tuple[Array, Array], data: dict[str, Array]) -> Judged:
        """A constant that nothing depends on is taken off: the mean with weights 1 / error^2."""
        truth, q = TRUTH[name], places(name)
        scale = 1.0 if name == "pairs" else data[name].max()
        seen = data[name] > truth.least * scale
        seen &= q < (CUTOFF if name == "pairs" else np.inf)
        off, claim = (table[0] - truth.u(q))[seen] / THERMAL, table[1][seen] / THERMAL
        if truth.is_free:
            off = off - np.average(off, weights=data[name][seen])
        return cls(q[seen], off, claim)

    def row(self) -> str:
        z = np.abs(self.off) / np.maximum(self.claim, 1e-12)
        return (
            f"{np.sqrt(np.mean(self.off**2)):.3f} | {np.abs(self.off).max():.3f} | "
            f"{np.sqrt(np.mean(self.claim**2)):.3f} | {np.mean(z < 2):.2f}"
        )


def spring(q: Array, u: Array, weights: Array) -> tuple[Array, Array]:
    """q_0 and k of the parabola through u, and their derivatives with respect to u, [2, points]."""
    powers = np.stack([np.ones_like(q), q - q.mean(), (q - q.mean()) ** 2], axis=1)
    root = np.sqrt(weights)[:, None]
    solve = np.linalg.pinv(root * powers) * root[:, 0]
    _, b, c = solve @ u
    values = np.array([q.mean() - b / (2 * c), 2 * c])
    slopes = np.stack([-solve[1] / (2 * c) + b * solve[2] / (2 * c**2), 2 * solve[2]])
    return values, slopes


def constants(fit: diffsim.Refinement, name: str, data: dict[str, Array]) -> tuple[Array, Array]:
    """Length or angle and stiffness of a spring, with standard errors, [2] each."""
    table = fit.parameter_table()
    covariance = table.correlation * np.outer(table.standard_error, table.standard_error)
    where, function = {f.name: (w, f) for w, f in fit.potential.functions()}[name]
    q = places(name)
    seen = data[name] > TRUTH[name].least * data[name].max()
    basis = function.basis.values(q[seen])
    values, slopes = spring(q[seen], basis @ table.values[where], data[name][seen])
    rows = slopes @ basis
    return values, np.sqrt(np.diag(rows @ covariance[where, where] @ rows.T))


def draw(
    fits: dict[str, tuple[diffsim.Refinement, dict[str, Any]]], data: dict[str, Array]
) -> Figure:
    """The three functions beside the truth, and how far each fit is off."""
    figure = Figure(figsize=(14, 7), layout="constrained")
    axes = figure.subplots(2, 3, height_ratios=(1.6, 1))
    for column, (name, truth) in enumerate(TRUTH.items()):
        top, below = axes[:, column]
        shown = Judged.of(name, next(iter(fits.values()))[1][name], data).q
        top.plot(shown, truth.u(shown), color="#c8552b", ls="--", lw=1.5, label="truth")
        for color, (method, (_, tables)) in zip(("#1f6fb4", "#2e8b57"), fits.items(), strict=True):
            judged = Judged.of(name, tables[name], data)
            top.plot(shown, truth.u(shown) + judged.off * THERMAL, color=color, label=method)
            below.plot(shown, judged.off, color=color)
            if method == "gauss-newton":
                claim = 2 * judged.claim
                below.fill_between(shown, -claim, claim, color=color, alpha=0.2, lw=0)
        below.axhline(0, color="0.7", lw=0.8)
        top.set(title=name, ylabel="u / kJ mol$^{-1}$")
        below.set(xlabel=f"{OBSERVABLES[name].rules.x} / {truth.unit}", ylabel="off / kT")
        top.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8000, help="of the truth")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20_000, help="recorded in a round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    data = measured(options.frames, options.seed)
    fits = {method: refined(method, data, options) for method in ("gauss-newton", "ibi")}
    print("method | function | rms off / kT | largest / kT | claim / kT | within 2 errors")
    for method, (fit, tables) in fits.items():
        for name in TRUTH:
            print(method, "|", name, "|", Judged.of(name, tables[name], data).row())
        told = fit.summary()
        print(f"{method}: {fit.md_steps} MD steps, misfit {told['misfit']:.2f}")
        print(f"  {fit.verdict().sentence()}")
    print("spring | in truth | gauss-newton | off in errors")
    for name, true in (("bonds", (BOND, STIFF)), ("angles", (ANGLE, BENDING))):
        values, errors = constants(fits["gauss-newton"][0], name, data)
        for what, value, error, known in zip("qk", values, errors, true, strict=True):
            off = (value - known) / error
            print(f"{name} {what} | {known:g} | {value:.6g} +/- {error:.2g} | {off:+.1f}")
    draw(fits, data).savefig(FOLDER / "melt.png", dpi=130)
    print(f"figure: {FOLDER / 'melt.png'}")


if __name__ == "__main__":
    main()
