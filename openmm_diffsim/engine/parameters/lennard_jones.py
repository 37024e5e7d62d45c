"""Sigma and epsilon of particles in a NonbondedForce, or in a custom force that has them."""

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
from ...potentials.values import Values
from ...statistics.polynomials import monomials_of
from ...statistics.powers import UNIT, ListedPowers
from . import nonbonded
from .custom_sites import CustomSites
from .mesh import mesh_features
from .nonbonded import Nonbonded
from .power_features import Joined, PowerFeatures, power_sums
from .product_features import MOST_DIRECTIONS
from .rules import Rule
from .selection import Kinds, check_options, chosen_types, one_value
from .sites import Sites
from .term import ForcePlace, FrameFeatures, Term, forces_of, is_meant

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SAME = 1e-4  # relative: how near an exception's sigma has to be to that of the combination rule
WEIGHTS = {"sigma": 0.03, "epsilon": 0.3}
"""How far the parameters may be from those of the start, as ratios."""
KINDS = {"sigma": "length", "epsilon": "energy"}


@dataclass(frozen=True)
class Following:
    """Exceptions whose sigma and epsilon follow those of their particles.

    sigma = ratio (sigma_i + sigma_j) / 2 and epsilon = scale (epsilon_i epsilon_j)^(1/2).
    """

    index: IntArray  # [exceptions], in the force
    pairs: IntArray  # [exceptions, 2], particles
    ratio: Array  # [exceptions]
    scale: Array  # [exceptions]


@dataclass(frozen=True)
class Layout:
    """Where the types are in a System."""

    type_of: IntArray  # [particles], -1 for one whose parameters stay
    class_of: IntArray  # [particles], of ``LennardJonesTerm.classes``; -1: epsilon is zero
    base_of: IntArray  # the same without the shifts of offsets, which exceptions do not have
    following: Following
    fixed: Array  # [particles, 2], sigma and epsilon without shifts
    defaults: dict[str, float]  # global parameters of offsets, which have to stay
    has_mesh: bool  # LJPME


class LennardJonesTerm(Term):
    """Lennard-Jones energies of some types of particles, with each other and with all others.

        U = sum_ab [c_ab12 S_ab12 + c_ab6 S_ab6],   c_ab12 = 4 epsilon_ab (sigma_ab / 0.3 nm)^12,
        S_ab12 = sum_ij w(r) (0.3 nm / r)^12,       c_ab6 = 4 epsilon_ab (sigma_ab / 0.3 nm)^6,

    S_ab6 likewise with a minus sign, over the pairs of each two classes a, b of particles with
    the Force's combination rule, switching function w and dispersion correction. With LJPME, what
    its mesh adds is a polynomial of second degree in epsilon^(1/2) sigma^3, see ``Mesh``. Classes
    are the types that are learned and, of all other particles, those of equal parameters. An
    exception counts too where its sigma is that of the combination rule at the start, with its own
    scale.

    Use ``of`` to make one.
    """

    def __init__(self, name: str, sites: Sites, sigma: Values, epsilon: Values) -> None:
        super().__init__(name, sites.place)
        self.sites = sites
        self.sigma, self.epsilon = sigma, epsilon
        self._kinds: Kinds | None = None
        self._names = sigma.names
        self.classes: list[tuple[int, float, float]] = []
        """Of each class its type and what is added to that, or -1 and its sigma and epsilon."""

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
        name: str = "lennard_jones",
    ) -> LennardJonesTerm:
        """From the parameters of a System.

        Parameters
        ----------
        system : openmm.System
        atoms : mapping of names to particles, or sequence of int, optional
            Those of one name are one type, with one sigma and epsilon. Without names, particles
            that have the same at the start are one type. Default: all particles whose epsilon is
            not zero.
        types : sequence of str, optional
            Of each particle of the System, such as ``atom_types`` gives. Particles of one of these
            are then one type, and ``atoms`` may be names of them.
        learn : tuple of "sigma", "epsilon"
            The other one stays.
        bounds : dict, optional
            Of "sigma" (nm) or "epsilon" (kJ/mol), a least and a largest value.
        force : str or openmm.Force, optional
            Which one, where there are several. Default: the NonbondedForce, or where that has
            none the CustomNonbondedForce with two numbers of each particle that are Lennard-Jones
            parameters, of either combination rule: OPLS as GROMACS's files have it. A
            CustomBondForce with such numbers has its 1-4 pairs.
        name : str
            Of the term.

        Raises
        ------
        PotentialError
            If a type has several values at the start, or one that is not positive; if ``atoms``
            or options are not what they should be.
        AttachError
            If there is no such force, or it does what is not known here.
        """
        sites = _sites_of(system, force)
        table = sites.read(system)
        chosen = np.flatnonzero(table.particles[:, 2] > 0) if atoms is None else atoms
        found = chosen_types(chosen, table.particles[:, 1:], types)
        start = [one_value(found, table.particles[:, k], what) for k, what in enumerate(WEIGHTS, 1)]
        term = cls(name, sites, *site_values(list(found), start, learn, bounds))
        term._kinds = Kinds(system, found, table.particles)
        term.keep(system, term._layout(system, found))
        return term

    # Torch ----------------------------------------------------------------------------------------

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of classes, at least one of them learned, in the order of the coefficients."""
        own = [c[0] for c in self.classes]
        every = [(a, b) for b in range(len(own)) for a in range(b + 1)]
        return [(a, b) for a, b in every if own[a] >= 0 or own[b] >= 0]

    @property
    def learned(self) -> IntArray:
        """Which classes are of a type."""
        return np.flatnonzero([kind >= 0 for kind, *_ in self.classes])

    @property
    def has_mesh(self) -> bool:
        """Is there LJPME, in any System?"""
        return any(layout.has_mesh for layout in self.layouts.values())

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """That of the pairs of classes, and of the mesh where there is one."""
        n = len(self.learned)
        mesh: dict[str, tuple[int, ...]] = {"mesh": (n + n * (n + 1) // 2,)}
        return {"pairs": (len(self.pairs), 2)} | (mesh if self.has_mesh else {})

    def coefficients(self) -> Tensor:
        """c_ab12 and c_ab6 of each pair, flat, kJ/mol."""
        a, b = torch.tensor(self.pairs).T
        sigma, epsilon = self._of_classes()
        s6 = (self.sites.rule(sigma[a], sigma[b]) / UNIT) ** 6
        depth = 4 * torch.sqrt(epsilon[a] * epsilon[b])
        c = torch.stack([depth * s6**2, depth * s6], dim=1).reshape(-1)
        if not self.has_mesh:
            return c
        own = self._mesh_coefficients(sigma, epsilon)[torch.from_numpy(self.learned)]
        return torch.cat([c, monomials_of(own)])

    @staticmethod
    def _mesh_coefficients(sigma: Tensor, epsilon: Tensor) -> Tensor:
        return 2 * epsilon.sqrt() * (sigma / UNIT) ** 3

    def _of_classes(self) -> tuple[Tensor, Tensor]:
        """Sigma and epsilon of each class."""
        types, *numbers = zip(*self.classes, strict=True)
        kind = torch.tensor(types)
        fixed = [torch.tensor(column, dtype=torch.float64) for column in numbers]
        own = [values()[kind.clamp(min=0)] for values in (self.sigma, self.epsilon)]
        sigma, epsilon = (
            f + torch.where(kind >= 0, v, 0.0) for f, v in zip(fixed, own, strict=True)
        )
        return sigma, epsilon

    def form(self) -> dict[str, Any]:
        """Also the classes that are not learned, and the combination rule."""
        rule = {"rule": self.sites.rule.__name__}
        return super().form() | rule | {"classes": [list(c) for c in self.classes]}

    # OpenMM ---------------------------------------------------------------------------------------

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        """Also that of 1-4 pairs."""
        return self.sites.places

    def frame_of(self, force: Any) -> Any:
        """Its method, exceptions and offsets."""
        return self.sites.frame_of(force)

    def held(self, force: Any, layout: Layout) -> Array:
        """Sigma and epsilon of all particles and exceptions: also of those that stay."""
        return self.sites.held(force)

    def layout_like(self, system: openmm.System) -> Layout:
        """Its particles have the mass and all nonbonded parameters of those of the first System."""
        assert self._kinds is not None
        table = self.sites.read(system)
        return self._layout(system, self._kinds.find(system, table.particles))

    def _layout(self, system: openmm.System, types: dict[str, IntArray]) -> Layout:
        force = self.place.find(system)
        table = self.sites.read(system)
        type_of = np.full(len(table.particles), -1, dtype=np.int64)
        for k, name in enumerate(self._names):
            type_of[types[name]] = k
        values, shifts = table.particles[:, 1:], table.shifts[:, 1:]
        return Layout(
            type_of,
            self._classes(type_of, values, shifts),
            self._classes(type_of, values, 0 * shifts),
            _following(table, type_of, self.sites.rule, self.name),
            values,
            self.sites.defaults(force, table.offset_by),
            self.sites.has_mesh(force),
        )

    def _classes(self, type_of: IntArray, values: Array, shifts: Array) -> IntArray:
        """Class of each particle; those that are new are added to ``classes``."""
        found = np.full(len(type_of), -1, dtype=np.int64)
        rows = np.where((type_of >= 0)[:, None], 0.0, values) + shifts
        for i, (kind, (sigma, epsilon)) in enumerate(zip(type_of, rows.tolist(), strict=True)):
            if kind < 0 and (epsilon == 0 or self.sites.rule(sigma, 1.0) == 0):
                continue
            row = (int(kind), sigma, epsilon)
            if row not in self.classes:
                self.classes.append(row)
            found[i] = self.classes.index(row)
        return found

    def write(self, force: Any, layout: Layout) -> None:
        """Sigma and epsilon of particles, and of exceptions that follow them."""
        values = np.column_stack([self.sigma.numbers(), self.epsilon.numbers()])
        self._put(force, layout, values)

    def hide(self, force: Any, layout: Layout) -> None:
        """Sigma 1 and epsilon 0."""
        self._put(force, layout, np.tile([1.0, 0.0], (len(self._names), 1)))

    def leaves_rest(self, layout: Layout) -> bool:
        """Unless offsets add to sigma or epsilon."""
        return not layout.defaults

    def leave_rest(self, force: Any, layout: Layout) -> None:
        """Learned particles without any such energy."""
        self.hide(force, layout)

    def _put(self, force: Any, layout: Layout, values: Array) -> None:
        kinds = layout.type_of
        each = np.where((kinds >= 0)[:, None], values[kinds], layout.fixed)
        f = layout.following
        i, j = f.pairs.T
        sigma = f.ratio * self.sites.rule(each[i, 0], each[j, 0])
        pairs = np.column_stack([sigma, f.scale * np.sqrt(each[i, 1] * each[j, 1])])
        particles = {i: each[i] for i in np.flatnonzero(kinds >= 0).tolist()}
        self.sites.put(force, particles, dict(zip(f.index.tolist(), pairs, strict=True)))

    def features(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        """One pass over the pairs within the cutoff."""
        _check_parameters(context, layout.defaults, self.name)
        if layout.has_mesh:
            _check_number(len(self.learned), self.name)
        force = self.place.find(context.getSystem())
        n = len(self.classes)
        pairs = np.array(self.pairs, dtype=np.int64)
        a, b = pairs.T
        pair_of = np.full((n, n), -1, dtype=np.int64)
        pair_of[a, b] = pair_of[b, a] = np.arange(len(pairs))
        sums = power_sums(
            force, layout.class_of, pair_of, self.sites.exclusions(force), layout.has_mesh
        )
        f = layout.following
        i, j = layout.base_of[f.pairs].T
        listed = ListedPowers(
            f.pairs,
            pair_of[i, j],
            np.column_stack([f.scale * f.ratio**12, f.scale * f.ratio**6]),
            self.sites.wraps(context.getSystem()),
        )
        found = PowerFeatures(
            sums,
            self.sites.tail(force, layout.class_of, pairs),
            bool(force.usesPeriodicBoundaryConditions()),
            listed,
        )
        return Joined(found, self._mesh(context, layout)) if layout.has_mesh else found

    def _mesh(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        c = self._mesh_coefficients(*self._of_classes()).numpy(force=True)
        force = self.place.find(context.getSystem())
        return mesh_features(force, context, layout.class_of, c, self.learned)


def _following(table: Nonbonded, type_of: IntArray, rule: Rule, name: str) -> Following:
    """Those exceptions of learned particles that follow; what does not is said."""
    i, j = table.exceptions.T
    sigma, epsilon = table.particles[:, 1], table.particles[:, 2]
    ruled, depth = rule(sigma[i], sigma[j]), np.sqrt(epsilon[i] * epsilon[j])
    there = ((type_of[i] >= 0) | (type_of[j] >= 0)) & (table.own[:, 2] != 0)
    same = np.abs(table.own[:, 1] - ruled) <= _SAME * ruled
    follows = there & same & (depth > 0) & ~table.is_offset[:, 1:].any(axis=1)
    left = int(np.sum(there & ~follows))
    if left:
        warnings.warn(
            f"{name}: {left} of {int(there.sum())} exceptions (1-4 pairs) of the learned particles "
            "have a sigma of their own, or offsets: they stay as they are",
            RuntimeWarning,
            stacklevel=6,
        )
    k = np.flatnonzero(follows)
    return Following(k, table.exceptions[k], table.own[k, 1] / ruled[k], table.own[k, 2] / depth[k])


def site_values(
    names: Sequence[str], start: Sequence[Any], learn: tuple[str, ...], bounds: Any
) -> list[Values]:
    """Sigma and epsilon of these names, from those at the start, two of [names].

    Raises
    ------
    PotentialError
        If options name something else than sigma and epsilon.
    """
    check_options(learn, bounds, tuple(WEIGHTS))
    return [
        Values(
            names,
            numbers,
            positive=True,
            bounds=(bounds or {}).get(what),
            learned=what in learn,
            scale=scale,
            kind=KINDS[what],
        )
        for (what, scale), numbers in zip(WEIGHTS.items(), start, strict=True)
    ]


def _check_number(n: int, name: str) -> None:
    if n > MOST_DIRECTIONS:
        raise PotentialError(
            f"{name}: {n} classes are learned, which makes {n * (n + 3) // 2} features of a frame "
            f"with LJPME, expected at most {MOST_DIRECTIONS}: name fewer types, or take PME",
            got=n,
            expected=MOST_DIRECTIONS,
        )


def _check_parameters(context: openmm.Context, defaults: dict[str, float], name: str) -> None:
    for parameter, value in defaults.items():
        if context.getParameter(parameter) != value:
            raise AttachError(
                f"{name}: {parameter!r}, which offsets of sigma or epsilon depend on, is "
                f"{context.getParameter(parameter):g} in the Context, expected its default in the "
                f"System, {value:g}"
            )


def _sites_of(system: openmm.System, force: Any) -> Sites:
    """The NonbondedForce, or the custom force that is meant or has what that one lacks."""
    custom = forces_of(system, openmm.CustomNonbondedForce)
    is_custom = any(is_meant(f, force) for f in custom if force is not None)
    if force is None and custom:
        own = forces_of(system, openmm.NonbondedForce)
        is_custom = not any(nonbonded.read(f).particles[:, 2].any() for f in own)
    if is_custom:
        return CustomSites.of(system, ForcePlace.of(system, openmm.CustomNonbondedForce, force))
    return Sites(ForcePlace.of(system, openmm.NonbondedForce, force))
