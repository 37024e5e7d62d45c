"""What recording costs beside the MD: N = 1000, every 50 steps, one thread.

    python benchmarks/recording_cost.py

Stretches of MD with and without the recorder take turns; the ratio of their medians is printed,
for basis sums alone, with g(r), and with g(r) and pressure. Then memory: resident MB after 200
and after 2000 recorded frames, beside the MB of numbers that were recorded in between.
"""

from __future__ import annotations

import resource
import time
from statistics import median

import lennard_jones as lj
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import fluid, start_disordered

N, EVERY, STRETCH, REPEATS = 1000, 50, 500, 15


def simulation(pair: diffsim.PairPotential) -> app.Simulation:
    topology, system = fluid(N, 0.845 / lj.SIGMA**3, lj.MASS)
    pair.attach(system)
    sim = app.Simulation(topology, system, lj.integrator(1), *lj.platform())
    start_disordered(sim, lj.TEMPERATURE, 1)
    sim.step(500)
    return sim


def timed(sim: app.Simulation, reporter: object | None) -> float:
    if reporter is not None:
        sim.reporters.append(reporter)
    start = time.perf_counter()
    sim.step(STRETCH)
    seconds = time.perf_counter() - start
    sim.reporters.clear()
    return seconds


def main() -> None:
    pair = diffsim.LennardJones(lj.SIGMA, lj.EPSILON, lj.CUTOFF, knots=60)
    sim = simulation(pair)
    rdf, pressure = diffsim.RDF(lj.CUTOFF, lj.BINS), diffsim.Pressure()
    choices = {"basis sums": [], "and g(r)": [rdf], "and pressure": [rdf, pressure]}
    reporters = {
        name: diffsim.SampleReporter(EVERY, pair, record, temperature=lj.TEMPERATURE)
        for name, record in choices.items()
    }
    for reporter in reporters.values():
        timed(sim, reporter)
    seconds: dict[str, list[float]] = {"plain": [], **{name: [] for name in reporters}}
    for _ in range(REPEATS):
        seconds["plain"].append(timed(sim, None))
        for name, reporter in reporters.items():
            seconds[name].append(timed(sim, reporter))
    plain = median(seconds.pop("plain"))
    print(f"N = {N}, every {EVERY} steps, {STRETCH / plain:.0f} steps/s without recording")
    for name, values in seconds.items():
        print(f"{name:14s} {100 * (median(values) / plain - 1):5.1f} % (allowed: 5)")
    memory(sim, pair, rdf)


def memory(sim: app.Simulation, pair: diffsim.PairPotential, rdf: diffsim.RDF) -> None:
    reporter = diffsim.SampleReporter(1, pair, [rdf], temperature=lj.TEMPERATURE)
    sim.reporters.append(reporter)
    sim.step(200)
    before = resident()
    sim.step(1800)
    grown = resident() - before
    numbers = 1800 * (2 * pair.basis.n_coefficients + rdf.n_values + 2) * 8 / 2**20
    positions = 1800 * 3 * N * 8 / 2**20
    print(
        f"memory: {grown:.1f} MB more after 1800 more frames, of which {numbers:.1f} MB are the "
        f"recorded numbers (positions would be {positions:.0f} MB)"
    )


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
