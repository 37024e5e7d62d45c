"""What tells one set of numbers from another: SHA-256 over all of their content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WRITTEN_OUT = 64  # numbers; what is longer is told by its checksum


def checksum(array: NDArray[Any]) -> str:
    """SHA-256 of an array: its type, its shape and every byte."""
    kind = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(kind + array.tobytes()).hexdigest()


def text_checksum(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def brief(values: ArrayLike) -> Any:
    """An array as plain data: its numbers, or how many there are and their checksum."""
    array = np.asarray(values)
    if array.size <= _WRITTEN_OUT:
        return array.tolist()
    return {"shape": list(array.shape), "sha256": checksum(array)}
