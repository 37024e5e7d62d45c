"""Declared parameters of a Context, parameters of custom forces, and scales of CMAP maps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from ...io.checksum import checksum
from ...potentials.values import SCALE, Values
from .copies import update_in
from .grouping import Groups, Starts, common_start, groups_of, types_of_particles
from .probed import ProbedTerm
from .term import ForcePlace

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class GlobalTerm(ProbedTerm):
    """Global parameters of forces: numbers that a Context has once."""

    def __init__(self, name: str, places: Sequence[ForcePlace], own: Values) -> None:
        super().__init__(name, places[0], own)
        self.all_places = tuple(places)

    @classmethod
    def of(
        cls,
        system: openmm.System,
        names: Sequence[str],
        *,
        name: str,
        linear: bool | None = None,
        positive: bool = False,
        bounds: Any = None,
        scale: float = SCALE,
    ) -> GlobalTerm:
        """From their defaults in a System; see ``SystemParameters.global_parameters``."""
        forces = [f for f in system.getForces() if set(names) & set(_defaults(f))]
        known = {n: v for f in system.getForces() for n, v in _defaults(f).items()}
        missing = [n for n in names if n not in known]
        if missing:
            raise AttachError(
                f"no force of the System has the global parameter {missing[0]!r}; there are "
                f"{sorted(known) or 'none'}",
                got=missing[0],
            )
        places = [ForcePlace.of(system, type(f), f) for f in forces]
        start = [known[n] for n in names]
        own = Values(names, start, positive=positive, bounds=bounds, scale=scale)
        term = cls(name, places, own)
        term.begin(system, None, linear)
        return term

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        """All Forces that have one of them."""
        return self.all_places

    @property
    def global_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Their names."""
        return self.own.names

    @property
    def global_parameters(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.own.names)

    def layout_like(self, system: openmm.System) -> Any:
        """Found by their names."""
        return self.layout_of(system, None)

    def put(self, force: Any, own: Any, numbers: Array) -> None:
        """As the defaults."""
        for name, value in zip(self.own.names, numbers.tolist(), strict=True):
            for k in range(force.getNumGlobalParameters()):
                if force.getGlobalParameterName(k) == name:
                    force.setGlobalParameterDefaultValue(k, value)

    def bring(self, force: Any, context: openmm.Context) -> None:
        """Set those of the Context."""
        for name, value in self._own(force).items():
            context.setParameter(name, value)

    def check_context(self, force: Any, context: openmm.Context) -> None:
        """Values that were set in the Context, and are neither a default nor were learned."""
        own = self._own(force)
        there = {name: context.getParameter(name) for name in own}
        if there != own and checksum(np.array(list(there.values()))) not in self._seen:
            warnings.warn(
                f"{self.name}: the Context has {there}, but learning goes on from {own}: that is "
                "replaced; set the defaults in the Force before SystemParameters(system) is made",
                RuntimeWarning,
                stacklevel=5,
            )

    def held(self, force: Any, layout: Any) -> Array:
        """Their defaults."""
        return np.array(list(self._own(force).values()))

    def _own(self, force: Any) -> dict[str, float]:
        return {name: v for name, v in _defaults(force).items() if name in self.own.names}


@dataclass(frozen=True, eq=False)
class Entries:
    """Which entries of a custom force have the parameters.

    Attributes
    ----------
    entries, of : int arrays [learned]
        Indices in the force, and the group of each.
    """

    entries: IntArray
    of: IntArray


class CustomTerm(ProbedTerm):
    """Parameters per particle, bond, angle, ... of a custom force, equal within groups."""

    def __init__(
        self,
        name: str,
        place: ForcePlace,
        own: Values,
        entry: str,
        columns: IntArray,
        starts: Starts,
    ) -> None:
        super().__init__(name, place, own)
        self.entry, self.columns, self.starts = entry, columns, starts
        self.size = len(columns)

    @classmethod
    def of(
        cls,
        system: openmm.System,
        parameters: Sequence[str],
        select: Any = None,
        *,
        name: str,
        force: Any = None,
        types: Sequence[str] | None = None,
        each: bool = False,
        linear: bool | None = None,
        positive: bool = False,
        bounds: Any = None,
        scale: float = SCALE,
    ) -> CustomTerm:
        """From what the entries have in a System; see ``SystemParameters.custom``."""
        found, what, columns = _declaring(system, parameters, force)
        _refuse_rows(found, parameters)
        place = ForcePlace.of(system, type(found), found)
        atoms, table = _table(found, what)
        values = table[:, columns]
        kind_of = types_of_particles(types, system.getNumParticles())
        groups = groups_of(select, atoms, values if select is None else table, kind_of, each)
        start = common_start(groups, values, parameters)
        names = [f"{group} {p}" for group in groups.names for p in parameters]
        limits = _of_groups(bounds, groups.names, parameters)
        own = Values(names, start.ravel(), positive=positive, bounds=limits, scale=scale)
        term = cls(name, place, own, what, columns, Starts(groups, table))
        term.begin(system, Entries(groups.entries, groups.of), linear)
        return term

    def related(self) -> list[list[int]]:
        """Parameters of one group; but particles have to do with all others."""
        if self.place.kind in _INTERACTING:
            return []
        return [list(range(k, k + self.size)) for k in range(0, len(self.own), self.size)]

    def layout_like(self, system: openmm.System) -> Any:
        """Its entries have all parameters that those of the first System had at the start."""
        table = _table(self.place.find(system), self.entry)[1]
        entries, of = self.starts.find(table, self.name)
        return self.layout_of(system, Entries(entries, of))

    def blank(self, force: Any) -> None:
        """Ones, of every entry."""
        n = getattr(force, f"getNum{self.entry}s")()
        every = Entries(np.arange(n), np.zeros(n, dtype=np.int64))
        self.put(force, every, np.ones(self.size))

    def held(self, force: Any, layout: Any) -> Array:
        """The parameters of its entries."""
        table = _table(force, self.entry)[1]
        return np.asarray(table[layout.own.entries][:, self.columns])

    def put(self, force: Any, own: Entries, numbers: Array) -> None:
        """Those of each entry; its other parameters stay."""
        of_group = numbers.reshape(-1, self.size)
        get, put = (getattr(force, f"{verb}{self.entry}Parameters") for verb in ("get", "set"))
        for k, group in zip(own.entries.tolist(), own.of.tolist(), strict=True):
            row, place = _row(get(k))
            values = list(row[place])
            for column, value in zip(self.columns, of_group[group].tolist(), strict=True):
                values[column] = value
            put(k, *row[:place], values, *row[place + 1 :])

    def bring(self, force: Any, context: openmm.Context) -> None:
        """Also of a force with tables."""
        update_in(force, context)


class MapTerm(ProbedTerm):
    """A factor for each map of a CMAPTorsionForce."""

    def __init__(self, name: str, place: ForcePlace, own: Values, maps: list[Array]) -> None:
        super().__init__(name, place, own)
        self.maps = maps

    @classmethod
    def of(
        cls,
        system: openmm.System,
        select: Any = None,
        *,
        name: str,
        force: Any = None,
        each: bool = True,
        bounds: Any = None,
        scale: float = SCALE,
    ) -> MapTerm:
        """From the maps of a System; see ``SystemParameters.cmap``."""
        place = ForcePlace.of(system, openmm.CMAPTorsionForce, force)
        found = place.find(system)
        n = found.getNumMaps()
        every = np.arange(n)[:, None]
        if select is None and not each:
            select = {"maps": range(n)}
        groups = groups_of(select, every, every, None, each)
        own = Values(groups.names, np.ones(len(groups.names)), bounds=bounds, scale=scale)
        term = cls(name, place, own, [_map(found, k) for k in range(n)])
        term.begin(system, groups)
        return term

    def related(self) -> list[list[int]]:
        """A map has to do with no other."""
        return [[k] for k in range(len(self.own))]

    def layout_like(self, system: openmm.System) -> Any:
        """The same maps in the same order."""
        force = self.place.find(system)
        maps = [_map(force, k) for k in range(force.getNumMaps())]
        if len(maps) != len(self.maps) or any(
            not np.array_equal(a, b) for a, b in zip(maps, self.maps, strict=True)
        ):
            raise AttachError(f"{self.name}: the maps are not those of the first System")
        return self.layout_of(system, next(iter(self.layouts.values())).own)

    def blank(self, force: Any) -> None:
        """Zeros."""
        for k, energies in enumerate(self.maps):
            force.setMapParameters(k, round(len(energies) ** 0.5), np.zeros(len(energies)).tolist())

    def held(self, force: Any, layout: Any) -> Array:
        """The maps that are learned."""
        return np.concatenate([_map(force, k) for k in layout.own.entries.tolist()])

    def put(self, force: Any, own: Groups, numbers: Array) -> None:
        """The maps of the start, multiplied."""
        for k, group in zip(own.entries.tolist(), own.of.tolist(), strict=True):
            size = round(len(self.maps[k]) ** 0.5)
            force.setMapParameters(k, size, (numbers[group] * self.maps[k]).tolist())


_INTERACTING = (
    openmm.CustomNonbondedForce,
    openmm.CustomGBForce,
    openmm.CustomManyParticleForce,
    openmm.CustomHbondForce,
)
_KINDS = ("Particle", "Bond", "Angle", "Torsion", "Donor", "Acceptor")


def _of_groups(bounds: Any, groups: Sequence[str], parameters: Sequence[str]) -> Any:
    """Those of a parameter, as {"k": (0, 10)}, are those of it in all groups."""
    if not isinstance(bounds, Mapping):
        return bounds
    found: dict[str, Any] = {}
    for name, given in bounds.items():
        in_each = given if isinstance(given, Mapping) else dict.fromkeys(groups, given)
        own = {f"{group} {name}": pair for group, pair in in_each.items()}
        found |= own if name in parameters else {name: given}
    return found


def _defaults(force: Any) -> dict[str, float]:
    if not hasattr(force, "getGlobalParameterDefaultValue"):
        return {}
    count = range(force.getNumGlobalParameters())
    return {force.getGlobalParameterName(k): force.getGlobalParameterDefaultValue(k) for k in count}


def _declared(force: Any) -> dict[str, list[str]]:
    """Names of its parameters per entry, for each kind of entry that it has."""
    return {
        kind: [
            getattr(force, f"getPer{kind}ParameterName")(k)
            for k in range(getattr(force, f"getNumPer{kind}Parameters")())
        ]
        for kind in _KINDS
        if hasattr(force, f"getNumPer{kind}Parameters")
    }


def _declaring(
    system: openmm.System, parameters: Sequence[str], meant: Any
) -> tuple[Any, str, IntArray]:
    """The one force that has these parameters for its entries, of which kind, and which columns."""
    found = [
        (force, kind, np.array([names.index(p) for p in parameters]))
        for force in system.getForces()
        for kind, names in _declared(force).items()
        if set(parameters) <= set(names)
        and (meant is None or meant == force.getName() or getattr(meant, "this", 0) == force.this)
    ]
    if len(found) != 1:
        names = [f.getName() for f, _, _ in found]
        every = {f.getName(): _declared(f) for f in system.getForces() if _declared(f)}
        raise AttachError(
            f"expected one custom force whose entries have the parameters {list(parameters)}, "
            f"found {names or 'none'}; name it, force='...'. There are {every or 'none'}",
            got=names,
        )
    return found[0]


def _refuse_rows(force: Any, parameters: Sequence[str]) -> None:
    """AttachError where one of them says which row of a table is taken, and is no number."""
    tables = _discrete_tables(force)
    inside = [
        arguments
        for expression in _expressions(force)
        for table in tables
        for arguments in re.findall(rf"\b{re.escape(table)}\(([^()]*)\)", expression)
    ]
    for name in parameters:
        if any(re.search(rf"\b{re.escape(name)}[12]?\b", arguments) for arguments in inside):
            raise AttachError(
                f"{force.getName()}: {name!r} says which row of the tables {tables} is taken, and "
                "cannot be learned; pair_tables() learns sigma and epsilon that tables hold",
                got=name,
            )


def _discrete_tables(force: Any) -> list[str]:
    count = range(getattr(force, "getNumTabulatedFunctions", int)())
    kinds = (openmm.Discrete1DFunction, openmm.Discrete2DFunction, openmm.Discrete3DFunction)
    functions = [(force.getTabulatedFunctionName(k), force.getTabulatedFunction(k)) for k in count]
    return [name for name, function in functions if isinstance(function, kinds)]


def _expressions(force: Any) -> list[str]:
    """All that its energy is said by."""
    if hasattr(force, "getEnergyFunction"):
        return [force.getEnergyFunction()]
    values = [force.getComputedValueParameters(k)[1] for k in range(force.getNumComputedValues())]
    return values + [force.getEnergyTermParameters(k)[0] for k in range(force.getNumEnergyTerms())]


def _table(force: Any, entry: str) -> tuple[IntArray, Array]:
    """Particles of each entry, padded with its own index where it has none, and all parameters."""
    count = getattr(force, f"getNum{entry}s")()
    rows = [_row(getattr(force, f"get{entry}Parameters")(k)) for k in range(count)]
    atoms = [_atoms(row, place, k) for k, (row, place) in enumerate(rows)]
    values = np.array([row[place] for row, place in rows], dtype=np.float64)
    return np.array(atoms, dtype=np.int64), values.reshape(count, -1)


def _row(found: Any) -> tuple[list[Any], int]:
    """What get..Parameters gave as a list, and where in it the parameters are."""
    row = list(found)
    if all(isinstance(value, float) for value in row):
        return [tuple(row)], 0
    return row, max(k for k, value in enumerate(row) if isinstance(value, tuple))


def _atoms(row: list[Any], place: int, index: int) -> list[int]:
    if place == 0:
        return [index]
    first = row[0]
    return list(first) if isinstance(first, tuple) else [i for i in row[:place] if i >= 0]


def _map(force: Any, index: int) -> Array:
    energies = force.getMapParameters(index)[1]
    return np.array(getattr(energies, "_value", energies), dtype=np.float64)
