"""Water, one bead per molecule, from its measured structure: by pairs, and by a many-body network.

    python benchmarks/coarse_grained_water.py pair      # minutes
    python benchmarks/coarse_grained_water.py network   # an hour; resumes where it stopped
    python benchmarks/coarse_grained_water.py report    # figure and numbers of both

298 K, 1 g/cm3. Targets: the O-O g(r) of Soper and Benmore, Phys. Rev. Lett. 101, 065502 (2008), a
pressure of 1 bar and, for the many-body network, the distribution of O-O-O angles of the same work.
Data are read from ../shared/data/experiment. The pairs start as a repulsion, the many-body network
as nothing on a spline from Boltzmann inversion that is learned with it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import openmm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from neighbor_moments import NeighborMoments
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.report.figures import save_figure

DATA = Path(__file__).resolve().parents[1] / "../shared/data/experiment"
TEMPERATURE = 298.0  # K
DENSITY = 33.43  # molecules per nm^3, 1 g/cm3
MASS = 18.015
N = 256
BOX = (N / DENSITY) ** (1 / 3)
TIMESTEP = 0.004  # ps

RDF = diffsim.RDF(r_max=0.95, bins=190)
ANGLES = diffsim.AngleDistribution(r_max=0.318, bins=60)
PRESSURE = diffsim.Pressure()
"""What is believed of the data, which come without errors."""
RDF_ERROR, ANGLE_ERROR, PRESSURE_ERROR = 0.02, 0.02, 100.0


def liquid_of(
    potential: diffsim.Potential, platform: str = "CPU", seed: int = 1
) -> diffsim.StatePoint:
    """A box of beads, near a lattice."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(BOX * np.eye(3)))
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(N):
        system.addParticle(MASS)
        residue = topology.addResidue("HOH", chain)
        topology.addAtom("O", app.Element.getBySymbol("O"), residue)
    potential.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(
        topology,
        system,
        integrator,
        openmm.Platform.getPlatform(platform),
        {"Threads": "1"} if platform == "CPU" else {"Precision": "mixed"},
    )
    side = int(np.ceil(N ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(grid))[:N]
    simulation.context.setPositions((grid[chosen] + rng.uniform(0, 0.3, (N, 3))) * BOX / side)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    point = diffsim.StatePoint(simulation, potential)
    simulation.minimizeEnergy(maxIterations=50)
    return point


def pair_potential() -> diffsim.NeuralPair:
    return diffsim.NeuralPair(0.2, 0.9, 0.27, 1.0, knots=288, name="pair network")


def network_potential() -> diffsim.NetworkPotential:
    """Both are learned: the prior, at first by Boltzmann inversion, and the network."""
    prior = diffsim.SplinePair(0.2, 0.6, 40)
    r, g = np.loadtxt(DATA / "water_oo_soper2008.csv").T
    diffsim.boltzmann_inversion(prior, r, g, TEMPERATURE)
    network = NeighborMoments(cutoff=0.45, seed=1)
    return diffsim.NetworkPotential(network, prior=prior, name="many-body network")


def targets(liquid: diffsim.StatePoint, what: str) -> list[diffsim.Target]:
    r, g = np.loadtxt(DATA / "water_oo_soper2008.csv").T
    theta, p = np.loadtxt(DATA / "water_ooo_angles.csv").T
    chosen = [
        diffsim.Target(liquid, RDF, r, g, uncertainty=RDF_ERROR),
        diffsim.Target(liquid, PRESSURE, 1.0, uncertainty=PRESSURE_ERROR),
    ]
    if what == "network":
        chosen.append(diffsim.Target(liquid, ANGLES, theta, p, uncertainty=ANGLE_ERROR))
    return chosen


def fit(what: str, folder: Path, rounds: int, steps: int, every: int, platform: str) -> None:
    """Refine one of them, or go on with it, and measure it with fresh frames."""
    potential = pair_potential() if what == "pair" else network_potential()
    if what == "network" and platform == "CUDA":
        potential.to("cuda")  # where its energies are evaluated; OpenMM has a copy of its own
    liquid = liquid_of(potential, platform)
    checkpoint = folder / f"{what}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    found = diffsim.Refinement(
        potential,
        targets(liquid, what),
        checkpoint=checkpoint,
    )
    if checkpoint.exists():
        found.resume(checkpoint)
    found.run(rounds, steps, every)
    for entry in found.history:
        print(
            f"misfit {entry.misfit:6.2f}, rms of g(r) {entry.rdf_rms:.4f}, n_effective "
            f"{entry.n_effective:5.0f}, change {entry.largest_change:.2f} kT, "
            f"{entry.seconds:5.0f} s {entry.event}"
        )
    samples = liquid.sample(5 * steps, every, [RDF, ANGLES, PRESSURE], equilibration=steps)
    estimates = {o: samples.estimate(o) for o in (RDF, ANGLES, PRESSURE)}
    arrays = {
        f"{name}{kind}": getattr(estimates[o], attribute)
        for o, name in ((RDF, "rdf"), (ANGLES, "angles"), (PRESSURE, "pressure"))
        for kind, attribute in (("", "value"), ("_error", "standard_error"))
    }
    np.savez(folder / f"{what}_found.npz", **arrays)
    (folder / f"{what}.json").write_text(json.dumps(found.summary()))


def report(folder: Path) -> None:
    """Numbers and a figure of all that was fitted."""
    r, g = np.loadtxt(DATA / "water_oo_soper2008.csv").T
    theta, p = np.loadtxt(DATA / "water_ooo_angles.csv").T
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(r, g, "o", ms=3, color="#222222", label="measured")
    right.plot(np.degrees(theta), p, "o", ms=3, color="#222222", label="measured")
    for what, color in (("pair", "#1f6fb4"), ("network", "#c8552b")):
        path = folder / f"{what}_found.npz"
        if not path.exists():
            continue
        found = np.load(path)
        label = "pair network" if what == "pair" else "many-body network"
        left.plot(RDF.r, found["rdf"], color=color, label=label)
        right.plot(np.degrees(ANGLES.theta), found["angles"], color=color, label=label)
        inside = r < RDF.r[-1]
        off = np.interp(r[inside], RDF.r, found["rdf"]) - g[inside]
        bent = np.interp(theta, ANGLES.theta, found["angles"]) - p
        print(
            f"{label}: rms of g(r) {rms(off):.4f}, of P(theta) {rms(bent):.4f} /rad, pressure "
            f"{found['pressure'][0]:.0f} +- {found['pressure_error'][0]:.0f} bar"
        )
    left.set(xlabel="r / nm", ylabel="g(r)", ylim=(0, None), xlim=(0.2, RDF.r[-1]))
    right.set(xlabel="O-O-O angle / degrees", ylabel="P / rad$^{-1}$", ylim=(0, None))
    left.legend(frameon=False)
    save_figure(figure, folder / "coarse_grained_water.png")


def rms(deviation: np.ndarray) -> float:
    return float(np.sqrt(np.mean(deviation**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pair", "network", "report"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--platform", default="CPU", help="CPU, Reference, OpenCL or CUDA")
    parser.add_argument("--output", type=Path, default=Path("coarse_grained_water"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "report":
        report(options.output)
    else:
        fit(
            options.what,
            options.output,
            options.rounds,
            options.steps,
            options.every,
            options.platform,
        )


if __name__ == "__main__":
    main()
