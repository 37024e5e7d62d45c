"""Measured g(r): read from a file, and checked against the density it is said to belong to."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..units import number_in_md_units, value_in_md_units
from .tables import Table, read_table, require_rows, table_error

_NM = {"nm": 1.0, "angstrom": 0.1, "A": 0.1}


@dataclass(frozen=True)
class RDFData:
    """A radial distribution function as it was measured, ascending in r."""

    r: NDArray[np.float64]
    """[n] [nm], each value once; the grid is as regular as the source was."""
    g: NDArray[np.float64]
    """[n], tends to 1."""
    error: NDArray[np.float64] | None
    """[n], standard error of g, or None when the file has none."""
    path: Path | None = None
    """The file it was read from, if any."""
    n_dropped: int = 0
    """Rows left out because r or g was NaN."""


def read_rdf(path: str | os.PathLike[str], length_unit: str = "nm") -> RDFData:
    """Read g(r), with or without its standard error, from a table, and tidy it up.

    Parameters
    ----------
    path : text of 2 or 3 columns r, g, error (or as many long rows), see `read_table`; a column
        of errors that is NaN throughout counts as none
    length_unit : "nm", or "angstrom" or "A"; of r in the file

    Raises
    ------
    TargetError
        length_unit is another one, the file is not such a table, an error is not positive, or
        anything `clean_rdf` refuses. path and line say where.
    """
    if length_unit not in _NM:
        raise TargetError(
            f"got length_unit {length_unit!r}, expected one of {', '.join(map(repr, _NM))}",
            path=Path(path),
            key="length_unit",
        )
    table = read_table(path)
    values = table.values
    if values.shape[1] == 3 and np.isnan(values[:, 2]).all():
        table = replace(table, values=values[:, :2])
    data = _tidy(table, errors_may_be_zero=False)
    return replace(data, r=data.r * _NM[length_unit])


def clean_rdf(r: Any, g: ArrayLike, error: ArrayLike | None = None) -> RDFData:
    """Tidy up a g(r) as it was measured: holes, order and repetitions.

    Rows may be in any order; those with NaN for r or g are left out and counted. Rows of the same
    r are averaged, g = sum_i g_i / n and error = sqrt(sum_i error_i^2) / n.

    Parameters
    ----------
    r : [n] [nm], or Quantity
    g : [n]
    error : [n] or one number, standard error of g; may be zero

    Raises
    ------
    UnitError
        Something is not a number, or r has another dimension than a length.
    TargetError
        The arrays differ in length; a number is infinite or one that r, g or error cannot have;
        r and g appear to be swapped; or fewer than 5 points are left.
    """
    columns = [
        np.asarray(value_in_md_units(r, "length")),
        np.asarray(value_in_md_units(g, "dimensionless")),
    ]
    if error is not None:
        spread = value_in_md_units(error, "dimensionless")
        columns.append(
            np.full_like(columns[0], spread) if np.ndim(spread) == 0 else np.asarray(spread)
        )
    shapes = [column.shape for column in columns]
    if columns[0].ndim != 1 or len(set(shapes)) > 1:
        raise TargetError(f"got r, g (and error) of shapes {shapes}, expected lists of one length")
    return _tidy(Table(np.stack(columns, axis=1)), errors_may_be_zero=True)


def check_rdf(data: RDFData, number_density: Any) -> None:
    """Raise when numbers cannot be a g(r) of a fluid or solid of this density.

    With r_rise the first r where g > 0.5, a distance of closest approach: spheres of that
    diameter cannot be packed closer than rho r_rise^3 = sqrt(2), so r_rise is below
    1.12 rho^(-1/3); 1.3 leaves room for soft particles. A check of plausibility, not of quality.

    Parameters
    ----------
    data : what `read_rdf` returned
    number_density : of all particles that g counts [1/nm^3], number or Quantity

    Raises
    ------
    TargetError
        g never rises above 0.5; it rises below 0.1 nm or beyond 1.3 rho^(-1/3); the data end
        before 1.2 r_rise; or they reach beyond 2 r_rise and the mean of g over the last fifth of
        the range is not 1 within 0.35. path names the file.
    UnitError
        number_density is not a density.
    """
    density = number_in_md_units(number_density, "number_density")
    if not 0 < density < np.inf:
        raise table_error(
            data.path, f"got a number density of {density:g} /nm^3, expected a positive one"
        )
    r_rise = _rise(data)
    spacing = density ** (-1 / 3)
    if r_rise > 1.3 * spacing:
        raise table_error(
            data.path,
            f"g rises above 0.5 at r = {r_rise:.4g} nm, expected below {1.3 * spacing:.4g} nm at "
            f"{density:.4g} particles per nm^3, where spheres that large do not fit; was the file "
            "in angstrom and read as nm, or is the density wrong?",
        )
    end = data.r[-1]
    if end < 1.2 * r_rise:
        raise table_error(
            data.path,
            f"the data end at r = {end:.4g} nm, expected at least {1.2 * r_rise:.4g} nm (g rises "
            f"at {r_rise:.4g} nm); is the file truncated?",
        )
    tail = float(data.g[data.r >= end - 0.2 * (end - data.r[0])].mean())
    if end > 2 * r_rise and abs(tail - 1) > 0.35:
        raise table_error(
            data.path,
            f"g does not tend to 1: its mean over the last fifth of the range is {tail:.3g}, "
            "expected 1 within 0.35; is it g(r), and normalised?",
        )


def _rise(data: RDFData) -> float:
    """The first r where g > 0.5 [nm]."""
    above = np.flatnonzero(data.g > 0.5)
    if not len(above):
        raise table_error(
            data.path,
            f"g never rises above 0.5: its largest value is {data.g.max():.3g}, expected a peak "
            "and then 1; is the file truncated, or not g(r)?",
        )
    r_rise = float(data.r[above[0]])
    if r_rise < 0.1:
        raise table_error(
            data.path,
            f"g rises above 0.5 at r = {r_rise:.4g} nm, expected beyond 0.1 nm; was the file in "
            "nm and read as angstrom, or does it have noise at small r?",
        )
    return r_rise


def _tidy(table: Table, errors_may_be_zero: bool) -> RDFData:
    """Checked, without holes, ascending, each r once; r in the unit it came in."""
    values = table.values
    kept = np.flatnonzero(~np.isnan(values[:, :2]).any(axis=1))
    if not len(kept):
        raise table.error("has no row of numbers: r or g is NaN in each")
    _check_rows(table, kept, errors_may_be_zero)
    r, g, error = _merge(values[kept])
    require_rows(table, len(r))
    return RDFData(r, g, error, table.path, len(values) - len(kept))


def _check_rows(table: Table, kept: NDArray[np.intp], errors_may_be_zero: bool) -> None:
    """Raise for the first row that holds a number that r, g or error cannot be."""
    values = table.values[kept]
    r, g = values[:, 0], values[:, 1]
    if _orderliness(r) < 0.8 and _orderliness(g) > 0.95:
        raise table.error("columns appear to be swapped: the second is in order; expected r first")
    wanted = [(r >= 0, 0, "r", "r >= 0"), (g >= -0.5, 1, "g", "g of about 0 or more")]
    if values.shape[1] == 3 and errors_may_be_zero:
        wanted.append((values[:, 2] >= 0, 2, "error", "a standard error >= 0"))
    elif values.shape[1] == 3:
        wanted.append((values[:, 2] > 0, 2, "error", "a standard error > 0"))
    for valid, column, name, expected in wanted:
        for row in np.flatnonzero(~(valid & np.isfinite(values[:, column]))):
            got = values[row, column]
            raise table.error(f"got {name} = {got:g}, expected {expected}, finite", kept[row])


def _orderliness(x: NDArray[np.float64]) -> float:
    """The larger share of steps up or down: 1 for a monotonic sequence, 0.5 for a wavy one."""
    steps = np.sign(np.diff(x))
    steps = steps[steps != 0]
    return max(float((steps > 0).mean()), float((steps < 0).mean())) if len(steps) else 0.0


def _merge(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """r ascending and unique, g and error averaged over rows of the same r."""
    r, place, count = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    g = np.bincount(place, weights=rows[:, 1]) / count
    if rows.shape[1] == 2:
        return r, g, None
    return r, g, np.sqrt(np.bincount(place, weights=rows[:, 2] ** 2)) / count
