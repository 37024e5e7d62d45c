"""State points of a configuration before anything is learned of them: Systems, sites, data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from ..curve import Curve
from ..engine.boxes import settle_box
from ..engine.context import masses_of
from ..engine.segments import velocity_verlet
from ..engine.start import ROOM_FOR_BAROSTAT, box_fluctuates
from ..errors import ConfigurationError, TargetError
from ..fluid import Dynamics, fluid, load_system, select_atoms
from ..io import read_curve
from ..limits import LIMITS
from ..observables import Observable, Site
from ..statistics.kernels import largest_range
from ..statistics.molecules import parts_of
from .states import StateSection
from .system import SystemSection
from .targets import TargetSection

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Tell = Callable[[str], None]

_SMALLEST_BOX = 1e-9  # nm^3
_APART = 100  # seeds of two state points, which use a few each


@dataclass(frozen=True, eq=False)
class Prepared:
    """A state point with its System, to which no potential is attached yet."""

    section: StateSection
    topology: app.Topology
    system: openmm.System
    state: openmm.State | None
    positions: Any
    """None of a fluid, which has none yet."""
    dynamics: Dynamics
    seed: int
    type_of: IntArray
    """[particles], -1 for those that a pair potential leaves out."""
    site: Site

    @property
    def name(self) -> str:
        """Of the state point."""
        return self.section.name

    @property
    def temperature(self) -> float:
        """K."""
        return self.dynamics.temperature

    @property
    def box(self) -> Array:
        """Vectors, nm, [3, 3]."""
        return _box(self.system, self.state)


@dataclass(frozen=True, eq=False)
class Measured:
    """A target before its potential is there."""

    entry: TargetSection
    observable: Observable
    curve: Curve | None
    places: tuple[Prepared, ...]

    @property
    def place(self) -> Prepared:
        """The first of them."""
        return self.places[0]


@dataclass(frozen=True, eq=False)
class Known:
    """All that a first guess may be made of."""

    places: Sequence[Prepared]
    measured: Sequence[Measured]
    tell: Tell
    trusted: bool = False

    @property
    def n_types(self) -> int:
        """Of particles."""
        return self.places[0].section.system.n_types

    @property
    def fitted(self) -> Sequence[Measured]:
        """What a first guess is made of: what is to be predicted only if there is nothing else."""
        return [each for each in self.measured if not each.entry.predict] or self.measured


def prepare(section: StateSection, index: int, seed: int, trusted: bool, warn: Tell) -> Prepared:
    """A state point; ``index`` counts them.

    Raises
    ------
    ConfigurationError
        If a file, the box or the types of particles cannot be.
    """
    own = (seed + _APART * index) % (LIMITS["seed"].most - _APART) if index else seed
    dynamics = Dynamics(**vars(section.dynamics))
    topology, system, state, positions = _load(section.system, trusted)
    _check_places(section.system, system, state, positions)
    settle_box(topology, system, state, warn)
    dynamics.press(system, int(own))
    type_of = _types(section.system, topology)
    site = _site(section, topology, system, _box(system, state), type_of, warn)
    return Prepared(section, topology, system, state, positions, dynamics, int(own), type_of, site)


def measure(entry: TargetSection, curve: Curve | None, places: Sequence[Prepared]) -> Measured:
    """The observable of a target, which its curve has been held against: a potential may need it.

    The target does so again, with all that the Simulation knows.
    """
    chosen = {place.name: place for place in places}
    own = tuple(chosen[name] for name in entry.states) or tuple(places[:1])
    site = own[0].site
    made = entry.observable.from_settings(dict(entry.settings), site, curve)
    if curve is not None and not entry.as_it_is:
        made.check(curve, site)
    return Measured(entry, made, curve, own)


def curve_of(entry: TargetSection) -> Curve | None:
    """What was measured, where it is a curve."""
    rules = entry.rules
    if entry.file is None or rules is None:
        return None
    curve = read_curve(entry.file, rules, entry.unit, entry.columns, entry.block)
    known = entry.uncertainty is not None or "covariance" in entry.measurement
    if curve.error is None and not known:
        raise TargetError(
            f"{entry.file}: has no column of errors; give an uncertainty in [[target]]",
            path=entry.file,
            key="target.uncertainty",
        )
    return curve


def _load(
    section: SystemSection, trusted: bool
) -> tuple[app.Topology, openmm.System, openmm.State | None, Any]:
    """Topology, System, State and positions; the last are None for a fluid, which has none yet."""
    if section.particles is None:
        state = None if section.state is None else str(section.state)
        return load_system(str(section.topology), str(section.system), state, trusted)
    assert section.number_density is not None and section.mass is not None
    counts = section.counts or section.particles
    masses = section.masses or section.mass
    topology, system = fluid(counts, section.number_density, masses, section.names or None)
    return topology, system, None, None


def _check_places(
    section: SystemSection, system: openmm.System, state: openmm.State | None, positions: Any
) -> None:
    """ConfigurationError where a box has no volume, or a particle is nowhere or far beyond it.

    OpenMM reads a number that it does not understand as NaN or zero.
    """
    start = ("topology", section.topology, positions)
    boxes = [("system", section.system, _box(system, None))]
    if state is not None:
        start = ("state", section.state, state.getPositions(asNumpy=True))
        boxes.append(("state", section.state, _box(system, state)))
    for key, path, box in boxes:
        if not np.all(np.isfinite(box)) or not np.linalg.det(box) > _SMALLEST_BOX:
            vectors = np.round(box, 6).tolist()
            raise _unfit(key, path, f"box vectors {vectors} nm, expected a box that has a volume")
    if start[2] is None:
        return
    x = np.asarray(start[2].value_in_unit(unit.nanometer))
    wrong = ~(np.abs(x) <= LIMITS["position"].most).all(axis=1)
    if wrong.any():
        n = int(np.argmax(wrong))
        raise _unfit(*start[:2], f"particle {n} at {x[n].tolist()} nm")


def _unfit(key: str, path: Any, what: str) -> ConfigurationError:
    full = f"system.{key}"
    place = full if path is None else f"{full}: {path}"
    return ConfigurationError(f"{place} has {what}; is the file damaged?", key=full, got=path)


def _site(
    section: StateSection,
    topology: app.Topology,
    system: openmm.System,
    box: Array,
    type_of: IntArray,
    warn: Tell,
) -> Site:
    """What observables are told of where they are measured."""
    room = ROOM_FOR_BAROSTAT if box_fluctuates(system) else 1.0
    timestep = section.dynamics.timestep
    return Site(
        masses=masses_of(system),
        molecule_of=_molecules(topology, system),
        topology=topology,
        atoms=None if (type_of >= 0).all() else np.flatnonzero(type_of >= 0),
        volume=float(np.linalg.det(box)),
        reach=room * largest_range(box),
        timestep=timestep,
        temperature=section.dynamics.temperature,
        find=partial(select_atoms, topology),
        integrator=lambda name: velocity_verlet(timestep) if name == "nve" else None,
        warn=warn,
    )


def _molecules(topology: app.Topology, system: openmm.System) -> IntArray:
    """[particles], index of the molecule of each, by the topology's bonds and the constraints."""
    rigid = map(system.getConstraintParameters, range(system.getNumConstraints()))
    bonds = [(a.index, b.index) for a, b in topology.bonds()] + [(i, j) for i, j, _ in rigid]
    return parts_of(np.array(bonds, dtype=np.int64).reshape(-1, 2), system.getNumParticles())


def _types(section: SystemSection, topology: app.Topology) -> IntArray:
    """Type of each particle, int [particles], -1 for those that the potential leaves out."""
    if section.counts:
        return np.repeat(np.arange(len(section.counts)), section.counts)
    type_of = np.full(topology.getNumAtoms(), -1, dtype=np.int64)
    selections = section.types or (section.atoms,)
    for index, selection in enumerate(selections):
        key = "system.types" if section.types else "system.atoms"
        atoms = slice(None) if selection is None else select_atoms(topology, selection, key)
        if (type_of[atoms] >= 0).any():
            raise ConfigurationError(
                f"{key}: {selection!r} selects atoms that another type has already; expected each "
                "atom in one type",
                key=key,
                got=selection,
            )
        type_of[atoms] = index
    return type_of


def _box(system: openmm.System, state: openmm.State | None) -> Array:
    vectors = (
        system.getDefaultPeriodicBoxVectors() if state is None else state.getPeriodicBoxVectors()
    )
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors], dtype=np.float64)
