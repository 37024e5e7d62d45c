"""How often the truth lies within two standard errors: averages, slopes and gradients.

    python benchmarks/coverage.py

Series of known averages and correlations: x and y are Gaussian and autoregressive, under the energy
kT c (x + y), in one run as it was sampled, reweighted, or in four runs at different c. There
<x> = -c, d<x>/dc = -1, <x^2> = 1 + c^2, and the rest follows. Prints a line for each case: the
share of repeats within one and two errors, and the claimed error (median) over the spread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from test_averages import RECORDED, RUNS, autoregressive, gaussian_samples

from openmm_diffsim import Samples

Array = NDArray[np.float64]

SPEEDS = {"fast, slow": (0.5, 0.95), "slow, fast": (0.95, 0.5), "white": (0.0, 0.0)}
NAMES = ("<x>", "<x^2>", "d<x>/dc", "d<x^2>/dc", "gradient of a loss")
EXACT = np.array([-1.0, 2.0, -1.0, 2.0, -4.0])


def one(samples: Samples) -> tuple[Array, Array]:
    """The five values of a repeat, and their standard errors."""
    estimate = samples.estimate(RECORDED)
    slopes = [samples.gradient(lambda s, k=k: s.average(RECORDED)[k]) for k in (0, 1)]
    slopes.append(samples.gradient(lambda s: (s.average(RECORDED)[0] + 3.0) ** 2))
    values = [*estimate.value, *(slope[1] for slope, _ in slopes)]
    return np.array(values), np.array(
        [*estimate.standard_error, *(error[1] for _, error in slopes)]
    )


def repeats(n: int, frames: int, phis: tuple[float, float], runs: list[float]) -> Iterator[Samples]:
    """So many draws of as many frames."""
    for seed in range(n):
        rng = np.random.default_rng(seed)
        length = frames // len(runs)
        parts = [[autoregressive(rng, length, phi) - c for phi in phis] for c in runs]
        series = np.concatenate(parts, axis=1)
        samples = gaussian_samples(series, runs, 1.0)
        yield replace(samples, records={RECORDED: np.stack([series[0], series[0] ** 2], axis=1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--frames", type=int, nargs="*", default=[2000, 4000])
    given = parser.parse_args()
    print("| frames | correlation of x, y | runs | of | 1 error | 2 errors | claim / spread |")
    print("|---|---|---|---|---|---|---|")
    for frames in given.frames:
        for speeds, phis in SPEEDS.items():
            for name, runs in RUNS.items():
                cases = [one(s) for s in repeats(given.repeats, frames, phis, runs)]
                values, errors = (np.array(part) for part in zip(*cases, strict=True))
                off = np.abs(values - EXACT) / errors
                for k, what in enumerate(NAMES):
                    ratio = np.median(errors[:, k]) / values[:, k].std()
                    shares = [100 * np.mean(off[:, k] < n) for n in (1, 2)]
                    print(
                        f"| {frames} | {speeds} | {name} | {what} | {shares[0]:.0f} | "
                        f"{shares[1]:.1f} | {ratio:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
