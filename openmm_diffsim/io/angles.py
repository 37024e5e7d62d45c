"""Measured distributions of angles: read, tidied up, and checked to be distributions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from ..errors import TargetError
from .curves import CurveRules, curve_table, read_curve, tidy_curve
from .tables import table_error

_RADIANS = {"rad": 1.0, "degree": np.pi / 180}
_RULES = CurveRules("P(theta)", "theta", "P", "angle", -0.05, "P of about 0 or more")
_ROUNDING = 1e-3  # rad, how far beyond pi an angle may have been digitised
_NEAR = (0.8, 1.25)  # of the integral of P
_COVERED = 0.8  # share of 0 .. pi: less of it says nothing about the integral


@dataclass(frozen=True)
class AngleData:
    """A distribution of angles as it was measured, ascending in theta."""

    theta: NDArray[np.float64]
    """[n] [rad], from 0 to pi, each value once."""
    p: NDArray[np.float64]
    """[n] [1/rad], of integral 1 where all angles are there."""
    error: NDArray[np.float64] | None
    """[n] [1/rad], standard error of p, or None when the file has none."""
    path: Path | None = None
    """The file it was read from, if any."""
    n_dropped: int = 0
    """Rows left out because theta or p was NaN."""


def read_angles(path: str | os.PathLike[str], angle_unit: str = "rad") -> AngleData:
    """Read P(theta), with or without its standard error, from a table, and tidy it up.

    Parameters
    ----------
    path : text of 2 or 3 columns theta, P, error (or as many long rows), see `read_table`; a
        column of errors that is NaN throughout counts as none
    angle_unit : "rad" or "degree"; of theta, and one over it of P and its error

    Raises
    ------
    TargetError
        angle_unit is another one, the file is not such a table, an error is not positive, or
        anything `clean_angles` refuses. path and line say where.
    """
    if angle_unit not in _RADIANS:
        raise TargetError(
            f"got angle_unit {angle_unit!r}, expected one of {', '.join(map(repr, _RADIANS))}",
            path=Path(path),
            key="angle_unit",
        )
    curve = read_curve(path, _RULES)
    scale = _RADIANS[angle_unit]
    error = None if curve.error is None else curve.error / scale
    data = AngleData(curve.x * scale, curve.y / scale, error, Path(path), curve.n_dropped)
    return _checked(data)


def clean_angles(theta: Any, p: ArrayLike, error: ArrayLike | None = None) -> AngleData:
    """Tidy up a P(theta) as it was measured: holes, order and repetitions.

    Rows may be in any order; those with NaN for theta or P are left out and counted. Rows of the
    same theta are averaged.

    Parameters
    ----------
    theta : [n] [rad], or Quantity
    p : [n] [1/rad], or Quantity
    error : [n] or one number [1/rad], standard error of p; may be zero

    Raises
    ------
    UnitError
        Something is not a number, or has another dimension than it should.
    TargetError
        The arrays differ in length; a number is infinite or one that theta, P or error cannot
        have; theta and P appear to be swapped; theta is beyond pi; fewer than 5 points are left;
        or they cover all angles and the integral of P is not about 1.
    """
    table = curve_table(_RULES, theta, p, error, "angular_density")
    curve = tidy_curve(table, _RULES, errors_may_be_zero=True)
    return _checked(AngleData(curve.x, curve.y, curve.error, None, curve.n_dropped))


def _checked(data: AngleData) -> AngleData:
    last = float(data.theta[-1])
    if last > np.pi + _ROUNDING:
        raise table_error(
            data.path,
            f"got angles up to {last:.4g} rad, expected at most pi; are they in degrees?",
            name="P(theta)",
        )
    integral = float(trapezoid(data.p, data.theta))
    covered = last - float(data.theta[0]) > _COVERED * np.pi
    if covered and not _NEAR[0] < integral < _NEAR[1]:
        raise table_error(
            data.path,
            f"the integral of P over theta is {integral:.4g}, expected 1; is P in another unit "
            "than 1/rad, or divided by sin(theta)?",
            name="P(theta)",
        )
    return data
