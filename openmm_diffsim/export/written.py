"""Files of an export: text without a date, none of another's replaced, and what is left out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..io.manifest import Manifest


@dataclass(frozen=True)
class Exported:
    """What was written, and what was not."""

    files: list[Path]
    left_out: list[str]
    """What the System has besides learned tables, a line each."""


def write(
    engine: str, folder: str | os.PathLike[str], texts: Mapping[str, str], left_out: Sequence[str]
) -> Exported:
    """Write all of them.

    Raises
    ------
    TakenError
        If a file of that name is there that no such export wrote.
    OSError
        If one cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder, f"export to {engine}")
    manifest.write({name: text.encode() for name, text in texts.items()})
    return Exported([folder / name for name in texts], list(left_out))


def warn_of(exported: Exported) -> Exported:
    """RuntimeWarning of each thing that is left out; the same is given back."""
    for what in exported.left_out:
        warnings.warn(f"not exported: {what}", RuntimeWarning, stacklevel=3)
    return exported


def rows(*columns: ArrayLike) -> str:
    """Columns of numbers, a line a row; whole ones and words as such, others with 15 digits.

    There is no -0.
    """
    lists = [_words(np.asarray(column)) for column in columns]
    return "".join(" ".join(row) + "\n" for row in zip(*lists, strict=True))


def _words(column: NDArray[Any]) -> list[str]:
    plain = column.dtype.kind in "iuU"
    return [str(value) if plain else f"{value + 0.0:.15g}" for value in column.tolist()]
