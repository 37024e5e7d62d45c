"""NumPy archives that others may have written: plain arrays, no larger than the file itself."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """What ``numpy.savez`` wrote, by its name.

    Raises
    ------
    ValueError
        If it is no archive, holds pickled objects, is compressed (a small file could then fill the
        memory), or an array is said to be of another size than its bytes are.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                entry.filename.removesuffix(".npy"): _array(archive, entry)
                for entry in archive.infolist()
            }
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no archive of arrays: {error}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
        raise ValueError(f"{entry.filename} is compressed, expected plain arrays")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        content = stream.read()
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds pickled objects, expected plain arrays")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{entry.filename} has {len(content)} bytes, expected {shape} of {dtype}")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if fortran else "C")
