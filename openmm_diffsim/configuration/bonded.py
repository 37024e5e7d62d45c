"""Tables of bonds, angles and dihedral angles as terms of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.adapters.bonds import bonds_of
from ..engine.adapters.tuples import tuples_for
from ..engine.statepoint import same_tuples
from ..errors import ConfigurationError, PotentialError
from ..fluid import select_atoms
from ..io import read_potential
from ..limits import shown
from ..observables import Particles
from ..potentials import (
    AngleSpline,
    AttachOptions,
    BondedSpline,
    BondSpline,
    DihedralSpline,
    adapter_of,
)
from .prepared import Known, Measured, Prepared
from .section import Section
from .terms import TermSection, common

IntArray = NDArray[np.int64]

_INITIAL = ("boltzmann-inversion", "table", "zero")


@dataclass(frozen=True)
class BondedKind:
    """A kind of bonded potential, as a configuration can ask for it."""

    make: Callable[..., BondedSpline]
    knots: int
    has_range: bool = False
    """Is it given from where to where?"""


BONDED_KINDS = {
    "bond": BondedKind(BondSpline, 40, has_range=True),
    "angle": BondedKind(AngleSpline, 40),
    "dihedral": BondedKind(DihedralSpline, 36),
}


@dataclass(frozen=True, kw_only=True)
class BondedSection(TermSection):
    """A table of one kind of bonded coordinate, for each type of it."""

    knots: int
    options: Mapping[str, float] = field(default_factory=dict)  # r_min, r_max, ...
    tuples: tuple[tuple[int, ...], ...] | None = None  # None: all that bonds make
    types: tuple[int, ...] = ()  # of each tuple
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # types of their particles
    atoms: str | None = None  # a selection that tuples are among
    file: Path | None = None  # of initial = "table"
    units: tuple[float, float] = (1.0, 1.0)  # of q and u in tables, in md units
    attached = 1

    @property
    def n_types(self) -> int:
        """Of tuples."""
        return len(self.groups) or max(self.types, default=0) + 1

    def make(self, n_types: int) -> BondedSpline:
        """One that is zero."""
        return BONDED_KINDS[self.kind].make(knots=self.knots, n_types=n_types, **self.options)

    def of_fit(self, first_knot: float | None) -> BondedSection:
        """It begins at zero."""
        return replace(self, initial="zero", file=None)

    def first_guess(self, known: Known) -> BondedSpline:
        """From a table, or the distribution that is measured of each type.

        Raises
        ------
        ConfigurationError
            If the table says too little, or a type has no distribution among the targets.
        """
        try:
            potential = self.make(self.n_types)
            if self.initial == "table":
                self._take_table(potential)
            if self.initial == "boltzmann-inversion":
                for kind in range(self.n_types):
                    self._invert(potential, kind, known)
        except PotentialError as error:
            raise ConfigurationError(f"{self.key}: {error}", key=self.key) from error
        return potential

    def attach(self, potential: Any, place: Prepared) -> None:
        """To its tuples, by their types."""
        tuples, types = self.chosen(place)
        options = AttachOptions(tuples=tuples, tuple_types=types)
        adapter_of(potential).attach(place.system, options)

    def chosen(self, place: Prepared) -> tuple[IntArray, IntArray]:
        """The tuples of a state point, [tuples, n], and the type of each.

        Raises
        ------
        AttachError
            If there is none.
        ConfigurationError
            If none has particles of these types.
        """
        atoms = None
        if self.atoms is not None:
            atoms = select_atoms(place.topology, self.atoms, f"{self.key}.atoms")
        given = self.tuples or (place.topology if place.topology.getNumBonds() else None)
        found, _ = tuples_for(place.system, AttachOptions(atoms=atoms, tuples=given), self.make(1))
        if not self.groups:
            types = np.array(self.types or [0] * len(found), dtype=np.int64)
            if len(types) != len(found):
                raise self._error("types", f"got {len(types)}, expected {len(found)}, one of each")
            return found, types
        types = self._grouped(found, place)
        return found[types >= 0], types[types >= 0]

    def _grouped(self, tuples: IntArray, place: Prepared) -> IntArray:
        """Type of each tuple by those of its particles, in either direction; -1: of none."""
        names = place.section.system.names
        of = place.type_of[tuples]
        types = np.full(len(tuples), -1, dtype=np.int64)
        for kind, (name, members) in enumerate(self.groups.items()):
            wanted = [names.index(member) for member in members]
            fits = (of == wanted).all(axis=1) | (of == wanted[::-1]).all(axis=1)
            if not fits.any():
                raise self._error(f"types.{name}", f"no {self.kind} is between {list(members)}")
            types[fits & (types < 0)] = kind
        return types

    def _take_table(self, potential: BondedSpline) -> None:
        assert self.file is not None
        q, u = read_potential(self.file, self.n_types, least=-np.inf)
        for kind, row in enumerate(u):
            potential.set_table(self.units[0] * q, self.units[1] * row, kind)

    def _invert(self, potential: BondedSpline, kind: int, known: Known) -> None:
        found = next((m for m in known.fitted if self._is_of(m, kind)), None)
        if found is None or found.curve is None:
            raise self._error(
                "initial",
                f"no target is the distribution of the {potential.tuples} of type {kind} alone, "
                "which this begins at; give one, or file = a table",
            )
        curve, kelvin = found.curve, found.place.temperature
        potential.boltzmann_inversion(curve.x, curve.y, kelvin, kind)

    def _is_of(self, measured: Measured, kind: int) -> bool:
        """Is it the distribution of this type?"""
        counted = measured.observable.counted_tuples(_particles(measured.place))
        if counted is None or counted.shape[1] != self.make(1).n_particles:
            return False
        tuples, types = self.chosen(measured.place)
        return same_tuples(counted, tuples[types == kind])

    def _error(self, key: str, what: str) -> ConfigurationError:
        full = f"{self.key}.{key}"
        return ConfigurationError(f"{full}: {what}", key=full)


def _particles(place: Prepared) -> Particles:
    """With the bonds of the topology, which a learned potential will make."""
    own = [(a.index, b.index) for a, b in place.topology.bonds()]
    every = np.concatenate([np.reshape(own, (-1, 2)).astype(int), bonds_of(place.system).pairs])
    bonds = np.unique(np.sort(every, axis=1), axis=0)
    return Particles(len(place.site.masses), place.site.molecule_of, place.site.masses, bonds)


def read_bonded(section: Section, names: Sequence[str]) -> BondedSection:
    """A bonded potential; ``names`` are those of the types of particles."""
    kind = section.choice("kind", tuple(BONDED_KINDS))
    known = BONDED_KINDS[kind]
    length = "length" if known.has_range else "angle"
    section.kinds["prior_length"] = length
    options = {"prior_length": section.number("prior_length", None)}
    if known.has_range:
        options |= {key: section.number(key) for key in ("r_min", "r_max")}
        options["wall_slope"] = section.number("wall_slope", None)
        if options["r_min"] >= options["r_max"]:
            raise section.error("r_min", f"expected less than r_max, {options['r_max']:g} nm")
    tuples = section.tuples(known.make.tuples, known.make.n_particles)  # type: ignore[attr-defined]
    file = section.optional_path("file")
    default = "boltzmann-inversion" if file is None else "table"
    initial = section.choice("initial", _INITIAL, default)
    if initial == "table" and file is None:
        raise section.error("file", "initial = 'table' needs file = a table of q (nm, rad), u")
    given = None if tuples in (None, "bonded") else tuple(tuple(row) for row in tuples)
    return BondedSection(
        kind=kind,
        knots=section.integer("knots", known.knots),
        options={key: value for key, value in options.items() if value is not None},
        tuples=given,
        **_types(section, names, known.make.n_particles, given),  # type: ignore[attr-defined]
        atoms=section.text("atoms", None),
        initial=initial,
        file=file,
        units=(section.factor(length), section.factor("energy")),
        **common(section, names),
    )


def _types(section: Section, names: Sequence[str], size: int, tuples: Any) -> dict[str, Any]:
    """Of tuples: one number each, or names with the types of their particles."""
    given = section.raw.get("types")
    if isinstance(given, Mapping):
        own = section.section("types")
        groups = {name: own.texts(name) for name in own.raw}
        for name, members in groups.items():
            if len(members) != size or not set(members) <= set(names):
                raise own.error(
                    name,
                    f"got {shown(list(members))}, expected {size} of the types of particles, which "
                    f"are {', '.join(names) or 'not named in [system.types]'}",
                )
        return {"groups": groups}
    if not section.has("types"):
        return {}
    types = section.counts("types")
    if tuples is None or len(types) != len(tuples):
        raise section.error(
            "types", "expected one number for each of the tuples that are listed, or a table"
        )
    return {"types": types}
