"""Stored configurations: a DCD trajectory that is written frame by frame and read in batches."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.formats import DCDTrajectoryFile
from numpy.typing import ArrayLike, NDArray

from ..errors import FramesError

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ANGSTROM = 0.1  # nm, the unit of a DCD file


class FrameWriter:
    """Writes configurations to a DCD file, which every MD program reads.

    Each frame is on disk when ``write`` returns: what was written survives an interrupted run.

    Parameters
    ----------
    path : path, optional
        Default: a temporary file, which lives as long as this writer and the ``Frames`` it made.

    Raises
    ------
    FramesError
        If the file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._temporary = _TemporaryFile() if path is None else None
        self.path = self._temporary.path if self._temporary else Path(path or "")
        self._boxes: list[Array] = []
        self._n = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = DCDTrajectoryFile(str(self.path), "w", force_overwrite=True)
        except OSError as error:
            raise FramesError(f"cannot write frames to {self.path}: {error}") from error

    def write(self, positions: Array, box: Array | None) -> None:
        """Add one frame: positions [particles, 3] and box [3, 3], nm."""
        lengths, angles = (None, None) if box is None else _cell(box)
        xyz = np.asarray(positions[None] / _ANGSTROM, dtype=np.float32)
        self._file.write(xyz, lengths, angles)
        self._n += 1
        if box is not None:
            self._boxes.append(np.array(box, dtype=np.float64))

    def __len__(self) -> int:
        return self._n

    def frames(self) -> Frames:
        """What was written so far; more may follow."""
        boxes = np.array(self._boxes) if self._boxes else None
        frames = Frames(self.path, self._n, boxes)
        frames.temporary = self._temporary
        return frames


class Frames:
    """Configurations in a DCD file. Only what is asked for is read.

    Parameters
    ----------
    path : path
    n_frames : int
    boxes : array [frames, 3, 3] or None
        nm, reduced form. A DCD file rounds its unit cell, so boxes are kept beside it.

    Attributes
    ----------
    temporary : what keeps a temporary file; None where the file is the user's
    mark : SHA-256 of the first and the last frame, which tells a file from another

    Raises
    ------
    FramesError
        If the file is missing, or does not hold so many frames.
    """

    def __init__(
        self, path: str | os.PathLike[str], n_frames: int, boxes: ArrayLike | None = None
    ) -> None:
        self.path = Path(path)
        self.boxes = None if boxes is None else np.asarray(boxes, dtype=np.float64)
        self.temporary: object | None = None
        try:
            start, self._frame = _layout(self.path)
            found = (self.path.stat().st_size - start) // self._frame.itemsize
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if found < n_frames:
            raise FramesError(
                f"{self.path} holds {found} frames, expected {n_frames}: it was cut short or "
                "belongs to other samples"
            )
        self._start, self._n = start, n_frames
        self.mark = self._digest()
        self._checked = self._state()

    def __len__(self) -> int:
        return self._n

    def read(self, indices: IntArray) -> tuple[Array, Array | None]:
        """Positions [frames, particles, 3] and boxes [frames, 3, 3] of some frames, nm.

        Raises
        ------
        FramesError
            If the file is gone, or another was written in its place.
        """
        self._check()
        records = self._records()[indices]
        xyz = np.stack([records[axis] for axis in ("x", "y", "z")], axis=-1)
        boxes = None if self.boxes is None else self.boxes[indices]
        return xyz.astype(np.float64) * _ANGSTROM, boxes

    def _check(self) -> None:
        """Are they the frames that they were?"""
        state = self._state()
        if state == self._checked:
            return
        if self._digest() != self.mark:
            raise FramesError(
                f"{self.path} was overwritten: it holds other frames than these samples were made "
                "of; give each run a trajectory of its own"
            )
        self._checked = state

    def _state(self) -> tuple[int, ...]:
        """Changes when the file is written to."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _unreadable(self, error: Exception) -> FramesError:
        return FramesError(
            f"cannot read the frames in {self.path}: {error}; the samples need that file"
        )

    def _records(self) -> NDArray[np.void]:
        try:
            return np.memmap(self.path, self._frame, "r", self._start, self._n)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _digest(self) -> str:
        ends = self._records()[[0, -1]] if self._n else np.zeros(0)
        return hashlib.sha256(ends.tobytes()).hexdigest()


def _layout(path: Path) -> tuple[int, np.dtype[np.void]]:
    """Where the frames of a DCD file begin, and what one of them is.

    The file is a sequence of Fortran records, each between two copies of its length in bytes:
    three of header, then for each frame one of the unit cell and one for each coordinate.
    """
    with open(path, "rb") as file:
        headers = []
        for _ in range(3):
            length = int(np.frombuffer(file.read(4), dtype="<i4")[0])
            headers.append(file.read(length))
            if file.read(4) != np.array(length, dtype="<i4").tobytes():
                raise ValueError("it is no DCD file")
        start = file.tell()
    if headers[0][:4] != b"CORD":
        raise ValueError("it is no DCD file")
    has_cell = int(np.frombuffer(headers[0], dtype="<i4")[11])
    n = int(np.frombuffer(headers[2], dtype="<i4")[0])
    fields: list[tuple[str, str] | tuple[str, str, int]] = []
    for name, kind, size in (("cell", "<f8", 6), *((axis, "<f4", n) for axis in "xyz")):
        if name != "cell" or has_cell:
            fields += [(f"{name} begins", "<i4"), (name, kind, size), (f"{name} ends", "<i4")]
    return start, np.dtype(fields)


def _cell(box: Array) -> tuple[Array, Array]:
    """Lengths in angstrom and angles in degrees, [1, 3] each."""
    *lengths, alpha, beta, gamma = mdtraj.utils.box_vectors_to_lengths_and_angles(*box)
    return np.array([lengths]) / _ANGSTROM, np.array([[alpha, beta, gamma]])


class _TemporaryFile:
    """A file that goes when nothing holds on to this object any more."""

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(suffix=".dcd", prefix="openmm_diffsim_")
        os.close(handle)
        self.path = Path(path)
        weakref.finalize(self, self.path.unlink, missing_ok=True)
