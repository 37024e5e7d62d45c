"""Particles that the learned pair potentials do not tell apart, and what acts between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..observables import Observable
from ..potentials import n_pairs_of_types, pair_index
from .theory.liquid import Interaction

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Species:
    """Particles on which all pair potentials act alike are one species.

    Parameters
    ----------
    state_point : StatePoint

    Attributes
    ----------
    of_particle : int [particles], -1 for those that no pair potential acts on
    members : of each species, the indices of its particles
    """

    def __init__(self, state_point: Any) -> None:
        self._pairs = state_point.potential.pairs()
        self._types = state_point.pair_types()
        self.of_particle = _species(self._types, state_point.n_particles)
        self.members = [
            np.flatnonzero(self.of_particle == s) for s in range(self.of_particle.max() + 1)
        ]

    @property
    def number(self) -> Array:
        """Particles of each, [species]."""
        return np.array([float(len(some)) for some in self.members])

    @cached_property
    def interactions(self) -> list[Interaction]:
        """What each pair potential does between each pair of species."""
        representative = [some[0] for some in self.members]
        rows, columns = np.triu_indices(len(representative))
        found = []
        for (_, pair), types in zip(self._pairs, self._types, strict=True):
            of_species = types[representative]
            a, b = of_species[rows], of_species[columns]
            index = pair_index(pair.n_types)[a, b]
            n_rows = n_pairs_of_types(pair.n_types)
            found.append(Interaction(pair.basis, np.where((a < 0) | (b < 0), -1, index), n_rows))
        return found

    def shares(self, observable: Observable) -> Array | None:
        """Share of each pair of species in the pairs that it counts; None if others count."""
        counted = observable.counted_pairs(self.of_particle)
        return None if counted is None else counted.shares

    def pair_of(self, observable: Observable) -> tuple[int, int] | None:
        """Which of the ``pairs``, and which of its pairs of types, a g(r) is of alone, or None."""
        shares = self.shares(observable)
        if shares is None or shares.max() < 1 - 1e-9:
            return None
        species = int(shares.argmax())
        acting = [(k, int(i.row_of_pair[species])) for k, i in enumerate(self.interactions)]
        acting = [(k, row) for k, row in acting if row >= 0]
        return acting[0] if len(acting) == 1 else None


def _species(types: Sequence[IntArray], n_particles: int) -> IntArray:
    """A number for particles whose types are the same in all potentials, -1 for those in none."""
    if not types:
        return np.full(n_particles, -1, dtype=np.int64)
    kinds, species = np.unique(np.stack(types, axis=1), axis=0, return_inverse=True)
    present = (kinds >= 0).any(axis=1)
    number = np.where(present, np.cumsum(present) - 1, -1)
    return np.asarray(number[species.reshape(-1)], dtype=np.int64)
