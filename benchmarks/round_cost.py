"""What a round of a fit costs beside its MD: the pooled weights, the comparison, the step.

    taskset -c 0 python benchmarks/round_cost.py

For a spline of 60 coefficients, fitted to g(r) and pressure of 500 particles, 85 frames a round;
and for the network of the tests with 27 beads, fitted to the g(r) of another one, 100 frames a
round. It is so small that what surrounds the network shows. Process CPU time, median of the rounds
after the first, which loads and compiles.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import lennard_jones as lj
import numpy as np
import torch
from recover_lennard_jones import first_guess, load_target

import openmm_diffsim as diffsim

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from networks import embedded, fluid

ROUNDS = 6


class TimedStatePoint(diffsim.StatePoint):
    """Counts the seconds that its MD takes."""

    seconds = 0.0

    def sample(self, *arguments: object, **options: object) -> diffsim.Samples:
        start = time.process_time()
        samples = super().sample(*arguments, **options)
        self.seconds += time.process_time() - start
        return samples


def spline() -> tuple[diffsim.Refinement, TimedStatePoint]:
    data = load_target(0, Path("benchmarks/targets"))
    pair = first_guess(data, 62)
    point = TimedStatePoint(lj.simulation(pair, 0), pair)
    point.simulation.step(1500)
    rdf = diffsim.RDF(lj.CUTOFF, lj.BINS)
    # A pressure that no round reaches: the fit goes on.
    targets = [
        diffsim.Target(point, rdf, data["r"], data["g"], uncertainty=data["g_error"]),
        diffsim.Target(point, diffsim.Pressure(), 1.1 * float(data["pressure"]), uncertainty=0.01),
    ]
    return diffsim.Refinement(pair, targets), point


def network() -> tuple[diffsim.Refinement, TimedStatePoint]:
    rdf = diffsim.RDF(0.64, 32)
    truth = fluid(embedded(0.3, 1), seed=5).sample(4000, 20, [rdf], equilibration=500)
    potential = embedded(0.3, 0)
    point = TimedStatePoint(fluid(potential, seed=2).simulation, potential)
    target = diffsim.Target(point, rdf, rdf.r, truth.estimate(rdf).value, uncertainty=0.002)
    return diffsim.Refinement(potential, [target]), point


def measure(fit: diffsim.Refinement, point: TimedStatePoint, *schedule: int) -> list[float]:
    """Milliseconds of each round but for its MD."""
    times = []
    for n in range(ROUNDS):
        start, md = time.process_time(), point.seconds
        fit.run(n + 1, *schedule, progress=False)
        times.append(1e3 * (time.process_time() - start - (point.seconds - md)))
    return times


def main() -> None:
    torch.set_num_threads(1)
    for name, (fit, point), schedule in (
        ("spline", spline(), (4250, 50, 250)),
        ("network", network(), (2000, 20, 200)),
    ):
        times = measure(fit, point, *schedule)
        found = f"first {times[0]:.0f}, then {median(times[1:]):.0f} ms"
        print(f"{name}: {found}; misfit {np.round([r.misfit for r in fit.history], 2)}", flush=True)


if __name__ == "__main__":
    main()
