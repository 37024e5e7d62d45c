"""Worker processes of this machine, as an executor: one that is lost is replaced."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Lock
from types import TracebackType
from typing import Any

from ..errors import StatePointError
from ..limits import checked_whole
from .worker import Device, serve


class Processes(Executor):
    """Worker processes of this machine, which keep their Contexts; one that is lost is replaced.

        with Processes(4, platform="CUDA", devices=[0, 1]) as workers:
            Refinement(pair, targets, executor=workers, replicas=4).run(10, 20_000, 50)

    They end with the process that made them, however that ends. A script begins its work under
    ``if __name__ == "__main__":``, as each worker imports it.

    Parameters
    ----------
    workers : int, optional
        Default: as many as this process has cores.
    platform : str, optional
        Of OpenMM. Default: that of each Simulation.
    threads : int, optional
        Most threads of each worker, on the CPU platform. Default: its share of the cores.
    devices : sequence of int or str, optional
        GPUs, one for each worker, in turn. Default: that of each Simulation.
    start : "spawn" or "forkserver"
        How a process begins, as in ``multiprocessing``. The latter imports everything once, and
        replaces a lost worker at once; not for GPUs.

    Raises
    ------
    StatePointError
        If a number is none that can be.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        platform: str | None = None,
        threads: int | None = None,
        devices: Sequence[int | str] = (),
        start: str = "spawn",
    ) -> None:
        cores = _cores()
        n = checked_whole("workers", cores if workers is None else workers, StatePointError)
        share = max(1, cores // n)
        if threads is not None:
            share = checked_whole("threads", threads, StatePointError)
        index = [str(devices[k % len(devices)]) if devices else None for k in range(n)]
        context: Any = get_context(start)
        if start == "forkserver":
            context.set_forkserver_preload(["__main__", __package__])
        self._idle = [_Slot(context, Device(platform, share, each)) for each in index]
        self._all = list(self._idle)
        self._lock = Lock()
        self._ended = False
        self._threads = ThreadPoolExecutor(n, initializer=_without_signals)

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """As ``Executor.submit``; what a worker was called for before it is called for again."""
        key = getattr(getattr(call, "__self__", None), "key", "")
        return self._threads.submit(self._call, key, pickle.dumps((call, arguments, options)))

    def _call(self, key: str, what: bytes) -> Any:
        with self._lock:
            slot = next((s for s in self._idle if key in s.keys), self._idle[0])
            self._idle.remove(slot)
        try:
            if self._ended:
                raise BrokenExecutor("the workers have ended")
            return slot.call(key, what)
        finally:
            with self._lock:
                self._idle.append(slot)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all workers; with ``wait``, and without ``cancel_futures``, once all is done."""
        if wait and not cancel_futures:
            self._threads.shutdown()
        self._ended = True
        for slot in self._all:
            slot.end()
        self._threads.shutdown(wait=wait, cancel_futures=True)
        for slot in self._all:
            slot.end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(cancel_futures=error is not None)

    def pids(self) -> list[int]:
        """Of the worker processes that there are."""
        return [slot.process.pid for slot in self._all if slot.process is not None]


def _cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _without_signals() -> None:
    """In threads that start workers, which inherit it until they can handle signals themselves."""
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


class _Slot:
    """A worker process, or the next one in its place."""

    def __init__(self, context: Any, device: Device) -> None:
        self._context = context
        self._device = device
        self.keys: set[str] = set()
        """Of what it was called for."""
        self.process: Any = None
        self._pipe: Any = None

    def call(self, key: str, what: bytes) -> Any:
        """What the call gives.

        Raises
        ------
        BrokenExecutor
            If the process ends before that. All that the call raises, besides.
        """
        if self.process is None:
            self._start()
        pipe, process = self._pipe, self.process
        try:
            pipe.send_bytes(what)
            good, found = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError) as error:
            process.join(1.0)
            code = process.exitcode
            self.end()
            raise BrokenExecutor(f"a worker process ended, with exit code {code}") from error
        self.keys.add(key)
        if not good:
            raise found
        return found

    def _start(self) -> None:
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._device), daemon=True)
        process.start()
        theirs.close()
        self._pipe, self.process, self.keys = pipe, process, set()

    def end(self) -> None:
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.join()
