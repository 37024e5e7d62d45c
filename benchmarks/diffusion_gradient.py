"""d(diffusion)/d(epsilon, sigma) of a Lennard-Jones fluid, by segments and by brute force.

rho* = 0.7, T* = 1.2, N = 108, cutoff 2.5 sigma, Langevin friction 1/tau, dt = 0.01 tau, argon's
units. D(t) is the Green-Kubo integral up to t, for t from 0.1 to 3 tau. Side by side: the pathwise
derivative, that of the path score, and their combination, each with the ensemble term; and
central differences of long simulations by OpenMM's own integrator at other epsilon and sigma.

    python benchmarks/diffusion_gradient.py [--frames 12000] [--steps 400000] [--figure FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import fluid, start_disordered
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu
TAU = SIGMA * (MASS / EPSILON) ** 0.5  # ps
N, DENSITY, REDUCED_TEMPERATURE = 108, 0.7, 1.2
TEMPERATURE = REDUCED_TEMPERATURE * EPSILON / MOLAR_GAS_CONSTANT
DT, FRICTION = 0.01 * TAU, 1 / TAU
LENGTHS = np.array([10, 20, 40, 60, 80, 100, 130, 160, 200, 250, 300])  # steps
ESTIMATORS = ("pathwise", "score", "combined")
CHANGES = {"sigma": 0.015, "epsilon": 0.1}  # relative, of the central differences
EVERY = 60  # steps between the starts of segments


def liquid(seed: int, sigma: float = SIGMA, epsilon: float = EPSILON) -> diffsim.StatePoint:
    """A disordered fluid at equilibrium."""
    topology, system = fluid(N, DENSITY / SIGMA**3, MASS)
    pair = diffsim.LennardJones(sigma, epsilon, 2.5 * SIGMA, 0.8 * SIGMA, knots=80)
    pair.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, DT)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    start_disordered(simulation, TEMPERATURE, seed)
    simulation.step(10_000)
    return diffsim.StatePoint(simulation, pair)


# Brute force --------------------------------------------------------------------------------------


def running_diffusion(point: diffsim.StatePoint, steps: int, block: int = 4000) -> Array:
    """D(t) at all LENGTHS from the velocities of every step, [blocks, lengths], nm^2/ps."""
    context, integrator = point.simulation.context, point.simulation.integrator
    found = []
    for _ in range(steps // block):
        v = np.empty((block, N, 3))
        for step in range(block):
            integrator.step(1)
            state = context.getState(getVelocities=True)
            v[step] = state.getVelocities(asNumpy=True).value_in_unit(
                unit.nanometer / unit.picosecond
            )
        c = autocorrelation(v.reshape(block, -1), LENGTHS[-1]) / N
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (c[1:] + c[:-1])) * DT])
        found.append(integral[LENGTHS] / 3)
    return np.array(found)


def autocorrelation(series: Array, longest: int) -> Array:
    """sum over columns of <a(s) a(s+t)>, averaged over origins s, [longest + 1]."""
    n = len(series)
    spectrum = np.abs(np.fft.rfft(series, 2 * n, axis=0)) ** 2
    sums = np.fft.irfft(spectrum.sum(axis=1))[: longest + 1]
    return sums / (n - np.arange(longest + 1))


def by_differences(name: str, steps: int) -> tuple[Array, Array]:
    """dD(t)/d(name) and its standard error, [lengths], from independent simulations."""
    value = {"sigma": SIGMA, "epsilon": EPSILON}[name]
    change = CHANGES[name] * value
    means, errors = [], []
    for sign in (1, -1):
        point = liquid(100 + sign, **{name: value + sign * change})
        blocks = running_diffusion(point, steps)
        means.append(blocks.mean(axis=0))
        errors.append(blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks)))
    return (means[0] - means[1]) / (2 * change), np.hypot(*errors) / (2 * change)


# Segments -----------------------------------------------------------------------------------------


class RunningDiffusion(diffsim.SegmentObservable):
    """D(t) at all LENGTHS, from one segment."""

    n_values = len(LENGTHS)

    def __init__(self) -> None:
        super().__init__(int(LENGTHS[-1]), estimator="combined", gradient_every=8)

    def measure(self, segment: diffsim.Segment) -> Tensor:
        """Green-Kubo integral by the trapezoidal rule."""
        c = (segment.velocities[0] * segment.velocities).sum(dim=-1).mean(dim=-1)
        integral = torch.cumsum(0.5 * (c[1:] + c[:-1]) * DT, dim=0)
        return integral[torch.from_numpy(LENGTHS - 1)] / 3

    def reach(self) -> NDArray[np.int64]:
        """D(t) depends on the segment up to t."""
        return LENGTHS


def by_segments(frames: int) -> tuple[dict[str, diffsim.DynamicAverage], list[str]]:
    """Every estimator, from the same segments; and the parameters in their order."""
    point = liquid(1)
    observable = RunningDiffusion()
    samples = point.sample(frames * EVERY, EVERY, [observable])
    averages = {}
    for estimator in ESTIMATORS:
        observable.estimator = estimator
        averages[estimator] = point.dynamic_average(observable, samples)
    return averages, [name for name, _ in point.potential.named_parameters()]


def draw(
    averages: dict[str, diffsim.DynamicAverage],
    names: list[str],
    truth: dict[str, tuple[Array, Array]],
    path: Path,
) -> None:
    """Derivative and its standard error against the length of the segment."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    t = LENGTHS * DT / TAU
    colors = {"pathwise": "#1f6fb4", "score": "#c8552b", "combined": "#2a8a57"}
    for column, name in enumerate(("sigma", "epsilon")):
        exact, exact_error = truth[name]
        value, error = axes[0, column], axes[1, column]
        value.fill_between(
            t, exact - 2 * exact_error, exact + 2 * exact_error, color="0.8", lw=0,
            label="long simulations",
        )  # fmt: skip
        span = np.abs(exact).max()
        for shift, estimator in enumerate(ESTIMATORS):
            total, index = averages[estimator].total, names.index(name)
            value.errorbar(
                t * (1 + 0.03 * (shift - 1)),
                total.value[:, index],
                2 * total.standard_error[:, index],
                fmt="o",
                ms=4,
                lw=1,
                color=colors[estimator],
                label=estimator,
            )
            size = total.standard_error[:, index] / span
            style = "--" if estimator == "combined" else "-"  # it lies on the better of the others
            error.loglog(t, size, "o", ls=style, ms=4, color=colors[estimator])
        error.loglog(t, exact_error / span, color="0.6")
        unit_of = {"sigma": "nm ps$^{-1}$", "epsilon": "nm$^2$ ps$^{-1}$ / kJ mol$^{-1}$"}[name]
        value.set(ylabel=f"dD(t)/d{name} / ({unit_of})", ylim=(-2 * span, 1.2 * span), xscale="log")
        value.set_title(name)
        value.axhline(0, color="0.7", lw=0.8)
        error.axhline(0.1, color="0.7", lw=0.8, ls="--")
        error.set(
            xlabel="length of the segment t / τ", ylabel="standard error / largest derivative"
        )
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=400_000, help="of each long simulation")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    averages, names = by_segments(arguments.frames)
    print(f"{arguments.frames} segments: {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    truth = {name: by_differences(name, arguments.steps) for name in CHANGES}
    print(f"long simulations: {time.perf_counter() - start:.0f} s\n")
    for name, (exact, exact_error) in truth.items():
        print(
            f"dD(t)/d{name} at t/tau, in units of that of the long simulations; in brackets the "
            "deviation in combined standard errors"
        )
        for i, n in enumerate(LENGTHS):
            relative = 100 * abs(exact_error[i] / exact[i])
            row = f"{n * DT / TAU:5.2f}  {exact[i]:9.5f} +- {relative:4.1f} %"
            for estimator, average in averages.items():
                value = average.total.value[i, names.index(name)]
                error = average.total.standard_error[i, names.index(name)]
                z = (value - exact[i]) / np.hypot(error, exact_error[i])
                value, error = value / exact[i], error / abs(exact[i])
                row += f"   {estimator} {value:6.3f} +- {error:5.3f} ({z:+4.1f})"
            print(row)
    growth = averages["pathwise"].growth * TAU
    print(f"\nthe adjoint of D(3 tau) grows by {growth:.2f} per tau")
    if arguments.figure is not None:
        draw(averages, names, truth, arguments.figure)


if __name__ == "__main__":
    main()
