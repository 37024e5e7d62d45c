"""Calls of the plugin's C interface, and what may be handed to it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from . import libraries

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C interface; its error becomes an OpenMMException.

    Arrays stand for the addresses of their numbers, objects of OpenMM for those of what is behind.
    """
    if getattr(libraries.api, f"DiffSim_{name}")(*map(_as_c, arguments)) != 0:
        raise openmm.OpenMMException(libraries.api.DiffSim_getError().decode())


def is_spline_pair_force(force: openmm.Force) -> bool:
    """Is what is behind it a SplinePairForce?"""
    return bool(libraries.api.DiffSim_isSplinePairForce(_as_c(force)))


_OPENMM = (openmm.Force, openmm.Context)


def _as_c(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.__array_interface__["data"][0])
    if isinstance(argument, _OPENMM):
        return ctypes.c_void_p(int(argument.this))
    if isinstance(argument, (int, np.integer)):
        if not -(2**31) <= argument < 2**31:  # ctypes would drop the upper bits
            raise openmm.OpenMMException(
                f"SplinePairForce: expected a whole number of 32 bits, got {argument}"
            )
        return int(argument)
    return ctypes.c_double(argument) if isinstance(argument, float) else argument


def checked(context: Any) -> openmm.Context:
    """Any other object of OpenMM would be taken for a Context by the C interface."""
    if not isinstance(context, openmm.Context):
        raise openmm.OpenMMException(
            f"SplinePairForce: expected an openmm.Context, got {type(context).__name__}"
        )
    return context


def as_array(numbers: ArrayLike) -> Array:
    """Contiguous numbers in double precision."""
    return np.ascontiguousarray(numbers, dtype=np.float64)


def as_int32(numbers: ArrayLike) -> NDArray[np.int32]:
    """Contiguous whole numbers; others are refused."""
    given = np.asarray(numbers)
    with np.errstate(invalid="ignore"):
        whole = np.ascontiguousarray(given, dtype=np.int32)
    if given.dtype != np.int32 and not np.array_equal(whole, given):
        raise openmm.OpenMMException(
            "SplinePairForce: expected whole numbers of 32 bits, got "
            f"{given[whole != given].flat[0]}"
        )
    return whole


def addresses(arrays: Sequence[NDArray[Any] | None]) -> Any:
    """Pointers to arrays that the caller keeps alive."""
    return (ctypes.c_void_p * len(arrays))(*[_as_c(array) for array in arrays])


def as_boxes(boxes: ArrayLike, frames: int) -> Array:
    """A box for each frame, [frames, 3, 3], nm."""
    b = as_array(boxes).reshape(-1, 3, 3)
    if len(b) != frames:
        raise openmm.OpenMMException(
            f"SplinePairForce: expected boxes of shape ({frames}, 3, 3), got {b.shape}"
        )
    return b


def as_shape(name: str, numbers: ArrayLike, shape: tuple[int, ...]) -> Array:
    """An array of this shape; others are refused by the name of the argument."""
    array = as_array(numbers)
    if array.shape != shape:
        raise openmm.OpenMMException(
            f"SplinePairForce: {name}: expected the shape {shape}, got {array.shape}"
        )
    return array
