"""Are errors what they claim to be? Recover known potentials over the phase diagram.

    taskset -c 1 python benchmarks/honest.py fit --systems lj-0.845 wca --seeds 0 5
    python benchmarks/honest.py table
    python benchmarks/honest.py figure --file docs/honest.png

Each seed has a target of its own (2000 frames every 50 steps), from which the potential is
recovered, from a disordered start: from g(r) alone ("g"), or with the pressure ("gp"). All results
are lines of ``benchmarks/honest/results.jsonl``; what is there is not computed again. Lengths in
sigma, energies in kT, where g > 0.1.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from honest_results import FOLDER, fit_all, fit_arguments, read, timed
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.potentials.pair.analytic import AnalyticPair
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu
TAU = SIGMA * (MASS / EPSILON) ** 0.5  # ps
N = 500
FRAMES, EVERY = 2000, 50
ROUNDS = 8
RESULTS = FOLDER / "results.jsonl"


class Known(AnalyticPair):
    """epsilon f(r / sigma), cut and shifted to zero or already smooth there: the truth."""

    def __init__(self, form: Callable[[Tensor], Tensor], r_min: float, cutoff: float) -> None:
        super().__init__(r_min * SIGMA, cutoff * SIGMA, knots=400)
        self.form = form

    def closed_form(self, r: Tensor) -> Tensor:
        return EPSILON * self.form(r / SIGMA)[None]

    def switched_form(self, r: Tensor) -> Tensor:
        end = torch.tensor([self.cutoff], dtype=r.dtype)
        return torch.where(r < self.cutoff, self.closed_form(r) - self.closed_form(end), 0.0)


def mie(n: float, m: float) -> Callable[[Tensor], Tensor]:
    """Minimum -1, at the distance of that of 12-6."""
    r_0 = 2 ** (1 / 6)
    return lambda r: (m * (r_0 / r) ** n - n * (r_0 / r) ** m) / (n - m)


def wca(r: Tensor) -> Tensor:
    return torch.where(r < 2 ** (1 / 6), 4 * (r**-12 - r**-6) + 1, 0.0)


@dataclass(frozen=True)
class Case:
    """A fluid of one kind, in reduced units."""

    form: Callable[[Tensor], Tensor]
    density: float
    temperature: float
    cutoff: float = 2.5
    r_min: float = 0.8  # of the fit
    core: float = 0.6  # where the truth's table begins
    timestep: float = 0.005

    @property
    def kelvin(self) -> float:
        return self.temperature * EPSILON / MOLAR_GAS_CONSTANT

    @property
    def knots(self) -> int:
        """35 to a sigma, about as many as the bins of g(r)."""
        return round(35 * (self.cutoff - self.r_min)) + 1

    def truth(self) -> Known:
        return Known(self.form, self.core, self.cutoff)


LJ = mie(12, 6)
CASES = {
    "lj-0.845": Case(LJ, 0.845, 1.0),
    "lj-0.3": Case(LJ, 0.3, 1.2),
    "lj-0.5": Case(LJ, 0.5, 1.3),
    "lj-0.7": Case(LJ, 0.7, 1.2),
    "lj-0.1": Case(LJ, 0.1, 1.5),
    "mie-12-10": Case(mie(12, 10), 0.7, 1.0),
    "mie-8-4": Case(mie(8, 4), 0.7, 1.2),
    "wca": Case(wca, 0.8, 1.0, 1.5),
    "ipl-6": Case(lambda r: r**-6, 0.8, 1.0, r_min=0.6, core=0.4),
    "ipl-12": Case(lambda r: r**-12, 0.8, 1.0),
    "gaussian-core": Case(
        lambda r: 2.0 * torch.exp(-(r**2)), 0.4, 1.0, 3.0, r_min=0.05, core=0.02, timestep=0.01
    ),
    "screened": Case(
        lambda r: 6.0 * torch.exp(-1.8 * (r - 1)) / r, 0.5, 1.0, 3.0, r_min=0.6, core=0.3
    ),
    "lj-bump": Case(lambda r: LJ(r) + 0.6 * torch.exp(-(((r - 1.6) / 0.12) ** 2)), 0.6, 1.2),
}


def simulation(potential: diffsim.PairPotential, case: Case, seed: int) -> diffsim.StatePoint:
    topology, system = fluid(N, case.density / SIGMA**3, MASS)
    potential.attach(system)
    dynamics = Dynamics(case.kelvin, case.timestep * TAU, 1 / TAU, threads=1)
    simulation = dynamics.simulation(topology, system, seed)
    start_disordered(simulation, case.kelvin, seed)
    return diffsim.StatePoint(simulation, potential)


def rdf_of(case: Case) -> diffsim.RDF:
    half = 0.499 * (N / case.density) ** (1 / 3)
    reach = min(case.cutoff, half)
    return diffsim.RDF(reach * SIGMA, bins=round(40 * reach))


def target_of(name: str, seed: int) -> dict[str, Any]:
    """g(r) and pressure of the truth, with errors; kept."""
    path = FOLDER / f"{name}_{seed}.npz"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        case = CASES[name]
        liquid = simulation(case.truth(), case, seed + 1000)
        rdf, pressure = rdf_of(case), diffsim.Pressure()
        samples = liquid.sample(FRAMES * EVERY, EVERY, [rdf, pressure], equilibration=10_000)
        g, p = samples.estimate(rdf), samples.estimate(pressure)
        np.savez(path, r=rdf.r, g=g.value, e=g.standard_error, p=p.value[0], pe=p.standard_error[0])
    with np.load(path) as found:
        return dict(found)


def first_guess(case: Case, data: dict[str, Any]) -> diffsim.SplinePair:
    pair = diffsim.SplinePair(case.r_min * SIGMA, case.cutoff * SIGMA, knots=case.knots)
    return diffsim.boltzmann_inversion(pair, data["r"], data["g"], case.kelvin)


def fit_one(name: str, seed: int, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    case, data = CASES[name], target_of(name, seed)
    pair = first_guess(case, data)
    liquid = simulation(pair, case, seed)
    liquid.simulation.step(1500)
    rdf = rdf_of(case)
    targets = [diffsim.Target(liquid, rdf, data["r"], data["g"], uncertainty=data["e"])]
    if mode == "gp":
        p, pe = float(data["p"]), float(data["pe"])
        targets.append(diffsim.Target(liquid, diffsim.Pressure(), p, uncertainty=pe))
    method = diffsim.GaussNewton(diffsim.GaussNewtonOptions(**options.options))
    fit = diffsim.Refinement(pair, targets, method=method)
    found = timed(lambda: fit.run(options.rounds or ROUNDS, 4250, 50, 250, progress=False))
    if fit.history:
        found |= judged(fit, case, data)
    return found


def judged(fit: diffsim.Refinement, case: Case, data: dict[str, Any]) -> dict[str, Any]:
    """How far u(r) is off where g > 0.1, in kT and in claimed errors; each target likewise."""
    r = np.linspace(case.r_min * SIGMA, case.cutoff * SIGMA, 400)
    r = r[np.interp(r, data["r"], data["g"]) > 0.1]
    u, error = fit.potential_table(r)
    truth = case.truth().energy(r).detach().numpy()[0]
    kt = case.temperature * EPSILON
    off, claim = (u[0] - truth) / kt, error[0] / kt
    verdict = fit.verdict()
    return {
        "misfit": fit.summary()["misfit"],
        "converged": fit.converged,
        "steps": fit.md_steps,
        "rolled_back": sum(item.was_rolled_back for item in fit.history),
        "u_rms": rms(off),
        "claim_rms": rms(claim),
        "within_1": float(np.mean(np.abs(off) < claim)),
        "within_2": float(np.mean(np.abs(off) < 2 * claim)),
        "theory": float(np.mean([c.theory_weight for c in fit.view().compare()])),
        "targets": {target.name: target.misfit for target in verdict.targets},
        "fresh": fresh(fit) if fit.converged else {},
        "r": (r[::8] / SIGMA).tolist(),
        "off": off[::8].tolist(),
        "claim": claim[::8].tolist(),
    }


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def fresh(fit: diffsim.Refinement) -> dict[str, float]:
    """Each target against new frames, which nothing was fitted to: rms in combined errors."""
    liquid = fit.targets[0].state_point
    samples = liquid.sample(20_000, 50, [t.observable for t in fit.targets], equilibration=1000)
    found = {}
    for target in fit.targets:
        estimate = samples.estimate(target.observable)
        error = np.sqrt(target.uncertainty**2 + estimate.standard_error**2)
        found[target.observable.label] = rms((estimate.value - target.values) / error)
    return found


def table(options: argparse.Namespace) -> None:
    print(
        "| system | targets | seeds | misfit | u off, kT | claimed | within 1, 2 errors | "
        "targets off, most | theory | steps | roll-backs | converged, fresh |"
    )
    print("|" + "---|" * 12)
    lines = read(RESULTS, options.label)
    for name, mode in dict.fromkeys((x["name"], x["mode"]) for x in lines):
        mine = [x for x in lines if (x["name"], x["mode"]) == (name, mode) and "u_rms" in x]
        failed = [x for x in lines if (x["name"], x["mode"]) == (name, mode) and x["outcome"]]
        print(f"| {name} | {mode} | {row(mine)} |" + f" {len(failed)} failed" * bool(failed))


def row(mine: list[dict[str, Any]]) -> str:
    def median(key: str) -> float:
        return float(np.median([x[key] for x in mine]))

    def mean(key: str) -> float:
        return float(np.mean([x[key] for x in mine]))

    worst = max(max(x["targets"].values()) for x in mine)
    anew = [z for x in mine for z in x["fresh"].values()]
    return (
        f"{len(mine)} | {median('misfit'):.2f} | {median('u_rms'):.3f} | "
        f"{median('claim_rms'):.3f} | {mean('within_1'):.2f}, {mean('within_2'):.3f} | "
        f"{worst:.2f} | {mean('theory'):.2f} | {median('steps'):.0f} | {mean('rolled_back'):.1f} | "
        f"{sum(x['converged'] for x in mine)}" + (f", {max(anew):.2f}" if anew else "")
    )


def figure(options: argparse.Namespace) -> None:
    """Of each system, how far u(r) is off in each seed, and two claimed errors about zero."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [x for x in read(RESULTS, options.label) if x["mode"] == "gp" and "off" in x]
    names = list(dict.fromkeys(x["name"] for x in lines))
    columns = 4
    rows = -(-len(names) // columns)
    shape = {"figsize": (3.2 * columns, 2.3 * rows), "squeeze": False}
    drawn, axes = plt.subplots(rows, columns, **shape)
    for axis, name in zip(axes.flat, names, strict=False):
        mine = [x for x in lines if x["name"] == name]
        band = 2 * np.median([x["claim"] for x in mine], axis=0)
        axis.fill_between(mine[0]["r"], -band, band, color="#1f6fb4", alpha=0.2, lw=0)
        for one in mine:
            axis.plot(one["r"], one["off"], lw=0.9, color="#222222", alpha=0.7)
        axis.set(title=name, ylim=(-0.12, 0.12))
        axis.axhline(0, lw=0.5, color="#888888")
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("r / sigma")
    for axis in axes[:, 0]:
        axis.set_ylabel("u off, kT")
    drawn.tight_layout()
    drawn.savefig(options.file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fit")
    fit_arguments(command, CASES, ROUNDS)
    command.set_defaults(run=lambda options: fit_all(RESULTS, fit_one, options))
    command = commands.add_parser("table")
    command.add_argument("--label", default="default")
    command.set_defaults(run=table)
    command = commands.add_parser("figure")
    command.add_argument("--label", default="default")
    command.add_argument("--file", type=Path, default=FOLDER / "honest.png")
    command.set_defaults(run=figure)
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
