"""Arrays in an .npz file that NumPy reads, whole or not at all, and known by its checksum."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import DiffsimError, TakenError
from .files import atomic_write_bytes
from .regular import read_regular

Arrays = dict[str, NDArray[Any]]

_DIGITS = 64  # of a SHA-256
_LABEL = 32  # bytes, before it


@dataclass(frozen=True)
class Archive:
    """One kind of file: plain arrays by name, without pickle.

    The comment of the zip file is a label, which says what it is, and the SHA-256 of all bytes
    before: whatever is changed, is noticed.
    """

    kind: str
    """Such as "checkpoint", for label and messages."""
    version: int
    error: type[DiffsimError]
    """What is raised; ``path`` and ``reason`` are its attributes."""

    def write(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Replace the file at ``path``; returns the checksum.

        Raises
        ------
        self.error
            If it cannot be written (a full disk, say); the old one is then untouched.
        TakenError
            If there is a file of that name which is of no such kind.
        """
        self._check_replaceable(path)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **dict(arrays))
        stream.seek(-2, os.SEEK_END)  # there is the length of the comment
        stream.write((_LABEL + _DIGITS).to_bytes(2, "little") + self._label())
        digest = hashlib.sha256(stream.getbuffer()).hexdigest()
        stream.write(digest.encode())
        try:
            atomic_write_bytes(path, stream.getbuffer())
        except OSError as error:
            raise self.error(
                f"cannot write the {self.kind} {path}: {error.strerror or error}; an older one "
                "there is untouched, and nothing in memory is lost: make room and save again",
                path=path,
                reason=str(error),
            ) from error
        return digest

    def read(self, path: Path) -> Arrays:
        """What ``write`` wrote.

        Raises
        ------
        self.error
            With a ``reason``: the file is "unreadable", "foreign", which is of another kind or
            version, or "damaged".
        """
        try:
            data = read_regular(path)
        except OSError as error:
            raise self.error(
                f"cannot read the {self.kind} {path}: {error.strerror or error}",
                path=path,
                reason="unreadable",
            ) from error
        content = memoryview(data)[:-_DIGITS]
        if hashlib.sha256(content).hexdigest().encode() != data[-_DIGITS:]:
            self._refuse_damaged(path, data)
        if content[-_LABEL:] != self._label():
            raise self._foreign(path)
        try:
            return read_arrays(data)
        except (ValueError, LookupError, MemoryError) as error:
            raise self._refusal(
                path, "damaged", f"does not hold what a {self.kind} holds: {error}"
            ) from error

    def _check_replaceable(self, path: Path) -> None:
        if os.path.exists(path) and f"openmm_diffsim {self.kind} " not in _tail(path):
            raise TakenError(
                f"{path} would be overwritten, and it is no {self.kind}: move it away, or choose "
                "another name",
                path=path,
            )

    def _label(self) -> bytes:
        return f"openmm_diffsim {self.kind} {self.version}".encode().ljust(_LABEL)

    def _refuse_damaged(self, path: Path, data: bytes) -> None:
        if not data.startswith(b"PK"):
            raise self._foreign(path)
        raise self._refusal(
            path,
            "damaged",
            f"is damaged, or is no {self.kind}: it does not end in the checksum of its content; "
            "restore the file, or start anew with another name",
        )

    def _foreign(self, path: Path) -> DiffsimError:
        return self._refusal(
            path, "foreign", f"is not a {self.kind} of this version of openmm_diffsim"
        )

    def _refusal(self, path: Path, reason: str, what: str) -> DiffsimError:
        return self.error(f"{path} {what}", path=path, reason=reason)


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """What ``numpy.savez`` wrote, by its name.

    Raises
    ------
    ValueError
        If it is no archive, holds pickled objects, is compressed (a small file could then fill the
        memory), or an array is said to be of another size than its bytes are.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return {
                entry.filename.removesuffix(".npy"): _array(file, entry)
                for entry in file.infolist()
            }
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no archive of arrays: {error}") from error


def _array(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
        raise ValueError(f"{entry.filename} is compressed, expected plain arrays")
    with file.open(entry) as stream:
        return read_array(stream, entry.filename)


def read_array(stream: IO[bytes], name: str) -> NDArray[Any]:
    """What ``numpy.save`` wrote; ValueError where it is no array, or holds pickled objects."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    content = stream.read()
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, expected plain arrays")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} has {len(content)} bytes, expected {shape} of {dtype}")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if fortran else "C")


def checksum_of(path: Path) -> str:
    """The checksum that an archive ends in; of any other file something else."""
    return _tail(path)[-_DIGITS:]


def _tail(path: Path) -> str:
    """Label and checksum of an archive; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LABEL - _DIGITS))
            return file.read().decode("ascii", "replace")
    except OSError:
        return ""


def from_text(text: str) -> NDArray[np.uint8]:
    """Text as an array, which needs no pickle."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


def to_text(array: NDArray[Any]) -> str:
    """Back from ``from_text``."""
    return array.tobytes().decode()


def from_data(data: Any) -> NDArray[np.uint8]:
    """Plain data as an array of their JSON."""
    return from_text(json.dumps(data))


def to_data(array: NDArray[Any]) -> Any:
    """Back from ``from_data``; ValueError where it is none."""
    return json.loads(to_text(array))
