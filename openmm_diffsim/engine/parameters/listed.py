"""Forces between listed particles: bonds, angles, torsions, with features from positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import AttachError, PotentialError
from ...io.checksum import brief
from ...potentials.values import Values
from ...statistics.internal import angles, dihedrals, distances
from .grouping import Groups, Starts, common_start, groups_of, types_of_particles
from .selection import check_options
from .term import ForcePlace, FrameFeatures, Term

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Internal = Callable[[Array, IntArray, Array | None], Array]

_POLYNOMIAL = 6  # coefficients of an RB torsion


@dataclass(frozen=True, eq=False)
class Layout:
    """What is learned of a Force in one System.

    Attributes
    ----------
    entries, of : int arrays [learned]
        Entries of the Force, and the group of each.
    atoms : int array [learned, size]
        The particles of each.
    """

    entries: IntArray
    of: IntArray
    atoms: IntArray


class ListedTerm(Term):
    """Parameters of a Force that acts on listed particles, in groups with the same; for subclasses.

    An entry of the Force has particles and, after them, numbers. Its energy is
    sum_b c_b S_b(q), with coefficients c of its group and an internal coordinate q, a distance or
    an angle; S of a group is the sum over its entries.

    Use ``of`` to make one.
    """

    kind: ClassVar[type]
    """Class of the Force."""
    entry: ClassVar[str]
    """What OpenMM's methods call an entry: get``entry``Parameters."""
    size: ClassVar[int]
    """Particles of an entry."""
    learnable: ClassVar[tuple[str, ...]]
    """Names of the parameters, each in ``Values`` of that name."""
    internal: ClassVar[Internal]
    """The coordinate q of entries."""
    kinds: ClassVar[dict[str, str]]
    """What kind of number each is, of ``units.UNIT_NAMES``."""
    apart: ClassVar[tuple[int, ...]] = ()
    """Numbers by which entries on the same types are not the same: a periodicity."""

    def __init__(
        self,
        name: str,
        place: ForcePlace,
        groups: Groups,
        start: Array,
        learn: Sequence[str],
        bounds: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(name, place)
        check_options(learn, bounds, self.learnable)
        self.group_names = list(groups.names)
        self.start = start
        """Numbers of an entry of each group at the start, [groups, numbers]."""
        self.starts: Starts | None = None
        self.learn, self._bounds = tuple(learn), dict(bounds or {})

    # To give --------------------------------------------------------------------------------------

    def numbers(self) -> Array:
        """What an entry of each group has at present, [groups, numbers]."""
        raise NotImplementedError

    def per_group(self) -> list[Tensor]:
        """c_b of each group, [groups] each."""
        raise NotImplementedError

    def basis(self, q: Array, start: Array) -> Array:
        """S_b, [entries, b], of entries with coordinates q that had these numbers at the start."""
        raise NotImplementedError

    # Torch ----------------------------------------------------------------------------------------

    def coefficients(self) -> Tensor:
        """c_b of each group, flat."""
        return torch.stack(self.per_group(), dim=1).reshape(-1)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """One, of the groups."""
        return {"groups": (len(self.group_names), len(self.per_group()))}

    def form(self) -> dict[str, Any]:
        """Also where its groups started: coefficients and features are from there."""
        return super().form() | {"start": brief(self.start)}

    def own(self, what: str, start: Array, **options: Any) -> Values:
        """Values of the groups, learned if asked for."""
        own = {"bounds": self._bounds.get(what), "kind": self.kinds[what], **options}
        return Values(self.group_names, start, learned=what in self.learn, **own)

    # OpenMM ---------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        system: openmm.System,
        select: Any = None,
        *,
        name: str,
        learn: Sequence[str],
        force: Any = None,
        types: Sequence[str] | None = None,
        each: bool = False,
        bounds: Mapping[str, Any] | None = None,
    ) -> Any:
        """The term of what a user selects; see ``SystemParameters.bonds``."""
        place = ForcePlace.of(system, cls.kind, force)
        atoms, numbers = cls.read(place.find(system))
        if len(atoms) == 0:
            raise AttachError(
                f"{place.find(system).getName()} has no entries: rigid water and constraints leave "
                "their bonds and angles out"
            )
        own = numbers[:, list(cls.apart)]
        kind_of = types_of_particles(types, system.getNumParticles())
        groups = groups_of(select, atoms, numbers, kind_of, each, cls.labels(numbers), own)
        start = common_start(groups, numbers, cls.learnable)
        term = cls(name, place, groups, start, learn, bounds)
        term.starts = Starts(groups, numbers)
        term.keep(system, Layout(groups.entries, groups.of, atoms[groups.entries]))
        return term

    @classmethod
    def labels(cls, numbers: Array) -> list[str] | None:
        """What of the numbers of entries no group has two of, by names; None: nothing."""
        return None

    @classmethod
    def read(cls, force: Any) -> tuple[IntArray, Array]:
        """Particles [entries, size] and numbers [entries, numbers] of all entries."""
        count = getattr(force, f"getNum{cls.entry}s")()
        rows = [_plain(getattr(force, f"get{cls.entry}Parameters")(k)) for k in range(count)]
        table = np.array(rows, dtype=np.float64).reshape(count, -1 if count else cls.size)
        return table[:, : cls.size].astype(np.int64), table[:, cls.size :]

    def frame_of(self, force: Any) -> Any:
        """The particles of all entries."""
        return self.read(force)[0].tolist()

    def held(self, force: Any, layout: Layout) -> Array:
        """The numbers of its entries."""
        return self.read(force)[1][layout.entries]

    def layout_like(self, system: openmm.System) -> Layout:
        """Its entries have the numbers that those of the first System had at the start."""
        atoms, numbers = self.read(self.place.find(system))
        assert self.starts is not None
        entries, of = self.starts.find(numbers, self.name)
        return Layout(entries, of, atoms[entries].reshape(-1, self.size))

    def is_apart_from(self, other: Term) -> bool:
        """No entry is learned twice."""
        if type(other) is not type(self) or other.place != self.place:
            return True
        return not any(
            np.isin(self.layouts[key].entries, other.layouts[key].entries).any()
            for key in self.layouts.keys() & other.layouts.keys()
        )

    def write(self, force: Any, layout: Layout) -> None:
        """Give the entries the present numbers."""
        self._set(force, layout, self.numbers()[layout.of])

    def hide(self, force: Any, layout: Layout) -> None:
        """Give them those of the start."""
        self._set(force, layout, self.start[layout.of])

    def _set(self, force: Any, layout: Layout, numbers: Array) -> None:
        put = getattr(force, f"set{self.entry}Parameters")
        rows = zip(layout.entries.tolist(), layout.atoms.tolist(), numbers.tolist(), strict=True)
        for k, atoms, row in rows:
            put(k, *atoms, *self.arguments(row))

    def arguments(self, row: list[float]) -> list[Any]:
        """Numbers of an entry as OpenMM takes them."""
        return row

    def features(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        """From the positions alone."""
        force = self.place.find(context.getSystem())
        periodic = force.usesPeriodicBoundaryConditions()
        start, n = self.start[layout.of], len(self.group_names)

        def found(positions: Array, box: Array | None) -> Array:
            q = type(self).internal(positions, layout.atoms, box if periodic else None)
            columns = self.basis(q, start).T
            sums = [np.bincount(layout.of, column, n) for column in columns]
            return np.array(sums, dtype=np.float64).T.ravel()

        return FrameFeatures(found)


class HarmonicTerm(ListedTerm):
    """k (q - q0)^2 / 2 of each group, about the q0 of the start, d = q0 - q0_start:

    c = k, k d, k d^2 and S = sum (q - q0_start)^2 / 2, -sum (q - q0_start), number / 2.
    """

    widths: ClassVar[dict[str, float]]
    """How far k (a ratio) and q0 may be from those of the start."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        centres, constants = self.start.T
        what = self.learnable[1]
        self.k = self.own("k", constants, positive=True, scale=self.widths["k"])
        setattr(self, what, self.own(what, centres, scale=self.widths[what]))

    @property
    def centre(self) -> Values:
        """q0."""
        found: Values = getattr(self, self.learnable[1])
        return found

    def per_group(self) -> list[Tensor]:
        k, d = self.k(), self.centre() - torch.from_numpy(self.start[:, 0])
        return [k, k * d, k * d**2]

    def numbers(self) -> Array:
        return np.stack([self.centre.numbers(), self.k.numbers()], axis=1)

    def basis(self, q: Array, start: Array) -> Array:
        away = q - start[:, 0]
        return np.stack([away**2 / 2, -away, np.full_like(q, 0.5)], axis=1)


class BondTerm(HarmonicTerm):
    """Force constants k (kJ/mol/nm^2) and lengths r0 (nm) of a HarmonicBondForce."""

    kind, entry, size, internal = openmm.HarmonicBondForce, "Bond", 2, distances
    learnable = ("k", "r0")
    widths: ClassVar = {"k": 0.2, "r0": 0.005}
    kinds: ClassVar = {"k": "bond_stiffness", "r0": "length"}


class AngleTerm(HarmonicTerm):
    """Force constants k (kJ/mol/rad^2) and angles theta0 (rad) of a HarmonicAngleForce."""

    kind, entry, size, internal = openmm.HarmonicAngleForce, "Angle", 3, angles
    learnable = ("k", "theta0")
    widths: ClassVar = {"k": 0.2, "theta0": 0.1}
    kinds: ClassVar = {"k": "angle_stiffness", "theta0": "angle"}


class TorsionTerm(ListedTerm):
    """k (1 + cos(n phi - phase)) of a PeriodicTorsionForce, k (kJ/mol) of either sign.

    c = k cos phase, k sin phase, k and S = sum cos n phi, sum sin n phi, number.
    """

    kind, entry, size, internal = openmm.PeriodicTorsionForce, "Torsion", 4, dihedrals
    learnable = ("k", "phase")
    kinds: ClassVar = {"k": "energy", "phase": "angle"}
    apart: ClassVar = (0, 1, 2)  # of proper and improper ones too

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _, phases, constants = self.start.T
        if "phase" in self.learn and not np.all(constants):
            raise PotentialError(
                f"{self.name}: a torsion with k = 0 has no phase to start from; learn=('k',), or "
                "give it another k in the System"
            )
        self.k = self.own("k", constants, scale=2.0)
        self.phase = self.own("phase", phases, scale=0.5)

    @classmethod
    def labels(cls, numbers: Array) -> list[str]:
        """The periodicity."""
        return [f" n={n:.0f}" for n in numbers[:, 0]]

    def per_group(self) -> list[Tensor]:
        k, phase = self.k(), self.phase()
        return [k * torch.cos(phase), k * torch.sin(phase), k]

    def numbers(self) -> Array:
        return np.stack([self.start[:, 0], self.phase.numbers(), self.k.numbers()], axis=1)

    def arguments(self, row: list[float]) -> list[Any]:
        """The periodicity is a whole number."""
        return [int(row[0]), *row[1:]]

    def basis(self, q: Array, start: Array) -> Array:
        turns = start[:, 0] * q
        return np.stack([np.cos(turns), np.sin(turns), np.ones_like(q)], axis=1)


class RBTorsionTerm(ListedTerm):
    """sum_n c_n cos^n psi, psi = phi - pi, of an RBTorsionForce; c0 .. c5, kJ/mol."""

    kind, entry, size, internal = openmm.RBTorsionForce, "Torsion", 4, dihedrals
    learnable = tuple(f"c{n}" for n in range(_POLYNOMIAL))
    kinds: ClassVar = dict.fromkeys(learnable, "energy")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for what, column in zip(self.learnable, self.start.T, strict=True):
            setattr(self, what, self.own(what, column, scale=2.0))

    def per_group(self) -> list[Tensor]:
        return [getattr(self, what)() for what in self.learnable]

    def numbers(self) -> Array:
        return np.stack([getattr(self, what).numbers() for what in self.learnable], axis=1)

    def basis(self, q: Array, start: Array) -> Array:
        powers = [(-np.cos(q)) ** n for n in range(_POLYNOMIAL)]
        return np.stack(powers, axis=1)


def _plain(row: Sequence[Any]) -> list[float]:
    return [getattr(value, "_value", value) for value in row]
