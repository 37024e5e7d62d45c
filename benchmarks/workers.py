"""What it costs to have runs done by workers.

    python benchmarks/workers.py states      # 64 state points on 64 workers that only wait
    python benchmarks/workers.py two         # two workers on two cores, against one
    python benchmarks/workers.py replicas    # 16 replicas on two cores
    python benchmarks/workers.py coordinator # 16 state points of 1000 particles

The first prints the efficiency, which is the time that the workers wait over that of a round, the
same by process time, for a machine that does other things too, and how the memory of the
coordinator grows, beside what its frames take. The second: frames a second of two over those of
one. The third: the share of both cores' time that is no sampling. The fourth: time of the
coordinator's process in a round, without and with the step of the fit, over that of the MD. The
first round, in which processes begin and code is compiled, is not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

import openmm_diffsim as diffsim
from openmm_diffsim.refinement.sampling import Sampling

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import liquids

ROUNDS = 4


class Waiting(Executor):
    """Workers that wait, and give back what a first, real run gave."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.seconds = seconds
        self._threads = ThreadPoolExecutor(workers)
        self._known: dict[str, Any] = {}
        self._lock = Lock()

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        return self._threads.submit(self._wait, call)

    def _wait(self, call: Any) -> Any:
        key = call.__self__.key
        if key not in self._known:
            with self._lock:
                self._known[key] = call()
        else:
            time.sleep(self.seconds)
        return self._known[key]


class Adding(Executor):
    """Adds up the seconds that workers sampled for."""

    def __init__(self, workers: Executor) -> None:
        self.seconds = 0.0
        self._workers = workers

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        done = self._workers.submit(call, *arguments, **options)
        done.add_done_callback(self._add)
        return done

    def _add(self, done: Future[Any]) -> None:
        self.seconds += getattr(done.result(), "seconds", 0.0)


def fit_of(
    executor: Any, states: int, particles: int, platform: str = "CPU", **options: Any
) -> diffsim.Refinement:
    """Of g(r) that no fit reaches, at many temperatures, in steps that change next to nothing."""
    pair = liquids.lennard_jones(knots=30)
    rdf = diffsim.RDF(0.95 * liquids.CUTOFF, 40)
    targets = []
    for k in range(states):
        density = 0.6 if particles > 50 else 0.3  # the cutoff fits into the box
        sim = liquids.simulation(pair, particles, density, 1.5 + 0.02 * k, k + 1, platform)
        g = np.exp(-((0.34 / np.maximum(rdf.r, 0.3)) ** 12))
        targets.append(
            diffsim.Target(diffsim.StatePoint(sim, pair), rdf, rdf.r, g, uncertainty=1e-4)
        )
    return diffsim.Refinement(pair, targets, executor=executor, largest_step=1e-3, **options)


def memory() -> float:
    """Of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def kept(fit: diffsim.Refinement) -> float:
    """What the frames of a fit take, MB."""
    arrays = (a for s in fit.states for a in s.frames.arrays(s.recorded(), Path()).values())
    return sum(a.nbytes for a in arrays) / 1e6


def round_by_round(
    fit: diffsim.Refinement, steps: int, every: int, look: Callable[[], Any]
) -> list[Any]:
    """What ``look`` sees after each round, in a single run."""
    seen: list[Any] = []
    propose = fit.method.propose

    def watched(view: Any) -> Any:
        seen.append(look())
        return propose(view)

    fit.method.propose = watched  # type: ignore[method-assign]
    fit.run(ROUNDS, steps, every, progress=False)
    return seen


def states(seconds: float = 10.0) -> None:
    workers = Waiting(64, seconds)
    fit = fit_of(workers, 64, 32, "Reference")
    look = lambda: (time.perf_counter(), time.process_time(), memory(), kept(fit))  # noqa: E731
    times, own, sizes, frames = np.array(round_by_round(fit, 200, 20, look)).T
    whole, busy = np.median(np.diff(times)), np.median(np.diff(own))
    print(
        f"64 state points, 64 workers: efficiency {seconds / whole:.3f}; by the {busy:.2f} s that "
        f"the coordinator is busy in a round {seconds / (seconds + busy):.3f}"
    )
    grown, own = np.diff(sizes[1:]).mean(), np.diff(frames).mean()
    print(f"memory of the coordinator: {grown:.2f} MB a round, its frames {own:.2f} MB")


def rate(workers: int, particles: int = 500, steps: int = 4000) -> float:
    """Runs a second, of 8 state points, after the first round."""
    with diffsim.Processes(workers, threads=1) as pool:
        seen = round_by_round(fit_of(pool, 8, particles), steps, 50, time.perf_counter)
    return 8 * (len(seen) - 1) / float(np.ptp(seen))


def two() -> None:
    one, both = rate(1), rate(2)
    print(f"two workers: {both / one:.2f} times the throughput of one")


def replicas(particles: int = 500, steps: int = 8000) -> None:
    with diffsim.Processes(2, threads=1) as pool:
        adding = Adding(pool)
        fit = fit_of(adding, 1, particles, replicas=16)
        look = lambda: (time.perf_counter(), adding.seconds)  # noqa: E731
        times, seconds = np.array(round_by_round(fit, steps, 50, look)).T
    lost = 1 - np.ptp(seconds) / (2 * np.ptp(times))
    print(f"16 replicas on two cores: {100 * lost:.1f} % of their time is no sampling")


class TimedSampling:
    """Process time in the rounds of ``Sampling``."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("round", "accept"):
            setattr(Sampling, name, self._timed(getattr(Sampling, name)))

    def _timed(self, call: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            found = call(*arguments, **options)
            self.seconds += time.process_time() - start
            return found

        return timed


def coordinator(particles: int = 1000, steps: int = 5000) -> None:
    timed = TimedSampling()
    with diffsim.Processes(2, threads=1) as pool:
        adding = Adding(pool)
        fit = fit_of(adding, 16, particles)
        look = lambda: (timed.seconds, time.process_time(), adding.seconds)  # noqa: E731
        own, whole, md = np.ptp(round_by_round(fit, steps, 50, look), axis=0)
    print(f"coordinator: {100 * own / md:.2f} % of the MD, with the steps {100 * whole / md:.2f} %")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["states", "two", "replicas", "coordinator"]:
        {"states": states, "two": two, "replicas": replicas, "coordinator": coordinator}[name]()
