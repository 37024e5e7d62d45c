"""Learned tables for HOOMD-blue 4 and 5: a script, and a JSON file with all its numbers."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ..engine.statepoint import StatePoint
from ..errors import ExportError
from ..io import json_bytes
from ..limits import Limit, checked_whole
from ..units import MOLAR_GAS_CONSTANT
from .model import KINDS, Model, TupleCurve, model_of
from .written import Exported, warn_of, write

Array = NDArray[np.float64]

_POINTS = Limit(100, 200_000, "numbers of a table")
_NEAREST = 0.01  # of the cutoff; HOOMD takes a closer pair to have no energy
_AROUND = 3.0  # times the extent of what has no periodic box, which HOOMD does not know


def hoomd(
    source: StatePoint | openmm.System,
    folder: str | PathLike[str],
    *,
    state: openmm.State | None = None,
    temperature: Any = None,
    points: int = 8001,
) -> Exported:
    """Write what is learned as HOOMD reads it: ``python run_hoomd.py`` runs in the folder.

    learned.json has particles, box, bonds, exclusions and tables, in nm, kJ/mol, amu and ps, and
    run_hoomd.py makes of them pair.Table, bond.Table, angle.Table and dihedral.Table, prints the
    energy, and goes on at constant volume and temperature. HOOMD draws straight lines between the
    points of a table. Excluded pairs are its special pairs.

    Parameters
    ----------
    source : StatePoint, or a System with ``state`` and ``temperature``
    folder : where to; files that this did not write are not replaced
    points : numbers of a table

    Returns
    -------
    Exported : the files, and what of the System is left out, which is also warned of

    Raises
    ------
    ExportError
        If there is nothing to export.
    TakenError
        If a file is there that this did not write.
    """
    return warn_of(write_hoomd(model_of(source, state, temperature), folder, points))


def write_hoomd(model: Model, folder: str | PathLike[str], points: int = 8001) -> Exported:
    """As ``hoomd``, of a ``Model``."""
    checked_whole("points", points, ExportError, _POINTS)
    left_out = list(model.left_out)
    if model.box is None:
        left_out.append("open space: HOOMD has a periodic box, made three times as wide as needed")
    texts = {
        "learned.json": json_bytes(_numbers(model, points)).decode(),
        "run_hoomd.py": _SCRIPT,
    }
    return write("hoomd", folder, texts, left_out)


def _numbers(model: Model, points: int) -> dict[str, Any]:
    box, origin = _box(model)
    return {
        "what": "learned by openmm_diffsim; nm, kJ/mol, amu, ps",
        "left_out": model.left_out,
        "kT": MOLAR_GAS_CONSTANT * model.temperature,
        "box": box,
        "types": model.names,
        "typeid": model.types,
        "mass": model.masses,
        "position": model.positions - origin,
        "velocity": model.velocities if model.velocities.any() else None,
        "excluded": model.excluded,
        "pair": _pair_tables(model, points),
        "cutoff": model.cutoff,
        "points": points,
        **{kind: _group(model, size, points) for size, kind in KINDS.items()},
    }


def _box(model: Model) -> tuple[list[float], Array]:
    """Lx, Ly, Lz, xy, xz, yz, and where its middle is."""
    if model.box is None:
        low, high = model.positions.min(axis=0), model.positions.max(axis=0)
        sides = _AROUND * (high - low + 2 * max(model.cutoff, 1.0))
        return [*sides.tolist(), 0.0, 0.0, 0.0], (low + high) / 2
    a, b, c = model.box
    tilts = [b[0] / b[1], c[0] / c[2], c[1] / c[2]]
    return [float(x) for x in (a[0], b[1], c[2], *tilts)], (a + b + c) / 2


def _pair_tables(model: Model, points: int) -> list[dict[str, Any]]:
    """U and F from r_min on, up to one step before r_cut."""
    found = []
    for (a, b), curve in model.pairs.items():
        low = _NEAREST * curve.cutoff
        u, slope = curve.values(np.linspace(low, curve.cutoff, points, endpoint=False))
        names = [model.names[a], model.names[b]]
        found.append({"types": names, "r_min": low, "r_cut": curve.cutoff, "U": u, "F": -slope})
    return found


def _group(model: Model, size: int, points: int) -> dict[str, Any]:
    group = model.tuples[size]
    tables = [_tuple_table(KINDS[size], curve, points) for curve in group.curves]
    return {"group": group.particles, "typeid": group.types, "tables": tables}


def _tuple_table(kind: str, curve: TupleCurve, points: int) -> dict[str, Any]:
    """Both ends are there; an angle's are 0 and pi, a dihedral angle's -pi and pi."""
    low, high = curve.wide_range if kind == "bond" else curve.range
    u, slope = curve.values(np.linspace(low, high, points))
    if kind == "bond":
        return {"r_min": low, "r_max": high, "U": u, "F": -slope}
    return {"U": u, "tau": -slope}


_SCRIPT = '''\
"""Tables learned by openmm_diffsim, in HOOMD-blue 4 or 5. Numbers: learned.json."""

import json
from pathlib import Path

import hoomd
import numpy as np

FOLDER = Path(__file__).resolve().parent
learned = json.loads((FOLDER / "learned.json").read_text())
for what in learned["left_out"]:
    print("LEFT OUT:", what)


def array(name, kind=float):
    return np.array(learned[name], dtype=kind)


def fill(group, wanted, prefix):
    """Bonds, angles or dihedral angles of a snapshot; gives the names of their types."""
    names = [f"{prefix}{k}" for k in range(len(wanted["tables"]))]
    group.N = len(wanted["typeid"])
    group.types = names
    if group.N:
        group.group[:] = wanted["group"]
        group.typeid[:] = wanted["typeid"]
    return names


simulation = hoomd.Simulation(device=hoomd.device.auto_select(), seed=1)
snapshot = hoomd.Snapshot()
snapshot.configuration.box = learned["box"]
particles = snapshot.particles
particles.N = len(learned["typeid"])
particles.types = learned["types"]
particles.typeid[:] = array("typeid", int)
particles.mass[:] = array("mass")
particles.position[:] = array("position")
if learned["velocity"] is not None:
    particles.velocity[:] = array("velocity")
excluded = array("excluded", int).reshape(-1, 2)
snapshot.pairs.N = len(excluded)
snapshot.pairs.types = ["excluded"]
if len(excluded):
    snapshot.pairs.group[:] = excluded
kinds = {"bond": snapshot.bonds, "angle": snapshot.angles, "dihedral": snapshot.dihedrals}
names = {kind: fill(group, learned[kind], kind) for kind, group in kinds.items()}
snapshot.wrap()
simulation.create_state_from_snapshot(snapshot)

forces = []
if learned["pair"]:
    neighbors = hoomd.md.nlist.Cell(buffer=0.2, exclusions=["special_pair"])
    pair = hoomd.md.pair.Table(neighbors, default_r_cut=0)
    nothing = dict(r_min=0, U=[0], F=[0])
    pair.params[(learned["types"], learned["types"])] = nothing
    for table in learned["pair"]:
        types = tuple(table["types"])
        pair.params[types] = {key: table[key] for key in ("r_min", "U", "F")}
        pair.r_cut[types] = table["r_cut"]
    forces.append(pair)
for kind, module in (
    ("bond", hoomd.md.bond),
    ("angle", hoomd.md.angle),
    ("dihedral", hoomd.md.dihedral),
):
    if names[kind]:
        force = module.Table(width=learned["points"])
        for name, table in zip(names[kind], learned[kind]["tables"]):
            force.params[name] = table
        forces.append(force)

thermostat = hoomd.md.methods.thermostats.Bussi(kT=learned["kT"], tau=1.0)
method = hoomd.md.methods.ConstantVolume(hoomd.filter.All(), thermostat)
simulation.operations.integrator = hoomd.md.Integrator(dt=0.002, methods=[method], forces=forces)
simulation.run(0)
print("potential energy, kJ/mol:", sum(force.energy for force in forces))
if learned["velocity"] is None:
    simulation.state.thermalize_particle_momenta(filter=hoomd.filter.All(), kT=learned["kT"])
simulation.run(1000)
print("after 1000 steps:", sum(force.energy for force in forces))
'''
