"""Learned tables for LAMMPS: data file, table files, and a script that runs as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ..engine.statepoint import StatePoint
from ..errors import ExportError
from ..limits import Limit, checked_number, checked_whole
from ..units import MOLAR_GAS_CONSTANT
from .exclusions import Exclusions, exclusions_of
from .model import KINDS, Model, TupleCurve, model_of
from .written import Exported, rows, warn_of, write

Array = NDArray[np.float64]

_POINTS = Limit(100, 200_000, "rows of a table")
_FINER = 2  # LAMMPS' own table than the file: it is uniform in r^2
_NEAREST = 0.01  # of the cutoff: LAMMPS ends a run where a pair is closer


@dataclass(frozen=True)
class LammpsUnits:
    """LAMMPS' numbers in md units."""

    name: str
    """What its command ``units`` is given."""
    length: float
    """nm"""
    energy: float
    """kJ/mol"""
    mass: float
    """amu"""
    time: float
    """ps"""
    thermal: float
    """Its number of a temperature of 1 K."""


REAL = LammpsUnits("real", 0.1, 4.184, 1.0, 0.001, 1.0)
"""Angstrom, kcal/mol, g/mol, fs, K."""


def lennard_jones_units(sigma: float, epsilon: float, mass: float) -> LammpsUnits:
    """Reduced units (``units lj``), of nm, kJ/mol and amu.

    Raises
    ------
    ExportError
        If one is not a positive number.
    """
    for name, value in (("sigma", sigma), ("epsilon", epsilon), ("mass", mass)):
        checked_number(name, value, ExportError)
    time = sigma * (mass / epsilon) ** 0.5
    return LammpsUnits("lj", sigma, epsilon, mass, time, MOLAR_GAS_CONSTANT / epsilon)


def lammps(
    source: StatePoint | openmm.System,
    folder: str | PathLike[str],
    *,
    state: openmm.State | None = None,
    temperature: Any = None,
    points: int = 4000,
    units: LammpsUnits = REAL,
) -> Exported:
    """Write what is learned as LAMMPS reads it: ``lmp -in in.lammps`` runs in the folder.

    pair.table, bond.table, angle.table and dihedral.table, data.lammps with particles, bonds and
    box, and in.lammps, which computes the energy (``run 0``) and goes on at constant volume and
    temperature. A pair that comes closer than a hundredth of the cutoff, or a bond beyond three
    times the range of its spline, ends the run with a message of LAMMPS.

    Parameters
    ----------
    source : StatePoint, or a System with ``state`` and ``temperature``
    folder : where to; files that this did not write are not replaced
    points : rows of a table; LAMMPS' own has twice as many
    units : ``REAL``, or ``lennard_jones_units(sigma, epsilon, mass)``

    Returns
    -------
    Exported : the files, and what of the System is left out, which is also warned of

    Raises
    ------
    ExportError
        If there is nothing to export, or LAMMPS cannot say it.
    TakenError
        If a file is there that this did not write.
    """
    return warn_of(write_lammps(model_of(source, state, temperature), folder, points, units))


def write_lammps(
    model: Model, folder: str | PathLike[str], points: int = 4000, units: LammpsUnits = REAL
) -> Exported:
    """As ``lammps``, of a ``Model``."""
    checked_whole("points", points, ExportError, _POINTS)
    exclusions = exclusions_of(model)
    texts = {
        "in.lammps": _script(model, exclusions, points, units),
        "data.lammps": _data(model, exclusions, units),
    }
    if model.pairs:
        texts["pair.table"] = "\n".join([_head(units), *_pair_tables(model, points, units)])
    for size, kind in KINDS.items():
        tables = [
            _tuple_table(f"{kind.upper()}_{k + 1}", kind, curve, points, units)
            for k, curve in enumerate(model.tuples[size].curves)
        ]
        if tables:
            texts[f"{kind}.table"] = "\n".join([_head(units), *tables])
    return write("lammps", folder, texts, model.left_out)


# Tables -------------------------------------------------------------------------------------------


def _head(units: LammpsUnits) -> str:
    return f"# UNITS: {units.name}\n# learned by openmm_diffsim\n"


def _pair_tables(model: Model, points: int, units: LammpsUnits) -> Iterator[str]:
    """Also of pairs that no table acts on: nothing."""
    for a, b in _pairs_of_types(model):
        curve = model.pairs.get((a, b))
        cutoff = model.cutoff if curve is None else curve.cutoff
        r = np.linspace(_NEAREST * cutoff, cutoff, points)
        u, slope = (np.zeros((2, points))) if curve is None else curve.values(r)
        x, e, f = r / units.length, u / units.energy, -slope / units.energy * units.length
        yield (
            f"{_pair_name(model, a, b)}\nN {points} R {x[0]:.15g} {x[-1]:.15g}\n\n"
            + rows(np.arange(1, points + 1), x, e, f)
        )


def _pair_name(model: Model, a: int, b: int) -> str:
    return f"PAIR_{model.names[a]}_{model.names[b]}"


def _pairs_of_types(model: Model) -> Iterator[tuple[int, int]]:
    n = len(model.names)
    return ((a, b) for a in range(n) for b in range(a, n))


def _tuple_table(name: str, kind: str, curve: TupleCurve, points: int, units: LammpsUnits) -> str:
    if kind == "bond":
        q, scale, more = np.linspace(*curve.wide_range, points), units.length, ""
    elif kind == "angle":
        q, scale, more = np.linspace(0, np.pi, points), np.pi / 180, ""
    else:
        q, more = np.linspace(-np.pi, np.pi, points, endpoint=False), " DEGREES"
        scale = np.pi / 180
    u, slope = curve.values(q)
    columns = (q / scale, u / units.energy, -slope / units.energy * scale)
    text = rows(np.arange(1, points + 1), *columns)
    return f"# {curve.name}\n{name}\nN {points}{more}\n\n{text}"


# Particles ----------------------------------------------------------------------------------------


def _data(model: Model, exclusions: Exclusions, units: LammpsUnits) -> str:
    n = len(model.masses)
    bonds = model.tuples[2]
    silent = exclusions.silent_bonds
    pairs = np.concatenate([bonds.particles, silent])
    types = np.concatenate([bonds.types, np.full(len(silent), len(bonds.curves))])
    sections = [("Bonds", pairs, types, len(bonds.curves) + bool(len(silent)))]
    for title, size in (("Angles", 3), ("Dihedrals", 4)):
        group = model.tuples[size]
        sections.append((title, group.particles, group.types, len(group.curves)))
    counts = [f"{n} atoms", f"{len(model.names)} atom types"]
    for title, particles, _, n_types in sections:
        counts += [f"{len(particles)} {title.lower()}", f"{n_types} {title.lower()[:-1]} types"]
    text = "learned by openmm_diffsim\n\n" + "\n".join(counts) + "\n\n" + _box(model, units)
    masses = model.type_masses / units.mass
    text += "\nMasses\n\n" + rows(np.arange(1, len(masses) + 1), masses)
    x = model.positions / units.length
    ids = np.arange(1, n + 1)
    text += "\nAtoms # molecular\n\n" + rows(ids, model.molecules + 1, model.types + 1, *x.T)
    if model.velocities.any():
        text += "\nVelocities\n\n" + rows(ids, *(model.velocities * units.time / units.length).T)
    for title, particles, of, _ in sections:
        if len(particles):
            numbers = np.arange(1, len(particles) + 1)
            text += f"\n{title}\n\n" + rows(numbers, of + 1, *(particles + 1).T)
    return text


def _box(model: Model, units: LammpsUnits) -> str:
    """A box around all where none is periodic; LAMMPS shrinks it to them."""
    low, box = np.zeros(3), model.box
    if box is None:
        low = model.positions.min(axis=0) - 1
        box = np.diag(model.positions.max(axis=0) + 1 - low)
    low, box = low / units.length, box / units.length
    lines = [
        f"{low[k]:.15g} {low[k] + box[k, k]:.15g} {axis}lo {axis}hi" for k, axis in enumerate("xyz")
    ]
    if _is_triclinic(model):
        lines.append(f"{box[1, 0]:.15g} {box[2, 0]:.15g} {box[2, 1]:.15g} xy xz yz")
    return "\n".join(lines) + "\n"


def _is_triclinic(model: Model) -> bool:
    return model.box is not None and bool(np.any(np.tril(model.box, -1)))


# The script ---------------------------------------------------------------------------------------


def _script(model: Model, exclusions: Exclusions, points: int, units: LammpsUnits) -> str:
    lines = ["# Tables learned by openmm_diffsim. Run it by: lmp -in in.lammps"]
    lines += [f"# LEFT OUT: {what}" for what in model.left_out]
    lines += [
        "",
        f"units           {units.name}",
        "atom_style      molecular",
        f"boundary        {'p p p' if model.box is not None else 's s s'}",
        *(["box             tilt large"] if _is_triclinic(model) else []),
        "",
        *_styles(model, exclusions, points),
        "",
        "read_data       data.lammps",
        "",
        *_coefficients(model, exclusions),
        "",
        *_run(model, exclusions, units),
    ]
    return "\n".join(lines) + "\n"


def _styles(model: Model, exclusions: Exclusions, points: int) -> list[str]:
    table = f"table spline {_FINER * points}"
    silent = len(exclusions.silent_bonds)
    bonds = {
        (True, False): table,
        (True, True): f"hybrid {table} zero nocoeff",
        (False, True): "zero nocoeff",
    }.get((bool(len(model.tuples[2])), bool(silent)))
    weights = " ".join(f"{weight}.0" for weight in exclusions.weights)
    lines = [f"pair_style      {table}" if model.pairs else "pair_style      zero 1.0"]
    lines += [f"bond_style      {bonds}"] if bonds else []
    for size in (3, 4):
        if len(model.tuples[size]):
            lines.append(f"{KINDS[size]}_style".ljust(16) + table)
    return [*lines, f"special_bonds   lj/coul {weights}"]


def _coefficients(model: Model, exclusions: Exclusions) -> list[str]:
    if not model.pairs:
        return ["pair_coeff      * *", *_tuple_coefficients(model, exclusions)]
    pairs = [
        f"pair_coeff      {a + 1} {b + 1} pair.table {_pair_name(model, a, b)}"
        for a, b in _pairs_of_types(model)
    ]
    return [*pairs, *_tuple_coefficients(model, exclusions)]


def _tuple_coefficients(model: Model, exclusions: Exclusions) -> Iterator[str]:
    silent = bool(len(exclusions.silent_bonds))
    for size, kind in KINDS.items():
        curves = model.tuples[size].curves
        style = "table " if silent and kind == "bond" else ""
        for k in range(1, len(curves) + 1):
            name = f"{kind.upper()}_{k}"
            yield f"{kind}_coeff".ljust(16) + f"{k} {style}{kind}.table {name}"
    if silent:
        n = len(model.tuples[2].curves) + 1
        yield f"bond_coeff      {n} zero" if n > 1 else "bond_coeff      1"


def _run(model: Model, exclusions: Exclusions, units: LammpsUnits) -> Sequence[str]:
    kelvin = model.temperature * units.thermal
    exclude = ["neigh_modify    exclude molecule/intra all"] if exclusions.within_molecules else []
    start = (
        []
        if model.velocities.any()
        else [f"velocity        all create {kelvin:.10g} 20260101 dist gaussian"]
    )
    return [
        f"neighbor        {0.2 / units.length:.10g} bin",
        *exclude,
        f"timestep        {0.002 / units.time:.10g}",
        "thermo          100",
        "thermo_style    custom step temp pe ke etotal press",
        "thermo_modify   norm no",
        "",
        "run             0    # the energy of this configuration",
        "",
        *start,
        f"fix             nvt all nvt temp {kelvin:.10g} {kelvin:.10g} {0.2 / units.time:.10g}",
        "run             1000",
    ]
