"""Reweighting with a network: its time over that of the model's own energies and gradients.

    taskset -c 1 python benchmarks/network_reweighting.py
    python benchmarks/network_reweighting.py --device cuda --batch 32

500 beads at the density of water, the default TorchMDNet in double precision, on a repulsion. Value
and gradient of a loss of g(r) at parameters away from those sampled, per frame, over the energies
and their gradients with respect to the parameters of the same frames in the same batches, by torch
alone. Both take turns. Then the peak memory of fresh processes, by frames and by batch: resident,
or on a GPU what torch has allocated there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import openmm_diffsim as diffsim
from openmm_diffsim.io import FrameWriter
from openmm_diffsim.potentials import flat_parameters, learned_parameters, set_flat_parameters
from openmm_diffsim.samples import Run
from openmm_diffsim.samples.evaluated import EvaluatedFrames
from openmm_diffsim.samples.stored_run import NetworkParticles, StoredRun

N = 500
BOX = (N / 33.4) ** (1 / 3)
TEMPERATURE = 298.0
ROUNDS = 5
FRAMES, BATCHES = (100, 300, 1000), (2, 4, 8)  # of the memory
RDF = diffsim.RDF(0.9, 100)


def samples_of(frames: int, batch: int, device: str) -> diffsim.Samples:
    """Configurations near a lattice: what is measured is their cost."""
    prior = diffsim.SoftSphere(0.28, 2.0, 0.5, r_min=0.2).requires_grad_(False)
    potential = diffsim.NetworkPotential(diffsim.TorchMDNet(0.5), prior=prior).to(device)
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:N]
    writer = FrameWriter()
    for _ in range(frames):
        writer.write((grid + rng.uniform(-0.1, 0.1, (N, 3))) * BOX / 8, BOX * np.eye(3))
    particles = NetworkParticles(np.arange(N), np.zeros(N, dtype=np.int64), np.arange(N))
    run = (StoredRun(writer.frames(), particles), np.arange(frames))
    sampled = potential.coefficients().detach().numpy().copy()
    samples = diffsim.Samples(
        potential=potential,
        runs=(Run(sampled, TEMPERATURE, None, frames, 1),),
        learned=EvaluatedFrames(potential, (run,), batch, progress=False),
        volume=np.full(frames, BOX**3),
        rest_energy=np.zeros(frames),
        records={RDF: rng.normal(1.0, 0.1, (frames, RDF.n_values))},
        temperature=TEMPERATURE,
    )
    return samples


def loss_and_gradient(samples: diffsim.Samples) -> None:
    theta = flat_parameters(samples.potential)
    noise = torch.randn(len(theta), dtype=torch.float64)
    set_flat_parameters(samples.potential, theta + 1e-6 * noise)  # evaluated anew
    samples.potential.zero_grad()
    ((samples.average(RDF) - 1.0) ** 2).mean().backward()


def by_torch_alone(samples: diffsim.Samples, batch: int, device: str) -> None:
    """The same energies and gradients, batch by batch; configurations are read as ours are."""
    ((run, indices),) = samples.learned.runs
    potential = samples.potential
    types = torch.zeros(N, dtype=torch.int64, device=device)
    total = [torch.zeros_like(p) for p in learned_parameters(potential)]
    for start in range(0, len(indices), batch):
        x, boxes = (torch.from_numpy(a) for a in run.frames.read(indices[start : start + batch]))
        energies = potential.energies(x.to(device), boxes.to(device), types)
        gradient = torch.autograd.grad(energies.sum(), learned_parameters(potential))
        torch._foreach_add_(total, gradient)


def seconds(action: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(frames: int, batch: int, rounds: int, device: str) -> None:
    samples = samples_of(frames, batch, device)
    samples.run_energies()  # those at the sampled parameters are known in a fit
    pairs = [
        (
            seconds(lambda: by_torch_alone(samples, batch, device), device),
            seconds(lambda: loss_and_gradient(samples), device),
        )
        for _ in range(rounds)
    ]
    alone, ours = (1e3 * median(column) / frames for column in zip(*pairs, strict=True))
    ratios = [after / before for before, after in pairs]
    print(
        f"{frames:5d} frames, batches of {batch}: model {alone:.1f} ms a frame, reweighting "
        f"{ours:.1f} ms; {median(ratios):.2f} x model, {min(ratios):.2f} to {max(ratios):.2f}",
        flush=True,
    )


def peak(frames: int, batch: int, device: str) -> None:
    """MB before anything is evaluated, and at most."""
    samples = samples_of(frames, batch, device)
    before = memory(device)
    loss_and_gradient(samples)
    print(before, memory(device))


def memory(device: str) -> float:
    """Most this process has had so far, MB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1000, help="of the last comparison")
    parser.add_argument("--peak", type=int, metavar="FRAMES", help="only print this peak, MB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak(options.peak, options.batch, options.device)
        return
    compare(40, options.batch, ROUNDS, options.device)
    compare(options.frames, options.batch, 1, options.device)
    choices = [(n, options.batch) for n in FRAMES] + [(FRAMES[0], batch) for batch in BATCHES]
    for frames, batch in choices:
        arguments = ["--peak", str(frames), "--batch", str(batch), "--device", options.device]
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before, most = map(float, done.stdout.split())
        print(
            f"{frames:5d} frames, batches of {batch}: at most {most:.0f} MB, {before:.0f} before",
            flush=True,
        )


if __name__ == "__main__":
    main()
