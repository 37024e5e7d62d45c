"""What one update costs: 1000 recorded frames, 60 or 100 coefficients, 100 bins, one thread.

    python benchmarks/update_cost.py

Timed in processor time, as medians of 20 in ms: the reweighted average of g(r) with the gradient of
a loss, its full Jacobian, and n_effective; these are an update by reweighting. Then the whole
update of the default method, which besides solves the Ornstein-Zernike equation for the response;
and one of 100 parameters with a prior each, without theory, as of molecules, with what a round does
besides: the comparison of all frames and of those of the round alone. Last what is done once, at
the end: errors of all parameters, with a jackknife of the frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import lennard_jones as lj
import numpy as np
import torch

import openmm_diffsim as diffsim
from openmm_diffsim import RDF

REPEATS = 20


def milliseconds(call: Callable[[], object]) -> float:
    """Of processor time."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return median(times)


def sampled(knots: int, options: diffsim.GaussNewtonOptions) -> tuple[diffsim.Refinement, RDF]:
    """A fit of a spline, with 1000 frames."""
    pair = diffsim.SplinePair(0.8 * lj.SIGMA, lj.CUTOFF, knots)
    pair.set_table(r := np.linspace(0.8 * lj.SIGMA, lj.CUTOFF, 300), lj.truth(r))
    liquid, rdf = lj.FastStatePoint(pair, 1), RDF(lj.CUTOFF, lj.BINS)
    target = diffsim.Target(liquid, rdf, rdf.r, np.ones(lj.BINS), uncertainty=0.01)
    pair.set_prior({"values": 1.0})
    fit = diffsim.Refinement(pair, [target], diffsim.GaussNewton(options))
    (state,) = fit.states
    state.add(liquid.sample(10_000, 10, state.recorded(), equilibration=2000))
    return fit, rdf


def report_many() -> None:
    """Of 100 parameters."""
    fit, _ = sampled(102, diffsim.GaussNewtonOptions(theory=False))
    print(f"frames, parameters: {fit.states[0].frames.features.shape}")
    step = milliseconds(lambda: fit.method.propose(fit.view()))
    print(f"{'step without theory':32s} {step:7.2f} ms (allowed: 50)")
    print(f"{'comparison of a round':32s} {2 * milliseconds(fit.comparisons):7.2f} ms")
    print(f"{'errors, once at the end':32s} {milliseconds(fit.parameter_table):7.2f} ms")


def main() -> None:
    torch.set_num_threads(1)
    fit, rdf = sampled(62, diffsim.GaussNewtonOptions())
    pair, samples = fit.potential, fit.states[0].frames
    goal = torch.ones(lj.BINS, dtype=torch.float64)

    def gradient() -> None:
        pair.zero_grad()
        ((samples.average(rdf) - goal) ** 2).mean().backward()

    print(f"frames, coefficients: {samples.features.shape}; bins: {rdf.n_values}")
    parts = {
        "average, gradient": milliseconds(gradient),
        "Jacobian": milliseconds(lambda: samples.at().jacobian(rdf)),
        "n_effective": milliseconds(samples.n_effective),
    }
    for name, value in parts.items():
        print(f"{name:32s} {value:7.2f} ms")
    print(f"{'update by reweighting':32s} {sum(parts.values()):7.2f} ms (allowed: 20)")
    update = milliseconds(lambda: diffsim.GaussNewton().propose(fit.view()))
    print(f"{'default update, theory included':32s} {update:7.2f} ms")
    report_many()


if __name__ == "__main__":
    main()
