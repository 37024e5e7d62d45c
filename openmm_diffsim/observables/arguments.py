"""Arguments of observables, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ObservableError

IntArray = NDArray[np.int64]


def at_least(least: int, name: str, value: int) -> int:
    """The whole number; ObservableError where it is less, or none."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ObservableError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return int(value)


def check_atoms(atoms: ArrayLike | None, name: str = "atoms") -> IntArray | None:
    """Indices of a selection, int [atoms], or None for all particles.

    Raises
    ------
    ObservableError
        If there is none, one comes twice, or one is no whole number >= 0.
    """
    if atoms is None:
        return None
    chosen = whole_numbers(name, atoms)
    if len(chosen) == 0 or chosen.min() < 0 or len(np.unique(chosen)) < len(chosen):
        raise ObservableError(
            f"{name}: expected one or more indices >= 0, each of them once, got {atoms!r}"
        )
    return chosen


def whole_numbers(name: str, values: ArrayLike) -> IntArray:
    """A flat int array; ObservableError where ``values`` are something else."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        hint = "; np.flatnonzero makes them of a mask" if array.dtype.kind == "b" else ""
        raise ObservableError(f"{name}: expected a sequence of whole numbers, got {values!r}{hint}")
    return array.astype(np.int64)
