"""Which process something belongs to, and whether that is still there."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """A process among all that ever were, on all hosts."""

    pid: int
    host: str
    system: str
    """The boot of that host, and the space that process numbers count in: one of a container."""
    started: str
    """Since boot; tells it from a later process of the same number."""

    @staticmethod
    def this() -> Process:
        """The one that asks."""
        pid = os.getpid()
        return Process(pid, platform.node(), _system(), _started(pid) or "")

    @staticmethod
    def of(data: Any) -> Process:
        """From ``vars(process)``; ValueError where it is none."""
        names = ("pid", "host", "system", "started")
        try:
            pid, *texts = (data[name] for name in names)
        except (LookupError, TypeError) as error:
            raise ValueError(f"it does not name a process: {error!r}") from error
        if not isinstance(pid, int) or not all(isinstance(text, str) for text in texts):
            raise ValueError("it does not name a process")
        return Process(pid, *texts)

    @property
    def is_elsewhere(self) -> bool:
        """Is it where it cannot be seen from here: on another host, or in another container?"""
        here = _system()
        boot, _, space = self.system.partition(" ")
        same_boot = boot == here.partition(" ")[0]
        return self.host != platform.node() or (same_boot and space != here.partition(" ")[2])

    @property
    def is_gone(self) -> bool:
        """Is it one of here that has ended? Its number may be another's by now."""
        if self.is_elsewhere:
            return False
        return self.system != _system() or _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}"


def _system() -> str:
    """Of this process; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of here began, in ticks since boot; None where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _answers(pid)
    except OSError:  # it ends just now
        return None
    # The name of the program, in parentheses, may hold anything; the 20th field after it.
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _answers(pid: int) -> str | None:
    """Where there is no /proc: is there a process of this number?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""
