"""What the gradient of a trajectory segment costs, beside the segment, plain MD and jax-md.

    taskset -c 1 python benchmarks/segments.py [--peer-python PYTHON] [--scaling]

Lennard-Jones liquid, rho* = 0.8, T* = 1.0, cutoff 2.5 sigma, 60 coefficients, 0.005 tau a step,
CPU platform, one thread. The loss is the sum over particles of v(0).v(T) + |x(T) - x(0)|^2, or
the mean of (g - 1)^2 for a smeared g(r) of every fifth frame; its gradient is that with respect to
sigma, epsilon, x(0) and v(0). All take turns; medians of process CPU time, which leaves out what
else a shared machine does, and ratios of medians. jax-md needs an environment of its own, see
``peer_jax_md.py``; left out without ``--peer-python``. With ``--scaling``, time and memory for
other numbers of particles and steps instead: of fresh processes, above what each had before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openmm
import torch
from lennard_jones import CUTOFF, DT, EPSILON, MASS, SIGMA, TAU, TEMPERATURE, platform
from native_force import DENSITY, liquid, spline_potential
from numpy.typing import NDArray
from openmm import app
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import segments
from openmm_diffsim.fluid import fluid
from openmm_diffsim.observables import Segment, SmoothRDF

Array = NDArray[np.float64]
Start = tuple[Array, Array]  # positions and velocities, nm and nm/ps
Loss = Callable[[Segment], Tensor]

N, STEPS, FRAME_EVERY = 864, 100, 5
ROUNDS = 15
SIZES, SIZE_STEPS = (1000, 4000, 16_000, 100_000), 20
LENGTHS = (20, 50, 100, 200, 400)
SMALLEST = 500  # particles of a liquid that larger ones are made of
RDF = SmoothRDF(2.4 * SIGMA, 96, STEPS, FRAME_EVERY)


def simulation(n: int, pair: diffsim.LennardJones, integrator: openmm.Integrator) -> app.Simulation:
    topology, system = fluid(n, DENSITY, MASS)
    pair.attach(system)
    return app.Simulation(topology, system, integrator, *platform())


def state_point(n: int) -> diffsim.StatePoint:
    pair = spline_potential()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / TAU, DT)
    integrator.setRandomNumberSeed(1)
    return diffsim.StatePoint(simulation(n, pair, integrator), pair)


def equilibrated(n: int) -> Start:
    """A liquid; a large one is a small one many times over, in random order."""
    times = max(k for k in range(1, n) if n % k**3 == 0 and (k == 1 or n // k**3 >= SMALLEST))
    context = state_point(n // times**3).simulation.context
    x = liquid(n // times**3, context)
    v = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    side = (n / DENSITY) ** (1 / 3) / times
    cells = side * np.stack(np.meshgrid(*[np.arange(times)] * 3), axis=-1).reshape(-1, 1, 3)
    order = np.random.default_rng(1).permutation(n)
    return (x + cells).reshape(-1, 3)[order], np.tile(v, (times**3, 1))[order]


# Value and gradient ------------------------------------------------------------------------------


def correlation(segment: Segment) -> Tensor:
    """Sum over particles of v(0).v(T) + |x(T) - x(0)|^2."""
    x, v = segment.positions, segment.velocities
    return torch.sum(v[0] * v[-1]) + torch.sum((x[-1] - x[0]) ** 2)


def structure(segment: Segment) -> Tensor:
    """Mean over bins of (g - 1)^2."""
    return torch.mean((RDF.measure(segment) - 1) ** 2)


class Differentiated:
    """A loss of a segment, with or without its gradient."""

    def __init__(
        self,
        point: diffsim.StatePoint,
        start: Start,
        loss: Loss,
        steps: int = STEPS,
        **options: Any,
    ) -> None:
        self.point, self.start, self.loss, self.steps = point, start, loss, steps
        self.options = diffsim.SegmentOptions(**options)

    def value(self) -> Tensor:
        x, v = (torch.tensor(array, requires_grad=True) for array in self.start)
        return self.loss(self.point.segment(self.steps, x, v, self.options))

    def value_and_gradient(self) -> tuple[float, list[float]]:
        """The loss, and its derivatives with respect to sigma and epsilon."""
        self.point.potential.zero_grad()
        loss = self.value()
        loss.backward()
        return loss.item(), [p.grad.item() for p in self.point.potential.parameters()]


def plain_md(start: Start, integrator: openmm.Integrator) -> Callable[[], object]:
    """As many steps by OpenMM's own integrator, with the same force."""
    context = simulation(N, spline_potential(), integrator).context

    def run() -> None:
        context.setPositions(start[0])
        context.setVelocities(start[1])
        integrator.step(STEPS)

    return run


class Peer:
    """The jax-md process, which takes the time itself."""

    def __init__(self, python: str, start: Start, folder: str) -> None:
        task = Path(folder) / "task.npz"
        side = (N / DENSITY) ** (1 / 3)
        scale = side**3 / (N * (N - 1) / 2 * RDF.shells)
        np.savez(
            task,
            **dict(zip("xv", start, strict=True)),
            **{"box": side, "cutoff": CUTOFF, "mass": MASS, "dt": DT, "steps": STEPS},
            **{"every": FRAME_EVERY, "edges": RDF.edges, "scale": scale},
            **{"sigma": SIGMA, "epsilon": EPSILON},
        )
        script = Path(__file__).with_name("peer_jax_md.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def value_and_gradient(self, loss: str) -> dict[str, Any]:
        """seconds, value, gradient and mb, the most memory so far above that before the first."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(loss, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the peer's process ended: its error is above")
        return dict(json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


def cpu_seconds(task: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.process_time()
        task()
        return time.process_time() - start

    return run


def take_turns(tasks: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians of the seconds that the tasks give, after one round that does not count."""
    for task in tasks.values():
        task()
    seconds = [[task() for task in tasks.values()] for _ in range(rounds)]
    return dict(zip(tasks, map(median, zip(*seconds, strict=True)), strict=True))


def benchmark_gradient(peer_python: str | None) -> None:
    point, start = state_point(N), equilibrated(N)
    verlet = segments.velocity_verlet(DT)
    runs = {
        "LangevinMiddle": Differentiated(point, start, correlation),
        "velocity Verlet": Differentiated(point, start, correlation, integrator=verlet),
        "velocity Verlet, g(r)": Differentiated(point, start, structure, integrator=verlet),
    }
    langevin = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / TAU, DT)
    steppers = dict(
        zip(runs, (langevin, *(openmm.VerletIntegrator(DT) for _ in "12")), strict=True)
    )
    tasks: dict[str, Callable[[], float]] = {}
    for name, run in runs.items():
        tasks[f"{name}: MD"] = cpu_seconds(plain_md(start, steppers[name]))
        tasks[f"{name}: value"] = cpu_seconds(run.value)
        tasks[f"{name}: gradient"] = cpu_seconds(run.value_and_gradient)
    with tempfile.TemporaryDirectory() as folder:
        peer = None if peer_python is None else Peer(peer_python, start, folder)
        losses = {"velocity Verlet": "correlation", "velocity Verlet, g(r)": "rdf"}
        if peer is not None:
            for name, loss in losses.items():
                tasks[f"{name}: peer"] = lambda loss=loss: peer.value_and_gradient(loss)["seconds"]
        seconds = take_turns(tasks, ROUNDS)
        print(f"N = {N}, {STEPS} steps, CPU {platform()[1]}")
        for name, run in runs.items():
            report(name, seconds)
            if peer is not None and name in losses:
                answer = peer.value_and_gradient(losses[name])
                report_values(run, answer)
        if peer is None:
            print("jax-md: left out, --peer-python is not given")
        else:
            print(f"jax-md's memory at most {answer['mb']:.0f} MB, for both losses")
            peer.close()


def report(name: str, seconds: dict[str, float]) -> None:
    md, value, gradient = (seconds[f"{name}: {kind}"] for kind in ("MD", "value", "gradient"))
    print(name)
    print(f"  OpenMM's own steps          {10 * md:7.3f} ms a step")
    print(f"  value                       {10 * value:7.3f} ms a step")
    print(
        f"  value and gradient          {10 * gradient:7.3f} ms a step   {gradient / value:5.2f} x "
        f"value, {gradient / md:5.2f} x OpenMM's own steps"
    )
    if f"{name}: peer" in seconds:
        peer = seconds[f"{name}: peer"]
        print(
            f"  jax-md, value and gradient  {10 * peer:7.3f} ms a step   {peer / gradient:5.2f} x "
            "ours"
        )


def report_values(run: Differentiated, peer: dict[str, Any]) -> None:
    """That both differentiate the same."""
    value, (sigma, epsilon) = run.value_and_gradient()
    print(f"  ours    value {value:.5g}, d/d sigma {sigma:.5g}, d/d epsilon {epsilon:.4g}")
    value, (sigma, epsilon) = peer["value"], peer["gradient"]
    print(f"  jax-md  value {value:.5g}, d/d sigma {sigma:.5g}, d/d epsilon {epsilon:.4g}")


# Time and memory of processes --------------------------------------------------------------------


def benchmark_scaling() -> None:
    cases = [(N, steps, every) for every in (1, 10) for steps in LENGTHS]
    cases += [(n, SIZE_STEPS, every) for every in (1, 10) for n in SIZES]
    print("       N   steps   every   ns per particle and step   MB at most")
    with tempfile.TemporaryDirectory() as folder:
        for n in sorted({case[0] for case in cases}):
            x, v = equilibrated(n)
            np.savez(Path(folder) / f"{n}.npz", x=x, v=v)
        for n, steps, every in cases:
            file = str(Path(folder) / f"{n}.npz")
            command = [sys.executable, __file__, "--alone", file, str(steps), str(every)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            each = 1e9 * found["seconds"] / (n * steps)
            print(f"{n:8d} {steps:7d} {every:7d} {each:26.0f} {found['mb']:12.1f}", flush=True)


def measure_alone(file: str, steps: int, every: int) -> None:
    """Median seconds of value and gradient, and the most memory above that of the idle process."""
    start = np.load(file)
    point = state_point(len(start["x"]))
    warm_up()
    run = Differentiated(point, (start["x"], start["v"]), correlation, steps, every=every)
    forget_most_memory()
    before = most_memory()
    timed = {"": cpu_seconds(run.value_and_gradient)}
    seconds = take_turns(timed, 5)[""]
    print(json.dumps({"seconds": seconds, "mb": most_memory() - before}))


def warm_up() -> None:
    """What torch loads with its first gradient."""
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    torch.sum(x**2).backward()


def forget_most_memory() -> None:
    """What the start of the process took and gave back would hide what a segment takes."""
    Path("/proc/self/clear_refs").write_text("5")


def most_memory() -> float:
    """Most memory this process has had since, MB; Linux.

    Not ru_maxrss, which a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", help="of an environment that has jax-md")
    parser.add_argument("--scaling", action="store_true", help="other sizes and lengths instead")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)  # of a process of --scaling
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        file, steps, every = options.alone
        measure_alone(file, int(steps), int(every))
    elif options.scaling:
        benchmark_scaling()
    else:
        benchmark_gradient(options.peer_python)


if __name__ == "__main__":
    main()
