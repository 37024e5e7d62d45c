"""Recover the Lennard-Jones potential from a noisy g(r), with and without the pressure.

    python benchmarks/recover_lennard_jones.py --seeds 0 10 --mode rdf
    python benchmarks/recover_lennard_jones.py --seeds 0 10 --mode pressure

For each seed: a target of its own (1000 frames every 50 steps, stock OpenMM), a fit from the
Boltzmann-inverted g(r) and a disordered start, and a judgement: a fresh run of 1000 frames with
the refined potential, by an independent MD code (``lennard_jones.FastStatePoint``). Prints one
line of JSON per seed; lengths in sigma, energies in epsilon, where g > 0.1.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import lennard_jones as lj
import numpy as np
import torch

import openmm_diffsim as diffsim

FIRST = 1500  # MD steps before a fit


def load_target(seed: int, folder: Path) -> dict[str, np.ndarray]:
    """The target of a seed, kept in ``folder`` between calls."""
    path = folder / f"target_{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **lj.make_target(seed))
    with np.load(path) as data:
        return dict(data)


def first_guess(data: dict[str, np.ndarray], knots: int = 60) -> diffsim.SplinePair:
    pair = diffsim.SplinePair(0.8 * lj.SIGMA, lj.CUTOFF, knots)
    return diffsim.boltzmann_inversion(pair, data["r"], data["g"], lj.TEMPERATURE)


def refine(
    data: dict[str, np.ndarray],
    seed: int,
    use_pressure: bool,
    engine: str = "openmm",
    rounds: int = 8,
    steps: int = 4250,
    equilibration: int = 250,
    every: int = 50,
    method: object = "gauss-newton",
    noise: str = "auto",
) -> tuple[diffsim.Refinement, diffsim.RDF, diffsim.Pressure]:
    pair = first_guess(data)
    if engine == "openmm":
        liquid = diffsim.StatePoint(lj.simulation(pair, seed), pair)
        liquid.simulation.step(FIRST)
    else:
        liquid = lj.FastStatePoint(pair, seed)
        liquid.step(FIRST)
    rdf, pressure = diffsim.RDF(lj.CUTOFF, lj.BINS), diffsim.Pressure()
    targets = [
        diffsim.Target(liquid, rdf, data["r"], data["g"], uncertainty=data["g_error"], noise=noise)
    ]
    if use_pressure:
        targets.append(
            diffsim.Target(
                liquid, pressure, float(data["pressure"]), uncertainty=float(data["pressure_error"])
            )
        )
    fit = diffsim.Refinement(pair, targets, method=method)
    fit.run(rounds, steps, every, equilibration, progress=False)
    return fit, rdf, pressure


def judge(
    fit: diffsim.Refinement, data: dict[str, np.ndarray], seed: int, fresh: bool = True
) -> dict[str, float]:
    r = np.linspace(0.85 * lj.SIGMA, lj.CUTOFF, 400)
    seen = np.interp(r, data["r"], data["g"]) > 0.1
    u, error = fit.potential_table(r[seen])
    deviation = u[0] - lj.truth(r[seen])
    result = {
        "md_steps": FIRST + fit.md_steps,
        "potential_rms": float(np.sqrt(np.mean(deviation**2)) / lj.EPSILON),
        "standard_error_rms": float(np.sqrt(np.mean(error**2)) / lj.EPSILON),
        "within_two_errors": float(np.mean(np.abs(deviation) < 2 * error[0])),
        "pooled_rdf_rms": fit.summary()["rdf_rms"],
        "rolled_back": sum(item.was_rolled_back for item in fit.history),
    }
    if fresh:
        liquid = lj.FastStatePoint(fit.potential, seed + 5000)
        rdf, pressure = diffsim.RDF(lj.CUTOFF, lj.BINS), diffsim.Pressure()
        samples = liquid.sample(50_000, 50, [rdf, pressure], equilibration=5000)
        g = samples.estimate(rdf).value
        result["fresh_rdf_rms"] = float(np.sqrt(np.mean((g - data["g"]) ** 2)))
        result["fresh_pressure"] = float(samples.estimate(pressure).value[0] / lj.PRESSURE_UNIT)
        result["target_pressure"] = float(data["pressure"] / lj.PRESSURE_UNIT)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), metavar=("FIRST", "END"))
    parser.add_argument("--mode", choices=["rdf", "pressure"], default="rdf")
    parser.add_argument("--engine", choices=["openmm", "fast"], default="openmm")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--targets", type=Path, default=Path("benchmarks/targets"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(*options.seeds):
        data = load_target(seed, options.targets)
        start = time.perf_counter()
        fit, *_ = refine(
            data, seed, options.mode == "pressure", options.engine, rounds=options.rounds
        )
        seconds = time.perf_counter() - start
        line = {"seed": seed, "mode": options.mode, **judge(fit, data, seed), "seconds": seconds}
        print(
            json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
