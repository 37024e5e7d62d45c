"""What an observable is: something recorded per frame, and a value per frame made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram, PairSums, largest_range

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

    coefficients: Tensor  # of the potential, [pairs of types, coefficients]
    temperature: float  # K
    learned_virial: Callable[[Tensor], Tensor]  # of coefficients; kJ/mol, [frames]
    volume: Tensor  # [frames], nm^3
    sampled_coefficients: Callable[[], Tensor]  # [frames, pairs of types, coefficients]


class Recorder(Protocol):
    """Makes one record per frame, of the configuration and of what is counted of its pairs."""

    histograms: tuple[PairHistogram, ...]
    """What to count in every frame; their edges may reach to half the box."""

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        """What to keep of this frame, shape [n_recorded].

        ``counts`` are int arrays [bins], one for each of the ``histograms``.
        """


def record_frame(
    recorders: Sequence[Recorder],
    frame: Frame,
    sums_over_pairs: Callable[..., PairSums],
) -> tuple[list[Array], PairSums]:
    """The record of each recorder, and the sums of this frame, from one pass over its pairs.

    ``sums_over_pairs(histograms=...)`` makes that pass.

    Raises
    ------
    ObservableError
        If a histogram reaches beyond half the box.
    """
    histograms = [histogram for recorder in recorders for histogram in recorder.histograms]
    if frame.box is not None:
        _check_ranges(histograms, largest_range(frame.box))
    sums = sums_over_pairs(histograms=histograms)
    counts = iter([frames[0] for frames in sums.counts])
    return [r.record(frame, [next(counts) for _ in r.histograms]) for r in recorders], sums


def _check_ranges(histograms: Sequence[PairHistogram], limit: float) -> None:
    reach = max((float(h.edges[-1]) for h in histograms), default=0.0)
    if reach > limit + 1e-9:
        raise ObservableError(
            f"pairs are to be counted up to r_max = {reach:.4f} nm, but half the box is "
            f"{limit:.4f} nm; take a larger box or a smaller r_max",
            r_max=reach,
            limit=limit,
        )


class Observable:
    """A quantity with a value in every frame, whose average is compared with experiment.

    To add one: make a ``Recorder``, which says what pairs to count, and turn records into values.
    """

    needs_virial: bool = False
    is_dynamic: bool = False  # is it measured on trajectory segments?
    n_values: int = 1
    kind: str = "dimensionless"  # of a value, one of ``units.UNIT_NAMES``

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
