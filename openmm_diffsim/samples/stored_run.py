"""Configurations of one run in a file, and what was found of them: energies, gradients."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..io import Frames

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_REMEMBERED = 256  # parameter sets whose energies are kept, 8 bytes per frame each
_KEPT_BYTES = 2**26  # of gradients of single frames, for energies and for virials each


@dataclass(frozen=True)
class NetworkParticles:
    """The particles that a network acts on."""

    atoms: IntArray  # their indices in the System
    types: IntArray  # the type of each
    molecule_of: IntArray  # [particles of the System]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The configurations of one run, with the energies found so far.

    Energies are remembered for each parameter set, NaN where a frame was not evaluated, so what an
    interrupted evaluation found is not lost. Where the frames lie in a file of the user's, that of
    the evaluation in progress lies beside it and outlives the process.
    """

    frames: Frames
    particles: NetworkParticles
    found: OrderedDict[tuple[str, str], Array] = field(default_factory=OrderedDict)

    @property
    def is_temporary(self) -> bool:
        """Does the file go with this object?"""
        return self.frames.temporary is not None

    def values(self, quantity: str, key: str) -> Array:
        """What is known of "energy" or "virial" for one parameter set, [frames of the file]."""
        if (quantity, key) not in self.found:
            self.found[quantity, key] = self._unfinished(quantity, key)
            if len(self.found) > _REMEMBERED:
                self.found.popitem(last=False)
        self.found.move_to_end((quantity, key))
        return self.found[quantity, key]

    def save_progress(self, quantity: str, key: str) -> None:
        """Leave behind what an evaluation has found so far."""
        if not self.is_temporary:
            values = self.found[quantity, key].tobytes()
            header = self._header(quantity, key, values)
            self._progress_file(quantity).write_bytes(header + values)

    def finish(self, quantity: str) -> None:
        """An evaluation is complete: nothing need be left behind."""
        if not self.is_temporary:
            self._progress_file(quantity).unlink(missing_ok=True)

    def _unfinished(self, quantity: str, key: str) -> Array:
        fresh = np.full(len(self.frames), np.nan)
        path = self._progress_file(quantity)
        if self.is_temporary or not path.exists():
            return fresh
        data = path.read_bytes()
        if data[:32] != self._header(quantity, key, data[32:]):
            return fresh
        saved = np.frombuffer(data[32:], dtype=np.float64)
        return saved.copy() if saved.shape == fresh.shape else fresh

    def _header(self, quantity: str, key: str, values: bytes) -> bytes:
        """What was evaluated: other frames may have been written to the file since."""
        what = f"{quantity} {key} {self.frames.mark} ".encode()
        return hashlib.sha256(what + values).digest()

    def _progress_file(self, quantity: str) -> Path:
        return self.frames.path.with_suffix(f".{quantity}.partial")


class KeptGradients:
    """dA/dtheta of single frames, at the parameters that were evaluated last, up to some memory.

    They are rows of one array: each by itself, between what its graph took and gave back, would
    leave holes in memory that nothing fits into.
    """

    def __init__(self) -> None:
        self._key: dict[str, str] = {}
        self._found: dict[str, dict[tuple[StoredRun, int], Array]] = {}
        self._rows: dict[str, Array] = {}

    def of(self, quantity: str, key: str) -> dict[tuple[StoredRun, int], Array]:
        """Those of "energy" or "virial" at one parameter set; those at any other are dropped."""
        if self._key.get(quantity) != key:
            self._key[quantity], self._found[quantity] = key, {}
        return self._found[quantity]

    def place(
        self, quantity: str, key: str, frame: tuple[StoredRun, int], size: int
    ) -> Array | None:
        """Where that of a frame may be written, [size]; None where there is no room for more."""
        found = self.of(quantity, key)
        rows = self._rows.get(quantity)
        if rows is None or rows.shape[1] != size:
            rows = self._rows[quantity] = np.empty((_KEPT_BYTES // (8 * size), size))
        if frame in found:
            return found[frame]
        return rows[len(found)] if len(found) < len(rows) else None
