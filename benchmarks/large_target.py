"""Memory and time of a fit to a g(r) of very many rows, beside one of 500.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/large_target.py [PLATFORM]

Each number of rows in a process of its own: two rounds of a Lennard-Jones liquid of 500 particles,
from the file to the step, by Gauss-Newton. Once with errors that count as independent, once with
errors like those of a simulation, whose covariance is that of its frames. The g(r) is that of
``examples/data``, interpolated. Process CPU time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS = (500, 2000, 10_000, 20_000)
NOISES = ("independent", "sampled")
DATA = Path(__file__).resolve().parents[1] / "examples/data/lennard_jones_rdf.csv"
CONFIGURATION = """
[system]
particles = 500
number_density = 21.499
mass = 39.948
[dynamics]
temperature = 119.79
timestep = 0.005
threads = 1
platform = "{platform}"
[potential]
kind = "spline"
r_min = 0.272
cutoff = 0.85
[[target]]
observable = "rdf"
file = "g.csv"
noise = "{noise}"
[refine]
"""


def fit(rows: int, noise: str, platform: str) -> None:
    """Two rounds in this process; prints its CPU seconds and its peak memory in MB."""
    from openmm_diffsim.configuration.build import build_refinement
    from openmm_diffsim.configuration.toml import read_configuration

    r, g, error = np.loadtxt(DATA, delimiter=",", skiprows=1).T
    x = np.linspace(r[0], r[-1], rows)
    table = np.stack([x, np.interp(x, r, g), np.interp(x, r, error)], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        np.savetxt(f"{folder}/g.csv", table, delimiter=",")
        path = Path(folder) / "fit.toml"
        path.write_text(CONFIGURATION.format(platform=platform, noise=noise))
        start = time.process_time()
        build_refinement(read_configuration(path)).run(2, 2000, 20, 500, progress=False)
    seconds = time.process_time() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """A line for each kind of noise and number of rows."""
    platform = sys.argv[1] if len(sys.argv) > 1 else "CPU"
    for noise in NOISES:
        first = None
        for rows in ROWS:
            command = [sys.executable, __file__, platform, noise, str(rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, memory = map(float, done.stdout.split())
            first = first or seconds
            print(
                f"{noise:12s} {rows:6d} rows: {seconds:6.1f} s, {seconds / first:.2f} times as "
                f"long as {ROWS[0]}; {memory:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        fit(int(sys.argv[3]), sys.argv[2], sys.argv[1])
    else:
        main()
