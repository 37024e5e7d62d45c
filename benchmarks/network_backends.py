"""A network in OpenMM: an MD step with each backend over the bare evaluation of the model.

    taskset -c 1 python benchmarks/network_backends.py

1000 beads at the density of water, energy and forces, one thread. The model is evaluated by itself
in the precision of the platform, in turns with MD steps. TorchForce needs its own environment.
Ratios of medians; absolute times mean little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import openmm
import torch

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, torchforce
from openmm_diffsim.engine.adapters.network import Computation
from openmm_diffsim.errors import AttachError

N = 1000
BOX = (N / 33.4) ** (1 / 3)
ROUNDS = 9
STEPS = 5


def potential_of(architecture: str) -> diffsim.NetworkPotential:
    prior = diffsim.SoftSphere(0.28, 2.0, 0.5, r_min=0.2).requires_grad_(False)
    network = diffsim.TorchMDNet(0.5, architecture=architecture)
    return diffsim.NetworkPotential(network, prior=prior)


def positions() -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return (grid + 0.5 + np.random.default_rng(1).uniform(-0.1, 0.1, (N, 3))) * BOX / 10


def context_of(
    potential: diffsim.NetworkPotential, backend: str, platform: str
) -> tuple[openmm.System, openmm.Context]:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(BOX * np.eye(3)))
    for _ in range(N):
        system.addParticle(18.015)
    potential.attach(system, backend=backend)
    integrator = openmm.LangevinMiddleIntegrator(298.0, 2.0, 0.001)
    integrator.setRandomNumberSeed(1)
    properties = {"CPU": {"Threads": "1"}, "CUDA": {"Precision": "mixed"}}.get(platform, {})
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(positions())
    attached(potential, system).update(context, None)
    return system, context


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(architecture: str, backend: str, platform: str) -> float:
    """Prints one line; returns the time of a step over that of the model."""
    potential = potential_of(architecture)
    system, context = context_of(potential, backend, platform)
    model = Computation(potential, np.zeros(N, dtype=np.int64), True, None)
    cuda = platform == "CUDA" and torch.cuda.is_available()
    dtype = torch.float64 if platform == "Reference" else torch.float32
    model.place(dtype, torch.device("cuda" if cuda else "cpu"))
    x = torch.from_numpy(positions()).to(model.device, dtype)
    box = (BOX * torch.eye(3)).to(x)

    def bare() -> torch.Tensor:
        y = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(model.potential(y, box, model._types), y)
        return slope.cpu()

    def steps() -> None:
        context.getIntegrator().step(STEPS)
        context.getState(positions=True)

    bare()
    steps()
    pairs = [(seconds(bare), seconds(steps) / STEPS) for _ in range(ROUNDS)]
    model_time, step_time = (median(column) for column in zip(*pairs, strict=True))
    update = median(_updates(potential, system, context))
    print(
        f"{architecture:24} {backend:12} {platform:10} model {1e3 * model_time:7.1f} ms   step "
        f"{step_time / model_time:5.2f} x model   new parameters {1e3 * update:6.1f} ms",
        flush=True,
    )
    return step_time / model_time


def _updates(
    potential: diffsim.NetworkPotential, system: openmm.System, context: openmm.Context
) -> list[float]:
    times = []
    for _ in range(5):
        adapter = attached(potential, system)
        times.append(seconds(lambda adapter=adapter: adapter.update(context, None)))
    return times


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; TorchForce: {torchforce.why_not() or 'works here'}")
    platforms = [
        openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())
    ]
    ratios: dict[str, list[float]] = {}
    for architecture in ("equivariant-transformer", "graph-network"):
        for backend in ("python", "torchforce"):
            for platform in platforms:
                try:
                    ratio = measure(architecture, backend, platform)
                except (AttachError, openmm.OpenMMException) as error:
                    print(f"{architecture:24} {backend:12} {platform:10} {str(error)[:90]}")
                    continue
                ratios.setdefault(backend, []).append(ratio)
    means = {backend: float(np.mean(values)) for backend, values in ratios.items()}
    fastest = min(means, key=lambda backend: means[backend])
    chosen, why = torchforce.fastest()
    print(f"mean ratios {means}: fastest {fastest}; 'auto' chooses {chosen}: {why}")


if __name__ == "__main__":
    main()
