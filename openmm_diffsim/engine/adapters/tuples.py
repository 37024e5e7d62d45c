"""Which bonds, angles and dihedral angles a bonded potential acts on."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from ...errors import AttachError
from ...limits import shown
from ...potentials import AttachOptions, BondedSpline
from ...statistics.molecules import chains_of
from .bonds import chemical_bonds, constrained_pairs
from .system import type_of_particle

IntArray = NDArray[np.int64]


def tuples_for(
    system: openmm.System, options: AttachOptions, potential: BondedSpline
) -> tuple[IntArray, IntArray]:
    """The tuples that were asked for, [tuples, n], or all of the System, and the type of each.

    Raises
    ------
    AttachError
        If there is none, one is no tuple of particles, comes twice, or is a constrained bond, or
        the types do not fit.
    """
    name, size = potential.tuples, potential.n_particles
    given = options.tuples
    if given is None or hasattr(given, "bonds"):
        found = _all_chains(system, options, potential)
    else:
        found = _checked(name, given, size, system.getNumParticles())
    if size == 2:
        _check_constraints(system, found)
    return found, _checked_types(options.tuple_types, len(found), potential)


def _all_chains(system: openmm.System, options: AttachOptions, potential: BondedSpline) -> IntArray:
    """All between the bonds of a Topology, or of the System."""
    name, size = potential.tuples, potential.n_particles
    bonds = (
        chemical_bonds(system, constrained=size > 2)
        if options.tuples is None
        else _bonds_of_topology(options.tuples)
    )
    type_of = type_of_particle(1, system.getNumParticles(), options.atoms, None)
    if len(bonds) and bonds.max() >= len(type_of):
        raise AttachError(
            f"{name}: the Topology has a bond of atom {bonds.max()}, but the System only "
            f"{len(type_of)} particles: is it that of this System?",
            got=int(bonds.max()),
        )
    found = chains_of(bonds[(type_of[bonds] >= 0).all(axis=1)], size)
    if not len(found):
        raise AttachError(
            f"{potential.name}: no bonds are known that make {name}; give them, "
            f"{name}=[{tuple(range(size))}, ...], or a Topology with bonds"
        )
    return found


def _bonds_of_topology(topology: Any) -> IntArray:
    bonds = topology.bonds() if callable(topology.bonds) else topology.bonds
    return np.array([(bond[0].index, bond[1].index) for bond in bonds], dtype=np.int64).reshape(
        -1, 2
    )


def _checked(name: str, given: Any, size: int, n: int) -> IntArray:
    try:
        table = np.array(given)
    except ValueError:
        table = np.array("of different lengths")
    if table.ndim != 2 or table.shape[1] != size or table.dtype.kind not in "iu" or not len(table):
        raise AttachError(
            f"{name}: got {shown(given)}, expected a list of {size} particles each, as "
            f"[{tuple(range(size))}]",
            got=given,
        )
    table = table.astype(np.int64)
    ordered = np.sort(table, axis=1)
    bad = (ordered[:, 0] < 0) | (ordered[:, -1] >= n) | (np.diff(ordered, axis=1) == 0).any(axis=1)
    if bad.any():
        wrong = tuple(table[np.argmax(bad)].tolist())
        raise AttachError(
            f"{name}: got {wrong}, expected {size} different particles of 0 .. {n - 1}", got=wrong
        )
    backward = table[:, 0] > table[:, -1]
    forward = np.where(backward[:, None], table[:, ::-1], table)
    rows, count = np.unique(forward, axis=0, return_counts=True)
    if count.max() > 1:
        twice = tuple(rows[np.argmax(count)].tolist())
        raise AttachError(f"{name}: {twice} is given twice, expected each once", got=twice)
    return table


def _check_constraints(system: openmm.System, bonds: IntArray) -> None:
    fixed = constrained_pairs(system)
    wrong = next((p for p in map(tuple, np.sort(bonds, axis=1).tolist()) if p in fixed), None)
    if wrong:
        raise AttachError(
            f"bonds: {wrong} has a constraint, so its length is fixed and no potential of it can "
            "be learned: leave it out, or make the System without constraints",
            got=wrong,
        )


def _checked_types(types: ArrayLike | None, n: int, potential: BondedSpline) -> IntArray:
    last = potential.n_types - 1
    if types is None and last:
        raise AttachError(
            f"{potential.name} has {potential.n_types} types: attach it by itself, with "
            f"types= for each of its {potential.tuples}"
        )
    found = np.zeros(n, dtype=np.int64) if types is None else np.asarray(types)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise AttachError(
            f"types: expected a whole number for each of {n} {potential.tuples}, got "
            f"{shown(types)}",
            expected=n,
            got=types,
        )
    if n and (found.min() < 0 or found.max() > last):
        raise AttachError(f"types: expected 0 .. {last}, got {np.unique(found)}")
    return found.astype(np.int64)
