"""A fit whose workers, and itself, are killed at random, and what must not change by that."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from test_executor import pair_fit

from openmm_diffsim import Processes, Refinement

_MOST = 3  # deaths of a worker over one run


@dataclass(frozen=True)
class Deadly:
    """A call that somebody kills the worker of, so many seconds after it began."""

    call: Callable[[], Any]
    seconds: float
    log: Path
    key: str = ""

    def __call__(self) -> Any:
        Thread(target=self._kill, daemon=True).start()
        return self.call()

    def _kill(self) -> None:
        time.sleep(self.seconds)
        die("worker", self.log)


def die(who: str, log: Path) -> None:
    """Nothing is tidied up."""
    with log.open("a") as file:
        file.write(f"{who}\n")
    os.kill(os.getpid(), signal.SIGKILL)


class Murderous(Executor):
    """Hands calls on, a share of them to workers that will be killed: at most a few times each."""

    def __init__(
        self, workers: Executor, share: float, log: Path, longest: float = 0.05, seed: int = 1
    ) -> None:
        self._workers = workers
        self._share = share
        self._log = log
        self._longest = longest
        self._random = np.random.default_rng(seed)
        self._deaths: dict[str, int] = {}

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """As ``Executor.submit``."""
        job = call.__self__
        where = hashlib.sha256(job.state["state"].encode()).hexdigest()
        before = self._deaths.get(where, 0)
        if before < _MOST and self._random.random() < self._share:
            self._deaths[where] = before + 1
            seconds = float(self._random.uniform(0, self._longest))
            return self._workers.submit(Deadly(call, seconds, self._log, job.key))
        return self._workers.submit(call)


class Mortal(Executor):
    """Hands calls on; ends the process that it is in within a moment of the last of so many."""

    def __init__(self, workers: Executor, calls: int, log: Path) -> None:
        self._workers = workers
        self._left = calls
        self._log = log

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """As ``Executor.submit``."""
        self._left -= 1
        if self._left == 0:
            Thread(target=self._end, daemon=True).start()
        return self._workers.submit(call, *arguments, **options)

    def _end(self) -> None:
        time.sleep(np.random.default_rng().uniform(0, 0.1))
        die("coordinator", self._log)


def fit(**options: Any) -> Refinement:
    """Two state points, two replicas of each; its targets are never reached."""
    return pair_fit(1.5, 2.5, replicas=2, **options)


def run(fit: Refinement, rounds: int) -> Refinement:
    """Short rounds: they are many."""
    return fit.run(rounds, 100, 10, progress=False)


def main(folder: str, rounds: str, share: str, seed: str, calls: str) -> None:
    """A coordinator, which goes on where others were killed, and is killed after so many calls."""
    log, checkpoint = Path(folder) / "log", Path(folder) / "fit.npz"
    with Processes(2, start="forkserver") as workers:
        killers = Murderous(workers, float(share), log, seed=int(seed))
        mine = fit(checkpoint=checkpoint, executor=Mortal(killers, int(calls), log))
        if checkpoint.exists():
            mine.resume(checkpoint)
        run(mine, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
