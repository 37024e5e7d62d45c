"""Lennard-Jones parameters in tables by pair of types, as those of CHARMM with NBFIX."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import AttachError, PotentialError
from ...io.checksum import brief
from ...potentials.values import Values
from ...statistics.powers import UNIT
from ..adapters.pair_force import openmm_version
from . import tables
from .lennard_jones import site_values
from .power_features import PowerFeatures, power_sums
from .rules import Rule, arithmetic, geometric
from .selection import chosen_types, one_value, rounded
from .term import ForcePlace, FrameFeatures, Term

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SAME = 1e-6  # relative: how near a pair's numbers have to be to those of the combination rule
_RULE, _FIXED = -1, -2


@dataclass(frozen=True)
class Layout:
    """Of each row of a System's tables the row of those of the first System, [rows]."""

    first_row: IntArray


class PairTablesTerm(Term):
    """Lennard-Jones energies of types of particles, of a force with tables by pair of types.

    As ``LennardJonesTerm``, for the CustomNonbondedForce that has CHARMM's parameters,
    u = A(t_i, t_j) / r^12 - B(t_i, t_j) / r^6. Pairs of types follow a combination rule, Lorentz's
    or the geometric one, whichever more of them do at the start. Others (NBFIX) have a sigma and an
    epsilon of their own, which are learned if both types are, and stay else. 1-4 pairs are another
    force's, and stay.

    Use ``of`` to make one.
    """

    def __init__(
        self, name: str, place: ForcePlace, sigma: Values, epsilon: Values, start: Array
    ) -> None:
        super().__init__(name, place)
        self.sigma, self.epsilon = sigma, epsilon
        self.start = start
        self.rule = _rule_of(start)
        """sigma and epsilon of each pair of rows of the tables at the start, [rows, rows, 2]."""
        self.value_of_row = np.full(len(start), _FIXED)
        """Which of the values a row has; _FIXED: those of the start."""
        self.value_of_pair = np.full(start.shape[:2], _FIXED)
        """Of a pair of rows: its own, that of the _RULE, or _FIXED."""

    @classmethod
    def of(
        cls,
        system: openmm.System,
        atoms: Any = None,
        *,
        learn: tuple[str, ...] = ("sigma", "epsilon"),
        bounds: dict[str, tuple[float, float]] | None = None,
        types: Sequence[str] | None = None,
        force: Any = None,
        name: str = "pair_tables",
    ) -> PairTablesTerm:
        """From the tables of a System; options are those of ``LennardJonesTerm.of``.

        Raises
        ------
        PotentialError
            If a type is not one row of the tables, and all of that.
        AttachError
            If there is no such force.
        """
        place = ForcePlace.of(system, openmm.CustomNonbondedForce, force)
        found = tables.read(place.find(system))
        start = np.stack(found.sites(), axis=-1)
        rows = _rows_of(atoms, found.row_of, np.diagonal(start[..., 1]), types)
        owned = _own_pairs(list(rows.values()), start, _is_ruled(start, _rule_of(start)))
        names = list(rows)
        own = [f"{names[a]}-{names[b]}" for a, b in owned]
        where = [(row, row) for row in rows.values()]
        where += [(rows[names[a]], rows[names[b]]) for a, b in owned]
        numbers = [[start[a, b, k] for a, b in where] for k in (0, 1)]
        sigma, epsilon = site_values([*names, *own], numbers, learn, bounds)
        term = cls(name, place, sigma, epsilon, start)
        term._tell_values(where, len(names))
        term._warn(found.row_of)
        term.keep(system, Layout(np.arange(len(start))))
        return term

    def _tell_values(self, where: list[tuple[int, int]], n_types: int) -> None:
        """Which pairs of rows have which values."""
        for k, (a, _) in enumerate(where[:n_types]):
            self.value_of_row[a] = k
        learned = self.value_of_row >= 0
        ruled = _is_ruled(self.start, self.rule) & (learned[:, None] | learned)
        self.value_of_pair[ruled] = _RULE
        for k, (a, b) in enumerate(where):
            self.value_of_pair[a, b] = self.value_of_pair[b, a] = k

    def _warn(self, row_of: IntArray) -> None:
        """Of pairs that do not follow a learned type."""
        there = np.isin(np.arange(len(self.start)), row_of)
        learned = self.value_of_row >= 0
        stays = (learned[:, None] | learned) & (self.value_of_pair == _FIXED)
        stays &= (self.start[..., 1] > 0) & there & there[:, None]
        if stays.any():
            warnings.warn(
                f"{self.name}: {int(np.triu(stays).sum())} pairs of a learned type and another one "
                "have parameters of their own (NBFIX): they stay as they are; name both types to "
                "learn them",
                RuntimeWarning,
                stacklevel=4,
            )

    # Torch ----------------------------------------------------------------------------------------

    @property
    def pairs(self) -> IntArray:
        """Pairs of rows with learned energies, in the order of the coefficients, [pairs, 2]."""
        return np.argwhere(np.triu(self.value_of_pair != _FIXED))

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """One, of the pairs of rows."""
        return {"pairs": (len(self.pairs), 2)}

    def coefficients(self) -> Tensor:
        """c_12 and c_6 of each pair, as those of ``LennardJonesTerm``, flat, kJ/mol."""
        sigma, epsilon = self._of_pairs()
        s6 = (sigma / UNIT) ** 6
        return torch.stack([4 * epsilon * s6**2, 4 * epsilon * s6], dim=1).reshape(-1)

    def _of_pairs(self) -> tuple[Tensor, Tensor]:
        a, b = torch.from_numpy(self.pairs).T
        value = torch.from_numpy(self.value_of_pair)[a, b]
        sigma, epsilon = (self._of_rows(k) for k in (0, 1))
        ruled = self.rule(sigma[a], sigma[b]), torch.sqrt(epsilon[a] * epsilon[b])
        own = [v()[value.clamp(min=0)] for v in (self.sigma, self.epsilon)]
        both = zip(own, ruled, strict=True)
        sigmas, epsilons = (torch.where(value >= 0, one, rule) for one, rule in both)
        return sigmas, epsilons

    def _of_rows(self, k: int) -> Tensor:
        """sigma (0) or epsilon (1) of each row, [rows]."""
        value = torch.from_numpy(self.value_of_row)
        fixed = torch.from_numpy(np.diagonal(self.start[..., k]).copy())
        own = (self.sigma, self.epsilon)[k]()[value.clamp(min=0)]
        return torch.where(value >= 0, own, fixed)

    def form(self) -> dict[str, Any]:
        """Also the tables at the start, and the combination rule."""
        fixed = brief(rounded(self._fixed().reshape(-1, 2)))
        return super().form() | {"start": fixed, "rule": self.rule.__name__}

    def _fixed(self) -> Array:
        return np.where((self.value_of_pair == _FIXED)[..., None], self.start, 0.0)

    # OpenMM ---------------------------------------------------------------------------------------

    def frame_of(self, force: openmm.CustomNonbondedForce) -> Any:
        """Which particles have which rows, exclusions, and how it is cut off."""
        return [
            tables.read(force).row_of.tolist(),
            np.asarray(tables.exclusions(force)).tolist(),
            [force.getNonbondedMethod(), force.getUseSwitchingFunction()],
            [force.getCutoffDistance()._value, force.getSwitchingDistance()._value],
        ]

    def held(self, force: openmm.CustomNonbondedForce, layout: Layout) -> Array:
        """sigma and epsilon of all pairs of rows."""
        return np.stack(tables.read(force).sites(), axis=-1)

    def layout_like(self, system: openmm.System) -> Layout:
        """Its rows have the parameters that those of the first System had at the start."""
        theirs = rounded(np.stack(tables.read(self.place.find(system)).sites(), axis=-1))
        diagonal = np.diagonal(rounded(self.start)).T
        found = [np.flatnonzero((diagonal == row).all(axis=1)) for row in np.diagonal(theirs).T]
        unclear = [k for k, rows in enumerate(found) if len(rows) != 1]
        first = np.array([rows[0] if len(rows) else 0 for rows in found])
        own = rounded(self.start)[np.ix_(first, first)]
        if unclear or not np.array_equal(own, theirs):
            raise AttachError(
                f"{self.name}: the tables of this System are not those of the first one at the "
                f"start, or several of its types are alike: rows {unclear or 'of NBFIX'}"
            )
        return Layout(first)

    def write(self, force: openmm.CustomNonbondedForce, layout: Layout) -> None:
        """A and B of the pairs."""
        self._put(force, layout, [v.detach().numpy() for v in self._of_pairs()])

    def hide(self, force: openmm.CustomNonbondedForce, layout: Layout) -> None:
        """sigma and epsilon 1."""
        self._put(force, layout, [np.ones(len(self.pairs))] * 2)

    def _put(self, force: Any, layout: Layout, values: list[Array]) -> None:
        a, b = self.pairs.T
        every = self.start.copy()
        every[a, b] = every[b, a] = np.stack(values, axis=-1)
        sigma, epsilon = np.moveaxis(every[np.ix_(layout.first_row, layout.first_row)], -1, 0)
        tables.write(force, sigma, epsilon)

    def bring(self, force: Any, context: openmm.Context) -> None:
        """Before OpenMM 8.6.1 the CPU platform mixes up parameters beside a table: made anew."""
        force.updateParametersInContext(context)
        if openmm_version() < (8, 6, 1):
            context.reinitialize(preserveState=True)

    def features(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        """One pass over the pairs within the cutoff."""
        force = self.place.find(context.getSystem())
        row_of = layout.first_row[tables.read(force).row_of]
        pair_of = np.full(self.value_of_pair.shape, -1, dtype=np.int64)
        a, b = self.pairs.T
        pair_of[a, b] = pair_of[b, a] = np.arange(len(a))
        sums = power_sums(force, row_of, pair_of, tables.exclusions(force))
        tail = tables.tail(force, row_of, self.pairs)
        return PowerFeatures(sums, tail, bool(force.usesPeriodicBoundaryConditions()))


def _rows_of(
    atoms: Any, row_of: IntArray, epsilon: Array, types: Sequence[str] | None
) -> dict[str, int]:
    """The row of the tables of each type."""
    chosen = np.flatnonzero(epsilon[row_of] > 0) if atoms is None else atoms
    found = chosen_types(chosen, row_of[:, None].astype(np.float64), types)
    rows = one_value(found, row_of.astype(np.float64), "row of the tables").astype(np.int64)
    for (name, particles), row in zip(found.items(), rows.tolist(), strict=True):
        there = int(np.sum(row_of == row))
        if there != len(particles) or not epsilon[row] > 0:
            raise PotentialError(
                f"type {name!r}: expected all {there} particles of row {row} of the tables, with "
                f"an epsilon above zero, got {len(particles)} and {epsilon[row]:g}",
                got=len(particles),
                expected=there,
            )
    return dict(zip(found, rows.tolist(), strict=True))


def _own_pairs(rows: list[int], start: Array, ruled: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of types that do not follow the combination rule, and have an energy."""
    every = [(a, b) for b in range(len(rows)) for a in range(b)]
    free = [(a, b) for a, b in every if not ruled[rows[a], rows[b]]]
    return [(a, b) for a, b in free if start[rows[a], rows[b], 1] > 0]


def _rule_of(start: Array) -> Rule:
    """The one that most pairs follow; Lorentz's if that is not known."""
    return max(arithmetic, geometric, key=lambda rule: _is_ruled(start, rule).sum())


def _is_ruled(start: Array, rule: Rule) -> NDArray[np.bool_]:
    """Does each pair of rows follow the combination rule? [rows, rows]"""
    sigma, epsilon = np.diagonal(start)
    there = np.outer(epsilon, epsilon) > 0
    by = np.stack([rule(sigma[:, None], sigma), np.sqrt(np.outer(epsilon, epsilon))], axis=-1)
    same = np.isclose(start, by, rtol=_SAME, atol=0).all(axis=-1)
    return np.asarray(there & same)
