"""Bytes of what is a file: reading a device or a pipe may never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes:
    """All bytes of a file, ``most`` of them.

    Raises
    ------
    OSError
        It cannot be read, is no regular file (a folder, a device, a pipe), or is larger.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "there is no file of such a name") from error
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, expected a file")
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, expected at most {most}")
    return path.read_bytes()
