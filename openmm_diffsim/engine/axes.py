"""Virials along each axis, by boxes that are scaled along one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ..observables import AxisVirials
from ..statistics.molecules import molecule_centres
from ..statistics.scaling import SCALING, scaled
from .adapters import FeatureRecorder

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class AxisScaling:
    """Finds W_a = -dU/d ln L_a of a frame, moving whole molecules.

    A central difference over 0.1 % of the box along each axis: six energies of the other forces,
    and six times the features of the learned ones. An oblique box is strained along x, y and z.

    Parameters
    ----------
    others : callable
        Energy of all other forces, kJ/mol, of positions and box.
    learned : FeatureRecorder
        Of a potential whose energy is linear in the coefficients; of no use for anything else.
    molecule_of : int array [particles]
    is_periodic : bool
        Does the learned force see the box?
    n_coefficients : int
    """

    def __init__(
        self,
        others: Callable[[Array, Array], float],
        learned: FeatureRecorder,
        molecule_of: IntArray,
        is_periodic: bool,
        n_coefficients: int,
    ) -> None:
        self._others = others
        self._learned = learned
        self._molecule_of = molecule_of
        self._is_periodic = is_periodic
        self._none = torch.zeros(n_coefficients, dtype=torch.float64)
        learned.want_virial(False)

    def __call__(self, positions: Array, box: Array) -> AxisVirials:
        """Of the other forces, and of each feature of the learned ones."""
        self._learned.clear()
        centres = molecule_centres(positions, self._molecule_of)[self._molecule_of]
        rest = []
        for axis in np.eye(3):
            for sign in (1, -1):
                moved, size = scaled(positions, centres, box, 1 + sign * SCALING * axis)
                rest.append(self._rest(moved, size))
        features = self._learned.learned().linear(self._none, virials=False).energies
        return AxisVirials(_slopes(np.array(rest)), _slopes(features))

    def _rest(self, positions: Array, box: Array) -> float:
        """Energy of the other forces without what is learned of them; features are kept."""
        own_box = box if self._is_periodic else None
        self._learned.keep(positions, own_box, self._learned.sums(positions, own_box, ()))
        return self._others(positions, box) - self._learned.energy_within(positions, own_box)


def _slopes(values: Array) -> Array:
    """-d/d ln L_a, [3, ...], of values at the longer and the shorter box of each axis, [6, ...]."""
    return np.asarray(-(values[0::2] - values[1::2]) / (2 * SCALING))
