"""Learned tables for GROMACS: bonded ones for all versions, of pairs for those before 2020."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from os import PathLike
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ..engine.statepoint import StatePoint
from ..errors import ExportError
from ..limits import Limit, checked_whole
from .model import KINDS, Model, TupleCurve, model_of
from .written import Exported, rows, warn_of, write

Array = NDArray[np.float64]

_POINTS = Limit(100, 200_000, "rows of a table")
_BEYOND = 1.0  # nm: how far a table of pairs goes on behind its cutoff
_SECTIONS = {"bond": "bonds", "angle": "angles", "dihedral": "dihedrals"}
_LIMITS = {"angle": (0.0, 180.0), "dihedral": (-180.0, 180.0)}


def gromacs(
    source: StatePoint | openmm.System,
    folder: str | PathLike[str],
    *,
    state: openmm.State | None = None,
    temperature: Any = None,
    points: int = 4001,
) -> Exported:
    """Write what is learned as GROMACS reads it.

    topol.top, conf.gro, and tables of bonds (table_b0.xvg, ...), angles (table_a0.xvg, ...) and
    dihedral angles (table_d0.xvg, ...), by the functions of type 8, which all versions have.
    bonded.mdp is for these alone. Tables of pairs (table.xvg, or table_A_B.xvg with index.ndx) are
    read only by versions before 2020, with the group scheme of pairs.mdp: newer ones have no
    tables of pairs.

    Parameters
    ----------
    source : StatePoint, or a System with ``state`` and ``temperature``
    folder : where to; files that this did not write are not replaced
    points : rows of a table

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
    return warn_of(write_gromacs(model_of(source, state, temperature), folder, points))


def write_gromacs(model: Model, folder: str | PathLike[str], points: int = 4001) -> Exported:
    """As ``gromacs``, of a ``Model``."""
    checked_whole("points", points, ExportError, _POINTS)
    texts = {"topol.top": _topology(model), "conf.gro": _configuration(model)}
    left_out = list(model.left_out)
    tables = dict(_tuple_tables(model, points))
    if model.pairs:
        texts |= {"pairs.mdp": _settings(model, _pair_settings(model)), "index.ndx": _groups(model)}
        left_out.append(
            "tables of pairs, for GROMACS 2020 and newer, which have none: use 2019 with "
            "pairs.mdp, or LAMMPS or HOOMD"
        )
    if tables or not model.pairs:
        texts["bonded.mdp"] = _settings(model, _bonded_settings(model))
    texts |= dict(_pair_tables(model, points)) | tables
    return write("gromacs", folder, texts, left_out)


# Tables -------------------------------------------------------------------------------------------


def _pair_tables(model: Model, points: int) -> Iterator[tuple[str, str]]:
    """By the names of the files: r, and twice nothing, and u as the term of 1/r^12."""
    if not model.pairs:
        return
    r = np.linspace(0, model.cutoff + _BEYOND, points)
    nothing = np.zeros(points)
    only = len(model.names) == 1
    if not only:
        yield "table.xvg", rows(r, *[nothing] * 6)
    for (a, b), curve in model.pairs.items():
        u, slope = curve.values(r)
        name = "table.xvg" if only else f"table_{model.names[a]}_{model.names[b]}.xvg"
        yield (
            name,
            "# r (nm), nothing, and u, -du/dr (kJ/mol, nm)\n" + rows(r, *[nothing] * 4, u, -slope),
        )


def _tuple_tables(model: Model, points: int) -> Iterator[tuple[str, str]]:
    for size, kind in KINDS.items():
        for k, curve in enumerate(model.tuples[size].curves):
            yield f"table_{kind[0]}{k}.xvg", _tuple_table(kind, curve, points)


def _tuple_table(kind: str, curve: TupleCurve, points: int) -> str:
    """Of q in nm or degrees; of bonds from 0 on."""
    scale = 1.0 if kind == "bond" else np.pi / 180
    low, high = _LIMITS.get(kind, (0.0, curve.wide_range[1]))
    q = np.linspace(low, high, points)
    u, slope = curve.values(q * scale)
    unit = "nm" if kind == "bond" else "degrees"
    return f"# {curve.name}: q ({unit}), u, -du/dq (kJ/mol)\n" + rows(q, u, -slope * scale)


# Topology -----------------------------------------------------------------------------------------


def _topology(model: Model) -> str:
    molecules = list(_molecules(model))
    kinds = list(dict.fromkeys(text for text, _ in molecules))
    lines = [
        "; learned by openmm_diffsim",
        *(f"; LEFT OUT: {what}" for what in model.left_out),
        "",
        "[ defaults ]",
        "; u of pairs is the term C12 of their table",
        "1 1 no 1.0 1.0",
        "",
        "[ atomtypes ]",
        "#ifdef PAIR_TABLES",
        *_atom_types(model, 1.0),
        "#else",
        *_atom_types(model, 0.0),
        "#endif",
    ]
    for k, text in enumerate(kinds):
        lines += ["", "[ moleculetype ]", f"M{k} 0", "", text.rstrip()]
    lines += ["", "[ system ]", "learned by openmm_diffsim", "", "[ molecules ]"]
    groups = groupby(molecules, key=lambda molecule: molecule[0])
    for text, group in groups:
        lines.append(f"M{kinds.index(text)} {sum(count for _, count in group)}")
    return "\n".join(lines) + "\n"


def _atom_types(model: Model, c12: float) -> list[str]:
    pairs = zip(model.names, model.type_masses, strict=True)
    return [f"{name} {mass:.15g} 0.0 A 0.0 {c12}" for name, mass in pairs]


def _molecules(model: Model) -> Iterator[tuple[str, int]]:
    """What stands below each [ moleculetype ], and how many follow; one of all particles where
    those of a molecule do not follow each other."""
    of = model.molecules
    if np.any(np.diff(of) < 0):
        of = np.zeros_like(of)
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    ends = np.append(starts[1:], len(of))
    inside = [_grouped(model.tuples[size].particles, of) for size in KINDS]
    excluded = _grouped(model.excluded, of)
    for molecule, (start, end) in enumerate(zip(starts, ends, strict=True)):
        sections = [
            _tuple_section(model, size, rows_of.get(molecule, []), int(start))
            for size, rows_of in zip(KINDS, inside, strict=True)
        ]
        own = model.excluded[excluded.get(molecule, [])] - start + 1
        if len(own):
            sections.append("[ exclusions ]\n" + rows(*own.T))
        text = _atoms(model, int(start), int(end)) + "".join(
            "\n" + part for part in sections if part
        )
        yield text, 1


def _grouped(tuples: NDArray[np.int64], of: NDArray[np.int64]) -> dict[int, list[int]]:
    """Rows of tuples by the molecule that they are in."""
    found: dict[int, list[int]] = {}
    for row, molecule in enumerate(of[tuples[:, 0]].tolist()):
        found.setdefault(molecule, []).append(row)
    return found


def _atoms(model: Model, start: int, end: int) -> str:
    numbers = np.arange(1, end - start + 1)
    names = [model.names[k] for k in model.types[start:end]]
    ones = np.ones(len(numbers), dtype=int)
    columns = (numbers, names, ones, ["MOL"] * len(names), names, numbers)
    return "[ atoms ]\n" + rows(*columns, np.zeros(len(names)), model.masses[start:end])


def _tuple_section(model: Model, size: int, chosen: list[int], start: int) -> str:
    """Function type 8, with the number of a table and 1.0 to multiply it by."""
    if not chosen:
        return ""
    group = model.tuples[size]
    particles = group.particles[chosen] - start + 1
    eights = np.full(len(chosen), 8)
    columns = (*particles.T, eights, group.types[chosen], np.ones(len(chosen)))
    return f"[ {_SECTIONS[KINDS[size]]} ]\n" + rows(*columns)


def _configuration(model: Model) -> str:
    """With nine decimals, which say how wide the columns are."""
    lines = ["learned by openmm_diffsim", f"{len(model.masses)}"]
    velocities = model.velocities if model.velocities.any() else np.zeros((len(model.masses), 0))
    for k, (x, v) in enumerate(zip(model.positions, velocities, strict=True)):
        residue = (model.molecules[k] + 1) % 100_000
        head = f"{residue:5d}{'MOL':<5}{model.names[model.types[k]]:>5}{(k + 1) % 100_000:5d}"
        lines.append(head + "".join(f"{c:14.9f}" for c in x) + "".join(f"{c:15.10f}" for c in v))
    box = np.zeros((3, 3)) if model.box is None else model.box
    sides = [*np.diagonal(box)]
    if np.any(np.tril(box, -1)):
        sides += [0, 0, box[1, 0], 0, box[2, 0], box[2, 1]]
    return "\n".join([*lines, " ".join(f"{side:.9f}" for side in sides)]) + "\n"


def _groups(model: Model) -> str:
    """index.ndx: all particles, and those of each type."""
    chosen = {"System": np.arange(len(model.types))}
    chosen |= {name: np.flatnonzero(model.types == k) for k, name in enumerate(model.names)}
    return "".join(
        f"[ {name} ]\n" + "".join(f"{atom + 1}\n" for atom in atoms)
        for name, atoms in chosen.items()
    )


# Settings -----------------------------------------------------------------------------------------


def _settings(model: Model, own: Sequence[str]) -> str:
    temperature = f"{model.temperature:.10g}"
    common = [
        "integrator    = sd",
        "dt            = 0.002",
        "nsteps        = 1000",
        "nstlog        = 100",
        "nstenergy     = 100",
        "tc-grps       = System",
        "tau-t         = 1.0",
        f"ref-t         = {temperature}",
        f"gen-vel       = {'no' if model.velocities.any() else 'yes'}",
        f"gen-temp      = {temperature}",
        f"pbc           = {'no' if model.box is None else 'xyz'}",
        "comm-mode     = linear",
    ]
    return "\n".join([*own, *common]) + "\n"


def _pair_settings(model: Model) -> list[str]:
    cutoff = f"{model.cutoff:.10g}"
    lines = [
        "; GROMACS 2019 or older, with tables of pairs:",
        "; gmx grompp -f pairs.mdp -n index.ndx && gmx mdrun -table table.xvg"
        + _tables_option(model),
        "define        = -DPAIR_TABLES",
        "cutoff-scheme = group",
        "coulombtype   = cut-off",
        "vdwtype       = user",
        *(f"{name:<14}= {cutoff}" for name in ("rlist", "rcoulomb", "rvdw")),
        f"table-extension = {_BEYOND}",
    ]
    if len(model.names) == 1:
        return lines
    pairs = "  ".join(f"{model.names[a]} {model.names[b]}" for a, b in model.pairs)
    groups = " ".join(model.names)
    return [*lines, f"energygrps    = {groups}", f"energygrp-table = {pairs}"]


def _bonded_settings(model: Model) -> list[str]:
    """A short cutoff, of pairs that do nothing."""
    side = 1.0 if model.box is None else float(np.diagonal(model.box).min())
    cutoff = f"{min(0.9, 0.4 * side):.10g}"
    return [
        "; bonds, angles and dihedral angles alone, without what acts between pairs:",
        "; gmx grompp -f bonded.mdp",
        "; gmx mdrun" + _tables_option(model),
        "cutoff-scheme = Verlet",
        "verlet-buffer-tolerance = -1",
        "coulombtype   = cut-off",
        "vdwtype       = cut-off",
        *(f"{name:<14}= {cutoff}" for name in ("rlist", "rcoulomb", "rvdw")),
    ]


def _tables_option(model: Model) -> str:
    names = [
        f"table_{kind[0]}{k}.xvg"
        for size, kind in KINDS.items()
        for k in range(len(model.tuples[size].curves))
    ]
    return f" -tableb {' '.join(names)}" if names else ""
