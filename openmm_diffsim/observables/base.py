"""What an observable is: something recorded per frame, and a value per frame made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..kernels import PairBlock

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Particles:
    """What stays the same from frame to frame."""

    n_particles: int
    molecule_of: IntArray  # [particles], index of the molecule of each particle
    masses: Array  # [particles], amu

    @property
    def n_molecules(self) -> int:
        """Number of molecules: what bonds and constraints hold together."""
        return int(self.molecule_of.max()) + 1 if self.n_particles else 0


@dataclass(frozen=True)
class Frame:
    """One configuration, as a recorder sees it."""

    positions: Array  # [particles, 3], nm
    box: Array | None  # [3, 3], nm, reduced form
    volume: float  # nm^3, NaN without a box
    rest_virial: float  # of all but the learned force, kJ/mol; NaN where nobody asked for it


@dataclass(frozen=True)
class Conditions:
    """What an observable may need, besides its own record, to give its value in each frame."""

    coefficients: Tensor  # [pairs of types, coefficients], kJ/mol
    temperature: float  # K
    virial_sums: Tensor  # [frames, pairs of types, coefficients]
    volume: Tensor  # [frames], nm^3


class Recorder(Protocol):
    """Makes one record per frame."""

    def start(self, frame: Frame) -> None:
        """A new frame begins."""

    def add(self, block: PairBlock) -> None:
        """Some pairs of this frame."""

    def record(self) -> Array:
        """What to keep of this frame, shape [n_recorded]."""


class Observable:
    """A quantity with a value in every frame, whose average is compared with experiment.

    To add one: say what pairs it needs, make a ``Recorder``, and turn records into values.
    """

    pair_range: float = 0.0  # nm: pairs up to this distance are shown to the recorder
    needs_rest_virial: bool = False
    n_values: int = 1

    def recorder(self, particles: Particles) -> Recorder:
        """A recorder for the given particles.

        Raises
        ------
        ObservableError
            If the observable's own selection does not fit the particles.
        """
        raise NotImplementedError

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Value in each frame, shape [frames, n_values], from records [frames, n_recorded]."""
        raise NotImplementedError
