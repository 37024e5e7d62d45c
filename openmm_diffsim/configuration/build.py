"""From a configuration to a Refinement that is ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from ..curve import Curve
from ..engine import native
from ..engine.adapters import nonbonded_between
from ..engine.segments import velocity_verlet
from ..engine.statepoint import StatePoint
from ..errors import ConfigurationError, TargetError
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
from ..observables import Observable, Site
from ..refinement import Refinement, Target
from ..statistics.kernels import largest_range
from .potentials import PotentialSection, Structure, build_potential
from .toml import Configuration, SystemSection, TargetSection

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_LONG_SEGMENTS = 20  # MD steps on segments for each step between frames: a user should know
_ROOM_FOR_BAROSTAT = 0.93  # share of half the box that is safe while the box fluctuates
_BAROSTATS = (openmm.MonteCarloBarostat, openmm.MonteCarloFlexibleBarostat)


def build_refinement(configuration: Configuration, warn: Any = print) -> Refinement:
    """Build everything, and check it, before any MD.

    Raises
    ------
    ConfigurationError, TargetError, AttachError, StatePointError
        If an entry, a file or the combination of them cannot be.
    """
    dynamics = Dynamics(**vars(configuration.dynamics))
    curves = [_read_curve(entry) for entry in configuration.targets]
    topology, system, state, positions = _load(configuration.system)
    box = _box(system, state)
    site = _site(configuration, topology, system, box, warn)
    observables = [
        _observable(entry, curve, site)
        for entry, curve in zip(configuration.targets, curves, strict=True)
    ]
    _check_cutoff(configuration, box)
    _tell_cost(observables, configuration.refine.every, warn)
    measured = _structure(observables, curves)
    section = _beside_others(configuration.potential, system, site.atoms, warn)
    potential = build_potential(section, measured, dynamics.temperature)
    backend = "native" if native.supports(find_platform(dynamics.platform)) else "table"
    potential.attach(system, atoms=site.atoms, backend=backend)
    seed = configuration.refine.seed
    simulation = dynamics.simulation(topology, system, seed)
    if positions is None:
        start_disordered(simulation, dynamics.temperature, seed)
    else:
        start_from(simulation, state, positions, seed)
    point = StatePoint(simulation, potential)
    parts = zip(configuration.targets, observables, curves, strict=True)
    targets = [_target(point, *part) for part in parts]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit = Refinement(
            potential,
            targets,
            configuration.refine.method,
            largest_step=configuration.refine.largest_step,
        )
    for each in told:
        warn(f"warning: {each.message}")
    return fit


def _beside_others(
    section: PotentialSection, system: openmm.System, atoms: IntArray | None, warn: Any
) -> PotentialSection:
    """A correction to what already acts between these particles begins at zero."""
    chosen = np.arange(system.getNumParticles()) if atoms is None else atoms
    others = nonbonded_between(system, chosen, chosen)
    if section.initial != "boltzmann-inversion" or not others:
        return section
    warn(
        f"potential.initial: {' and '.join(others)} of the System acts between these particles "
        "already, so the potential begins at zero, as a correction, and not at the potential of "
        "mean force"
    )
    return replace(section, initial="zero")


def _read_curve(entry: TargetSection) -> Curve | None:
    """What was measured, where it is a curve."""
    if entry.file is None or entry.observable.rules is None:
        return None
    curve = read_curve(entry.file, entry.observable.rules, entry.unit)
    if curve.error is None and entry.uncertainty is None:
        raise TargetError(
            f"{entry.file}: has no third column with errors; give an uncertainty in [[target]]",
            path=entry.file,
            key="target.uncertainty",
        )
    return curve


def _load(
    section: SystemSection,
) -> tuple[app.Topology, openmm.System, openmm.State | None, Any]:
    """Topology, System, State and positions; the last are None for a fluid, which has none yet."""
    if section.particles is None:
        state = None if section.state is None else str(section.state)
        return load_system(str(section.topology), str(section.system), state)
    assert section.number_density is not None and section.mass is not None
    topology, system = fluid(section.particles, section.number_density, section.mass)
    return topology, system, None, None


def _site(
    configuration: Configuration,
    topology: app.Topology,
    system: openmm.System,
    box: Array,
    warn: Any,
) -> Site:
    """What observables are told of where they are measured."""
    selection = configuration.system.atoms
    room = _ROOM_FOR_BAROSTAT if _box_fluctuates(system) else 1.0
    timestep = configuration.dynamics.timestep
    masses = [system.getParticleMass(i) for i in range(system.getNumParticles())]
    return Site(
        topology=topology,
        masses=np.array([mass.value_in_unit(unit.dalton) for mass in masses]),
        atoms=None if selection is None else select_atoms(topology, selection, "system.atoms"),
        volume=float(np.linalg.det(box)),
        reach=room * largest_range(box),
        timestep=timestep,
        temperature=configuration.dynamics.temperature,
        find=partial(select_atoms, topology),
        integrator=lambda name: velocity_verlet(timestep) if name == "nve" else None,
        warn=warn,
    )


def _observable(entry: TargetSection, curve: Curve | None, site: Site) -> Observable:
    """The observable of a target, which its curve has been held against."""
    made = entry.observable.from_settings(dict(entry.settings), site, curve)
    if curve is not None:
        made.check(curve, site)
    return made


def _structure(
    observables: Sequence[Observable], curves: Sequence[Curve | None]
) -> Structure | None:
    """The first g(r)."""
    for observable, curve in zip(observables, curves, strict=True):
        if observable.is_structure and curve is not None:
            return Structure(observable, curve)
    return None


def _target(
    point: StatePoint, entry: TargetSection, observable: Observable, curve: Curve | None
) -> Target:
    if curve is None:
        return Target(
            point, observable, entry.value, uncertainty=entry.uncertainty, weight=entry.weight
        )
    return Target(
        point,
        observable,
        curve,
        uncertainty=entry.uncertainty,
        weight=entry.weight,
        window=entry.window,
        noise=entry.noise,
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


def _box_fluctuates(system: openmm.System) -> bool:
    return any(isinstance(f, _BAROSTATS) and f.getFrequency() > 0 for f in system.getForces())


def _check_cutoff(configuration: Configuration, box: Array) -> None:
    cutoff, limit = configuration.potential.cutoff, largest_range(box)
    if cutoff <= limit:
        return
    hint = "take a larger box"
    n = configuration.system.particles
    if n is not None:
        hint = f"take at least {int(np.ceil(n * (cutoff / limit) ** 3))} particles"
    raise ConfigurationError(
        f"potential.cutoff: {cutoff:g} nm is beyond half the box, {limit:.4g} nm; {hint} or a "
        "smaller cutoff",
        key="potential.cutoff",
        got=cutoff,
        expected=limit,
    )
