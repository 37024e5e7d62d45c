"""Charges of particles in a NonbondedForce."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import AttachError, PotentialError
from ...observables import Charges
from ...potentials.values import Values, number_of
from ...statistics.molecules import parts_of
from ...statistics.polynomials import Polynomial, monomials_of, of_second_degree, products_of
from ..adapters.bonds import bonds_of
from . import nonbonded
from .charge_features import charge_features
from .copies import charges_in, check_degree, copies_in, is_copy, put_charges, update_in
from .directions import Directions
from .nonbonded import Nonbonded
from .probe import Probe, scratch_xml
from .product_features import MOST_DIRECTIONS
from .selection import Kinds, chosen_types, one_value
from .term import Find, ForcePlace, FrameFeatures, Term

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_UNIT = 0.1  # e, the least charge that energies are asked at


@dataclass(frozen=True)
class Layout:
    """Where the types are in a System."""

    type_of: IntArray  # [particles], -1 for one whose charge stays
    fixed: Array  # [particles], e
    index: IntArray  # [following], exceptions whose product follows the charges
    pairs: IntArray  # [following, 2], their particles
    scale: Array  # [following], product = scale q_i q_j
    is_quadratic: bool  # nothing else has a charge, or an energy

    @property
    def learned(self) -> IntArray:
        """Particles of a type."""
        return np.flatnonzero(self.type_of >= 0)


class ChargesTerm(Term):
    """Coulomb energies of some types of particles, with each other and with all others.

    Charges are q = q_0 + N z with D independent ones among them, z, see ``Directions``. The energy
    is a polynomial of second degree in z, with any cutoff, reaction field or Ewald summation, the
    background of a charged box, and exceptions, whose products of charges follow with the scale
    that they have at the start,

        U = E_0 + sum_d z_d L_d + sum_d<=e z_d z_e Q_de,

    E_0 is left to the rest; where nothing else is charged, L is zero and left out. See
    ``charge_features`` for how the features L and Q of a frame are found. Where an implicit solvent
    has the same charges, they are learned there too: its energy is such a polynomial.

    Use ``of`` to make one.
    """

    def __init__(self, name: str, place: ForcePlace, directions: Directions, z: Values) -> None:
        super().__init__(name, place)
        self.free = z
        self.directions = directions
        self._kinds: Kinds | None = None
        self.copies: tuple[ForcePlace, ...] = ()
        """Other Forces that have the charges, too."""

    @classmethod
    def of(
        cls,
        system: openmm.System,
        atoms: Any = None,
        *,
        neutral: bool = True,
        bounds: Any = None,
        types: Sequence[str] | None = None,
        force: Any = None,
        name: str = "charges",
    ) -> ChargesTerm:
        """From the charges of a System.

        Parameters
        ----------
        system : openmm.System
        atoms : mapping of names to particles, or sequence of int, optional
            Those of one name have one charge. Without names, particles that have the same at the
            start are one type. Default: all that have one.
        types : sequence of str, optional
            Of each particle of the System, such as ``atom_types`` gives. Particles of one of these
            are then one type, and ``atoms`` may be names of them.
        neutral : bool
            Every molecule keeps its total charge. The types listed last are the independent ones.
        bounds : (float, float), or mapping of names to such, optional
            Least and largest charge, e, of the independent types.
        force : str or openmm.NonbondedForce, optional
            Which one, where there are several.
        name : str
            Of the term.

        Raises
        ------
        PotentialError
            If a type has several charges at the start, none can change, or more than
            ``MOST_DIRECTIONS`` can.
        AttachError
            If there is no such force.
        """
        place = ForcePlace.of(system, openmm.NonbondedForce, force)
        table = nonbonded.read(place.find(system))
        chosen = np.flatnonzero(table.particles[:, 0]) if atoms is None else atoms
        found = chosen_types(chosen, table.particles[:, :1], types)
        start = one_value(found, table.particles[:, 0], "charge")
        counts = _counts(system, found) if neutral else np.zeros((0, len(found)))
        directions = Directions.of(list(found), start, counts)
        _check_directions(directions)
        z = Values(directions.free_names, start[directions.free], bounds=bounds, kind="charge")
        term = cls(name, place, directions, z)
        term._kinds = Kinds(system, found, table.particles)
        learned = np.concatenate(list(found.values()))
        own = place.find(system)
        copies = copies_in(system, own, table.particles[:, 0], learned, name)
        term.copies = tuple(ForcePlace.of(system, type(f), f) for f in copies)
        term.keep(system, term._layout(system, found))
        return term

    # Torch ----------------------------------------------------------------------------------------

    @property
    def is_quadratic(self) -> bool:
        """Is nothing else charged, in any System?"""
        return all(layout.is_quadratic for layout in self.layouts.values())

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Those of z, where other charges are fixed, and of its products."""
        d = len(self.free())
        linear: dict[str, tuple[int, ...]] = {} if self.is_quadratic else {"linear": (d,)}
        return linear | {"quadratic": (d * (d + 1) // 2,)}

    def coefficients(self) -> Tensor:
        """z_d, where other charges are fixed, and z_d z_e of d <= e, flat."""
        return monomials_of(self.free(), self.is_quadratic)

    def told(self) -> tuple[list[str], Tensor]:
        """Of all types, also those that follow: "q[O]", e."""
        at_zero, along = map(torch.from_numpy, (self.directions.at_zero, self.directions.along))
        names = [f"q[{name}]" if name else "q" for name in self.directions.names]
        return names, at_zero + along @ self.free()

    def theta_of(self, numbers: Mapping[str, Any]) -> dict[str, Tensor]:
        """Also of charges that follow others."""
        names = [name for name in self.told()[0] if name in numbers]
        rows = [self.told()[0].index(name) for name in names]
        q = np.array([number_of(name, numbers[name], "charge") for name in names])
        z = self.directions.free_at(rows, q, self.free.numbers())
        own = dict(zip(self.free.names, z.tolist(), strict=True))
        return {"free": self.free.theta_at(own, "q")}

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """z, of coefficients; of their products it is told up to a common sign."""
        d = len(self.free())
        if not self.is_quadratic:
            return coefficients[:d]
        both = coefficients.new_zeros(d, d)
        rows, columns = torch.from_numpy(products_of(d)).T
        both = both.index_put((rows, columns), coefficients)
        both = both + both.T - torch.diag(both.diagonal())
        largest = int(both.diagonal().argmax())
        return both[largest] / torch.sqrt(both[largest, largest])

    def form(self) -> dict[str, Any]:
        """Also how all charges depend on the free ones."""
        return super().form() | {
            "directions": self.directions.form(),
            "is_quadratic": self.is_quadratic,
            "copies": [place.form() for place in self.copies],
        }

    # OpenMM ---------------------------------------------------------------------------------------

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        """The NonbondedForce, and all that have its charges."""
        return (self.place, *self.copies)

    def frame_of(self, force: Any) -> Any:
        """Its method, exceptions and offsets; of a copy its particles."""
        if is_copy(force):
            return [type(force).__name__, force.getNumParticles()]
        return nonbonded.frame_of(force)

    def held(self, force: Any, layout: Layout) -> Array:
        """Charges of all particles and exceptions: also of those that stay."""
        if is_copy(force):
            return np.asarray(charges_in(force))
        table = nonbonded.read(force)
        return np.concatenate([table.particles, table.own])[:, 0:1]

    def layout_like(self, system: openmm.System) -> Layout:
        """Its particles have the mass and all nonbonded parameters of those of the first System."""
        assert self._kinds is not None
        table = nonbonded.read(self.place.find(system))
        types = self._kinds.find(system, table.particles)
        self._check_copies(system, table.particles[:, 0], np.concatenate(list(types.values())))
        self.directions.check(_counts(system, types))
        return self._layout(system, types)

    def _check_copies(self, system: openmm.System, q: Array, learned: IntArray) -> None:
        """AttachError where not the same Forces of another System have the charges too."""
        found = copies_in(system, self.place.find(system), q, learned, self.name)
        places = [ForcePlace.of(system, type(force), force) for force in found]
        if set(places) != set(self.copies):
            raise AttachError(
                f"{self.name}: of this System {[f.getName() for f in found]} have the charges "
                f"beside its NonbondedForce, of the first one {len(self.copies)} Forces had; give "
                "both the same implicit solvent, or make a SystemParameters of each",
                got=len(found),
                expected=len(self.copies),
            )

    def _layout(self, system: openmm.System, types: dict[str, IntArray]) -> Layout:
        table = nonbonded.read(self.place.find(system))
        q = table.particles[:, 0]
        type_of = np.full(len(q), -1, dtype=np.int64)
        for k, name in enumerate(self.directions.names):
            type_of[types[name]] = k
        follows = _following(table, type_of, self.name)
        i, j = table.exceptions[follows].T
        others = (type_of < 0) & (q != 0)
        stay = ~follows & (table.own[:, 0] != 0)
        return Layout(
            type_of,
            q,
            np.flatnonzero(follows),
            table.exceptions[follows],
            table.own[follows, 0] / (q[i] * q[j]),
            not (
                self.copies
                or others.any()
                or stay.any()
                or table.shifts[:, 0].any()
                or table.is_charge_offset
                or table.is_offset[:, 0].any()
                or self.directions.at_zero.any()
            ),
        )

    def write(self, force: openmm.NonbondedForce, layout: Layout) -> None:
        """Charges of particles, and products of exceptions that follow them."""
        self.put(force, layout, self.free.numbers())

    def particle_charges(
        self, charges: Charges, force: openmm.NonbondedForce, layout: Layout
    ) -> Charges:
        """The learned ones by their independent directions; what offsets add to them stays."""
        n, learned = len(layout.type_of), layout.type_of >= 0
        own = nonbonded.read(force).particles[:, 0]
        at_zero = _of_particles(layout, self.directions.at_zero, own)
        along = _of_particles(layout, self.directions.along, np.zeros((n, len(self.free))))
        fixed = np.where(learned, charges.fixed - own + at_zero, charges.fixed)
        return Charges(fixed, np.concatenate([charges.along, along], axis=1))

    def hide(self, force: openmm.NonbondedForce, layout: Layout) -> None:
        """No charge."""
        self._put(force, layout, np.zeros(len(self.directions.names)))

    def leaves_rest(self, layout: Layout) -> bool:
        """Always."""
        return True

    def leave_rest(self, force: Any, layout: Layout) -> None:
        """The charges of z = 0."""
        self._put(force, layout, self.directions.at_zero)

    def _put(self, force: Any, layout: Layout, charges: Array) -> None:
        q = _of_particles(layout, charges, layout.fixed)
        if is_copy(force):
            put_charges(force, layout.learned, q)
            return
        for i in layout.learned.tolist():
            nonbonded.set_particle(force, i, charge=q[i])
        product = layout.scale * np.prod(q[layout.pairs], axis=1)
        for k, value in zip(layout.index.tolist(), product.tolist(), strict=True):
            nonbonded.set_exception(force, k, charge=value)

    def bring(self, force: Any, context: openmm.Context) -> None:
        """Also of a custom force with tables."""
        update_in(force, context)

    def features(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        """One pass over the pairs, and a mesh; else energies at several charges.

        So with Ewald's sum, and where other Forces have these charges.
        """
        force = self.place.find(context.getSystem())
        if force.getNonbondedMethod() != force.Ewald and not self.copies:
            return charge_features(self, context, layout)
        return FrameFeatures(self._by_energies(context, layout))

    def _by_energies(self, context: openmm.Context, layout: Layout) -> Find:
        """What OpenMM does not tell the waves of, and what other Forces do with these charges."""
        system, n = context.getSystem(), len(self.free)
        forces = [place.find(system) for place in self.places]
        probe = Probe(self, layout, scratch_xml(system, forces), context)
        exponents = of_second_degree(n)
        size = np.maximum(np.abs(self.free.numbers()), _UNIT)
        polynomial = Polynomial(np.zeros(n), size, exponents)
        unit = np.prod(size**exponents, axis=1)
        unchecked = [force.getName() for force in forces[1:]]

        def found(positions: Array, box: Array | None) -> Array:
            probe.place(positions, box)
            energies = probe.energies(polynomial.nodes)
            if unchecked:
                check_degree(probe, polynomial, energies, unchecked)
                unchecked.clear()
            features = polynomial.features(energies) / unit
            return features[n:] if self.is_quadratic else features

        return found

    def put(self, force: Any, layout: Layout, z: Array) -> None:
        """Give a Force the charges of other z."""
        self._put(force, layout, self.directions.charges(z))


def _of_particles(layout: Layout, of_types: Array, others: Array) -> Array:
    """Of each particle the value of its type, [types, ...], or its own of ``others``."""
    is_learned = (layout.type_of >= 0).reshape(-1, *[1] * (others.ndim - 1))
    return np.where(is_learned, of_types[layout.type_of], others)


def _counts(system: openmm.System, types: dict[str, IntArray]) -> Array:
    """How many particles of each type a molecule has, [kinds of molecules, types]."""
    n = system.getNumParticles()
    bonds = bonds_of(system)
    molecule = parts_of(np.concatenate([bonds.own.pairs, bonds.groups.pairs]), n)
    counts = np.zeros((molecule.max() + 1, len(types)))
    for k, chosen in enumerate(types.values()):
        np.add.at(counts[:, k], molecule[chosen], 1)
    found = np.unique(counts, axis=0)
    return np.asarray(found[found.any(axis=1)])


def _following(table: Nonbonded, type_of: IntArray, name: str) -> NDArray[np.bool_]:
    """Which exceptions follow: all of learned particles that had charges; what does not is said."""
    i, j = table.exceptions.T
    q, product = table.particles[:, 0], table.own[:, 0]
    own = (type_of[i] >= 0) | (type_of[j] >= 0)
    told = q[i] * q[j] != 0
    unknown = own & ~told & ((product != 0) | (table.own[:, 2] != 0))
    if unknown.any():
        warnings.warn(
            f"{name}: {int(unknown.sum())} exceptions (1-4 pairs) of particles of which one has no "
            "charge at the start do not say how their products follow: they stay as they are",
            RuntimeWarning,
            stacklevel=6,
        )
    return np.asarray(own & told & (product != 0))


def _check_directions(directions: Directions) -> None:
    n = len(directions.free)
    if n == 0:
        raise PotentialError(
            f"charges of {list(directions.names)}: none can change while molecules keep theirs; "
            "name more types, or pass neutral=False"
        )
    if n > MOST_DIRECTIONS:
        raise PotentialError(
            f"charges: {n} can change independently, which makes {n * (n + 3) // 2} features of a "
            f"frame, expected at most {MOST_DIRECTIONS}: give atoms common types",
            got=n,
            expected=MOST_DIRECTIONS,
        )
