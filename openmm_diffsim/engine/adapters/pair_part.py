"""The forces of a pair potential along a segment: natively, or with differences of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import openmm

from ...potentials import SplineBasis
from ...statistics.kernels import PairSums
from ..native import SplinePairForce
from .pair_force import bring, knot_table, pair_force, set_coefficients
from .part import Array, FieldPart, displacement


class PairPart(FieldPart):
    """What both Forces of a pair potential share."""

    def __init__(self, force: Any, context: openmm.Context, basis: SplineBasis) -> None:
        super().__init__(force.getName(), force.usesPeriodicBoundaryConditions())
        self.force = force
        self.context = context
        self.basis = basis

    @contextmanager
    def having(self, c: Array) -> Iterator[None]:
        put_back = self._undo(c)
        if put_back is None:
            yield
            return
        try:
            self.put(self.force, self.context, c)
            yield
        finally:
            put_back()
            bring(self.force, self.context)

    def put(self, force: openmm.Force, context: openmm.Context, c: Array) -> None:
        own = pair_force(force)
        set_coefficients(own, self.basis, self._rows(c))
        bring(own, context)

    def _undo(self, c: Array) -> Callable[[], object] | None:
        """What gives the Force its present coefficients back; None where they are these."""
        raise NotImplementedError

    def _rows(self, c: Array) -> Array:
        return c.reshape(-1, self.basis.n_coefficients)


class NativePart(PairPart):
    """Of a SplinePairForce, which knows its derivatives."""

    has_products = True
    force: SplinePairForce

    @property
    def native(self) -> SplinePairForce:  # type: ignore[override]
        return self.force

    def products(
        self, c: Array, positions: Array, w: Array, box: Array | None
    ) -> tuple[Array, Array]:
        boxes = _repeated(box, len(positions))
        with self.having(c):
            hessian, parameters = self.force.computeProducts(self.context, w, positions, boxes)
        return -hessian, np.asarray(parameters.sum(axis=0)).ravel()

    def parameter_product(self, c: Array, positions: Array, w: Array, box: Array | None) -> Array:
        boxes = _repeated(box, len(positions))
        each = self.force.computeForceParameterProduct(self.context, w, positions, boxes)
        return np.asarray(each.sum(axis=0)).ravel()

    def _undo(self, c: Array) -> Callable[[], object] | None:
        before = self.force.getCoefficients()
        same = np.array_equal(before, self._rows(c))
        return None if same else partial(self.force.setCoefficients, before)


class TablePart(PairPart):
    """Of a CustomNonbondedForce with a table; ``sums`` gives its basis sums."""

    def __init__(
        self,
        force: openmm.CustomNonbondedForce,
        context: openmm.Context,
        basis: SplineBasis,
        sums: Callable[..., PairSums],
    ) -> None:
        super().__init__(force, context, basis)
        self._sums = sums

    def parameter_product(self, c: Array, positions: Array, w: Array, box: Array | None) -> Array:
        """By differences of the basis sums: dF/dc = -dS/dx."""
        pairs = zip(positions, w, strict=True)
        return np.asarray(np.sum([self._product(x, row, box) for x, row in pairs], axis=0))

    def _product(self, x: Array, w: Array, box: Array | None) -> Array:
        step = displacement(w)
        frames = np.stack([x + step * w, x - step * w])
        sums = self._sums(frames, _repeated(box, 2)).basis
        return np.asarray((sums[1] - sums[0]) / (2 * step)).ravel()

    def _undo(self, c: Array) -> Callable[[], object] | None:
        function = self.force.getTabulatedFunction(0)
        before = function.getFunctionParameters()
        same = np.array_equal(before[0], knot_table(self.basis, self._rows(c))[0])
        return None if same else partial(function.setFunctionParameters, *before)


def _repeated(box: Array | None, frames: int) -> Array | None:
    return None if box is None else np.repeat(box[None], frames, axis=0)
