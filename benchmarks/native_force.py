"""The native force beside OpenMM's own: MD steps and derivatives, in ratios.

    taskset -c 0 python benchmarks/native_force.py
    taskset -c 0 python benchmarks/native_force.py --platform OpenCL
    taskset -c 0 python benchmarks/native_force.py --particles 1000000

Lennard-Jones liquid, rho* = 0.8, T* = 1.0, cutoff 2.5 sigma, Langevin dynamics of 0.005 tau a
step, one thread. All forces are those of one liquid: stretches of MD with each take turns, and so
do calls of the derivatives and force evaluations. Medians, and ratios of medians; absolute times
mean little. With a hundred thousand particles or more, the native force alone, and its memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import openmm
from lennard_jones import CUTOFF, DT, EPSILON, MASS, SIGMA, TAU, TEMPERATURE

import openmm_diffsim as diffsim
from openmm_diffsim.engine.native import SplinePairForce
from openmm_diffsim.statistics.kernels import PairHistogram

DENSITY = 0.8 / SIGMA**3
KNOTS = 62  # 60 coefficients
ROUNDS = 15


def nonbonded(n: int) -> openmm.Force:
    force = openmm.NonbondedForce()
    for _ in range(n):
        force.addParticle(0.0, SIGMA, EPSILON)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setUseDispersionCorrection(False)
    return force


def custom(n: int, table: bool) -> openmm.Force:
    if table:
        force = openmm.CustomNonbondedForce("table(r)")
        r = np.linspace(0.0, CUTOFF, 82)
        values = spline_potential().energy(r)[0].detach().numpy()
        force.addTabulatedFunction("table", openmm.Continuous1DFunction(values, 0.0, CUTOFF))
    else:
        force = openmm.CustomNonbondedForce(
            f"4*{EPSILON}*((sr)^12-(sr)^6); sr={SIGMA}/r",
        )
    for _ in range(n):
        force.addParticle([])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    return force


def spline_potential() -> diffsim.LennardJones:
    return diffsim.LennardJones(SIGMA, EPSILON, CUTOFF, r_min=0.8 * SIGMA, knots=KNOTS)


def spline(n: int) -> SplinePairForce:
    potential = spline_potential()
    basis = potential.basis
    force = SplinePairForce(1, basis.r_min, basis.cutoff, basis.knots)
    force.setCoefficients(potential.spline_coefficients().detach().numpy())
    force.addParticles(np.zeros(n))
    force.setNonbondedMethod(SplinePairForce.CutoffPeriodic)
    return force


def context(
    n: int, force: openmm.Force, platform: str, properties: dict[str, str]
) -> openmm.Context:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * (n / DENSITY) ** (1 / 3)))
    for _ in range(n):
        system.addParticle(MASS)
    if hasattr(force, "setCutoffDistance"):
        force.setCutoffDistance(CUTOFF)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / TAU, DT)
    integrator.setRandomNumberSeed(1)
    return openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)


def liquid(n: int, sample: openmm.Context) -> np.ndarray:
    """Positions of an equilibrated liquid, nm, [particles, 3]."""
    box = sample.getState().getPeriodicBoxVectors(asNumpy=True)._value
    sample.setPositions(lattice(n) @ box)
    openmm.LocalEnergyMinimizer.minimize(sample, 50.0, 100)
    sample.setVelocitiesToTemperature(TEMPERATURE, 1)
    sample.getIntegrator().step(2000)
    return sample.getState(positions=True).getPositions(asNumpy=True)._value


def lattice(n: int) -> np.ndarray:
    """Sites of a simple cubic lattice in random order, in fractions of the box, [particles, 3]."""
    side = int(np.ceil(n ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return (np.random.default_rng(1).permutation(grid)[:n] + 0.5) / side


def take_turns(tasks: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each task, the tasks taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def benchmark_md(n: int, platform: str, properties: dict[str, str]) -> None:
    forces = {
        "NonbondedForce": nonbonded(n),
        "CustomNonbondedForce, formula": custom(n, False),
        "CustomNonbondedForce, table": custom(n, True),
        "SplinePairForce": spline(n),
    }
    contexts = {name: context(n, force, platform, properties) for name, force in forces.items()}
    x = liquid(n, contexts["SplinePairForce"])
    for c in contexts.values():
        c.setPositions(x)
        c.setVelocitiesToTemperature(TEMPERATURE, 1)
    steps = max(10, 400_000 // n)

    def stretch(c: openmm.Context) -> Callable[[], object]:
        def run() -> None:
            c.getIntegrator().step(steps)
            c.getState(energy=True)  # waits for a device

        return run

    seconds = take_turns({name: stretch(c) for name, c in contexts.items()})
    print(f"MD step, N = {n}, {platform} {properties}")
    for name, value in seconds.items():
        ratio = value / seconds["NonbondedForce"]
        print(f"  {name:30s} {1e6 * value / steps:8.0f} us   {ratio:5.2f} x NonbondedForce")


def benchmark_derivatives(n: int, platform: str, properties: dict[str, str]) -> None:
    force = spline(n)
    c = context(n, force, platform, properties)
    c.setPositions(liquid(n, c))
    everyone = np.ones(n, dtype=bool)
    v = np.random.default_rng(2).normal(size=(n, 3))

    def histogram(r_max: float) -> Callable[[], object]:
        pairs = [PairHistogram(np.linspace(0, r_max, 101), everyone, everyone)]
        return lambda: force.computeSums(c, basis=False, histograms=pairs)

    half = 0.5 * (n / DENSITY) ** (1 / 3)
    tasks: dict[str, Callable[[], object]] = {
        "forces": lambda: c.getState(forces=True),
        "basis sums": lambda: force.computeBasisSums(c),
        "basis and virial sums": lambda: force.computeSums(c, virial=True),
        "Hessian-vector product": lambda: force.computeHessianVectorProduct(c, v),
        "force-parameter product": lambda: force.computeForceParameterProduct(c, v),
        "both products": lambda: force.computeProducts(c, v),
        "histogram to the cutoff": histogram(CUTOFF),
        f"histogram to {half / SIGMA:.1f} sigma": histogram(half),
    }
    seconds = take_turns(tasks, 101)
    print(f"derivatives, N = {n}, {platform} {properties}")
    for name, value in seconds.items():
        print(f"  {name:30s} {1e6 * value:8.0f} us   {value / seconds['forces']:5.2f} x forces")


def benchmark_large(n: int, platform: str, properties: dict[str, str]) -> None:
    """Steps and all derivatives of the native force alone, and the memory that they take."""
    before = resident()
    force = spline(n)
    c = context(n, force, platform, properties)
    x, box = lattice(n), c.getState().getPeriodicBoxVectors(asNumpy=True)._value
    c.setPositions(x @ box)
    c.setVelocitiesToTemperature(TEMPERATURE, 1)
    everyone = np.ones(n, dtype=bool)
    pairs = [PairHistogram(np.linspace(0, 2 * CUTOFF, 101), everyone, everyone)]
    v = np.random.default_rng(2).normal(size=(n, 3))
    tasks: dict[str, Callable[[], object]] = {
        "10 MD steps": lambda: c.getIntegrator().step(10),
        "basis and virial sums": lambda: force.computeSums(c, virial=True),
        "both products": lambda: force.computeProducts(c, v),
        "histogram to 5.0 sigma": lambda: force.computeSums(c, basis=False, histograms=pairs),
    }
    seconds = take_turns(tasks, 1)
    print(f"N = {n}, {platform} {properties}: {resident() - before:.0f} MB at most")
    for name, value in seconds.items():
        print(f"  {name:30s} {value:8.2f} s   {1e9 * value / n:6.0f} ns per particle")


def resident() -> float:
    """Most memory this process has had so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--precision", help="of OpenCL and CUDA")
    parser.add_argument("--particles", type=int, nargs="+", default=[1000, 4000])
    options = parser.parse_args()
    properties = {"Threads": "1"} if options.platform == "CPU" else {}
    if options.precision:
        properties["Precision"] = options.precision
    for n in options.particles:
        if n >= 100_000:
            benchmark_large(n, options.platform, properties)
            continue
        benchmark_md(n, options.platform, properties)
        benchmark_derivatives(n, options.platform, properties)


if __name__ == "__main__":
    main()
