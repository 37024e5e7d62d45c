"""Are errors what they claim to be, of mixtures and molecules? As ``honest.py`` for simple fluids.

    python benchmarks/honest_molecules.py fit --systems melt mixture --seeds 0 5
    python benchmarks/honest_molecules.py table

A system is a ``Case``: a Simulation for a potential, the truth, the targets of a mode ("g": g(r)
alone, "gp": and the pressure or, at constant pressure, the density), and how a fit is judged. Each
seed has a target of its own. Results are lines of ``benchmarks/honest/molecules.jsonl``; what is
there is not computed again. Energies in kT, where g > 0.1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openmm
import torch
from openmm import app, unit
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.potentials.pair.analytic import AnalyticPair
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

FOLDER = Path(__file__).parent / "honest"


class Case:
    """A System with a hidden potential; lengths in nm, energies in kJ/mol."""

    kelvin: float
    cutoff: float
    r_min: float  # of the fit
    knots: int
    n_types = 1
    frames, every = 2000, 50  # of a target
    equilibration = 10_000
    rounds, steps, fit_every = 8, 6000, 50  # of a fit
    relaxing = 0.1  # of a round, before what is recorded
    is_correction = False  # beside other forces: begins at zero

    def simulation(self, potential: diffsim.Potential, seed: int) -> diffsim.StatePoint:
        """Equilibrated a little, with the potential attached."""
        raise NotImplementedError

    def truth(self) -> diffsim.PairPotential:
        """The hidden potential."""
        raise NotImplementedError

    def rdfs(self) -> list[diffsim.RDF]:
        """One for each pair of types."""
        raise NotImplementedError

    def scalar(self) -> diffsim.Observable:
        """What "gp" has besides."""
        return diffsim.Pressure()

    @cached_property
    def recorded(self) -> list[diffsim.Observable]:
        """Each g(r), and the scalar."""
        return [*self.rdfs(), self.scalar()]

    def observables(self, mode: str) -> list[diffsim.Observable]:
        """Of a mode, g(r) first."""
        return self.recorded if mode == "gp" else self.recorded[:-1]

    def first_guess(self, data: dict[str, Any]) -> diffsim.SplinePair:
        """Boltzmann inversion, or zero."""
        pair = diffsim.SplinePair(self.r_min, self.cutoff, self.knots, self.n_types)
        if not self.is_correction:
            for k in range(len(self.rdfs())):
                diffsim.boltzmann_inversion(pair, data["r"], data[f"a{k}"], self.kelvin, pair=k)
        return pair

    def targets(self, liquid: diffsim.StatePoint, mode: str, data: dict[str, Any]) -> list[Any]:
        """With the errors of the averages that they are."""
        found = []
        for k, observable in enumerate(self.observables(mode)):
            value, error = data[f"a{k}"], data[f"e{k}"]
            if observable.is_structure:
                error = np.maximum(error, error[error > 0].min())
                found.append(
                    diffsim.Target(liquid, observable, data["r"], value, uncertainty=error)
                )
            else:
                found.append(
                    diffsim.Target(liquid, observable, float(value[0]), uncertainty=float(error[0]))
                )
        return found

    def judged(self, fit: diffsim.Refinement, data: dict[str, Any]) -> dict[str, Any]:
        """Error of u(r) and its claim, of all pairs of types."""
        r = np.linspace(self.r_min, self.cutoff, 400)
        u, error = fit.potential_table(r)
        truth = self.truth().energy(r).detach().numpy()
        kt = MOLAR_GAS_CONSTANT * self.kelvin
        seen = np.array(
            [np.interp(r, data["r"], data[f"a{k}"]) > 0.1 for k in range(len(self.rdfs()))]
        )
        off, claim = (u - truth)[seen] / kt, error[seen] / kt
        return {
            "u_rms": float(np.sqrt(np.mean(off**2))),
            "claim_rms": float(np.sqrt(np.mean(claim**2))),
            "within_1": float(np.mean(np.abs(off) < claim)),
            "within_2": float(np.mean(np.abs(off) < 2 * claim)),
        }


class Melt(Case):
    """20 chains of 10 beads, stiff bonds and soft angles, Lennard-Jones between beads."""

    kelvin, cutoff, r_min, knots = 300.0, 0.9, 0.3, 40
    sigma, chains, length = 0.4, 20, 10
    steps = 12_000

    @property
    def side(self) -> float:
        return float((self.chains * self.length / (0.7 / self.sigma**3)) ** (1 / 3))

    def truth(self) -> diffsim.PairPotential:
        return diffsim.LennardJones(self.sigma, epsilon=2.0, cutoff=self.cutoff, r_min=0.3)

    def rdfs(self) -> list[diffsim.RDF]:
        return [diffsim.RDF(0.49 * self.side, bins=100)]

    def simulation(self, potential: diffsim.Potential, seed: int) -> diffsim.StatePoint:
        topology, system = fluid(self.chains * self.length, 0.7 / self.sigma**3, 40.0)
        excluded = self._bond(system)
        potential.attach(system, exclusions=excluded)
        dynamics = Dynamics(self.kelvin, timestep=0.01, threads=1)
        simulation = dynamics.simulation(topology, system, seed)
        simulation.context.setPositions(self._start(seed))
        openmm.LocalEnergyMinimizer.minimize(simulation.context, 50.0, 500)
        simulation.context.setVelocitiesToTemperature(self.kelvin, seed + 1)
        simulation.step(5000)
        return diffsim.StatePoint(simulation, potential)

    def _bond(self, system: openmm.System) -> list[tuple[int, int]]:
        bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
        excluded = []
        for first in range(0, self.chains * self.length, self.length):
            beads = range(first, first + self.length)
            for i, j in itertools.pairwise(beads):
                bonds.addBond(i, j, 0.38, 8000.0)
                excluded.append((i, j))
            for i, j, k in zip(beads, beads[1:], beads[2:], strict=False):
                angles.addAngle(i, j, k, 2.0, 20.0)
                excluded.append((i, k))
        for force in (bonds, angles):
            force.setUsesPeriodicBoundaryConditions(True)
            system.addForce(force)
        return excluded

    def _start(self, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        steps = rng.normal(size=(self.chains, self.length, 3))
        steps = np.cumsum(0.7 * steps, axis=1) + 3 * steps[:, :1]
        steps *= 0.38 / np.linalg.norm(steps, axis=-1, keepdims=True)
        starts = rng.random((self.chains, 1, 3)) * self.side
        return (starts + np.cumsum(steps, axis=1)).reshape(-1, 3)


class Mixture(Case):
    """Two kinds of Lennard-Jones-like particles, half and half."""

    kelvin, cutoff, r_min, knots, n_types = 150.0, 0.8, 0.25, 40, 2
    n = 400
    steps = 4250

    def truth(self) -> diffsim.PairPotential:
        sigma, epsilon = [0.34, 0.32, 0.30], [1.0, 1.1, 0.8]
        return diffsim.LennardJones(sigma, epsilon, self.cutoff, r_min=0.24, n_types=2)

    @property
    def types(self) -> Any:
        return np.arange(self.n) % 2

    def rdfs(self) -> list[diffsim.RDF]:
        members = [np.flatnonzero(self.types == t) for t in (0, 1)]
        pairs = ((0, 0), (0, 1), (1, 1))
        return [diffsim.RDF(self.cutoff, 80, members[a], members[b]) for a, b in pairs]

    def simulation(self, potential: diffsim.Potential, seed: int) -> diffsim.StatePoint:
        topology, system = fluid(self.n, 18.0, 39.948)
        potential.attach(system, types=self.types)
        dynamics = Dynamics(self.kelvin, timestep=0.01, threads=1)
        simulation = dynamics.simulation(topology, system, seed)
        start_disordered(simulation, self.kelvin, seed)
        simulation.step(1500)
        return diffsim.StatePoint(simulation, potential)


class Correction(AnalyticPair):
    """A repulsive shoulder and a shallow well between oxygens."""

    def closed_form(self, r: Tensor) -> Tensor:
        shoulder = 0.8 * torch.exp(-(((r - 0.33) / 0.04) ** 2))
        return (shoulder - 0.4 * torch.exp(-(((r - 0.45) / 0.06) ** 2)))[None]


class Water(Case):
    """200 SPC/E waters (PME, rigid) and a spline between oxygens, at constant volume."""

    kelvin, cutoff, r_min, knots = 298.0, 0.65, 0.2, 27  # no pair where the core is forced to rise
    n = 200
    frames, every, equilibration = 2000, 25, 5000
    rounds, steps, fit_every = 12, 10_000, 50
    is_correction = True
    pressure: float | None = None

    def truth(self) -> diffsim.PairPotential:
        return Correction(self.r_min, self.cutoff, knots=200)

    def rdfs(self) -> list[diffsim.RDF]:
        return [diffsim.RDF(0.84, 84, atoms=np.arange(0, 3 * self.n, 3))]

    def simulation(self, potential: diffsim.Potential, seed: int) -> diffsim.StatePoint:
        field = app.ForceField("amber14/spce.xml")
        side = (self.n / 33.33) ** (1 / 3)
        lattice = _water_lattice(self.n, side, seed)
        system = field.createSystem(
            lattice.topology, app.PME, nonbondedCutoff=0.8 * unit.nanometer, rigidWater=True
        )
        if self.pressure is not None:
            barostat = openmm.MonteCarloBarostat(self.pressure, self.kelvin, 25)
            barostat.setRandomNumberSeed(seed + 5)
            system.addForce(barostat)
        potential.attach(system, atoms=np.arange(0, 3 * self.n, 3))
        dynamics = Dynamics(self.kelvin, timestep=0.003, threads=1)
        simulation = dynamics.simulation(lattice.topology, system, seed)
        simulation.context.setPositions(lattice.positions)
        simulation.minimizeEnergy(maxIterations=200)
        simulation.context.setVelocitiesToTemperature(self.kelvin, seed + 1)
        simulation.step(5000)
        return diffsim.StatePoint(simulation, potential)


class Density(diffsim.Observable):
    """Molecules per nm^3."""

    n_values = 1

    def __init__(self, n: int) -> None:
        self.n = n

    def recorder(self, particles: Any) -> Any:
        return _Nothing()

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return torch.as_tensor(self.n / conditions.volume)[:, None]


class _Nothing:
    histograms = ()

    def record(self, frame: Any, counts: Any) -> Any:
        return np.zeros(1)


class WaterNPT(Water):
    """The same at 1 bar, with the density in place of the pressure."""

    pressure = 1.0
    rounds, steps, fit_every = 6, 17_000, 25
    relaxing = 0.2  # a box follows slowly

    def rdfs(self) -> list[diffsim.RDF]:
        return [diffsim.RDF(0.8, 80, atoms=np.arange(0, 3 * self.n, 3))]

    def scalar(self) -> diffsim.Observable:
        return Density(self.n)


def _water_lattice(n: int, side: float, seed: int) -> app.Modeller:
    """Molecules at random orientations on a lattice."""
    rng = np.random.default_rng(seed)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * side * unit.nanometer)
    chain = topology.addChain()
    shape = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [-0.03333, 0.09428, 0.0]])
    edge = int(np.ceil(n ** (1 / 3)))
    cells = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = []
    for cell in cells[rng.permutation(len(cells))[:n]]:
        residue = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.Element.getBySymbol("O"), residue)
        for name in ("H1", "H2"):
            hydrogen = topology.addAtom(name, app.Element.getBySymbol("H"), residue)
            topology.addBond(oxygen, hydrogen)
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        positions.append((cell + 0.5) * side / edge + shape @ rotation)
    return app.Modeller(topology, np.concatenate(positions) * unit.nanometer)


CASES: dict[str, Case] = {
    "melt": Melt(),
    "mixture": Mixture(),
    "water": Water(),
    "water-npt": WaterNPT(),
}


def target_of(name: str, seed: int) -> dict[str, Any]:
    """Averages of the truth, with errors; kept."""
    path = FOLDER / f"{name}_{seed}.npz"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        case = CASES[name]
        observables = case.observables("gp")
        liquid = case.simulation(case.truth(), seed + 1000)
        samples = liquid.sample(
            case.frames * case.every, case.every, observables, equilibration=case.equilibration
        )
        found = {"r": observables[0].r}
        for k, observable in enumerate(observables):
            estimate = samples.estimate(observable)
            found |= {f"a{k}": estimate.value, f"e{k}": estimate.standard_error}
        np.savez(path, **found)
    with np.load(path) as kept:
        return dict(kept)


def fit_one(name: str, seed: int, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    case, data = CASES[name], target_of(name, seed)
    pair = case.first_guess(data)
    liquid = case.simulation(pair, seed)
    targets = case.targets(liquid, mode, data)
    method = diffsim.GaussNewton(diffsim.GaussNewtonOptions(**options.options))
    fit = diffsim.Refinement(pair, targets, method=method)
    start, outcome = time.process_time(), ""
    try:
        rounds = options.rounds or case.rounds
        relaxing = round(case.relaxing * case.steps)
        fit.run(rounds, case.steps, case.fit_every, relaxing, progress=False)
    except diffsim.errors.DiffsimError as failure:
        outcome = f"{type(failure).__name__}: {failure}"
    found = {"outcome": outcome, "seconds": time.process_time() - start}
    if fit.history:
        found |= {
            "misfits": [round(h.misfit, 2) for h in fit.history],
            "misfit": fit.summary()["misfit"],
            "converged": fit.converged,
            "steps": fit.md_steps,
            "rolled_back": sum("rolled" in h.event for h in fit.history),
        }
        found |= case.judged(fit, data)
        found |= scalar_of(fit) if mode == "gp" else {}
    return found


def scalar_of(fit: diffsim.Refinement) -> dict[str, Any]:
    """Of the last target: how far its average of all frames is off, in combined errors."""
    view = fit.comparisons()[0]
    error = np.sqrt(view.own_noise.diagonal() + view.target_noise.diagonal())
    return {"scalar_z": float((view.residual / error)[-1]), "scalar_error": float(error[-1])}


def run(options: argparse.Namespace) -> None:
    path = FOLDER / "molecules.jsonl"
    done = set()
    if path.exists():
        done = {_key(json.loads(line)) for line in path.read_text().splitlines()}
    for seed in range(*options.seeds):
        for name in options.systems:
            for mode in options.modes:
                line: dict[str, Any] = {"label": options.label, "name": name}
                line |= {"mode": mode, "seed": seed}
                if _key(line) in done:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    line |= fit_one(name, seed, mode, options)
                with path.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")
                print(json.dumps(_rounded(line)), flush=True)


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["label"], line["name"], line["mode"], line["seed"]


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}


def table(options: argparse.Namespace) -> None:
    lines = [json.loads(x) for x in (FOLDER / "molecules.jsonl").read_text().splitlines()]
    print(
        "label | system | targets | seeds | misfit | u rms | claim | within 1, 2 | scalar z | "
        "steps | back | s"
    )
    for key in dict.fromkeys((x["label"], x["name"], x["mode"]) for x in lines):
        mine = [x for x in lines if (x["label"], x["name"], x["mode"]) == key and "u_rms" in x]
        if mine:
            print(" | ".join([*key, *_row(mine)]))


def _row(lines: Sequence[dict[str, Any]]) -> list[str]:
    def of(name: str) -> Any:
        return np.array([x.get(name, np.nan) for x in lines], float)

    scalars = " ".join(f"{z:.1f}" for z in of("scalar_z"))
    return [
        f"{len(lines)}",
        f"{np.median(of('misfit')):.2f}",
        f"{np.median(of('u_rms')):.3f}",
        f"{np.median(of('claim_rms')):.3f}",
        f"{of('within_1').mean():.2f}, {of('within_2').mean():.2f}",
        scalars,
        f"{np.median(of('steps')):.0f}",
        f"{of('rolled_back').mean():.1f}",
        f"{of('seconds').mean():.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fit")
    command.add_argument("--systems", nargs="+", default=list(CASES), choices=list(CASES))
    command.add_argument("--seeds", type=int, nargs=2, default=(0, 5))
    command.add_argument("--modes", nargs="+", default=["g", "gp"], choices=["g", "gp"])
    command.add_argument("--rounds", type=int, default=0, help="0: as the system has it")
    command.add_argument("--label", default="default")
    command.add_argument("--options", type=json.loads, default={}, help="GaussNewtonOptions, JSON")
    command.set_defaults(run=run)
    command = commands.add_parser("table")
    command.set_defaults(run=table)
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
