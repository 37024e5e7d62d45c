"""Charges that have to add up: which of them are independent, and what the others are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import AttachError, PotentialError

Array = NDArray[np.float64]

_ADDS_UP = 1e-6  # e, as charges are rounded in a file
_ZERO = 1e-9  # of what is a sum of whole numbers, and e of a charge


@dataclass(frozen=True)
class Directions:
    """Charges q = q_0 + N z of types, where z are those of the free types themselves.

    They keep the sums A q, with A how many particles of each type every kind of molecule has.
    """

    names: tuple[str, ...]  # of the types
    free: list[int]  # which types are free
    along: Array  # N, [types, free]
    at_zero: Array  # q_0, [types], e

    @classmethod
    def of(cls, names: Sequence[str], start: Array, counts: Array) -> Directions:
        """Of types with charges ``start`` [types] and A ``counts`` [kinds of molecules, types].

        The first types that can be are those that follow.
        """
        reduced, pivots = _reduced(counts)
        free = [k for k in range(len(names)) if k not in pivots]
        along = np.zeros((len(names), len(free)))
        along[free, range(len(free))] = 1.0
        along[pivots] = -reduced[: len(pivots)][:, free]
        left = start - along @ start[free]
        return cls(tuple(names), free, along, np.where(np.abs(left) < _ZERO, 0.0, left))

    @property
    def free_names(self) -> list[str]:
        """Of the free types."""
        return [self.names[k] for k in self.free]

    def charges(self, z: Array) -> Array:
        """q, [types], e."""
        return np.asarray(self.at_zero + self.along @ z)

    def free_at(self, types: Sequence[int], q: Array, z: Array) -> Array:
        """z where these types have charges q; what has nothing to do with them is as in ``z``.

        Raises
        ------
        PotentialError
            If molecules would change their charge, or the charges of the others cannot be told.
        """
        rows, wanted = self.along[types], q - self.at_zero[types]
        touched = np.flatnonzero(rows.any(axis=0))
        found, _, rank, _ = np.linalg.lstsq(rows[:, touched], wanted, rcond=None)
        given = {self.names[t]: float(value) for t, value in zip(types, q, strict=True)}
        if not np.abs(rows[:, touched] @ found - wanted).max() <= _ADDS_UP:
            raise PotentialError(
                f"charges: got {given}, with which molecules do not keep their total charge; "
                f"expected numbers that add up, or those of {self.free_names} alone",
                got=given,
            )
        if rank < len(touched):
            raise PotentialError(
                f"charges: got {given}, which does not say what the others are; give those of "
                f"{self.free_names}",
                got=given,
            )
        z = z.copy()
        z[touched] = found
        return z

    def check(self, counts: Array) -> None:
        """AttachError where molecules of another System do not keep their charge."""
        if self.charged(counts):
            raise AttachError(
                f"molecules of this System have other numbers of {list(self.names)} than those of "
                "the first one, and would change their total charge; pass neutral=False"
            )

    def charged(self, counts: Array) -> bool:
        """Would any of these molecules change its charge?"""
        return bool(np.abs(counts @ self.along).max(initial=0.0) > _ZERO)

    def form(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "names": list(self.names),
            "along": self.along.tolist(),
            "at zero": np.round(self.at_zero, 9).tolist(),
        }


def _reduced(counts: Array) -> tuple[Array, list[int]]:
    """Reduced row echelon form, and the columns of its pivots."""
    a, pivots = counts.astype(np.float64).copy(), list[int]()
    for column in range(a.shape[1]):
        row = len(pivots)
        if row == len(a):
            break
        best = row + int(np.argmax(np.abs(a[row:, column])))
        if abs(a[best, column]) < _ZERO:
            continue
        a[[row, best]] = a[[best, row]]
        a[row] /= a[row, column]
        others = np.arange(len(a)) != row
        a[others] -= np.outer(a[others, column], a[row])
        pivots.append(column)
    return a, pivots
