"""The part of a Lennard-Jones energy that LJPME takes from a mesh, with geometric coefficients.

LJPME sums c6 by the rule C_i C_j, C = 2 epsilon^(1/2) sigma^3, beyond the cutoff, and within it
adds what the Lorentz-Berthelot rule has more of, shifted to zero at the cutoff. The first part is,
exactly, a polynomial of second degree in the C of the types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...statistics.powers import UNIT
from . import nonbonded
from .quadratic import points, solver
from .scratch import Scratch

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Mesh:
    """Its energy as a function of the C of classes of particles, in units of UNIT^3.

    Parameters
    ----------
    force : openmm.NonbondedForce
        With LJPME.
    context : openmm.Context
        That it is in.
    class_of : int array [particles], -1 for one without
    fixed : array [classes]
        C of those that stay, zero for those that are learned.
    learned : int array
        Which classes these are.
    """

    def __init__(
        self,
        force: openmm.NonbondedForce,
        context: openmm.Context,
        class_of: IntArray,
        fixed: Array,
        learned: IntArray,
    ) -> None:
        self._learned = learned
        self._class_of, self._fixed = class_of, fixed
        self._names = [f"mesh {k}" for k in range(len(learned))]
        self._points = _points(len(learned))
        self._solver = solver(self._points)
        self._scratch = Scratch([self._copy(force, context)], context)

    def _copy(self, force: Any, context: openmm.Context) -> Any:
        """Particles of one sigma, UNIT, and epsilon (C / 2)^2; those learned by parameters."""
        copy = openmm.XmlSerializer.clone(force)
        copy.setLJPMEParameters(*force.getLJPMEParametersInContext(context))
        for name in self._names:
            copy.addGlobalParameter(name, 0.0)
        for k in range(copy.getNumParticleParameterOffsets()):
            name, index, *_ = copy.getParticleParameterOffset(k)
            copy.setParticleParameterOffset(k, name, index, 0.0, 0.0, 0.0)
        for k in range(copy.getNumExceptionParameterOffsets()):
            name, index, *_ = copy.getExceptionParameterOffset(k)
            copy.setExceptionParameterOffset(k, name, index, 0.0, 0.0, 0.0)
        depth = np.append((self._fixed / 2) ** 2, 0.0)[self._class_of]
        for i, epsilon in enumerate(depth.tolist()):
            copy.setParticleParameters(i, 0.0, UNIT, epsilon)
        for name, kind in zip(self._names, self._learned.tolist(), strict=True):
            for i in np.flatnonzero(self._class_of == kind).tolist():
                copy.addParticleParameterOffset(name, i, 0.0, 0.0, 1.0)
        for k in range(copy.getNumExceptions()):
            nonbonded.set_exception(copy, k, charge=0.0, sigma=UNIT, epsilon=0.0)
        return copy

    def __call__(self, positions: Array, box: Array | None, sums: Array, pairs: IntArray) -> Array:
        """Its energy as features of the ``monomials`` of the learned C, [terms].

        ``sums`` [pairs, 2] are those of (UNIT / r)^12 and ^6 within the cutoff, shifted, of these
        pairs of classes: what the copy has besides.
        """
        self._scratch.place(positions, box)
        energies = [self._energy(point, sums, pairs) for point in self._points]
        return np.asarray(self._solver @ energies)

    def _energy(self, point: Array, sums: Array, pairs: IntArray) -> float:
        settings = dict(zip(self._names, ((point / 2) ** 2).tolist(), strict=True))
        c = self._fixed.copy()
        c[self._learned] = point
        direct = np.prod(c[pairs], axis=1) @ (sums[:, 0] - sums[:, 1])
        return self._scratch.energy(settings) - float(direct)


def _points(n: int) -> Array:
    """C to ask energies at; none is negative: in place of -1 stands 2."""
    found = points(np.ones(n))
    return np.where(found < 0, 2.0, found)
