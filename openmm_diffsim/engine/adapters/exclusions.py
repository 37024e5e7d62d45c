"""Which pairs of particles a pair potential leaves out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from ...limits import checked_whole
from ...potentials import AttachOptions
from ...statistics.molecules import pairs_within, parts_of
from .bonds import Bonds, bonds_of
from .pair_force import force_exclusions, pair_force

IntArray = NDArray[np.int64]


def exclusions_for(
    system: openmm.System, options: AttachOptions, type_of: IntArray, name: str
) -> IntArray:
    """Pairs [exclusions, 2] that are given, or so many bonds apart, or the System's own.

    Those of the System's nonbonded forces are taken where no option says otherwise. Bonded pairs
    that then interact are warned of, and such as may be bonded.

    Raises
    ------
    AttachError
        If the options contradict each other or the System's other nonbonded forces, are no pairs
        of particles, or count bonds where no particle that interacts has one.
    """
    n = system.getNumParticles()
    if options.exclusions is not None and options.exclude_bonds is not None:
        raise AttachError(
            "exclusions: got pairs and exclude_bonds as well, expected one of the two: pairs, or "
            "how many bonds apart those are that do not interact"
        )
    bonds = bonds_of(system)
    present = _of_nonbonded_forces(system)
    wanted = present or []
    if options.exclusions is not None:
        wanted = _sorted_pairs(options.exclusions, n)
    elif options.exclude_bonds is not None:
        most = checked_whole("exclude_bonds", options.exclude_bonds, AttachError)
        if most and not (type_of[bonds.pairs] >= 0).any():
            raise AttachError(_NO_BOND.format(name, most, int((type_of >= 0).sum())), got=most)
        wanted = _sorted_pairs(pairs_within(bonds.pairs, n, most), n)
    else:
        _warn_of_bonded(bonds, wanted, type_of, name)
    if options.exclusions is None and options.exclude_bonds != 0:
        _warn_of_joint(bonds, wanted, type_of, name)
    if present is not None and wanted != present:
        got = "exclusions" if options.exclude_bonds is None else "exclude_bonds"
        raise AttachError(
            f"{got}: got {len(wanted)} pairs, but the System's other nonbonded force has "
            f"{len(present)} that differ, and OpenMM wants them to be the same; leave {got} "
            "out to take over those"
        )
    return np.array(wanted, dtype=np.int64).reshape(-1, 2)


def _of_nonbonded_forces(system: openmm.System) -> list[tuple[int, int]] | None:
    """Those that all nonbonded forces of a System have, of the last; None without any."""
    found = None
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            found = [force.getExceptionParameters(i)[:2] for i in range(force.getNumExceptions())]
        elif (pair := pair_force(force)) is not None:
            found = force_exclusions(pair).tolist()
    return None if found is None else _sorted_pairs(found, system.getNumParticles())


def _sorted_pairs(pairs: Iterable[Any], n: int) -> list[tuple[int, int]]:
    """Each pair once, the smaller index first, in rising order."""
    table = np.array([tuple(pair) for pair in pairs]).reshape(-1, 2)
    if table.size and table.dtype.kind not in "iu":
        raise AttachError(f"exclusions: expected pairs of whole numbers, got {table.tolist()[:3]}")
    table = np.sort(table.astype(np.int64), axis=1)
    bad = (table[:, 0] < 0) | (table[:, 1] >= n) | (table[:, 0] == table[:, 1])
    if bad.any():
        a, b = table[np.argmax(bad)]
        raise AttachError(f"exclusions: ({a}, {b}) is not a pair of particles 0 .. {n - 1}")
    return [(int(a), int(b)) for a, b in np.unique(table, axis=0)]


_NO_BOND = (
    "{}: exclude_bonds: got {}, but no bond is known of any of the {} particles chosen, so none "
    "can be counted; bonds are those of a HarmonicBondForce, CustomBondForce, DrudeForce, a "
    "CustomCompoundBondForce of two particles, constraints, and virtual sites; give the pairs "
    "themselves, exclusions=[(0, 1), ...], or leave exclude_bonds out where nothing is bonded"
)


def _warn_of_bonded(
    bonds: Bonds, excluded: list[tuple[int, int]], type_of: IntArray, name: str
) -> None:
    """Say so where bonded particles interact through the potential too."""
    left = _left(bonds.pairs, excluded, type_of)
    if left:
        a, b = left[0]
        warnings.warn(
            f"{name}: bonded pairs interact through it too ({len(left)} in all, such as ({a}, "
            f"{b})), as no nonbonded force of the System excludes them; exclude_bonds=1 leaves out "
            "1-2 pairs, 2 also 1-3, 3 also 1-4, and 0 says that none is to be left out",
            RuntimeWarning,
            stacklevel=6,
        )


def _warn_of_joint(
    bonds: Bonds, excluded: list[tuple[int, int]], type_of: IntArray, name: str
) -> None:
    """Say so where particles interact through the potential that may be bonded, for all we know."""
    part_of = parts_of(bonds.pairs, len(type_of))
    joint = bonds.joint.pairs
    loose = joint[part_of[joint[:, 0]] != part_of[joint[:, 1]]]
    left = _left(loose, excluded, type_of)
    if left:
        a, b = left[0]
        warnings.warn(
            f"{name}: particles that an angle, a torsion or a CustomCompoundBondForce joins, and "
            f"no bond, interact through it too ({len(left)} such pairs, the first ({a}, {b})); "
            "exclusions=[(0, 1), ...] says which pairs are left out, and [] that none is",
            RuntimeWarning,
            stacklevel=6,
        )


def _left(
    pairs: IntArray, excluded: list[tuple[int, int]], type_of: IntArray
) -> list[tuple[int, int]]:
    """Those that the potential acts between, each once, in rising order."""
    both = np.sort(pairs[(type_of[pairs] >= 0).all(axis=1)], axis=1)
    return sorted(set(map(tuple, both.tolist())) - set(excluded))
