"""The claims of 2209.07679, each with a number: what is learned, and what it predicts elsewhere.

    python benchmarks/diffsim_paper.py fit --seeds 0 1
    python benchmarks/diffsim_paper.py table

A ``Study`` hides a potential, measures g(r) of it at some states (2000 frames every 50 steps),
learns one potential from all of them at once, and runs that where it was not measured. Modes: "g",
g(r) alone; "gv", with the velocity autocorrelation; "neural", a network in place of a spline;
"ibi", iterative Boltzmann inversion of the first state, in as many MD steps. Water is
that of SPC/E (``../shared/data/diffsim``) and of measurements (``../shared/data/experiment``), one
particle a molecule, u(r, T) = E(r) - T S(r).

Lines of ``benchmarks/honest/diffsim_paper.jsonl``; what is there is not computed again. Lengths in
sigma, energies in epsilon, where g > 0.1. Errors of a predicted g(r) are rms over all of its bins,
with what the noise of both runs makes of them in brackets.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openmm
import torch
from honest import EPSILON, LJ, MASS, SIGMA, TAU, Known, mie
from honest_results import FOLDER, fit_all, read, timed
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import segments
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

RESULTS = FOLDER / "diffsim_paper.jsonl"
DATA = Path(__file__).resolve().parents[1] / "../shared/data"
FRAMES, EVERY = 2000, 50
ROUNDS, STEPS = 8, 4250
PREDICTED = 200_000  # steps of a run elsewhere
LAGS = np.arange(0, 60, 4)  # of the velocity autocorrelation, in steps of 0.01 tau


@dataclass(frozen=True)
class Fluid:
    """A state of a simple fluid: numbers of particles of each type, reduced density and T."""

    density: float
    temperature: float
    counts: tuple[int, ...] = (500,)

    @property
    def kelvin(self) -> float:
        return self.temperature * EPSILON / MOLAR_GAS_CONSTANT

    @property
    def types(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def rdfs(self, cutoff: float) -> list[diffsim.RDF]:
        """One for each pair of types."""
        half = 0.499 * (sum(self.counts) / self.density) ** (1 / 3)
        reach = min(cutoff, half)
        members = [np.flatnonzero(self.types == t) for t in range(len(self.counts))]
        return [
            diffsim.RDF(reach * SIGMA, round(40 * reach), members[a], members[b])
            for a, b in zip(*np.triu_indices(len(members)), strict=True)
        ]

    def liquid(self, potential: diffsim.PairPotential, seed: int) -> diffsim.StatePoint:
        topology, system = fluid(sum(self.counts), self.density / SIGMA**3, MASS)
        potential.attach(system, types=self.types, temperature=self.kelvin)
        dynamics = Dynamics(self.kelvin, 0.005 * TAU, 1 / TAU, threads=1)
        simulation = dynamics.simulation(topology, system, seed)
        start_disordered(simulation, self.kelvin, seed)
        simulation.step(1500)
        return diffsim.StatePoint(simulation, potential)


class Mixed(Known):
    """Known forms, one for each pair of types."""

    def __init__(
        self, forms: Sequence[Callable[[Tensor], Tensor]], r_min: float, cutoff: float
    ) -> None:
        super().__init__(forms[0], r_min, cutoff)
        self.forms = forms
        self.n_types = round((2 * len(forms)) ** 0.5)

    def closed_form(self, r: Tensor) -> Tensor:
        return EPSILON * torch.stack([form(r / SIGMA) for form in self.forms])


def lennard_jones(sigma: float) -> Callable[[Tensor], Tensor]:
    return lambda r: 4 * ((sigma / r) ** 12 - (sigma / r) ** 6)


def morse(r: Tensor) -> Tensor:
    x = torch.exp(-6 * (r - 2 ** (1 / 6)))
    return x**2 - 2 * x


@dataclass(frozen=True)
class Study:
    """What is hidden, where it is measured, and where predictions are asked for."""

    forms: tuple[Callable[[Tensor], Tensor], ...]
    states: tuple[Fluid, ...]
    elsewhere: tuple[Fluid, ...] = ()
    cutoff: float = 2.5
    r_min: float = 0.8  # of the fit
    core: float = 0.6  # where the truth's table begins
    knots: int = 60
    modes: tuple[str, ...] = ("g", "ibi")

    def truth(self) -> diffsim.PairPotential:
        if len(self.forms) == 1:
            return Known(self.forms[0], self.core, self.cutoff)
        return Mixed(self.forms, self.core, self.cutoff)

    def learned(self, mode: str, seed: int) -> diffsim.PairPotential:
        n_types = len(self.states[0].counts)
        places = (self.r_min * SIGMA, self.cutoff * SIGMA)
        if mode == "neural":
            return diffsim.NeuralPair(*places, 0.9 * SIGMA, EPSILON, n_types=n_types, seed=seed)
        return diffsim.SplinePair(*places, self.knots, n_types=n_types)


DENSITIES, TEMPERATURES = (0.3, 0.5, 0.7), (1.2, 1.6, 2.2)
GRID = {f"{d}, {t}": Fluid(d, t) for d in DENSITIES for t in TEMPERATURES}
GRID["0.845, 1.0"] = Fluid(0.845, 1.0)
ELSEWHERE = (Fluid(0.8, 1.2),)  # of Lennard-Jones
MIXED = {x: Fluid(0.8, 1.2, (round(256 * (1 - x)), round(256 * x))) for x in (0.25, 0.5, 0.75)}
PAIRS = tuple(lennard_jones(sigma) for sigma in (0.9, 1.0, 1.1))
MIXTURE: dict[str, Any] = {"r_min": 0.7, "core": 0.5, "elsewhere": (MIXED[0.5],)}
FAMILY = Fluid(0.6, 1.2)
STUDIES: dict[str, Study] = {
    **{
        f"Lennard-Jones {name}": Study(
            (LJ,), (state,), (Fluid(0.8, 1.2),), modes=("g", "gv", "ibi")
        )
        for name, state in GRID.items()
    },
    "three densities": Study(
        (LJ,), tuple(GRID[f"{d}, 1.2"] for d in DENSITIES), (Fluid(0.8, 1.2),)
    ),
    "three temperatures": Study((LJ,), tuple(GRID[f"0.7, {t}"] for t in TEMPERATURES), ELSEWHERE),
    "all ten": Study((LJ,), tuple(GRID.values()), ELSEWHERE),
    "Mie 8-4": Study((mie(8, 4),), (FAMILY,), modes=("g", "neural", "ibi")),
    "Mie 12-10": Study((mie(12, 10),), (FAMILY,), modes=("g", "neural", "ibi")),
    "Morse": Study((morse,), (FAMILY,), modes=("g", "neural", "ibi")),
    "Yukawa": Study(
        (lambda r: 6.0 * torch.exp(-2.5 * (r - 1)) / r,),
        (FAMILY,),
        r_min=0.6,
        core=0.3,
        modes=("g", "neural", "ibi"),
    ),
    "soft sphere": Study((lambda r: r**-9,), (FAMILY,), r_min=0.7, modes=("g", "neural", "ibi")),
    "mixture, both": Study(PAIRS, (MIXED[0.25], MIXED[0.75]), **MIXTURE),
    "mixture, x = 0.25": Study(PAIRS, (MIXED[0.25],), **MIXTURE),
    "mixture, x = 0.75": Study(PAIRS, (MIXED[0.75],), **MIXTURE),
}


def measured(study: Study, name: str, state: Fluid, seed: int) -> dict[str, Array]:
    """g(r) of each pair of types with errors, [pairs, bins], and the velocity autocorrelation."""
    counts = "-".join(map(str, state.counts))
    of = name.split(",")[0] if len(study.forms) > 1 or study.forms[0] is not LJ else "LJ"
    path = FOLDER / f"paper_{of}_{state.density}_{state.temperature}_{counts}_{seed}.npz"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        liquid, rdfs = state.liquid(study.truth(), seed + 1000), state.rdfs(study.cutoff)
        samples = liquid.sample(FRAMES * EVERY, EVERY, rdfs, equilibration=10_000)
        found = [samples.estimate(rdf) for rdf in rdfs]
        data = {"r": rdfs[0].r}
        data["g"] = np.stack([each.value for each in found])
        data["error"] = np.stack([each.standard_error for each in found])
        if "gv" in study.modes:
            dynamic = liquid.sample(300 * 200, 200, [vacf()]).estimate(vacf())
            data |= {"vacf": dynamic.value, "vacf_error": dynamic.standard_error}
        np.savez(path, **data)
    with np.load(path) as kept:
        return dict(kept)


def vacf() -> diffsim.VACF:
    newton = segments.velocity_verlet(0.01 * TAU)
    return diffsim.VACF(LAGS, integrator=newton, gradient_every=10)


def fit_one(name: str, seed: int, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    if name in WATERS:
        return WATERS[name].fit(mode, seed)
    study = STUDIES[name]
    data = [measured(study, name, state, seed) for state in study.states]
    pair = study.learned(mode, seed)
    if mode != "neural":
        for k in range(pair.n_pairs):
            first = data[0]
            diffsim.boltzmann_inversion(pair, first["r"], first["g"][k], study.states[0].kelvin, k)
    states = study.states[:1] if mode == "ibi" else study.states
    targets = []
    for state, own in zip(states, data, strict=False):
        liquid = state.liquid(pair, seed)
        for rdf, g, error in zip(state.rdfs(study.cutoff), own["g"], own["error"], strict=True):
            targets.append(diffsim.Target(liquid, rdf, own["r"], g, uncertainty=error))
        if mode == "gv":
            lags, errors = LAGS * 0.01 * TAU, own["vacf_error"]
            targets.append(diffsim.Target(liquid, vacf(), lags, own["vacf"], uncertainty=errors))
    steps = STEPS * len(study.states) if mode == "ibi" else STEPS
    fit = diffsim.Refinement(pair, targets, "ibi" if mode == "ibi" else "gauss-newton")
    found = timed(lambda: fit.run(ROUNDS, steps, EVERY, 250, progress=False))
    if not fit.history:
        return found
    found |= judged(fit, study, data)
    predicted = [prediction(study, name, pair, state, seed) for state in study.elsewhere]
    both = [pair for each in predicted for pair in each]
    return found | {"predicted": [off for off, _ in both], "noise": [noise for _, noise in both]}


def judged(
    fit: diffsim.Refinement, study: Study, data: Sequence[dict[str, Array]]
) -> dict[str, Any]:
    """How far u(r) is off where g > 0.1 in any state, in epsilon."""
    r = np.linspace(study.r_min * SIGMA, study.cutoff * SIGMA, 400)
    u, error = fit.potential_table(r)
    truth = study.truth().energy(r).detach().numpy()
    g = [[np.interp(r, own["r"], row) for row in own["g"]] for own in data]
    seen = np.max(g, axis=0) > 0.1
    off, claim = (u - truth)[seen] / EPSILON, error[seen] / EPSILON
    return {
        "misfit": fit.summary()["misfit"],
        "steps": fit.md_steps,
        "u_rms": rms(off),
        "claim_rms": rms(claim),
        "within_2": float(np.mean(np.abs(off) < 2 * claim)),
    }


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def prediction(
    study: Study, name: str, pair: diffsim.PairPotential, state: Fluid, seed: int
) -> list[tuple[float, float]]:
    """rms of each partial g(r) at a state that was not measured, and what of it is noise."""
    own = measured(study, name, state, seed)
    liquid, rdfs = state.liquid(pair, seed + 50), state.rdfs(study.cutoff)
    samples = liquid.sample(PREDICTED, EVERY, rdfs, equilibration=5000)
    found = [samples.estimate(rdf) for rdf in rdfs]
    return [
        (rms(model.value - g), rms(np.hypot(model.standard_error, error)))
        for model, g, error in zip(found, own["g"], own["error"], strict=True)
    ]


@dataclass(frozen=True)
class Water:
    """One particle a molecule, learned at some temperatures (K, g/cm3), asked for at another."""

    files: tuple[tuple[float, float, str], ...]
    elsewhere: tuple[float, float, str]  # its file, or "SPC/E": sampled here
    knots: int = 70

    def fit(self, mode: str, seed: int) -> dict[str, Any]:
        places = (0.22, 0.95)
        pair: diffsim.PairPotential = diffsim.SplinePair(*places, self.knots)
        kelvin, _, first = self.files[0]
        diffsim.boltzmann_inversion(pair, *curve(first), kelvin)
        if len(self.files) > 1:
            entropic = diffsim.SplinePair(*places, self.knots)
            pair = diffsim.TemperatureDependent(pair, entropic)
        targets = []
        for kelvin, density, file in self.files:
            liquid, (r, g) = beads(pair, kelvin, density, seed), curve(file)
            seen = r < 0.93
            how: dict[str, Any] = {"scale": (0.01, 0.3), "broadening": 0.004}
            targets.append(
                diffsim.Target(liquid, bead_rdf(), r[seen], g[seen], uncertainty=0.01, **how)
            )
        fit = diffsim.Refinement(pair, targets)
        found = timed(lambda: fit.run(10, 5000, EVERY, 500, progress=False))
        found |= {"misfit": fit.summary()["misfit"], "steps": fit.md_steps}
        kelvin, density, file = self.elsewhere
        r, g = spce(kelvin, density, seed) if file == "SPC/E" else curve(file)
        liquid = beads(pair, kelvin, density, seed + 50)
        rdf = bead_rdf()
        samples = liquid.sample(PREDICTED // 2, EVERY, [rdf], equilibration=5000)
        seen = (r > 0.2) & (r < 0.93)
        estimate = samples.estimate(rdf)
        model, error = (
            np.interp(r[seen], rdf.r, values)
            for values in (estimate.value, estimate.standard_error)
        )
        return found | {"predicted": [rms(model - g[seen])], "noise": [rms(error)]}


def curve(name: str) -> tuple[Array, Array]:
    """r in nm and g(r), regular in r."""
    path = DATA / name
    delimiter = "," if "," in path.read_text() else None
    table = np.genfromtxt(path, delimiter=delimiter)
    r, g = table if len(table) == 2 else table.T
    order = np.argsort(r)
    return 0.1 * r[order], g[order]


def bead_rdf(atoms: Any = None) -> diffsim.RDF:
    return diffsim.RDF(0.95, 95, atoms=atoms)


def beads(
    pair: diffsim.PairPotential, kelvin: float, density: float, seed: int
) -> diffsim.StatePoint:
    topology, system = fluid(400, density * 33.43, 18.015)
    pair.attach(system, temperature=kelvin)
    simulation = Dynamics(kelvin, 0.004, 1.0, threads=1).simulation(topology, system, seed)
    start_disordered(simulation, kelvin, seed)
    simulation.step(1500)
    return diffsim.StatePoint(simulation, pair)


def spce(kelvin: float, density: float, seed: int) -> tuple[Array, Array]:
    """O-O g(r) of 400 SPC/E waters, sampled here."""
    path = FOLDER / f"paper_spce_{kelvin:g}_{density:g}_{seed}.npz"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        np.savez(path, **dict(zip("rg", sampled_water(kelvin, density, seed), strict=True)))
    with np.load(path) as kept:
        return kept["r"], kept["g"]


def sampled_water(kelvin: float, density: float, seed: int) -> tuple[Array, Array]:
    modeller = app.Modeller(app.Topology(), [])
    forces = app.ForceField("amber14/spce.xml")
    modeller.addSolvent(forces, model="spce", numAdded=400)
    side = (400 / (density * 33.43)) ** (1 / 3)
    start = np.array(modeller.positions.value_in_unit(unit.nanometer))
    box = modeller.topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    oxygens = np.arange(0, 1200, 3)
    start += np.repeat(start[oxygens] * (side / box - 1), 3, axis=0)  # molecules move whole
    modeller.topology.setPeriodicBoxVectors(np.eye(3) * side * unit.nanometer)
    system = forces.createSystem(
        modeller.topology, app.PME, nonbondedCutoff=0.9 * unit.nanometer, rigidWater=True
    )
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed + 1)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(modeller.topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(start)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(kelvin, seed + 1)
    water = diffsim.SystemParameters(system)
    water.lennard_jones(atoms=oxygens)
    water.attach(system)
    rdf = bead_rdf(oxygens)
    samples = diffsim.StatePoint(simulation, water).sample(60_000, 100, [rdf], equilibration=20_000)
    return rdf.r, samples.estimate(rdf).value


SPCE = (
    (288.0, 1.0, "diffsim/H2O_288K_spce.csv"),
    (338.0, 1.0, "diffsim/H2O_338K_spce.csv"),
)
REAL = (
    (298.0, 0.99749, "experiment/water_oo_298K.csv"),
    (338.0, 0.98103, "experiment/water_oo_338K.csv"),
)
WATERS: dict[str, Water] = {
    "SPC/E, 288 and 338 K": Water(SPCE, (388.0, 1.0, "SPC/E")),
    "SPC/E, 288 K": Water(SPCE[:1], (388.0, 1.0, "SPC/E")),
    "SPC/E, 338 K": Water(SPCE[1:], (388.0, 1.0, "SPC/E")),
    "water, 298 and 338 K": Water(REAL, REAL[1]),
    "water, 298 K": Water(REAL[:1], REAL[1]),
}


def table(options: argparse.Namespace) -> None:
    print("| study | targets | misfit | u off | claimed | within 2 errors | g elsewhere | steps |")
    print("|" + "---|" * 8)
    lines = read(RESULTS)
    for name, mode in dict.fromkeys((x["name"], x["mode"]) for x in lines):
        mine = [x for x in lines if (x["name"], x["mode"]) == (name, mode) and not x["outcome"]]
        failed = [x for x in lines if (x["name"], x["mode"]) == (name, mode) and x["outcome"]]
        row = " | ".join(cells(mine)) if mine else "|" * 5
        print(f"| {name} | {mode} | {row} |" + f" {len(failed)} failed" * bool(failed))


def cells(mine: list[dict[str, Any]]) -> list[str]:
    """Medians over seeds."""

    def median(key: str, digits: int) -> str:
        return f"{np.median([x[key] for x in mine]):.{digits}f}" if key in mine[0] else ""

    elsewhere = np.median([x.get("predicted", []) for x in mine], axis=0)
    noise = np.median([x.get("noise", x.get("predicted", [])) for x in mine], axis=0)
    both = zip(np.atleast_1d(elsewhere), np.atleast_1d(noise), strict=True)
    within = median("within_2", 2)
    return [
        median("misfit", 2),
        median("u_rms", 3),
        median("claim_rms", 3),
        within,
        " ".join(f"{off:.3f} ({of_noise:.3f})" for off, of_noise in both),
        median("steps", 0),
    ]


def modes_of(name: str) -> tuple[str, ...]:
    return STUDIES[name].modes if name in STUDIES else ("g",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fit")
    names = [*STUDIES, *WATERS]
    command.add_argument("--studies", nargs="+", default=names, choices=names)
    command.add_argument("--seeds", type=int, nargs=2, default=(0, 1))
    command.set_defaults(run=fit_studies)
    command = commands.add_parser("table")
    command.set_defaults(run=table)
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


def fit_studies(options: argparse.Namespace) -> None:
    options.label = "paper"
    for name in options.studies:
        options.systems, options.modes = [name], modes_of(name)
        fit_all(RESULTS, fit_one, options)


if __name__ == "__main__":
    main()
