"""Files that are files, and no larger than they may be: a device or a pipe may never end."""

from __future__ import annotations

import errno
import gzip
import stat
from pathlib import Path

_PIECE = 2**20  # bytes


def read_regular(path: Path, most: int | None = None) -> bytes:
    """All bytes of a file, at most ``most`` of them.

    Raises
    ------
    OSError
        As for ``check_regular``, or it cannot be read.
    """
    check_regular(path, most)
    return path.read_bytes()


def check_regular(path: Path, most: int | None = None) -> None:
    """Is it a file of no more bytes, unpacked where its name ends in .gz?

    Raises
    ------
    OSError
        It is missing, a folder, a device or a pipe, or larger.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "there is no file of such a name") from error
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, expected a file")
    if most is None:
        return
    packed = path.suffix.lower() == ".gz"
    size = _unpacked(path, most) if packed else found.st_size
    if size > most:
        least = "more than" if packed else "in all"
        raise OSError(errno.EFBIG, f"it has {least} {size} bytes, expected at most {most}")


def _unpacked(path: Path, most: int) -> int:
    """How many bytes it holds; no more than a piece beyond ``most`` is unpacked."""
    size = 0
    try:
        with gzip.open(path) as stream:
            while size <= most and (piece := stream.read(_PIECE)):
                size += len(piece)
    except EOFError as error:
        raise OSError(errno.EIO, f"it is cut short: {error}") from error
    return size
