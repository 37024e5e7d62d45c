"""A pair potential as an OpenMM Force, and back.

It is run by one of two backends: "native", the plugin's SplinePairForce, or "table", a
CustomNonbondedForce with a table, which every OpenMM has. Both give the same energy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from ...errors import AttachError
from ...potentials import PairPotential, Potential, SplineBasis, pair_index
from ...statistics.kernels import PairSums, SplineInteraction, pair_sums
from ...units import value_in_md_units
from .. import native
from ..native import SplinePairForce

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PADDING = 24  # knots; an interpolating cubic spline forgets a jump by 0.268 per knot
_TABLE = "spline"
NETWORK_BACKENDS = ("torchforce", "pythontorchforce", "python", "auto")


def make_force(
    potential: PairPotential,
    system: openmm.System,
    atoms: ArrayLike | None = None,
    types: ArrayLike | None = None,
    exclusions: Any = None,
    periodic: bool | None = None,
    temperature: Any = None,
    backend: str | None = None,
    precision: str | None = None,
) -> openmm.Force:
    """The Force of a pair potential; see ``Potential.attach``."""
    if precision is not None:
        raise AttachError(
            f"precision: only a network runs in a precision of its own, got {precision!r} for the "
            f"pair potential {potential.name!r}"
        )
    content = _Content(
        potential.name,
        potential.basis,
        potential.n_types,
        _detached(potential, temperature),
        type_of_particle(potential, system.getNumParticles(), atoms, types),
        _exclusions(system, exclusions),
        is_periodic(system, periodic),
    )
    return _BACKENDS[_choose(backend)](content)


def update(
    potential: PairPotential,
    force: openmm.Force,
    context: openmm.Context | None = None,
    temperature: Any = None,
) -> None:
    """Copy the present parameters to a Force and a Context; see ``update_force``."""
    if not set_coefficients(force, potential.basis, _detached(potential, temperature)):
        raise AttachError(
            f"the force {force.getName()!r} in the System was made for other knots than "
            f"{potential.basis}"
        )
    if context is None:
        return
    try:
        force.updateParametersInContext(context)
    except openmm.OpenMMException as error:
        raise AttachError(
            f"the Context does not know the force {force.getName()!r} ({error}). It was made "
            "before attach(): attach first, or call context.reinitialize(preserveState=True)"
        ) from error


@contextmanager
def coefficients_in(
    force: openmm.Force, context: openmm.Context, basis: SplineBasis, coefficients: Array
) -> Iterator[None]:
    """Let the force that ``attach`` made have these coefficients, in its Context too.

    Afterwards it has those that it had before.
    """
    if isinstance(force, SplinePairForce):
        before = force.getCoefficients()
        same = np.array_equal(before, coefficients)
        put_back = partial(force.setCoefficients, before)
    else:
        function = force.getTabulatedFunction(0)
        table = function.getFunctionParameters()
        same = np.array_equal(table[0], knot_table(basis, coefficients)[0])
        put_back = partial(function.setFunctionParameters, *table)
    if same:
        yield
        return
    try:
        set_coefficients(force, basis, coefficients)
        force.updateParametersInContext(context)
        yield
    finally:
        put_back()
        force.updateParametersInContext(context)


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


def other_forces(system: openmm.System, name: str | None = None, groups: int = -1) -> openmm.System:
    """A copy of a System without the force of a name, and without those that have no energy.

    ``groups`` is a bit mask of the force groups to keep.
    """

    def is_kept(force: openmm.Force) -> bool:
        in_groups = bool(groups & (1 << force.getForceGroup()))
        return force.getName() != name and _has_energy(force) and in_groups

    return copy_with(system, is_kept)


def copy_with(system: openmm.System, is_kept: Callable[[openmm.Force], bool]) -> openmm.System:
    """A copy of a System with some of its forces. Of the others no copy is made, even in between:
    openmmtorch 1.5 crashes where a TorchForce is to be read."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    node = root.find("Forces")
    assert node is not None
    for element, force in zip(list(node), system.getForces(), strict=True):
        if not is_kept(force):
            node.remove(element)
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))


def sums_over_pairs(
    potential: PairPotential, force: openmm.Force, context: openmm.Context, molecule_of: IntArray
) -> Callable[..., PairSums]:
    """A function (positions, boxes, histograms=) that gives the sums over the pairs of frames.

    They are native where the force is, and taken by Numba where it is a table.
    """
    if isinstance(force, SplinePairForce):
        return partial(force.computeSums, context, virial=True)
    basis = potential.basis
    interaction = SplineInteraction(
        basis.r_min,
        basis.spacing,
        basis.cutoff,
        basis.n_coefficients,
        particle_types(force, potential.n_types),
        pair_index(potential.n_types),
        force_exclusions(force),
        molecule_of,
    )
    return partial(pair_sums, interaction=interaction)


def has_native_force(system: openmm.System) -> bool:
    """Does the System need the plugin?"""
    return any(SplinePairForce.isinstance(force) for force in system.getForces())


# The two backends ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Content:
    """What a pair force says, whichever class says it."""

    name: str
    basis: SplineBasis
    n_types: int
    coefficients: Array  # [pairs of types, coefficients], kJ/mol
    type_of: IntArray  # [particles], -1 for those that do not interact
    exclusions: IntArray  # [exclusions, 2]
    periodic: bool


def _native_force(content: _Content) -> SplinePairForce:
    basis = content.basis
    force = SplinePairForce(content.n_types, basis.r_min, basis.cutoff, basis.knots)
    force.setName(content.name)
    force.setCoefficients(content.coefficients)
    force.addParticles(content.type_of)
    force.addExclusions(content.exclusions)
    _set_method(force, content.periodic)
    return force


def _table_force(content: _Content) -> openmm.CustomNonbondedForce:
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


_BACKENDS: dict[str, Callable[[_Content], openmm.Force]] = {
    "native": _native_force,
    "table": _table_force,
}


def _choose(backend: str | None) -> str:
    if backend is None:
        return "native" if native.available() else "table"
    if backend not in _BACKENDS:
        hint = "; a pair potential runs as a network by potential.as_network().attach(...)"
        raise AttachError(
            f"backend: expected 'native' or 'table', got {backend!r}"
            + (hint if backend in NETWORK_BACKENDS else ""),
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


def as_table(force: SplinePairForce) -> openmm.CustomNonbondedForce:
    table = _table_force(
        _Content(
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


def is_pair_force(force: openmm.Force) -> bool:
    return isinstance(force, openmm.CustomNonbondedForce) or SplinePairForce.isinstance(force)


def whole(force: openmm.Force) -> openmm.Force:
    """The same force with its own class: OpenMM gives a plain Force for that of a plugin."""
    return SplinePairForce.cast(force) if SplinePairForce.isinstance(force) else force


def _has_energy(force: openmm.Force) -> bool:
    bookkeeping = (
        openmm.CMMotionRemover,
        openmm.AndersenThermostat,
        openmm.MonteCarloBarostat,
        openmm.MonteCarloAnisotropicBarostat,
        openmm.MonteCarloMembraneBarostat,
        openmm.MonteCarloFlexibleBarostat,
    )
    return not isinstance(force, bookkeeping)


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
    index = np.full((n_types + 1, n_types + 1), n_types * (n_types + 1) // 2)
    index[:n_types, :n_types] = pair_index(n_types)
    return index * _shift_between_pairs(basis) * basis.spacing


# What attach is given -----------------------------------------------------------------------------


def _detached(potential: PairPotential, temperature: Any) -> Array:
    kelvin = None if temperature is None else float(value_in_md_units(temperature, "temperature"))
    c = potential.coefficients(kelvin).detach().numpy()
    if not np.all(np.isfinite(c)):
        raise AttachError(f"the coefficients of {potential.name!r} are not finite")
    return c


def type_of_particle(
    potential: Potential, n: int, atoms: ArrayLike | None, types: ArrayLike | None
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


def _exclusions(system: openmm.System, exclusions: Any) -> IntArray:
    """Those given or, by default, those of the System's nonbonded forces; int [exclusions, 2]."""
    present = None
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            pairs = [force.getExceptionParameters(i)[:2] for i in range(force.getNumExceptions())]
        elif is_pair_force(force):
            pairs = force_exclusions(whole(force)).tolist()
        else:
            continue
        present = sorted((min(a, b), max(a, b)) for a, b in pairs)
    wanted = present or []
    if exclusions is not None:
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
    return np.array(wanted, dtype=np.int64).reshape(-1, 2)


def is_periodic(system: openmm.System, periodic: bool | None) -> bool:
    if periodic is not None:
        return periodic
    return all(
        force.usesPeriodicBoundaryConditions()
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce) or is_pair_force(force)
    )
