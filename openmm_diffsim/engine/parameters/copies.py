"""Charges that other Forces have too, as parameters of their particles: implicit solvents."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from ...errors import SamplingError
from ...statistics.polynomials import Polynomial
from ..adapters.pair_force import openmm_version
from .probe import Probe

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NAMES = ("q", "charge")  # of a custom force's parameter
_SAME = 1e-6  # relative
# Of energies: what a polynomial of second degree may miss, in double precision and in single.
_MISSED, _MISSED_SINGLE = 1e-11, 1e-5


def copies_in(
    system: openmm.System, nonbonded: Any, q: Array, learned: IntArray, name: str
) -> list[Any]:
    """Forces whose particles have the charges of the learned ones; what is like it is warned of.

    A GBSAOBCForce, or a custom force with a parameter that is called so.
    """
    others = [
        force
        for force in system.getForces()
        if hasattr(force, "getParticleParameters")
        and force.this != nonbonded.this
        and force.getNumParticles() == len(q)
    ]
    found = []
    for force in others if q[learned].any() else []:
        own = charges_in(force)
        if own is not None and np.allclose(own[learned], q[learned], rtol=_SAME, atol=0):
            found.append(force)
        elif (own is not None and own[learned].any()) or _has_column(force, learned, q[learned]):
            warnings.warn(
                f"{name}: {force.getName()!r} has charges, or the same numbers, as parameters of "
                "its own, which stay as they are: only those of the NonbondedForce are learned",
                RuntimeWarning,
                stacklevel=5,
            )
    return found


def is_copy(force: Any) -> bool:
    """Is it none that has exceptions, whose charges are the first ones?"""
    return not hasattr(force, "getNumExceptions")


def charges_in(force: Any) -> Array | None:
    """Those that a Force has for its particles, [particles]; None if it has none."""
    column = _column_of(force)
    if column is None:
        return None
    return np.array([row[column] for row in _rows(force, range(force.getNumParticles()))])


def put_charges(force: Any, particles: IntArray, q: Array) -> None:
    """Give these particles of a Force other ones, of q [particles]; its other parameters stay."""
    column, chosen = _column_of(force), particles.tolist()
    assert column is not None
    is_custom = hasattr(force, "getNumPerParticleParameters")
    for i, row in zip(chosen, _rows(force, chosen), strict=True):
        row[column] = float(q[i])
        force.setParticleParameters(i, *([row] if is_custom else row))


def update_in(force: Any, context: openmm.Context) -> None:
    """What was put into a Force reaches a Context.

    Before OpenMM 8.6.1 the CPU platform mixes up parameters beside a table: made anew.
    """
    force.updateParametersInContext(context)
    has_tables = getattr(force, "getNumTabulatedFunctions", int)() > 0
    if has_tables and openmm_version() < (8, 6, 1):
        context.reinitialize(preserveState=True)


def check_degree(
    probe: Probe, polynomial: Polynomial, energies: Array, names: Sequence[str]
) -> None:
    """SamplingError where energies at the nodes of z, and at one z more, are not of second degree.

    ``names`` are those of the Forces.
    """
    nodes = polynomial.nodes
    aside = 0.6 * nodes[-1] + 0.3 * nodes[1]
    at = [polynomial.monomials(torch.from_numpy(z)).numpy() for z in (nodes[0], aside)]
    last = probe.energy(aside)
    missed = abs(last - energies[0] - (at[1] - at[0]) @ polynomial.features(energies))
    most = _MISSED_SINGLE if probe.is_single else _MISSED
    if missed > most * np.abs([*energies, last]).max():
        raise SamplingError(
            f"charges: the energy of {names} is no polynomial of second degree of them; "
            "learn those of that Force by custom(), or leave it out",
            reason="features",
        )


def _rows(force: Any, particles: Sequence[int]) -> list[list[float]]:
    found = [force.getParticleParameters(i) for i in particles]
    return [[getattr(value, "_value", value) for value in row] for row in found]


def _column_of(force: Any) -> int | None:
    """Which of the parameters of a Force's particles is a charge."""
    if isinstance(force, openmm.GBSAOBCForce):
        return 0
    count = range(getattr(force, "getNumPerParticleParameters", int)())
    names = [force.getPerParticleParameterName(k).lower() for k in count]
    return next((k for k, name in enumerate(names) if name in _NAMES), None)


def _has_column(force: Any, particles: IntArray, numbers: Array) -> bool:
    """Are these one of the parameters of a Force's particles?"""
    columns = zip(*_rows(force, particles.tolist()), strict=False)
    scalar = [c for c in columns if all(isinstance(value, float) for value in c)]
    return any(np.allclose(column, numbers, rtol=_SAME, atol=0) for column in scalar)
