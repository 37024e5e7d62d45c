"""Reweighting with a network: its time over that of the model's own energies and gradients.

    taskset -c 1 python benchmarks/network_reweighting.py

500 beads at the density of water, the default TorchMDNet in double precision, on a repulsion. Value
and gradient of a loss of averages at parameters away from those sampled, per frame, over the
energies and their gradients with respect to the parameters of the same frames in the same batches,
by torch alone. Both take turns. Then the peak memory of fresh processes, by frames and by batch.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.energies import EvaluatedFrames, NetworkParticles, StoredRun
from openmm_diffsim.io import FrameWriter
from openmm_diffsim.observables import Conditions
from openmm_diffsim.potentials import flat_parameters, learned_parameters, set_flat_parameters
from openmm_diffsim.samples import Run

N = 500
BOX = (N / 33.4) ** (1 / 3)
TEMPERATURE = 298.0
ROUNDS = 5


class Recorded(diffsim.Observable):
    """Numbers that stand for the bins of a g(r)."""

    n_values = 100

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return records


def samples_of(frames: int, batch: int) -> tuple[diffsim.Samples, Recorded]:
    """Configurations near a lattice: what is measured is their cost."""
    prior = diffsim.SoftSphere(0.28, 2.0, 0.5, r_min=0.2).requires_grad_(False)
    potential = diffsim.NetworkPotential(diffsim.TorchMDNet(0.5), prior=prior)
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:N]
    writer = FrameWriter()
    for _ in range(frames):
        writer.write((grid + rng.uniform(-0.1, 0.1, (N, 3))) * BOX / 8, BOX * np.eye(3))
    particles = NetworkParticles(np.arange(N), np.zeros(N, dtype=np.int64), np.arange(N))
    run = (StoredRun(writer.frames(), particles), np.arange(frames))
    observable = Recorded()
    sampled = potential.coefficients().detach().numpy().copy()
    samples = diffsim.Samples(
        potential=potential,
        runs=(Run(sampled, TEMPERATURE, None, frames, 1),),
        learned=EvaluatedFrames(potential, (run,), batch, progress=False),
        volume=np.full(frames, BOX**3),
        rest_energy=np.zeros(frames),
        records={observable: rng.normal(1.0, 0.1, (frames, observable.n_values))},
        temperature=TEMPERATURE,
    )
    samples.run_energies()  # those at the sampled parameters are known in a fit
    return samples, observable


def loss_and_gradient(samples: diffsim.Samples, observable: Recorded) -> None:
    theta = flat_parameters(samples.potential)
    noise = torch.randn(len(theta), dtype=torch.float64)
    set_flat_parameters(samples.potential, theta + 1e-6 * noise)  # evaluated anew
    samples.potential.zero_grad()
    ((samples.average(observable) - 1.0) ** 2).mean().backward()


def by_torch_alone(samples: diffsim.Samples, batch: int) -> None:
    """The same energies and gradients, batch by batch; configurations are read as ours are."""
    ((run, indices),) = samples.learned.runs
    potential = samples.potential
    types = torch.zeros(N, dtype=torch.int64)
    for start in range(0, len(indices), batch):
        x, boxes = run.frames.read(indices[start : start + batch])
        energies = potential.energies(torch.from_numpy(x), torch.from_numpy(boxes), types)
        torch.autograd.grad(energies.sum(), learned_parameters(potential))


def seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(frames: int, batch: int, rounds: int) -> None:
    samples, observable = samples_of(frames, batch)
    pairs = [
        (
            seconds(lambda: by_torch_alone(samples, batch)),
            seconds(lambda: loss_and_gradient(samples, observable)),
        )
        for _ in range(rounds)
    ]
    alone, ours = (median(column) for column in zip(*pairs, strict=True))
    print(
        f"{frames} frames, batches of {batch}: model {1e3 * alone / frames:.1f} ms, reweighting "
        f"{1e3 * ours / frames:.1f} ms a frame, {ours / alone:.2f} x model",
        flush=True,
    )


def peak(frames: int, batch: int) -> None:
    samples, observable = samples_of(frames, batch)
    loss_and_gradient(samples, observable)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", type=int, nargs=2, metavar=("FRAMES", "BATCH"))
    parser.add_argument("--frames", type=int, default=1000, help="of the last comparison")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak(*options.peak)
        return
    compare(40, 8, ROUNDS)
    compare(options.frames, 8, 1)
    for frames, batch in ((50, 8), (200, 8), (800, 8), (50, 2), (50, 32)):
        command = [sys.executable, __file__, "--peak", str(frames), str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{frames} frames, batches of {batch}: peak {float(done.stdout):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
