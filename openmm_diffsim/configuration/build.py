"""From a configuration to a Refinement that is ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from ..curve import Curve
from ..engine import native
from ..engine.adapters import charges_between, nonbonded_between
from ..engine.boxes import settle_box
from ..engine.context import masses_of
from ..engine.segments import velocity_verlet
from ..engine.start import ROOM_FOR_BAROSTAT, box_fluctuates, sides
from ..engine.statepoint import StatePoint
from ..errors import ConfigurationError, StatePointError, TargetError
from ..fluid import (
    Dynamics,
    find_platform,
    fluid,
    load_system,
    select_atoms,
    start_disordered,
    start_from,
)
from ..io import read_curve
from ..limits import LIMITS
from ..observables import Observable, Site
from ..potentials import Potential, n_pairs_of_types
from ..refinement import GaussNewton, Method, Refinement
from ..statistics.kernels import largest_range
from ..statistics.molecules import parts_of
from .measured import build_target
from .potentials import PotentialSection, Structure, build_potential, check_energies
from .toml import Configuration, RefineSection, SystemSection, TargetSection

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SMALLEST_BOX = 1e-9  # nm^3
_LONG_SEGMENTS = 20  # MD steps on segments for each step between frames: a user should know
_PURE = 1 - 1e-9  # share of the pairs of a g(r) that is of one pair of types


def build_refinement(configuration: Configuration, warn: Any = print) -> Refinement:
    """Build everything, and check it, before any MD.

    Raises
    ------
    ConfigurationError, TargetError, AttachError, StatePointError
        If an entry, a file or the combination of them cannot be.
    """
    notes: list[str] = []
    tell, warn = warn, notes.append  # once all is known to be right: a refusal is a single line
    dynamics = Dynamics(**vars(configuration.dynamics))
    curves = [_read_curve(entry) for entry in configuration.targets]
    topology, system, state, positions = _load(configuration.system, configuration.trusted)
    _check_places(configuration.system, system, state, positions)
    settle_box(topology, system, state, warn)
    dynamics.press(system, configuration.refine.seed)
    box = _box(system, state)
    type_of = _types(configuration.system, topology)
    site = _site(configuration, topology, system, box, type_of, warn)
    observables = [
        _observable(entry, curve, site)
        for entry, curve in zip(configuration.targets, curves, strict=True)
    ]
    _check_cutoff(configuration, system, box)
    _tell_cost(observables, configuration.refine.every, warn)
    n_types = max(1, len(configuration.system.types))
    section = configuration.potential
    corrections = _corrections(section, system, type_of, n_types, warn)
    zero = {k for k, charges in corrections.items() if charges is None}
    measured, borrowed = _structures(observables, curves, type_of, n_types)
    _tell_borrowed(section, measured, sorted(set(borrowed) - zero), n_types, warn)
    potential = build_potential(section, measured, dynamics.temperature, n_types, corrections)
    check_energies(potential, configuration.potential, dynamics.temperature)
    potential.learn_only(section.learn)
    backend = "native" if native.supports(find_platform(dynamics.platform)) else "table"
    with told_warnings(warn):
        potential.attach(
            system,
            atoms=site.atoms,
            types=type_of[type_of >= 0],
            backend=backend,
            exclude_bonds=configuration.system.exclude_bonds,
        )
    seed = configuration.refine.seed
    simulation = dynamics.simulation(topology, system, seed)
    if positions is None:
        start_disordered(simulation, dynamics.temperature, seed)
    else:
        start_from(simulation, state, positions, seed, warn)
    point = _state_point(simulation, potential)
    parts = zip(configuration.targets, observables, curves, strict=True)
    targets = [build_target(number, point, *part) for number, part in enumerate(parts)]
    with told_warnings(warn):
        fit = Refinement(
            potential,
            targets,
            _method(configuration.refine),
            largest_step=configuration.refine.largest_step,
        )
    for note in notes:
        tell(note)
    return fit


def _state_point(simulation: app.Simulation, potential: Potential) -> StatePoint:
    """ConfigurationError where the System has a thermostat or barostat of another temperature."""
    try:
        return StatePoint(simulation, potential)
    except StatePointError as error:
        key = "dynamics.temperature"
        what = f"{key}, or what system.system or system.state say: {error}"
        raise ConfigurationError(what, key=key) from error


def _method(section: RefineSection) -> str | Method:
    if section.method == "gauss-newton":
        return GaussNewton(section.gauss_newton)
    return section.method


@contextmanager
def told_warnings(tell: Any) -> Iterator[None]:
    """Python's warnings in one line each, as all else that a user is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        tell(f"warning: {warning.message}")


def _corrections(
    section: PotentialSection, system: openmm.System, type_of: IntArray, n_types: int, warn: Any
) -> dict[int, tuple[float, float] | None]:
    """Pairs of types that other forces act between: a correction to these begins at zero.

    Where only charges act, these, e: then it begins beside what others do not screen of them.
    """
    if section.initial != "boltzmann-inversion":
        return {}
    members = [np.flatnonzero(type_of == kind) for kind in range(n_types)]
    pairs = [(a, b) for a in range(n_types) for b in range(a, n_types)]
    others = [nonbonded_between(system, members[a], members[b]) for a, b in pairs]
    charges = [charges_between(system, members[a], members[b]) for a, b in pairs]
    found = [k for k, names in enumerate(others) if names and charges[k] is None]
    if found:
        names = " and ".join(dict.fromkeys(name for k in found for name in others[k]))
        which = ", ".join("{}-{}".format(*pairs[k]) for k in found)
        of = "these particles" if len(found) == len(pairs) else f"particles of types {which}"
        warn(
            f"potential.initial: {names} of the System acts between {of} already, so the potential "
            "begins at zero there, as a correction, and not at the potential of mean force"
        )
    return {k: charges[k] for k, names in enumerate(others) if names}


def _read_curve(entry: TargetSection) -> Curve | None:
    """What was measured, where it is a curve."""
    if entry.file is None or entry.observable.rules is None:
        return None
    curve = read_curve(entry.file, entry.observable.rules, entry.unit, entry.columns, entry.block)
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
    topology, system = fluid(section.particles, section.number_density, section.mass)
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
    configuration: Configuration,
    topology: app.Topology,
    system: openmm.System,
    box: Array,
    type_of: IntArray,
    warn: Any,
) -> Site:
    """What observables are told of where they are measured."""
    room = ROOM_FOR_BAROSTAT if box_fluctuates(system) else 1.0
    timestep = configuration.dynamics.timestep
    return Site(
        masses=masses_of(system),
        molecule_of=_molecules(topology, system),
        topology=topology,
        atoms=None if (type_of >= 0).all() else np.flatnonzero(type_of >= 0),
        volume=float(np.linalg.det(box)),
        reach=room * largest_range(box),
        timestep=timestep,
        temperature=configuration.dynamics.temperature,
        find=partial(select_atoms, topology),
        integrator=lambda name: velocity_verlet(timestep) if name == "nve" else None,
        warn=warn,
    )


def _molecules(topology: app.Topology, system: openmm.System) -> IntArray:
    """[particles], index of the molecule of each, by the topology's bonds and the constraints."""
    rigid = map(system.getConstraintParameters, range(system.getNumConstraints()))
    bonds = [(a.index, b.index) for a, b in topology.bonds()] + [(i, j) for i, j, _ in rigid]
    return parts_of(np.array(bonds, dtype=np.int64).reshape(-1, 2), system.getNumParticles())


def _observable(entry: TargetSection, curve: Curve | None, site: Site) -> Observable:
    """The observable of a target, which its curve has been held against: a potential may need it.

    The target does so again, with all that the Simulation knows.
    """
    made = entry.observable.from_settings(dict(entry.settings), site, curve)
    if curve is not None and not entry.as_it_is:
        made.check(curve, site)
    return made


def _types(section: SystemSection, topology: app.Topology) -> IntArray:
    """Type of each particle, int [particles], -1 for those that the potential leaves out."""
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


def _structures(
    observables: Sequence[Observable],
    curves: Sequence[Curve | None],
    type_of: IntArray,
    n_types: int,
) -> tuple[list[Structure | None], list[int]]:
    """Of each pair of types its own g(r) or, where it has none, the first; and those without."""
    found = [
        (observable.counted_pairs(type_of), Structure(observable, curve))
        for observable, curve in zip(observables, curves, strict=True)
        if observable.is_structure and curve is not None
    ]
    n_pairs = n_pairs_of_types(n_types)
    measured: list[Structure | None] = [found[0][1] if found else None] * n_pairs
    borrowed = set(range(n_pairs))
    for counted, structure in reversed(found):  # the first of several counts
        if counted is not None and counted.shares.max() > _PURE:
            pair = int(np.argmax(counted.shares))
            measured[pair] = structure
            borrowed.discard(pair)
    return measured, sorted(borrowed)


def _tell_borrowed(
    section: PotentialSection,
    measured: Sequence[Structure | None],
    borrowed: Sequence[int],
    n_types: int,
    warn: Any,
) -> None:
    """Say which pairs of types have no g(r) of their own to start from."""
    if n_types == 1 or not borrowed or section.initial != "boltzmann-inversion":
        return
    structure = measured[borrowed[0]]
    assert structure is not None
    types = list(zip(*np.triu_indices(n_types), strict=True))
    names = ", ".join("{}-{}".format(*types[pair]) for pair in borrowed)
    warn(
        f"potential.initial: the pairs of types {names} have no g(r) of their own and start from "
        f"that of {structure.curve.path}; types are numbered from 0, as in system.types"
    )


def _tell_cost(observables: Sequence[Observable], every: int, warn: Any) -> None:
    """Say so where segments take many times the steps that lie between their starts."""
    for observable in observables:
        if observable.steps > _LONG_SEGMENTS * every:
            warn(
                f"{observable.label}: a segment of {observable.steps} steps from every frame, "
                f"{every} steps apart, takes {observable.steps / every:.0f} times the MD of the "
                "fit itself; a shorter window or length, or a larger refine.every, is faster"
            )


def _box(system: openmm.System, state: openmm.State | None) -> Array:
    vectors = (
        system.getDefaultPeriodicBoxVectors() if state is None else state.getPeriodicBoxVectors()
    )
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors], dtype=np.float64)


def _check_cutoff(configuration: Configuration, system: openmm.System, box: Array) -> None:
    cutoff, limit = configuration.potential.cutoff, largest_range(box)
    why = ""
    if box_fluctuates(system):
        limit, why = ROOM_FOR_BAROSTAT * limit, ", less what a barostat needs"
    if cutoff <= limit:
        return
    hint = "take a larger box"
    n = configuration.system.particles
    if n is not None:
        hint = f"take at least {np.ceil(n * (cutoff / limit) ** 3):.9g} particles"
    raise ConfigurationError(
        f"potential.cutoff: {cutoff:g} nm is beyond half the box of {sides(box)} nm{why}: "
        f"{limit:.4g} nm; {hint} or a smaller cutoff",
        key="potential.cutoff",
        got=cutoff,
        expected=limit,
    )
