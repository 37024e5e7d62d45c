"""Stored configurations: a DCD trajectory that is written frame by frame and read in batches."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import mdtraj
import numpy as np
from mdtraj.formats import DCDTrajectoryFile
from numpy.typing import ArrayLike, NDArray

from ..errors import FramesError
from .temporary import is_temporary, sweep, temporary_path

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ANGSTROM = 0.1  # nm, the unit of a DCD file
_NO_DCD = "it is no DCD file"


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
    mark : SHA-256 of all these frames and their layout, which tells a file from another

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
        self._n = n_frames
        self._checked = self._state()
        self._layout, self.mark = self._read()

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
        records = self._records(self._layout)[indices]
        xyz = np.stack([records[axis] for axis in ("x", "y", "z")], axis=-1)
        boxes = None if self.boxes is None else self.boxes[indices]
        return xyz.astype(np.float64) * _ANGSTROM, boxes

    def keep(self) -> None:
        """Out of the temporary folder of a round that the file is in, if it is in one.

        Raises
        ------
        FramesError
            If it cannot be moved.
        """
        folder = self.path.parent
        if not is_temporary(folder.name):
            return
        try:
            self.path = self.path.rename(folder.with_name(self.path.name))
        except OSError as error:
            raise self._unreadable(error) from error
        with suppress(OSError):  # other files of that round may be in it
            folder.rmdir()

    def _check(self) -> None:
        """Are they the frames that they were?"""
        state = self._state()
        if state == self._checked:
            return
        if self._read()[1] != self.mark:
            raise FramesError(
                f"{self.path} was overwritten, or damaged: it holds other frames than these "
                "samples were made of; give each run a trajectory of its own"
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

    def _read(self) -> tuple[_Layout, str]:
        """How the file is laid out, and the mark of it."""
        try:
            layout = _Layout.of(self.path)
            found = (self.path.stat().st_size - layout.start) // layout.frame.itemsize
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if found < self._n:
            raise FramesError(
                f"{self.path} holds {found} frames, expected {self._n}: it was cut short or "
                "belongs to other samples"
            )
        digest = hashlib.sha256(layout.header)
        if self._n:
            digest.update(self._records(layout).view(np.uint8).data)
        return layout, digest.hexdigest()

    def _records(self, layout: _Layout) -> NDArray[np.void]:
        try:
            return np.memmap(self.path, layout.frame, "r", layout.start, self._n)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error


@dataclass(frozen=True)
class _Layout:
    """Where the frames of a DCD file begin, and what one of them is.

    The file is a sequence of Fortran records, each between two copies of its length in bytes:
    three of header, then for each frame one of the unit cell and one for each coordinate.
    """

    start: int  # bytes
    frame: np.dtype[np.void]
    main: bytes  # the first record of the header
    atoms: bytes  # the last

    @staticmethod
    def of(path: Path) -> _Layout:
        """That of a file; ValueError where it is no DCD file."""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            main, _, atoms = (_fortran_record(file, size) for _ in range(3))
            start = file.tell()
        if (len(main), len(atoms)) != (84, 4) or main[:4] != b"CORD":
            raise ValueError(_NO_DCD)
        has_cell = any(main[44:48])
        n = int.from_bytes(atoms, "little", signed=True)
        if n < 1:
            raise ValueError(f"it says that it has {n} particles")
        fields: list[tuple[str, str] | tuple[str, str, int]] = []
        for name, kind, number in (("cell", "<f8", 6), *((axis, "<f4", n) for axis in "xyz")):
            if name != "cell" or has_cell:
                fields += [(f"{name} begins", "<i4"), (name, kind, number), (f"{name} ends", "<i4")]
        return _Layout(start, np.dtype(fields), main, atoms)

    @property
    def header(self) -> bytes:
        """All of it but the title, which tells the time, and how many frames there are."""
        # Bytes 4 to 8 count the frames and 16 to 20 the steps: both grow while a run goes on.
        main = self.main
        return main[:4] + main[8:16] + main[20:] + self.atoms


def missing_frames(path: Path) -> str | None:
    """What to say of a DCD file that was cut short; None of one that was not.

    One that is laid out otherwise, with fixed atoms, four dimensions or in the other byte order, is
    not looked at.
    """
    try:
        layout = _Layout.of(path)
        said, *otherwise = np.frombuffer(layout.main, "<i4", 12, 4)[[0, 8, 11]]
    except (OSError, ValueError):
        return None
    found, rest = divmod(path.stat().st_size - layout.start, layout.frame.itemsize)
    if any(otherwise) or not (rest or found < said):
        return None
    return f"it was cut short: it ends after {found} whole frames of {max(said, found + 1)}"


def _fortran_record(file: BinaryIO, size: int) -> bytes:
    """The next record of a file of so many bytes."""
    before = file.read(4)
    length = int.from_bytes(before, "little", signed=True)
    if len(before) < 4 or not 0 <= length <= size:
        raise ValueError(_NO_DCD)
    record = file.read(length)
    if file.read(4) != before:
        raise ValueError(_NO_DCD)
    return record


def _cell(box: Array) -> tuple[Array, Array]:
    """Lengths in angstrom and angles in degrees, [1, 3] each."""
    *lengths, alpha, beta, gamma = mdtraj.utils.box_vectors_to_lengths_and_angles(*box)
    return np.array([lengths]) / _ANGSTROM, np.array([[alpha, beta, gamma]])


class _TemporaryFile:
    """A file that goes when nothing holds on to this object any more."""

    def __init__(self) -> None:
        try:
            folder = Path(tempfile.gettempdir())
            sweep(folder)
            self.path = temporary_path(folder / "openmm_diffsim", ".dcd")
            self.path.touch(0o600, exist_ok=False)
        except OSError as error:
            raise FramesError(
                f"cannot write frames to a temporary file: {error}; name a folder with room in "
                "TMPDIR, or a trajectory="
            ) from error
        weakref.finalize(self, self.path.unlink, missing_ok=True)
