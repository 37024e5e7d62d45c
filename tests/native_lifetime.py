"""Contexts that come and go: run as a program, on a platform that is named.

    python tests/native_lifetime.py order|threads|memory Reference|CPU|OpenCL|CUDA

It ends with "done", after a line of numbers where it measures memory. A program of its own, so
that a crash is one test's failure, and so that it runs under a checker of memory as well.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import sys
import threading
from itertools import permutations
from typing import Any

import numpy as np
import openmm

from openmm_diffsim.engine import native
from openmm_diffsim.statistics.kernels import PairHistogram

N = 150
QUICK = ("Reference", "CPU")  # a Context on the others takes half a second


def make(platform: str, n: int = N) -> dict[str, Any]:
    """A System, its force, integrator and Context."""
    rng = np.random.default_rng(1)
    force = native.SplinePairForce(2, 0.2, 0.6, 40)
    force.setCoefficients(rng.normal(size=(3, 38)))
    force.addParticles(rng.integers(-1, 2, n))
    force.addExclusions([(i, i + 1) for i in range(n - 1)])
    force.setNonbondedMethod(force.CutoffPeriodic)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * 2.5)
    for _ in range(n):
        system.addParticle(40.0)
    system.addForce(force)
    integrator = openmm.VerletIntegrator(0.001)
    properties = {"Threads": "2"} if platform == "CPU" else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(rng.uniform(0, 2.5, (n, 3)))
    return {"context": context, "force": force, "integrator": integrator, "system": system}


def use(context: openmm.Context, force: native.SplinePairForce) -> None:
    """Call all there is, so that whatever is made on first use is made."""
    n = force.getNumParticles()
    context.getState(getEnergy=True, getForces=True)
    rng = np.random.default_rng(2)
    x, v = rng.uniform(0, 2.5, (2, n, 3)), rng.normal(size=(2, n, 3))
    everyone = np.ones(n, dtype=bool)
    uneven = PairHistogram(np.array([0.1, 0.3, 0.4, 1.2]), everyone, everyone, np.arange(n) // 3)
    force.computeSums(context, virial=True, histograms=[uneven])
    force.computeSums(context, x, virial=True, histograms=[uneven])
    force.computeProducts(context, v[0])
    force.computeProducts(context, v, x)
    chain = native.ChainThermostat(300.0, 10.0, 3 * n)
    steps = (1e-3, 5e-4, 1, 5e-4, 0)
    propagator = native.SegmentPropagator(context, force, steps, chain, box=3 * np.eye(3))
    run = propagator.integrate(x[0], v[0], 1)
    native.SegmentPropagator(context, force, steps, chain).computeGradient(
        run.positions, v, velocities=run.velocities, chainStates=run.chainStates,
        includeNoise=True, truncation=1,
    )  # fmt: skip
    force.updateParametersInContext(context)
    context.getState(getEnergy=True)
    for wrong in (x[:, :, :2], np.full_like(x, np.nan)):
        try:
            force.computeSums(context, wrong)
        except openmm.OpenMMException:
            continue
        raise AssertionError("positions that are none were accepted")


def order(platform: str) -> None:
    """Let go of System, force, integrator and Context in every order."""
    orders = list(permutations(("context", "force", "integrator", "system")))
    for names in orders if platform in QUICK else orders[::7]:
        made = make(platform, 20)
        use(made["context"], made["force"])
        for name in names:
            del made[name]  # the last reference: destroyed at once

    # Two Contexts of one System; the first one goes.
    first = make(platform, 20)
    second = openmm.Context(
        first["system"], openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(platform)
    )
    second.setPositions(np.random.default_rng(3).uniform(0, 2.5, (20, 3)))
    use(second, first["force"])
    force, system = first["force"], first["system"]
    first.clear()
    use(second, force)

    # A Context that is made anew in place, and one that could not be made at all.
    second.reinitialize(preserveState=True)
    use(second, force)
    force.addParticle(0)
    try:
        openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(platform)
        )
    except openmm.OpenMMException:
        pass
    else:
        raise AssertionError("a wrong number of particles was accepted")
    globals()["alive"] = make(platform, 20)  # until the interpreter ends


def threads(platform: str) -> None:
    """Make, use and let go on several threads at once, also each on another one."""
    failures: list[BaseException] = []

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)

    def run(work: Any, arguments: list[tuple[Any, ...]]) -> None:
        running = [threading.Thread(target=guarded, args=(work, *a)) for a in arguments]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def whole_life() -> None:
        for _ in range(5 if platform in QUICK else 1):
            made = make(platform, 50)
            use(made["context"], made["force"])

    run(whole_life, [()] * 4)
    handed_on: list[Any] = []
    run(lambda: handed_on.append(make(platform, 50)), [()] * 4)
    run(lambda made: use(made["context"], made["force"]), [(made,) for made in handed_on])
    run(lambda i: handed_on[i].clear(), [(i,) for i in range(4)])
    if failures:
        raise failures[0]


class _MallInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def allocated() -> int:
    """Bytes that malloc has given out and not got back."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def memory(platform: str) -> None:
    """Bytes that a living Context holds, and what each of those that are gone has left behind."""
    count = 100 if platform in QUICK else 10

    def whole_life() -> None:
        made = make(platform)
        use(made["context"], made["force"])

    for _ in range(count // 10 + 1):
        whole_life()
    before = allocated()
    for _ in range(count):
        whole_life()
    left = (allocated() - before) / count
    before = allocated()
    kept = [make(platform) for _ in range(5)]
    for made in kept:
        use(made["context"], made["force"])
    print(f"{(allocated() - before) / 5:.0f} {left:.0f}")


if __name__ == "__main__":
    faulthandler.enable()
    {"order": order, "threads": threads, "memory": memory}[sys.argv[1]](sys.argv[2])
    print("done")
