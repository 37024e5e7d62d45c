"""What a process that samples for others keeps between its jobs, and how such a process runs."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import connection, parent_process
from threading import RLock, Thread
from typing import Any

import openmm
import torch

from ..errors import StatePointError

_MOST_KEPT = 64  # Contexts


@dataclass(frozen=True)
class Device:
    """Where a worker's Contexts run; None: as the Simulation that they are made after."""

    platform: str | None = None
    threads: int | None = None
    """Of the CPU platform; a Simulation with fewer keeps its own number."""
    index: str | None = None
    """Of a GPU."""

    def platform_or(self, name: str) -> openmm.Platform:
        """The platform, that of this name by default.

        Raises
        ------
        StatePointError
            If this process does not have it.
        """
        wanted = self.platform or name
        all_of_them = map(openmm.Platform.getPlatform, range(openmm.Platform.getNumPlatforms()))
        names = [platform.getName() for platform in all_of_them]
        if wanted not in names:
            raise StatePointError(
                f"a worker has no platform {wanted!r}, expected one of {', '.join(names)}",
                got=wanted,
                expected=names,
            )
        return openmm.Platform.getPlatform(wanted)

    def properties(self, platform: openmm.Platform, given: Mapping[str, str]) -> dict[str, str]:
        """Those of a Context on this platform that was ``given`` with others."""
        known = set(platform.getPropertyNames())
        found = {name: value for name, value in given.items() if name in known}
        if "Threads" in known and self.threads is not None:
            found["Threads"] = str(min(self.threads, int(found.get("Threads") or self.threads)))
        if "DeviceIndex" in known and self.index is not None:
            found["DeviceIndex"] = self.index
        return found


@dataclass
class Kept:
    """State points by what they are made of; those not used for longest go first."""

    device: Device = Device()
    alone: RLock = field(default_factory=RLock)
    """One job at a time: on the Reference platform all Contexts share their random numbers."""
    _points: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    def get(self, key: str) -> Any | None:
        """The state point of that key, if it is here."""
        if key in self._points:
            self._points.move_to_end(key)
        return self._points.get(key)

    def put(self, key: str, state_point: Any) -> None:
        """Keep a state point."""
        self._points[key] = state_point
        while len(self._points) > _MOST_KEPT:
            self._points.popitem(last=False)

    def drop(self, key: str | None = None) -> None:
        """Forget a state point, or all."""
        for each in [*self._points] if key is None else [key]:
            self._points.pop(each, None)


kept = Kept()
"""Of this process."""
atexit.register(kept.drop)  # Contexts end before the modules that they need


def configure_worker(
    platform: str | None = None, threads: int | None = None, device: str | int | None = None
) -> None:
    """Where this process runs its Contexts from now on: call it in each worker.

        client.run(diffsim.configure_worker, threads=4)                           # Dask
        MPIPoolExecutor(initializer=diffsim.configure_worker, initargs=("CUDA",))  # mpi4py

    Parameters
    ----------
    platform : str, optional
        Of OpenMM. Default: that of the Simulation which is sampled.
    threads : int, optional
        Most threads of a Context on the CPU platform.
    device : str or int, optional
        Index of the GPU, or several: "0,1".

    Raises
    ------
    StatePointError
        If this process has no such platform.
    """
    kept.drop()
    kept.device = Device(platform, threads, None if device is None else str(device))
    kept.device.platform_or("Reference")


def serve(pipe: connection.Connection, device: Device) -> None:
    """Do what comes through a pipe, one call after the other, until the process at its end ends.

    Whoever started this process decides when it ends: an interrupt from the keyboard is theirs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(device.threads or 1)
    kept.device = device
    while True:
        try:
            pipe.send_bytes(_answer(pipe.recv_bytes()))
        except (EOFError, OSError):
            return


def _answer(what: bytes) -> bytes:
    """Of a pickled call: did it work, and what it gave or raised, pickled."""
    try:
        call, arguments, options = pickle.loads(what)
        return pickle.dumps((True, call(*arguments, **options)))
    except BaseException as error:
        try:
            pickle.loads(found := pickle.dumps((False, error)))
        except Exception:  # some exceptions cannot travel
            return pickle.dumps((False, RuntimeError(repr(error))))
        return found


def _end_with_parent() -> None:
    """End at once when the process that started this one has ended, however that was."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
