"""The recorded configurations themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram
from .base import Array, Conditions, Frame, IntArray, Observable, Particles, Recorder

_BOX = 9  # numbers in a box


class _HasRecords(Protocol):
    """What is asked of ``Samples``."""

    @property
    def records(self) -> Mapping[Observable, Array]: ...


class Configurations(Observable):
    """Keeps the positions and the box of every frame, from which segments can be started.

    24 bytes per particle and frame, where other observables keep a few hundred numbers per frame.
    An average of positions means nothing, and none can be a target.
    """

    n_values = 0  # as many as there are coordinates, which only a recorder knows

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps positions and box."""
        return _ConfigurationsRecorder()

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """The flattened positions of each frame, nm, shape [frames, 3 particles]."""
        return records[:, :-_BOX]

    def positions(self, samples: _HasRecords) -> Array:
        """Positions in each frame, nm, shape [frames, particles, 3].

        Raises
        ------
        ObservableError
            If the samples did not record this observable.
        """
        records = self._records(samples)
        return records[:, :-_BOX].reshape(len(records), -1, 3)

    def boxes(self, samples: _HasRecords) -> Array | None:
        """Box of each frame, nm, reduced form, shape [frames, 3, 3]; None without boxes.

        Raises
        ------
        ObservableError
            If the samples did not record this observable.
        """
        boxes = self._records(samples)[:, -_BOX:].reshape(-1, 3, 3)
        return None if np.isnan(boxes).any() else boxes

    def _records(self, samples: _HasRecords) -> Array:
        if self not in samples.records:
            raise ObservableError(
                "these Configurations were not recorded: pass them to sample(record=[...])"
            )
        return samples.records[self]


class _ConfigurationsRecorder:
    histograms: tuple[PairHistogram, ...] = ()

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        box = np.full(_BOX, np.nan) if frame.box is None else np.ravel(frame.box)
        return np.concatenate([np.ravel(frame.positions), box])
