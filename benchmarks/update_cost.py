"""What one update costs: 1000 recorded frames, 60 coefficients, 100 bins, one thread.

    python benchmarks/update_cost.py

Timed: the reweighted average of g(r), the gradient of a loss of it with respect to the
coefficients, its full Jacobian, and n_effective; medians of 50, in ms. Frames are those of a
real run, repeated with noise up to 1000: the cost depends on their number alone.
"""

from __future__ import annotations

import time
from statistics import median

import lennard_jones as lj
import numpy as np
import torch

import openmm_diffsim as diffsim
from openmm_diffsim.samples import Run, Samples

FRAMES, REPEATS = 1000, 50


def recorded_frames() -> tuple[Samples, diffsim.SplinePair, diffsim.RDF]:
    pair = diffsim.SplinePair(0.8 * lj.SIGMA, lj.CUTOFF, 62)
    pair.set_table(r := np.linspace(0.8 * lj.SIGMA, lj.CUTOFF, 300), lj.truth(r))
    rdf = diffsim.RDF(lj.CUTOFF, lj.BINS)
    few = lj.FastStatePoint(pair, 1).sample(5000, 50, [rdf], equilibration=2000)
    random = np.random.default_rng(1)
    pick = random.integers(0, len(few), FRAMES)

    def blur(a: np.ndarray) -> np.ndarray:
        return a[pick] + a.std(axis=0) * random.normal(size=(FRAMES, *a.shape[1:]))

    sums = blur(few.basis_sums)
    run = Run(few.runs[0].coefficients, few.temperature, None, FRAMES, 50)
    nothing, volume = np.zeros(FRAMES), np.full(FRAMES, lj.BOX**3)
    records = {rdf: blur(few.records[rdf])}
    return (
        Samples(pair, (run,), sums, sums, volume, nothing, records, few.temperature),
        pair,
        rdf,
    )


def main() -> None:
    torch.set_num_threads(1)
    samples, pair, rdf = recorded_frames()
    with torch.no_grad():
        pair.values += 1e-3
    target = torch.ones(lj.BINS, dtype=torch.float64)
    times: dict[str, list[float]] = {"average, gradient": [], "Jacobian": [], "n_effective": []}
    for _ in range(REPEATS):
        start = time.perf_counter()
        pair.zero_grad()
        ((samples.average(rdf) - target) ** 2).mean().backward()
        middle = time.perf_counter()
        samples.jacobian(rdf)
        late = time.perf_counter()
        samples.n_effective()
        end = time.perf_counter()
        for name, seconds in zip(times, (middle - start, late - middle, end - late), strict=True):
            times[name].append(1000 * seconds)
    shape = tuple(samples.basis_sums.shape)
    print(f"frames, pairs of types, coefficients: {shape}; bins: {rdf.n_values}")
    for name, values in times.items():
        print(f"{name:20s} {median(values):7.2f} ms")
    print(f"{'one update':20s} {sum(map(median, times.values())):7.2f} ms (allowed: 20)")


if __name__ == "__main__":
    main()
