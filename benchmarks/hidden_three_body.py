"""A liquid with hidden three-body forces: what a pair potential cannot learn of its angles.

    python benchmarks/hidden_three_body.py target     # eight minutes; rewrites the reference data
    python benchmarks/hidden_three_body.py pair       # fits a spline to both, draws a figure

The truth is mW (tests/three_body.py): a Stillinger-Weber model of water, 216 molecules at 298 K and
0.997 g/cm3. Its g(r), the distribution of its angles within 0.35 nm and its pressure are in
examples/data, with the errors of 2000 frames.
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
from openmm_diffsim.plotting import save_figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
import three_body as truth  # noqa: E402

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


def fit_pair(folder: Path, rounds: int, seed: int = 1) -> None:
    """The best pair potential for both, by Gauss-Newton, beside one for g(r) alone."""
    (r, g, g_error), (theta, p, p_error) = (
        np.loadtxt(path, delimiter=",", skiprows=1).T for path in (RDF_FILE, ANGLE_FILE)
    )
    found = {}
    for name in ("g(r)", "g(r) and angles"):
        pair = diffsim.SplinePair(0.23, 0.9, 60)
        diffsim.boltzmann_inversion(pair, r, g, truth.TEMPERATURE)
        liquid, _ = state_point(seed, [], pair)
        targets = [diffsim.Target(liquid, RDF, r, g, uncertainty=g_error)]
        if "angles" in name:
            targets.append(diffsim.Target(liquid, ANGLES, theta, p, uncertainty=p_error))
        fit = diffsim.Refinement(pair, targets).run(rounds, 5000, 50, progress=False)
        samples = liquid.sample(50_000, 50, [RDF, ANGLES], equilibration=5000)
        found[name] = {o: samples.estimate(o) for o in (RDF, ANGLES)}
        report = {
            "fit": name,
            "rounds": len(fit.history),
            "misfits": [round(entry.misfit, 3) for entry in fit.history],
            "rms_g": rms(found[name][RDF].value - g),
            "rms_angles": rms(found[name][ANGLES].value - p),
            "rms_noise_g": rms(g_error),
            "rms_noise_angles": rms(p_error),
            "seconds": fit.summary()["seconds"],
        }
        print(json.dumps(report))
    curves = {RDF: (r, g, "r / nm", "g(r)"), ANGLES: (theta, p, "theta / rad", "P / rad$^{-1}$")}
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (observable, (x, measured, xlabel, ylabel)) in zip(
        figure.subplots(1, 2), curves.items(), strict=True
    ):
        axes.plot(x, measured, "o", ms=3, color="#222222", label="truth: mW")
        for (name, estimates), color in zip(found.items(), ("#1f6fb4", "#c8552b"), strict=True):
            axes.plot(x, estimates[observable].value, color=color, label=f"pair fit to {name}")
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        axes.legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(figure, folder / "hidden_three_body.png")


def rms(deviation: np.ndarray) -> float:
    return round(float(np.sqrt(np.mean(deviation**2))), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("target", "pair"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("hidden_three_body"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "target":
        make_target()
    else:
        fit_pair(options.output, options.rounds)


if __name__ == "__main__":
    main()
