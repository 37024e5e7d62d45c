"""Arguments of observables, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ObservableError
from ..limits import checked_indices, shown

IntArray = NDArray[np.int64]


def at_least(least: int, name: str, value: int) -> int:
    """The whole number; ObservableError where it is less, or none."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value) or int(value) != value or value < least:
        raise ObservableError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return int(value)


def check_atoms(atoms: ArrayLike | None, name: str = "atoms") -> IntArray | None:
    """Indices of a selection, also of a mask, int [atoms], or None for all particles.

    Raises
    ------
    ObservableError
        If there is none, one comes twice, or one is no whole number >= 0.
    """
    return None if atoms is None else checked_indices(name, atoms, ObservableError)


def check_tuples(name: str, tuples: ArrayLike, size: int) -> IntArray:
    """Indices of several tuples, int [tuples, size].

    Raises
    ------
    ObservableError
        If there is none, one has another number of indices, one of them twice or below 0, or comes
        twice, forward or backward.
    """
    try:
        table = np.array(tuples)
    except ValueError:  # of different lengths
        table = np.zeros(0)
    whole = table.ndim == 2 and table.shape[1] == size and table.dtype.kind in "iu"
    example = tuple(range(size))
    if not whole or not len(table):
        raise ObservableError(
            f"{name}: got {shown(tuples)}, expected a list of {size} indices each, as [{example}]",
            got=tuples,
        )
    ordered = np.sort(table, axis=1)
    bad = (ordered[:, 0] < 0) | (np.diff(ordered, axis=1) == 0).any(axis=1)
    backward = np.where((table[:, 0] > table[:, -1])[:, None], table[:, ::-1], table)
    if bad.any() or len(np.unique(backward, axis=0)) < len(table):
        wrong = tuple(table[np.argmax(bad)].tolist()) if bad.any() else "one that comes twice"
        raise ObservableError(
            f"{name}: got {wrong}, expected {size} different indices >= 0, each tuple once",
            got=wrong,
        )
    return np.asarray(table.astype(np.int64))


def whole_numbers(name: str, values: ArrayLike) -> IntArray:
    """A flat int array; ObservableError where ``values`` are something else."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ObservableError(f"{name}: expected a sequence of whole numbers, got {shown(values)}")
    return array.astype(np.int64)
