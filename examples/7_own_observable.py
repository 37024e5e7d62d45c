"""An observable of one's own, from a file to a figure, without a change to the package.

The class is in coordination_numbers.py. A Lennard-Jones fluid supplies a measured P(n) and a
pressure; a configuration, as for the command line, refines a bad first guess against them.
"""

import json
from pathlib import Path

import numpy as np
from coordination_numbers import CoordinationNumbers

import openmm_diffsim as diffsim
from openmm_diffsim import cli
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.io import write_csv

CONFIG = """
system = {{ particles = 200, number_density = 12.0, mass = 39.948 }}
dynamics = {{ temperature = 180.0, timestep = 0.01, threads = 1 }}
potential = {{ kind = "lennard-jones", sigma = 0.32, epsilon = 0.7, cutoff = 0.8, r_min = 0.3 }}
[[target]]
observable = "{file}:CoordinationNumbers"
file = "coordination.csv"
r_cut = 0.52
[[target]]
observable = "pressure"
value = {pressure}
uncertainty = {error}
[refine]
rounds = 20
steps = 10000
largest_step = 3.0
output = "out"
"""

truth = diffsim.LennardJones(sigma=0.34, epsilon=1.0, cutoff=0.8, r_min=0.3)
topology, system = fluid(200, 12.0, 39.948)
truth.attach(system)
simulation = Dynamics(180.0, timestep=0.01, threads=1).simulation(topology, system, seed=5)
start_disordered(simulation, 180.0, seed=5)
own, pressure = CoordinationNumbers(r_cut=0.52), diffsim.Pressure()
samples = diffsim.StatePoint(simulation, truth).sample(20_000, 50, [own, pressure], 4000)
p, bar = samples.estimate(own), samples.estimate(pressure)
write_csv("coordination.csv", "n,P,error", range(17), p.value, 2 * p.standard_error.clip(1e-4))
file = Path(__file__).with_name("coordination_numbers.py")
text = CONFIG.format(file=file, pressure=bar.value[0], error=30)
Path("own.toml").write_text(text)
assert cli.main(["refine", "own.toml", "--trust"]) == cli.FINISHED

_, target, model, _ = np.loadtxt("out/coordination_0.csv", delimiter=",", skiprows=1).T
found = json.loads(Path("out/summary.json").read_text())["final"]["parameters"]
print(f"P(n) within {np.abs(model - target).max():.4f}; {found}")
assert np.abs(model - target).max() < 0.015
assert abs(found["sigma"][0] / 0.34 - 1) < 0.02
