"""The two Forces that run a pair potential, with the same energy.

"native" is the plugin's SplinePairForce, "table" a CustomNonbondedForce with a table, which every
OpenMM has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from ...potentials import SplineBasis, n_pairs_of_types, pair_index
from .. import native
from ..native import SplinePairForce
from .tabulated import LearnedTables, PairTables, natural_spline

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PADDING = 24  # knots; an interpolating cubic spline forgets a jump by 0.268 per knot
_TABLE = "spline"
NETWORK_BACKENDS = ("torchforce", "pythontorchforce", "python")


def particle_types(force: openmm.Force, n_types: int) -> IntArray:
    """Type of each particle, int [particles], -1 for those that do not interact."""
    if isinstance(force, SplinePairForce):
        return force.getParticleTypes()
    n = force.getNumParticles()
    types = np.array([force.getParticleParameters(i)[0] for i in range(n)], dtype=np.int64)
    return np.where(types == n_types, -1, types)


def force_exclusions(force: openmm.Force) -> IntArray:
    """Excluded pairs, int [exclusions, 2]."""
    if isinstance(force, SplinePairForce):
        return force.getExclusions()
    pairs = [force.getExclusionParticles(i) for i in range(force.getNumExclusions())]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


# The two backends ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairContent:
    """What a pair force says, whichever class says it."""

    name: str
    basis: SplineBasis
    n_types: int
    coefficients: Array  # [pairs of types, coefficients], kJ/mol
    type_of: IntArray  # [particles], -1 for those that do not interact
    exclusions: IntArray  # [exclusions, 2]
    periodic: bool


def _native_force(content: PairContent) -> SplinePairForce:
    basis = content.basis
    force = SplinePairForce(content.n_types, basis.r_min, basis.cutoff, basis.knots)
    force.setName(content.name)
    force.setCoefficients(content.coefficients)
    force.addParticles(content.type_of)
    force.addExclusions(content.exclusions)
    _set_method(force, content.periodic)
    return force


def _table_force(content: PairContent) -> openmm.CustomNonbondedForce:
    """One table holds the potential of every pair of types.

    OpenMM interpolates a table with a natural cubic spline, and the potential *is* the natural
    cubic spline through its knots, so the table has one entry per knot and is exact.
    """
    # A type one beyond the last marks particles that do not interact: their pairs are looked up
    # in the stretch of zeros at the end of the table.
    absent = bool((content.type_of < 0).any())
    one_pair = content.n_types == 1 and not absent
    force = openmm.CustomNonbondedForce(
        f"{_TABLE}(r)" if one_pair else f"{_TABLE}(r + shift(type1, type2))"
    )
    force.setName(content.name)
    force.addPerParticleParameter("type")
    table, low, high = knot_table(content.basis, content.coefficients)
    force.addTabulatedFunction(_TABLE, openmm.Continuous1DFunction(table, low, high))
    if not one_pair:
        shifts = _shifts(content.basis, content.n_types)
        size = len(shifts)
        force.addTabulatedFunction(
            "shift", openmm.Discrete2DFunction(size, size, shifts.T.ravel().tolist())
        )
    for particle_type in np.where(content.type_of < 0, content.n_types, content.type_of):
        force.addParticle([float(particle_type)])
    for a, b in content.exclusions:
        force.addExclusion(int(a), int(b))
    force.setCutoffDistance(content.basis.cutoff)
    _set_method(force, content.periodic)
    return force


BACKENDS: dict[str, Callable[[PairContent], openmm.Force]] = {
    "native": _native_force,
    "table": _table_force,
}


def choose_backend(backend: str | None) -> str:
    if backend is None:
        return "native" if native.available() else "table"
    if backend not in BACKENDS:
        hint = "; a pair potential runs as a network by potential.as_network().attach(...)"
        raise AttachError(
            f"backend: expected 'native' or 'table', got {backend!r}"
            + (hint if backend in (*NETWORK_BACKENDS, "auto") else ""),
            got=backend,
        )
    if backend == "native" and not native.available():
        raise AttachError(
            f"backend='native': there is no native plugin: {native.why_not}; backend='table' "
            "does without",
            got=backend,
        )
    return backend


def _set_method(force: openmm.Force, periodic: bool) -> None:
    force.setNonbondedMethod(force.CutoffPeriodic if periodic else force.CutoffNonPeriodic)


def set_coefficients(force: openmm.Force, basis: SplineBasis, coefficients: Array) -> bool:
    """False, and nothing is done, where the force was made for other knots."""
    if isinstance(force, SplinePairForce):
        return _set_native(force, basis, coefficients)
    return _set_table(force, basis, coefficients)


def _set_native(force: SplinePairForce, basis: SplineBasis, coefficients: Array) -> bool:
    same = force.getCoefficients().shape == coefficients.shape and np.allclose(
        [force.getRMin(), force.getCutoffDistance()], [basis.r_min, basis.cutoff], 0, 1e-9
    )
    if same:
        force.setCoefficients(coefficients)
    return same


def _set_table(force: openmm.CustomNonbondedForce, basis: SplineBasis, coefficients: Array) -> bool:
    table, low, high = knot_table(basis, coefficients)
    function = force.getTabulatedFunction(0)
    old, old_low, old_high = function.getFunctionParameters()
    same = len(old) == len(table) and np.allclose([old_low, old_high], [low, high], 0, 1e-9)
    if same:
        function.setFunctionParameters(table, low, high)
    return same


def is_zero_table(force: openmm.Force) -> bool:
    """Is it the table of a pair potential, and nothing stands in it?"""
    return _has_table(force) and not np.any(
        force.getTabulatedFunction(0).getFunctionParameters()[0]
    )


def _has_table(force: openmm.Force) -> bool:
    """Is it one that ``_table_force`` made?"""
    if not isinstance(force, openmm.CustomNonbondedForce) or not force.getNumTabulatedFunctions():
        return False
    is_called = force.getTabulatedFunctionName(0) == _TABLE
    return is_called and force.getEnergyFunction().startswith(f"{_TABLE}(r")


def pair_tables(force: SplinePairForce | openmm.CustomNonbondedForce) -> LearnedTables | None:
    """What a pair force computes; None of a CustomNonbondedForce that is the user's."""
    if isinstance(force, SplinePairForce):
        force = as_table(force)
    if not _has_table(force):
        return None
    shifts = np.zeros((1, 1))
    if force.getNumTabulatedFunctions() > 1:
        size, _, values = force.getTabulatedFunction(1).getFunctionParameters()
        shifts = np.reshape(values, (size, size))[:-1, :-1]
    found = PairTables(
        force.getName(),
        particle_types(force, len(shifts)),
        force_exclusions(force),
        force.getCutoffDistance()._value,
        force.usesPeriodicBoundaryConditions(),
        natural_spline(force.getTabulatedFunction(0)),
        shifts,
    )
    return LearnedTables(pairs=[found])


def bring(force: openmm.Force, context: openmm.Context) -> None:
    """Give a Context the present coefficients of its Force.

    Before OpenMM 8.6.1 the CPU platform mixes up the parameters of particles once a table is
    changed (openmm issue 5402); the Context is made anew there, and keeps its state.
    """
    force.updateParametersInContext(context)
    if _mixes_up(force, context):
        context.reinitialize(preserveState=True)


def _mixes_up(force: openmm.Force, context: openmm.Context) -> bool:
    if isinstance(force, SplinePairForce) or force.getNumTabulatedFunctions() == 1:
        return False  # the type of a particle does not count
    return context.getPlatform().getName() == "CPU" and openmm_version() < (8, 6, 1)


def openmm_version() -> tuple[int, ...]:
    """Of the OpenMM that runs, such as (8, 6, 1)."""
    return tuple(map(int, re.findall(r"\d+", openmm.Platform.getOpenMMVersion())[:3]))


def as_table(force: SplinePairForce) -> openmm.CustomNonbondedForce:
    """The same as a table, which needs no plugin."""
    table = _table_force(
        PairContent(
            force.getName(),
            SplineBasis(force.getRMin(), force.getCutoffDistance(), force.getNumKnots()),
            force.getNumTypes(),
            force.getCoefficients(),
            force.getParticleTypes(),
            force.getExclusions(),
            force.usesPeriodicBoundaryConditions(),
        )
    )
    table.setForceGroup(force.getForceGroup())
    return table


# The table ----------------------------------------------------------------------------------------


def knot_table(basis: SplineBasis, coefficients: Array) -> tuple[Array, float, float]:
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


def _shifts(basis: SplineBasis, n_types: int) -> Array:
    """What to add to r to look up each pair of types, nm, [types + 1, types + 1]."""
    index = np.full((n_types + 1, n_types + 1), n_pairs_of_types(n_types))
    index[:n_types, :n_types] = pair_index(n_types)
    return index * _shift_between_pairs(basis) * basis.spacing


def pair_force(force: openmm.Force) -> Any:
    """With its own class if it may be that of a pair potential, else None.

    OpenMM gives a plain Force for that of a plugin.
    """
    if SplinePairForce.isinstance(force):
        return SplinePairForce.cast(force)
    return force if isinstance(force, openmm.CustomNonbondedForce) else None
