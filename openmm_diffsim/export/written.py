"""Files of an export: text without a date, none of another's replaced, and what is left out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

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
    """Write all of them; RuntimeWarning of what is left out.

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
    for what in left_out:
        warnings.warn(f"not exported: {what}", RuntimeWarning, stacklevel=4)
    return Exported([folder / name for name in texts], list(left_out))


def rows(*columns: ArrayLike) -> str:
    """Columns of numbers, a line a row; whole numbers as such, others with 15 digits."""
    lists = [_words(np.asarray(column)) for column in columns]
    return "".join(" ".join(row) + "\n" for row in zip(*lists, strict=True))


def _words(column: np.ndarray) -> list[str]:
    whole = column.dtype.kind in "iu"
    return [str(value) if whole else f"{value:.15g}" for value in column.tolist()]
