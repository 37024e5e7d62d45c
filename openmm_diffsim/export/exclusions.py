"""Excluded pairs as LAMMPS can say them: by how many bonds apart, by molecule, or by bonds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError
from .model import Model

IntArray = NDArray[np.int64]
Pairs = set[tuple[int, int]]

_FARTHEST = 3  # bonds apart


@dataclass(frozen=True)
class Exclusions:
    """What ``special_bonds`` and ``neigh_modify`` have to say, and bonds without energy."""

    weights: tuple[int, ...] = (1,) * _FARTHEST
    """Of pairs that are one, two and three bonds apart: 0 leaves them out."""
    within_molecules: bool = False
    """No pair of a molecule acts."""
    silent_bonds: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    """Bonds that do nothing but exclude, [bonds, 2]."""


def exclusions_of(model: Model) -> Exclusions:
    """How LAMMPS leaves out the same pairs, and no other.

    Raises
    ------
    ExportError
        If it cannot.
    """
    excluded: Pairs = {(a, b) for a, b in model.excluded.tolist()}
    shells = [_acting(model, shell) for shell in _shells(model.tuples[2].particles)]
    whole = [shell for shell in shells if shell and shell <= excluded]
    if set().union(*whole) == excluded and not any(s & excluded for s in shells if s not in whole):
        return Exclusions(tuple(int(shell not in whole) for shell in shells))
    if _are_all_of_molecules(model):
        return Exclusions(within_molecules=True)
    if shells[0] <= excluded:
        silent = np.array(sorted(excluded - shells[0]), dtype=np.int64)
        return Exclusions((0, 1, 1), silent_bonds=silent)
    a, b = min(shells[0] - excluded)
    raise ExportError(
        f"LAMMPS cannot say these exclusions: particles {a} and {b} are bonded and act on each "
        "other, while pairs are excluded that are not all of a kind (1-2, 1-3, 1-4, or within a "
        "molecule). Exclude bonded pairs, or export to GROMACS or HOOMD",
        got=(a, b),
    )


def _shells(bonds: IntArray) -> list[Pairs]:
    """Pairs that are one, two and three bonds apart by the shortest way."""
    near: defaultdict[int, set[int]] = defaultdict(set)
    for a, b in bonds.tolist():
        near[a].add(b)
        near[b].add(a)
    shells: list[Pairs] = [set() for _ in range(_FARTHEST)]
    for atom in list(near):
        known, front = {atom}, {atom}
        for shell in shells:
            front = set().union(*(near[k] for k in front)) - known
            known |= front
            shell.update((atom, other) for other in front if atom < other)
    return shells


def _acting(model: Model, pairs: Pairs) -> Pairs:
    acts = model.acts()
    return {(a, b) for a, b in pairs if acts[model.types[a], model.types[b]]}


def _are_all_of_molecules(model: Model) -> bool:
    """Are all acting pairs within molecules excluded? Those that are excluded are within one."""
    counts = np.zeros((model.molecules.max() + 1, len(model.names)), dtype=np.int64)
    np.add.at(counts, (model.molecules, model.types), 1)
    acts = model.acts()
    ordered = np.einsum("ma,ab,mb->", counts, acts.astype(np.int64), counts)
    itself = np.sum(np.diagonal(acts)[model.types])
    return bool(len(model.excluded) == (ordered - itself) // 2)
