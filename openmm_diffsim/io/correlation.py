"""Measured functions of time, such as a velocity autocorrelation function."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .curves import CurveRules, curve_table, read_curve, tidy_curve
from .tables import table_error

_RULES = CurveRules("function of time", "t", "value", "time", fewest_rows=3)
_NEAR = (0.5, 1.3)  # of C(0) over 3RT/m: constraints take part of it, one axis has a third


@dataclass(frozen=True)
class CorrelationData:
    """A function of time as it was measured, ascending in t."""

    t: NDArray[np.float64]
    """[n] [ps], each value once."""
    values: NDArray[np.float64]
    """[n], in md units."""
    error: NDArray[np.float64] | None
    """[n], standard error of the values, or None when the file has none."""
    path: Path | None = None
    """The file it was read from, if any."""
    n_dropped: int = 0
    """Rows left out because t or the value was NaN."""


def read_correlation(path: str | os.PathLike[str]) -> CorrelationData:
    """Read a function of time, with or without its standard error, and tidy it up.

    Parameters
    ----------
    path : text of 2 or 3 columns t [ps], value, error in md units (or as many long rows), see
        `read_table`; a column of errors that is NaN throughout counts as none

    Raises
    ------
    TargetError
        The file is not such a table, an error is not positive, or anything `clean_correlation`
        refuses. path and line say where.
    """
    curve = read_curve(path, _RULES)
    return CorrelationData(curve.x, curve.y, curve.error, Path(path), curve.n_dropped)


def clean_correlation(
    t: Any, values: ArrayLike, error: ArrayLike | None = None, kind: str = "dimensionless"
) -> CorrelationData:
    """Tidy up a function of time as it was measured: holes, order and repetitions.

    Rows may be in any order; those with NaN for t or the value are left out and counted. Rows of
    the same t are averaged.

    Parameters
    ----------
    t : [n] [ps], or Quantity
    values : [n], in md units, or Quantity
    error : [n] or one number, standard error of the values; may be zero
    kind : of the values, one of ``units.UNIT_NAMES``

    Raises
    ------
    UnitError
        Something is not a number, or has another dimension than it should.
    TargetError
        The arrays differ in length; a number is infinite, or t or error negative; t and values
        appear to be swapped; or fewer than 3 points are left.
    """
    table = curve_table(_RULES, t, values, error, kind)
    curve = tidy_curve(table, _RULES, errors_may_be_zero=True)
    return CorrelationData(curve.x, curve.y, curve.error, None, curve.n_dropped)


def check_vacf(data: CorrelationData, squared_speed: float) -> None:
    """Raise when numbers that start at t = 0 cannot be a velocity autocorrelation function.

    Equipartition gives C(0) = <v^2> = 3RT/m exactly, and less where constraints hold.

    Parameters
    ----------
    data : what `read_correlation` returned; says nothing where it starts after t = 0
    squared_speed : 3RT/m, averaged over the particles [nm^2/ps^2]

    Raises
    ------
    TargetError
        C(0) is not between 0.5 and 1.3 times ``squared_speed``. path names the file.
    """
    if data.t[0] > 0:
        return
    found = float(data.values[0])
    if not _NEAR[0] * squared_speed < found < _NEAR[1] * squared_speed:
        raise table_error(
            data.path,
            f"got C(0) = {found:.4g}, expected about 3RT/m = {squared_speed:.4g} nm^2/ps^2; is it "
            "normalised to C(0) = 1, per component, or in another unit?",
            name="C(t)",
        )
