"""Matrices in files: text, or what NumPy saves."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TargetError
from .archive import read_array, read_arrays
from .regular import read_regular
from .tables import table_error
from .text import parse, read_text

_MOST_BYTES = 2**28  # of an array


def read_matrix(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """A matrix [rows, columns] from a text file, an .npy file or an .npz file with one array.

    In a text one line is a row; see ``text.parse`` for what else it may look like. An array of one
    dimension is a column.

    Raises
    ------
    TargetError
        If the file is missing or too large, holds no matrix or several, pickled objects, or a
        number that is not finite.
    """
    path = Path(path)
    arrays = path.suffix.lower() in (".npy", ".npz")
    found = _saved(path) if arrays else _written(path)
    if found.dtype.kind not in "fiu" or found.ndim not in (1, 2) or not found.size:
        raise table_error(
            path, f"holds an array {found.shape} of {found.dtype}, expected a matrix of numbers"
        )
    matrix = found.astype(np.float64).reshape(len(found), -1)
    if not np.all(np.isfinite(matrix)):
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise table_error(
            path, f"got {matrix[row, column]:g} in row {row + 1}, expected finite numbers"
        )
    return matrix


def _saved(path: Path) -> NDArray[Any]:
    """What NumPy saved."""
    try:
        data = read_regular(path, _MOST_BYTES)
        if path.suffix.lower() == ".npy":
            return read_array(io.BytesIO(data), path.name)
        arrays = read_arrays(data)
    except OSError as error:
        raise table_error(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, MemoryError, EOFError) as error:
        raise table_error(path, f"is no array that NumPy saved: {error}") from error
    if len(arrays) != 1:
        raise table_error(path, f"holds {len(arrays)} arrays, expected one")
    return next(iter(arrays.values()))


def _written(path: Path) -> NDArray[np.float64]:
    """Lines of numbers."""

    def refuse(what: str, line: int | None) -> TargetError:
        return table_error(path, what, line)

    blocks = parse(read_text(path, refuse), refuse).blocks
    if len(blocks) != 1:
        raise table_error(path, f"holds {len(blocks)} tables of numbers, expected one")
    rows, lines = blocks[0].rows, blocks[0].lines
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            what = f"got {len(row)} numbers, expected {len(rows[0])} as on line {lines[0]}"
            raise table_error(path, what, line)
    return np.array(rows)
