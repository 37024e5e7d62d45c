"""From a potential to an OpenMM Force, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from .errors import AttachError
from .potentials import PairPotential, SplineBasis, pair_index
from .units import value_in_md_units

IntArray = NDArray[np.int64]

_PADDING = 24  # knots; an interpolating cubic spline forgets a jump by 0.268 per knot
_TABLE = "spline"


def attach(
    potential: PairPotential,
    system: openmm.System,
    atoms: ArrayLike | None = None,
    types: ArrayLike | None = None,
    exclusions: Any = None,
    periodic: bool | None = None,
    temperature: Any = None,
) -> openmm.CustomNonbondedForce:
    """Add ``potential`` to ``system``; see ``PairPotential.attach``.

    The Force is a CustomNonbondedForce with one table that holds the potential of every pair of
    types. OpenMM interpolates a table with a natural cubic spline, and the potential *is* the
    natural cubic spline through its knots, so the table has one entry per knot and is exact.
    """
    if find_force(potential, system) is not None:
        raise AttachError(
            f"the System already has a force named {potential.name!r}; give this potential "
            "another name= to attach both"
        )
    n = system.getNumParticles()
    type_of = _type_of_particle(potential, n, atoms, types)
    coefficients = _detached(potential, temperature)
    # A type one beyond the last marks particles that do not interact: their pairs are looked up
    # in the stretch of zeros at the end of the table.
    absent = bool((type_of < 0).any())
    force = openmm.CustomNonbondedForce(_expression(potential, absent))
    force.setName(potential.name)
    force.addPerParticleParameter("type")
    table, low, high = knot_table(potential.basis, coefficients)
    force.addTabulatedFunction(_TABLE, openmm.Continuous1DFunction(table, low, high))
    if potential.n_types > 1 or absent:
        shifts = _shifts(potential.basis, potential.n_types)
        size = len(shifts)
        force.addTabulatedFunction(
            "shift", openmm.Discrete2DFunction(size, size, shifts.T.ravel().tolist())
        )
    for particle_type in np.where(type_of < 0, potential.n_types, type_of):
        force.addParticle([float(particle_type)])
    for a, b in _exclusions(system, exclusions):
        force.addExclusion(int(a), int(b))
    force.setNonbondedMethod(
        force.CutoffPeriodic if _is_periodic(system, periodic) else force.CutoffNonPeriodic
    )
    force.setCutoffDistance(potential.basis.cutoff)
    system.addForce(force)
    return force


PairPotential.force_builder = staticmethod(attach)


def find_force(
    potential: PairPotential, system: openmm.System
) -> openmm.CustomNonbondedForce | None:
    """The Force that ``attach`` added for this potential (by its name), or None."""
    for force in system.getForces():
        if isinstance(force, openmm.CustomNonbondedForce) and force.getName() == potential.name:
            return force
    return None


def update_force(
    potential: PairPotential,
    force: openmm.CustomNonbondedForce,
    context: openmm.Context | None = None,
    temperature: Any = None,
) -> None:
    """Copy the potential's present parameters to its Force and, if given, to a live Context.

    Nothing is rebuilt.

    Raises
    ------
    AttachError
        If the coefficients are not finite, the Force was made for other knots, or the Context
        was made before the Force was added to the System.
    """
    table, low, high = knot_table(potential.basis, _detached(potential, temperature))
    function = force.getTabulatedFunction(0)
    old, old_low, old_high = function.getFunctionParameters()
    if len(old) != len(table) or abs(old_high - high) > 1e-9 or abs(old_low - low) > 1e-9:
        raise AttachError(
            f"the force {force.getName()!r} in the System was made for other knots than "
            f"{potential.basis}"
        )
    function.setFunctionParameters(table, low, high)
    if context is None:
        return
    try:
        force.updateParametersInContext(context)
    except openmm.OpenMMException as error:
        raise AttachError(
            f"the Context does not know the force {force.getName()!r} ({error}). It was made "
            "before attach(): attach first, or call context.reinitialize(preserveState=True)"
        ) from error


def particle_types(force: openmm.CustomNonbondedForce, n_types: int) -> IntArray:
    """Type of each particle, int [particles], -1 for those that do not interact."""
    n = force.getNumParticles()
    types = np.array([force.getParticleParameters(i)[0] for i in range(n)], dtype=np.int64)
    return np.where(types == n_types, -1, types)


def force_exclusions(force: openmm.CustomNonbondedForce) -> IntArray:
    """Excluded pairs, int [exclusions, 2]."""
    pairs = [force.getExclusionParticles(i) for i in range(force.getNumExclusions())]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def knot_table(
    basis: SplineBasis, coefficients: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, float]:
    """Values, first and last abscissa (nm) of the table that holds every pair of types.

    One pair of types: knots from r <= 0 to the cutoff. More: the same stretch for each, shifted
    by ``_shift_between_pairs`` knots, between them padding in which the interpolating spline
    forgets the jump, and zeros at the end.
    """
    below = _knots_below(basis)
    if len(coefficients) == 1:
        r = basis.r_min + basis.spacing * np.arange(-below, basis.knots)
        return basis.values(r) @ coefficients[0], float(r[0]), basis.cutoff
    stride = _shift_between_pairs(basis)
    r = basis.r_min + basis.spacing * (np.arange(stride) - below - _PADDING)
    values = (basis.values(r) @ coefficients.T).T.ravel()
    table = np.concatenate([values, np.zeros(stride)])
    low = float(r[0])
    return table, low, low + basis.spacing * (len(table) - 1)


def _knots_below(basis: SplineBasis) -> int:
    return int(np.ceil(basis.r_min / basis.spacing))


def _shift_between_pairs(basis: SplineBasis) -> int:
    return _knots_below(basis) + basis.knots + 2 * _PADDING


def _shifts(basis: SplineBasis, n_types: int) -> NDArray[np.float64]:
    """What to add to r to look up each pair of types, nm, [types + 1, types + 1]."""
    index = np.full((n_types + 1, n_types + 1), n_types * (n_types + 1) // 2)
    index[:n_types, :n_types] = pair_index(n_types)
    return index * _shift_between_pairs(basis) * basis.spacing


def _expression(potential: PairPotential, absent: bool) -> str:
    if potential.n_types == 1 and not absent:
        return f"{_TABLE}(r)"
    return f"{_TABLE}(r + shift(type1, type2))"


def _detached(potential: PairPotential, temperature: Any) -> NDArray[np.float64]:
    kelvin = None if temperature is None else float(value_in_md_units(temperature, "temperature"))
    c = potential.coefficients(kelvin).detach().numpy()
    if not np.all(np.isfinite(c)):
        raise AttachError(f"the coefficients of {potential.name!r} are not finite")
    return c


def _type_of_particle(
    potential: PairPotential, n: int, atoms: ArrayLike | None, types: ArrayLike | None
) -> IntArray:
    chosen = np.arange(n) if atoms is None else np.asarray(atoms, dtype=np.int64).ravel()
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= n:
        got = f"{chosen.min()} .. {chosen.max()}" if len(chosen) else "none"
        raise AttachError(f"atoms: expected indices 0 .. {n - 1}, got {got}", got=got, limit=n - 1)
    if len(np.unique(chosen)) != len(chosen):
        raise AttachError("atoms: an index is given twice")
    kinds = np.zeros(len(chosen)) if types is None else np.asarray(types).ravel()
    if kinds.shape != chosen.shape:
        raise AttachError(
            f"types: expected one for each of {len(chosen)} atoms, got {len(kinds)}",
            expected=len(chosen),
            got=len(kinds),
        )
    last = potential.n_types - 1
    if np.any(kinds != np.floor(kinds)) or kinds.min() < 0 or kinds.max() > last:
        raise AttachError(f"types: expected whole numbers 0 .. {last}, got {np.unique(kinds)}")
    type_of = np.full(n, -1, dtype=np.int64)
    type_of[chosen] = kinds.astype(np.int64)
    return type_of


def _exclusions(system: openmm.System, exclusions: Any) -> list[tuple[int, int]]:
    present = None
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            pairs = [force.getExceptionParameters(i)[:2] for i in range(force.getNumExceptions())]
        elif isinstance(force, openmm.CustomNonbondedForce):
            pairs = [force.getExclusionParticles(i) for i in range(force.getNumExclusions())]
        else:
            continue
        present = sorted((min(a, b), max(a, b)) for a, b in pairs)
    if exclusions is None:
        return present or []
    wanted = sorted({(min(int(a), int(b)), max(int(a), int(b))) for a, b in exclusions})
    n = system.getNumParticles()
    for a, b in wanted:
        if a < 0 or b >= n or a == b:
            raise AttachError(f"exclusions: ({a}, {b}) is not a pair of particles 0 .. {n - 1}")
    if present is not None and wanted != present:
        raise AttachError(
            f"exclusions: got {len(wanted)} pairs, but the System's other nonbonded force has "
            f"{len(present)} that differ, and OpenMM wants them to be the same; leave exclusions "
            "out to take over those"
        )
    return wanted


def _is_periodic(system: openmm.System, periodic: bool | None) -> bool:
    if periodic is not None:
        return periodic
    methods = [
        force.usesPeriodicBoundaryConditions()
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce | openmm.CustomNonbondedForce)
    ]
    return all(methods)
