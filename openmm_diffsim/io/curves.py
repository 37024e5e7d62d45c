"""Curves as they were measured: holes, order and repetitions tidied up, the impossible refused."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..units import value_in_md_units
from .tables import Table, read_table, require_rows


@dataclass(frozen=True)
class CurveRules:
    """What a kind of curve is called, and what it may hold."""

    name: str
    """What messages call one that came from no file, such as "g(r)"."""
    x: str
    y: str
    """Names of the columns; x is never negative."""
    x_kind: str
    """Kind of number that x is, see `units`."""
    least_y: float = -np.inf
    expected_y: str = "a number"
    """What a message expects in place of a smaller y."""
    fewest_rows: int = 5


@dataclass(frozen=True)
class Curve:
    """A curve without holes, ascending in x, each x once."""

    x: NDArray[np.float64]  # [n]
    y: NDArray[np.float64]  # [n]
    error: NDArray[np.float64] | None  # [n], standard error of y; None without one
    n_dropped: int  # rows left out because x or y was NaN


def curve_table(
    rules: CurveRules, x: Any, y: ArrayLike, error: ArrayLike | None, y_kind: str
) -> Table:
    """The table of a curve that came as arrays; one error may stand for all.

    Raises
    ------
    UnitError
        Something is not a number, or has another dimension than its kind.
    TargetError
        The arrays differ in length, or are no lists.
    """
    columns = [
        np.asarray(value_in_md_units(x, rules.x_kind)),
        np.asarray(value_in_md_units(y, y_kind)),
    ]
    if error is not None:
        spread = value_in_md_units(error, y_kind)
        columns.append(
            np.full_like(columns[0], spread) if np.ndim(spread) == 0 else np.asarray(spread)
        )
    shapes = [column.shape for column in columns]
    if columns[0].ndim != 1 or len(set(shapes)) > 1:
        raise TargetError(
            f"got {rules.x}, {rules.y} (and error) of shapes {shapes}, expected lists of one length"
        )
    return Table(np.stack(columns, axis=1), name=rules.name)


def read_curve(path: str | os.PathLike[str], rules: CurveRules) -> Curve:
    """A curve from a file: see `read_table` for its form.

    A column of errors that is NaN throughout counts as none.

    Raises
    ------
    TargetError
        As `read_table` and `tidy_curve`; also when an error is not positive.
    """
    table = read_table(path)
    values = table.values
    if values.shape[1] == 3 and np.isnan(values[:, 2]).all():
        table = replace(table, values=values[:, :2])
    return tidy_curve(table, rules, errors_may_be_zero=False)


def tidy_curve(table: Table, rules: CurveRules, errors_may_be_zero: bool) -> Curve:
    """Checked, without holes, ascending, each x once.

    Rows of the same x are averaged, y = sum_i y_i / n and error = sqrt(sum_i error_i^2) / n.

    Raises
    ------
    TargetError
        x and y appear to be swapped, a row holds what the rules exclude, or too few are left.
    """
    values = table.values
    kept = np.flatnonzero(~np.isnan(values[:, :2]).any(axis=1))
    if not len(kept):
        raise table.error(f"has no row of numbers: {rules.x} or {rules.y} is NaN in each")
    _check_rows(table, kept, rules, errors_may_be_zero)
    x, y, error = _merge(values[kept])
    require_rows(table, len(x), rules.fewest_rows)
    return Curve(x, y, error, len(values) - len(kept))


def _check_rows(
    table: Table, kept: NDArray[np.intp], rules: CurveRules, errors_may_be_zero: bool
) -> None:
    """Raise for the first row that holds a number that x, y or error cannot be."""
    values = table.values[kept]
    x, y = values[:, 0], values[:, 1]
    if _orderliness(x) < 0.8 and _orderliness(y) > 0.95:
        raise table.error(
            f"columns appear to be swapped: the second is in order; expected {rules.x} first"
        )
    wanted: list[tuple[NDArray[np.bool_], int, str, str]] = [
        (x >= 0, 0, rules.x, f"{rules.x} >= 0"),
        (y >= rules.least_y, 1, rules.y, rules.expected_y),
    ]
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
    """x ascending and unique, y and error averaged over rows of the same x."""
    x, place, count = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    y = np.bincount(place, weights=rows[:, 1]) / count
    if rows.shape[1] == 2:
        return x, y, None
    return x, y, np.sqrt(np.bincount(place, weights=rows[:, 2] ** 2)) / count
