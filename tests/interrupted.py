"""Fits on the command line that signals end, and what must hold afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONFIG = """
[system]
particles = 60
number_density = 15.0
mass = 39.948
[dynamics]
temperature = 150.0
timestep = 0.01
platform = "{platform}"
threads = 1
[potential]
kind = "spline"
cutoff = 0.75
knots = 20
[[target]]
observable = "rdf"
file = "g.csv"
uncertainty = 0.0002
[refine]
rounds = 4
equilibration = 100
steps = 200
every = 10
output = "out"
"""
ENDED = (0, 4)  # converged, or not
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
SAME = ("potential.csv", "rdf_0.csv", "state.xml", "system.xml", "figure.png")
TEMPORARY = ".*.omd*"  # names of files that are not whole yet
WORST = (
    "out",  # the folder is there
    "out/fit.lock",
    f"out/.checkpoint.npz{TEMPORARY}",
    "out/checkpoint.npz",
    "out/written.json",
    f"out/.report.html{TEMPORARY}",  # of a round
    f"out/.figure.png{TEMPORARY}",
    "out/system.xml",
    "out/summary.json",
)
PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Moment:
    """When a signal comes: so many seconds from the start, or once a file is written."""

    seconds: float = 0.0
    file: str = ""

    def wait(self, process: subprocess.Popen[str], folder: Path) -> None:
        end = time.monotonic() + (PATIENCE if self.file else self.seconds)
        known = self._files(folder)
        while time.monotonic() < end and process.poll() is None:
            if self._files(folder) - known:
                return
            time.sleep(0.0005)

    def _files(self, folder: Path) -> set[tuple[Path, int]]:
        """Those of that name, as they are by now."""
        found = set()
        for path in folder.glob(self.file) if self.file else ():
            with suppress(FileNotFoundError):
                found.add((path, path.stat().st_mtime_ns))
        return found


@dataclass(frozen=True)
class Signal:
    number: signal.Signals
    moment: Moment


def configure(folder: Path, platform: str) -> Path:
    """A fit of a second or so, in a folder of its own."""
    folder.mkdir()
    r = np.arange(0.005, 0.75, 0.01)
    x6 = (0.34 / np.maximum(r, 0.1)) ** 6
    g = np.exp(-3.2 * (x6**2 - x6))
    np.savetxt(folder / "g.csv", np.stack([r, g], axis=1), fmt="%.6f", delimiter=",")
    (folder / "fit.toml").write_text(CONFIG.format(platform=platform))
    return folder


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """The command; it has begun: Python itself, which starts before, cannot be told anything."""
    process = subprocess.Popen(
        [sys.executable, "-m", "openmm_diffsim", "refine", "fit.toml", *more],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not catches(process.pid, signal.SIGTERM):
        time.sleep(0.001)
    return process


def catches(pid: int, number: signal.Signals) -> bool:
    """Does a process handle this signal?"""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


def finish(folder: Path) -> None:
    """Run to the end, or go on to it."""
    process = start(folder, "--resume")
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode in ENDED, said


def interrupt(folder: Path, what: Signal) -> str:
    """Start or go on, and send a signal; "ended" in time, or "finished" before it."""
    before = temporary_files(folder)  # of those that KILL ended: an interrupt may come too soon
    process = start(folder, "--resume")
    what.moment.wait(process, folder)
    process.send_signal(what.number)
    _, said = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in said and "Error" not in said, said
    if process.returncode in ENDED:
        return "finished"
    assert process.returncode == CODES[what.number], (process.returncode, said)
    lines = said.replace("\r", "\n").splitlines()
    if what.number != signal.SIGKILL:
        assert sum(line.startswith("openmm-diffsim: interrupted") for line in lines) == 1, said
        left = temporary_files(folder) - before
        assert not left, (left, what)
    return "ended"


def temporary_files(folder: Path) -> set[tuple[Path, int]]:
    """Those that only a process at work may have; a lock that was taken over is another file."""
    found = [*folder.rglob(TEMPORARY), *folder.rglob("*.lock")]
    return {(path, path.stat().st_ino) for path in found}


def rounds(folder: Path) -> int:
    """In the checkpoint, which is whole at any time."""
    path = folder / "out/checkpoint.npz"
    if not path.exists():
        return 0
    from openmm_diffsim.refinement.checkpoint import read_checkpoint

    return len(read_checkpoint(path)[0]["progress"]["history"])


def survive(folder: Path, signals: Sequence[Signal], whole: Path) -> list[str]:
    """A fit that all these signals come to, one after the other, and then goes to its end.

    It must be the uninterrupted one of ``whole``, bit for bit, without a file more.
    """
    said, before = [], 0
    for what in signals:
        said.append(interrupt(folder, what))
        assert rounds(folder) >= before
        before = rounds(folder)
    finish(folder)
    assert not temporary_files(folder)
    names, expected = (sorted(p.name for p in f.glob("out/*")) for f in (folder, whole))
    assert names == expected
    different = [n for n in SAME if (folder / "out" / n).read_bytes() != _bytes(whole, n)]
    assert not different, f"{folder} is not the uninterrupted fit: {different}, after {said}"
    return said


def _bytes(whole: Path, name: str) -> bytes:
    return (whole / "out" / name).read_bytes()


def drawn(rng: np.random.Generator, duration: float) -> Signal:
    """Any signal, in half of all cases at one of the worst moments, else at a random one."""
    number = list(CODES)[rng.integers(3)]
    if rng.random() < 0.5:
        return Signal(number, Moment(file=WORST[rng.integers(len(WORST))]))
    first = rng.random() < 0.4  # the first second
    return Signal(number, Moment(rng.uniform(0, 1.0 if first else duration)))
