"""Measured g(r): read from a file, and checked against the density it is said to belong to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..units import number_in_md_units
from .curves import CurveRules, curve_table, read_curve, tidy_curve
from .tables import table_error

_NM = {"nm": 1.0, "angstrom": 0.1, "A": 0.1}
_RULES = CurveRules("g(r)", "r", "g", "length", -0.5, "g of about 0 or more")


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
    curve = read_curve(path, _RULES)
    return RDFData(curve.x * _NM[length_unit], curve.y, curve.error, Path(path), curve.n_dropped)


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
    table = curve_table(_RULES, r, g, error, "dimensionless")
    curve = tidy_curve(table, _RULES, errors_may_be_zero=True)
    return RDFData(curve.x, curve.y, curve.error, None, curve.n_dropped)


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
