"""A liquid with hidden three-body forces: what a pair potential cannot learn, and a network can.

    python benchmarks/hidden_three_body.py target     # eight minutes; rewrites the reference data
    python benchmarks/hidden_three_body.py pair       # the best pair potentials
    python benchmarks/hidden_three_body.py network    # and a network on top of one; resumes
    python benchmarks/hidden_three_body.py figure     # of what has been fitted so far

The truth is mW (tests/three_body.py): a Stillinger-Weber model of water, 216 molecules at 298 K and
0.997 g/cm3. Its g(r) and the distribution of its angles within 0.35 nm are in examples/data, with
the errors of 2000 frames. Fits see nothing else. Each is judged by a fresh run, whose g(r) and
angles are kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import openmm_diffsim as diffsim
from openmm_diffsim.io import write_csv
from openmm_diffsim.report.figures import save_figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
import three_body as truth  # noqa: E402
from neighbor_moments import NeighborMoments  # noqa: E402

N = 216
RDF_FILE, ANGLE_FILE = (ROOT / f"examples/data/mw_{name}.csv" for name in ("rdf", "angles"))
RDF = diffsim.RDF(r_max=0.9, bins=120)
ANGLES = diffsim.AngleDistribution(r_max=0.35, bins=60)


def make_target(frames: int = 2000, every: int = 50, seed: int = 7) -> None:
    """Sample the truth, and write g(r) and P(theta) with their standard errors."""
    liquid, _ = state_point(seed, [truth.python_force(truth.StillingerWeber())])
    pressure = diffsim.Pressure()
    samples = liquid.sample(frames * every, every, [RDF, ANGLES, pressure], equilibration=8000)
    for path, header, x, observable in (
        (RDF_FILE, "r_nm,g,standard_error", RDF.r, RDF),
        (ANGLE_FILE, "theta_rad,p,standard_error", ANGLES.theta, ANGLES),
    ):
        found = samples.estimate(observable)
        # Bins in which nothing was ever found: as uncertain as the best known of the others.
        error = found.standard_error.clip(found.standard_error[found.standard_error > 0].min())
        write_csv(path, header, x.round(6), found.value.round(6), error.round(6))
    p = samples.estimate(pressure)
    print(f"pressure {p.value[0]:.0f} +- {p.standard_error[0]:.0f} bar")
    energy = samples.rest_energy / N
    print(f"energy {energy.mean():.3f} kJ/mol, expected {truth.ENERGY:.3f}")


def state_point(
    seed: int, forces: list, pair: diffsim.PairPotential | None = None
) -> tuple[diffsim.StatePoint, diffsim.PairPotential]:
    """The liquid with the given forces and a spline, which is zero where none is given."""
    pair = pair or diffsim.SplinePair(0.22, 0.6, 20)
    topology, system, positions = truth.system(N)
    for force in forces:
        system.addForce(force)
    pair.attach(system)
    return diffsim.StatePoint(truth.simulate(topology, system, positions, seed), pair), pair


def measured() -> dict[diffsim.Observable, tuple[np.ndarray, ...]]:
    """Points, values and standard errors of the reference data."""
    files = {RDF: RDF_FILE, ANGLES: ANGLE_FILE}
    return {o: tuple(np.loadtxt(f, delimiter=",", skiprows=1).T) for o, f in files.items()}


def targets(liquid: diffsim.StatePoint, *observables: diffsim.Observable) -> list[diffsim.Target]:
    data = measured()
    return [diffsim.Target(liquid, o, *data[o][:2], uncertainty=data[o][2]) for o in observables]


def judge(name: str, fit: diffsim.Refinement, folder: Path, frames: int) -> None:
    """A fresh run with what was fitted; prints how far it is from the truth."""
    liquid = fit.targets[0].state_point
    samples = liquid.sample(50 * frames, 50, [RDF, ANGLES], equilibration=2500)
    report = {
        "fit": name,
        "rounds": len(fit.history),
        "md_steps": fit.md_steps,
        "misfits": [round(entry.misfit, 2) for entry in fit.history],
        "seconds": round(fit.history[-1].seconds),
    }
    columns = []
    for label, (observable, (_, truth_values, error)) in zip(
        ("g", "angles"), measured().items(), strict=True
    ):
        value = samples.estimate(observable, check=False).value
        columns.append(value)
        report[f"rms_{label}"] = rms(value - truth_values)
        report[f"noise_{label}"] = rms(error)
    np.savez(folder / f"{name}.npz", g=columns[0], angles=columns[1])
    (folder / f"{name}.json").write_text(json.dumps(report) + "\n")
    print(json.dumps(report), flush=True)


def fitted_pair(
    seed: int, rounds: int, *observables: diffsim.Observable, cutoff: float = 0.9
) -> diffsim.Refinement:
    r, g, _ = measured()[RDF]
    pair = diffsim.SplinePair(0.23, cutoff, round(65 * cutoff))
    diffsim.boltzmann_inversion(pair, r, g, truth.TEMPERATURE)
    liquid, _ = state_point(seed, [], pair)
    fit = diffsim.Refinement(pair, targets(liquid, *observables))
    return fit.run(rounds, 5000, 50, progress=False)


def fit_pairs(folder: Path, rounds: int, seed: int = 1) -> None:
    """The best pair potential for g(r), and one for g(r) and the angles."""
    judge("pair_to_g", fitted_pair(seed, rounds, RDF), folder, 1000)
    judge("pair_to_both", fitted_pair(seed, rounds, RDF, ANGLES), folder, 1000)


def fit_network(folder: Path, rounds: int, seed: int = 1) -> None:
    """A network, beside the pair potential of g(r) alone: it has to learn what that one lacks."""
    prior = fitted_pair(seed, 8, RDF, cutoff=0.6).potential.requires_grad_(False)
    potential = diffsim.NetworkPotential(NeighborMoments(cutoff=0.45, seed=seed), prior=prior)
    topology, system, positions = truth.system(N)
    potential.attach(system)
    liquid = diffsim.StatePoint(truth.simulate(topology, system, positions, seed), potential)
    checkpoint = folder / "network_fit.npz"
    fit = diffsim.Refinement(potential, targets(liquid, RDF, ANGLES), checkpoint=checkpoint)
    if checkpoint.exists():
        fit.resume(checkpoint)
    else:
        liquid.simulation.step(2000)
    for done in range(len(fit.history) + 1, rounds + 1):
        fit.run(done, 1500, 25, equilibration=300, progress=False)
        print(json.dumps(vars(fit.history[-1])), flush=True)
        if fit.converged:
            break
    judge("network", fit, folder, 300)


LABELS = {
    "pair_to_g": ("pair potential, fitted to g(r)", "#1f6fb4"),
    "pair_to_both": ("pair potential, fitted to both", "#8a5fb0"),
    "network": ("network, fitted to both", "#c8552b"),
}


def draw(folder: Path) -> None:
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = dict(zip(("g", "angles"), figure.subplots(1, 2), strict=True))
    for key, (x, value, _) in zip(axes, measured().values(), strict=True):
        axes[key].plot(x, value, "o", ms=3, color="#222222", label="truth: mW")
        for name, (label, color) in LABELS.items():
            if (folder / f"{name}.npz").exists():
                axes[key].plot(x, np.load(folder / f"{name}.npz")[key], color=color, label=label)
        axes[key].legend(frameon=False)
    axes["g"].set(xlabel="r / nm", ylabel="g(r)", xlim=(0.2, 0.9), ylim=(0, None))
    axes["angles"].set(xlabel="theta / rad", ylabel="P(theta) / rad$^{-1}$", ylim=(0, None))
    save_figure(figure, folder / "hidden_three_body.png")


def rms(deviation: np.ndarray) -> float:
    return round(float(np.sqrt(np.mean(deviation**2))), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("target", "pair", "network", "figure"))
    parser.add_argument("--rounds", type=int, help="default 12 for pairs, 30 for the network")
    parser.add_argument("--output", type=Path, default=Path("hidden_three_body"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.what == "target":
        make_target()
    elif options.what == "pair":
        fit_pairs(options.output, options.rounds or 12)
    elif options.what == "network":
        fit_network(options.output, options.rounds or 30)
    if options.what != "target":
        draw(options.output)


if __name__ == "__main__":
    main()
