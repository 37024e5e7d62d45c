"""Can a run begin where a Context is? What would end as an explosion is told before."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from scipy.spatial import cKDTree

from ..errors import StatePointError
from ..statistics.kernels import largest_range
from ..units import MOLAR_GAS_CONSTANT, number_in_md_units
from .adapters.pair_force import pair_force
from .context import box_of, masses_of

Array = NDArray[np.float64]

ROOM_FOR_BAROSTAT = 0.93  # share of half the box that is safe while the box fluctuates
_NO_ROOM = 0.985  # beyond that even a stiff liquid soon passes it

_SAME_PLACE = 1e-6  # nm
_ROOM_IF_SKEWED = 3.0  # cutoffs along each side, which Reference needs in a skewed box
_MOST_ENERGY = 1e6  # kT a particle
_BAROSTATS = (openmm.MonteCarloBarostat, openmm.MonteCarloFlexibleBarostat)


def check_masses(system: openmm.System) -> None:
    """StatePointError where a mass is negative or no number, or where nothing moves."""
    masses = masses_of(system)
    if not np.any(masses):
        raise StatePointError(
            "all masses of the System are 0, so that nothing moves: expected masses in amu", got=0.0
        )
    for i, mass in enumerate(masses):
        if not 0 <= mass < float("inf"):
            raise StatePointError(
                f"particle {i} of the System has a mass of {mass:g} amu, expected a positive "
                "number, or 0 for one that does not move",
                got=mass,
            )


_VECTORS = {"positions": "getPositions", "velocities": "getVelocities"}


def check_numbers(state: openmm.State, n: int, names: Iterable[str] = _VECTORS) -> None:
    """StatePointError where a State lacks positions of n particles, or something is no number."""
    for name in names:
        try:
            values = np.asarray(getattr(state, _VECTORS[name])(asNumpy=True)._value).reshape(-1, 3)
        except openmm.OpenMMException as error:
            if name == "velocities":
                continue
            raise StatePointError(
                f"has no {name}: save it from getState(positions=True, velocities=True)"
            ) from error
        if len(values) != n:
            raise StatePointError(f"has {name} of {len(values)} particles, expected {n}", got=n)
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            raise StatePointError(
                f"{name} of particle {wrong[0]} are {values[wrong[0]]}, expected finite numbers",
                got=values[wrong[0]],
            )
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    if not np.isfinite(box).all():
        raise StatePointError(f"has the box {np.asarray(box).tolist()}, expected finite numbers")


def check_start(context: openmm.Context, temperature: float) -> None:
    """Refuse what no run can begin from, at ``temperature`` in K.

    Raises
    ------
    StatePointError
        If a mass, a coordinate, the energy or a force is no number, or the energy is beyond all
        reason; or if a cutoff is so near half the box that a barostat would soon pass it.
    """
    system = context.getSystem()
    check_masses(system)
    try:
        state = context.getState(positions=True, velocities=True, energy=True, forces=True)
    except openmm.OpenMMException as error:
        raise StatePointError(f"no run can begin here: {error}") from error
    n = system.getNumParticles()
    check_numbers(state, n, ["positions"])
    _check_energy(state, n, temperature)
    check_numbers(state, n)  # velocities of a temperature follow from forces
    _warn_of_skewed_box(context)
    if box_fluctuates(system):
        _check_cutoffs(system, np.array(state.getPeriodicBoxVectors(asNumpy=True)._value))


def _warn_of_skewed_box(context: openmm.Context) -> None:
    """In a small one the neighbour list of OpenMM's Reference misses pairs, or has some twice."""
    box = box_of(context)
    is_reference = context.getPlatform().getName() == "Reference"
    if not is_reference or not np.any(box - np.diag(np.diag(box))):
        return
    most = np.diag(box).min() / _ROOM_IF_SKEWED
    found = [name for name, cutoff in cutoffs(context.getSystem()) if cutoff > most]
    if found:
        warnings.warn(
            "the box is skewed, and on the Reference platform OpenMM may miss pairs of "
            f"{found[0]!r}, or count some twice, in a box of few cutoffs: take the CPU platform",
            RuntimeWarning,
            stacklevel=5,
        )


def _check_energy(state: openmm.State, n: int, temperature: float) -> None:
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True)._value
    most = _MOST_ENERGY * n * MOLAR_GAS_CONSTANT * temperature
    if np.isfinite(forces).all() and abs(energy) < most:
        return
    raise StatePointError(
        f"no run can begin here: the energy is {energy:.3g} kJ/mol, the largest force "
        f"{np.abs(forces).max():.3g} kJ/mol/nm{in_one_place(state)}; minimise first, or check "
        "positions, box and parameters",
        got=energy,
        expected=most,
    )


def in_one_place(state: openmm.State) -> str:
    """Which particles lie in the same place, for a message; OpenMM divides by r of a table."""
    positions = np.asarray(state.getPositions(asNumpy=True)._value)
    if not np.isfinite(positions).all():
        return ""
    pairs = cKDTree(positions).query_pairs(_SAME_PLACE)
    return "; particles {} and {} lie in the same place".format(*min(pairs)) if pairs else ""


def box_fluctuates(system: openmm.System) -> bool:
    """Is there a barostat that is at work?"""
    return any(isinstance(f, _BAROSTATS) and f.getFrequency() > 0 for f in system.getForces())


def cutoffs(system: openmm.System) -> Iterator[tuple[str, float]]:
    """Name and cutoff, nm, of each force that has one across the faces of the box."""
    for force in system.getForces():
        own: Any = pair_force(force) or force
        if hasattr(own, "getCutoffDistance") and own.usesPeriodicBoundaryConditions():
            yield own.getName(), number_in_md_units(own.getCutoffDistance(), "length")


def _check_cutoffs(system: openmm.System, box: Array) -> None:
    half = largest_range(box)
    for name, cutoff in cutoffs(system):
        what = (
            f"the cutoff {cutoff:g} nm of {name!r} is near half the box of {sides(box)} nm, which "
            f"a barostat changes: expected at most {ROOM_FOR_BAROSTAT * half:.4g} nm; take more "
            "particles, or a smaller cutoff"
        )
        if cutoff > _NO_ROOM * half:
            raise StatePointError(what, got=cutoff, expected=ROOM_FOR_BAROSTAT * half)
        if cutoff > ROOM_FOR_BAROSTAT * half:
            warnings.warn(what, RuntimeWarning, stacklevel=5)


def too_small_for(context: openmm.Context) -> str:
    """Which cutoff no longer fits into the box, for a message; empty where all do."""
    box = box_of(context)
    for name, cutoff in cutoffs(context.getSystem()):
        if cutoff > ROOM_FOR_BAROSTAT * largest_range(box):
            return (
                f"the box shrank to {sides(box)} nm, and the cutoff {cutoff:g} nm of {name!r} "
                "(potential.cutoff, of a learned force) is too near half of it: take more "
                "particles, a smaller cutoff, or a lower pressure"
            )
    return ""


def sides(box: Array) -> str:
    """The lengths of a box [3, 3] along its axes, nm, for a message."""
    return " x ".join(f"{length:.4g}" for length in np.diag(box))
