"""Tables of potentials in the files of LAMMPS and GROMACS, told by what stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .text import Refusal

Array = NDArray[np.float64]

_HALF, _FOURTH = 180.0, 90.0  # degrees
_UNITS = {"real": (0.1, 4.184), "metal": (0.1, 96.48533212331)}
"""nm and kJ/mol in a length and an energy of LAMMPS."""

_N_LINE = re.compile(r"\s*N\s+(\d+)\b(.*)")
_XVG_COLUMNS = 7


@dataclass(frozen=True)
class LammpsTable:
    """One section of a table file, in md units."""

    keyword: str
    q: Array
    """[rows], nm or rad"""
    u: Array
    """[rows], kJ/mol"""
    lines: list[int]
    """[rows], counted from 1."""


def is_lammps_table(text: str) -> bool:
    """Does a line of N and a number stand above the rows of a section?"""
    return any(map(_N_LINE.fullmatch, text.splitlines()))


def lammps_tables(text: str, refuse: Refusal) -> list[LammpsTable]:
    """All sections of a file.

    Raises
    ------
    TargetError
        By ``refuse``: it does not say its units, a row is not a number and three more, or there
        are not as many as N says.
    """
    units = _units(text, refuse)
    lines = [line.split("#")[0].rstrip() for line in text.splitlines()]
    starts = [k for k, line in enumerate(lines) if _N_LINE.fullmatch(line)]
    return [_section(lines, start, units, refuse) for start in starts]


def _units(text: str, refuse: Refusal) -> tuple[float, float]:
    """By the tag UNITS: in a comment."""
    found = re.search(r"^\s*#.*\bUNITS:\s*(\w+)", text, re.MULTILINE)
    known = _UNITS.get(found[1]) if found else None
    if known is None:
        raise refuse(
            "a LAMMPS table says its units in a comment, # UNITS: real or # UNITS: metal; got "
            + (f"UNITS: {found[1]}" if found else "no such comment")
            + "; add it as the first line, or write r in nm and u in kJ/mol as two columns",
            None,
        )
    return known


def _section(
    lines: list[str], start: int, units: tuple[float, float], refuse: Refusal
) -> LammpsTable:
    head = _N_LINE.fullmatch(lines[start])
    words = [line.split()[0] for line in lines[:start] if line.strip()]
    assert head is not None
    if not words:
        raise refuse("a keyword stands above N in a LAMMPS table; there is none", start + 1)
    wanted, options = int(head[1]), head[2].split()
    least = 3 if "NOF" in options else 4
    filled = [k for k in range(start + 1, len(lines)) if lines[k].strip()][:wanted]
    for k in filled:
        row = lines[k].split()
        if len(row) < least or not all(map(_is_number, row[:least])):
            raise refuse(f"got {lines[k][:40]!r}, expected a row of {least} numbers", k + 1)
    if len(filled) != wanted:
        raise refuse(f"got {len(filled)} rows, expected {wanted} as N says", start + 1)
    values = np.array([lines[k].split()[1:3] for k in filled], dtype=float).reshape(-1, 2)
    q, u = values.T
    if "RADIANS" not in options:
        in_radians = angles_in_radians(q)
        q = q * units[0] if in_radians is q else in_radians
    return LammpsTable(words[-1], q, u * units[1], [k + 1 for k in filled])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def xvg_potential(values: Array) -> Array | None:
    """r and u, [rows, 2], of a table of GROMACS for pairs; None of another table.

    That has r and three times a function and minus its derivative: of charges, of 1/r^6 and of
    1/r^12, whose factors a topology says; here u is the last, and the others are zero.
    """
    if values.shape[1] != _XVG_COLUMNS or np.any(values[:, 1:5]):
        return None
    return values[:, [0, 5]]


def angles_in_radians(q: Array) -> Array:
    """Those of a table of angles, 0 .. 180 degrees, or dihedral angles, -180 .. 180, which may
    lack an end; what is none is given back as it is."""
    low, high = np.min(q, initial=np.inf), np.max(q, initial=-np.inf)
    is_angle = low == 0 and high == _HALF
    is_dihedral = low < -_FOURTH and high > _FOURTH and high - low <= 2 * _HALF
    return q * np.pi / _HALF if is_angle or is_dihedral else q
