"""Curves as they were measured: holes, order and repetitions tidied up, the impossible refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import MOST_POINTS, Curve, CurveRules
from ..errors import TargetError
from ..units import value_in_md_units
from .columns import check_single, choose_columns
from .tables import Table, read_table, require_rows
from .text import too_many


def read_curve(
    path: str | os.PathLike[str],
    rules: CurveRules,
    unit: str,
    columns: Sequence[int] | None = None,
    block: int | None = None,
) -> Curve:
    """Read a curve, with or without its standard error, from a table, and tidy it up.

    Rows are treated as by ``tidy``; those that VOTCA flags as out of range or undefined are left
    out. A column of errors that is NaN or zero throughout counts as none.

    Parameters
    ----------
    path : text of 2 or 3 columns x, y, error (or as many long rows), see ``read_table``
    rules : of an observable, ``RDF.rules`` for one
    unit : of x in the file, one of ``rules.accepted``, such as "nm" or "angstrom"; all else is in
        md units, but for what goes with x (P(theta) is in 1/degree where theta is in degree)
    columns : of x, y and perhaps the error, counted from 1; see ``choose_columns``
    block : which of several tables in the file, counted from 1, or from -1 for the last

    Raises
    ------
    TargetError
        unit is another one, the file is not such a table, it is not clear which of its columns or
        tables it is, or anything that ``tidy`` refuses. path and line say where.
    """
    if unit not in rules.accepted:
        raise TargetError(
            f"got {rules.unit_key} {unit!r}, expected one of "
            f"{', '.join(map(repr, rules.accepted))}",
            path=Path(path),
            key=rules.unit_key,
        )
    table, sheet = read_table(path, block, left_out="ou")
    table = choose_columns(_without_empty(table), sheet, columns)
    curve = _tidy(_without_empty(table), rules)
    of_x, of_y = rules.accepted[unit]
    error = None if curve.error is None else curve.error * of_y
    return replace(curve, x=curve.x * of_x, y=curve.y * of_y, error=error)


def tidy(x: Any, y: Any, error: Any, rules: CurveRules, kind: str = "dimensionless") -> Curve:
    """A curve from arrays as they were measured, with holes, in any order, with repetitions.

    Rows with NaN for x or y are left out and counted. Rows of the same x are averaged,
    y = sum_i y_i / n and error = sqrt(sum_i error_i^2) / n. An error of NaN where y is 0 (no
    counts, so no spread) becomes 0.

    Parameters
    ----------
    x, y : [n] in md units, or Quantities
    error : [n] or one number, standard error of y, may be zero; None where it is not known
    rules : of an observable, ``RDF.rules`` for one
    kind : of y, one of ``units.UNIT_NAMES``

    Raises
    ------
    UnitError
        Something is not a number, or has another dimension than its kind.
    TargetError
        The arrays differ in length; a number is infinite or one that x, y or error cannot have;
        x and y appear to be swapped; several curves stand one below the other; or fewer points are
        left than ``rules`` ask for.
    """
    return _tidy(_table(rules, x, y, error, kind), rules)


def _without_empty(table: Table) -> Table:
    """Without last columns that are empty throughout, and a third one of zeros or NaN alone."""
    values = table.values
    while values.shape[1] > 2 and np.isnan(values[:, -1]).all():
        values = values[:, :-1]
    nothing = values.shape[1] == 3 and not np.nan_to_num(values[:, 2]).any()
    return table.with_values(values[:, :2] if nothing else values)


def _table(rules: CurveRules, x: Any, y: Any, error: Any, kind: str) -> Table:
    """The table of a curve that came as arrays; one error may stand for all."""
    columns = [
        np.asarray(value_in_md_units(x, rules.x_kind)),
        np.asarray(value_in_md_units(y, kind)),
    ]
    if error is not None:
        spread = value_in_md_units(error, kind)
        columns.append(
            np.full_like(columns[0], spread) if np.ndim(spread) == 0 else np.asarray(spread)
        )
    shapes = [column.shape for column in columns]
    if columns[0].ndim != 1 or len(set(shapes)) > 1:
        raise TargetError(
            f"got {rules.x}, {rules.y} (and error) of shapes {shapes}, expected lists of one length"
        )
    return Table(np.stack(columns, axis=1), name=rules.name)


def _tidy(table: Table, rules: CurveRules) -> Curve:
    """Checked, without holes, ascending, each x once."""
    values = table.values
    if len(values) > MOST_POINTS:
        raise table.error(too_many(f"{len(values)} rows"))
    kept = np.flatnonzero(~np.isnan(values[:, :2]).any(axis=1))
    if not len(kept):
        raise table.error(f"has no row of numbers: {rules.x} or {rules.y} is NaN in each")
    if values.shape[1] == 3:
        values[(values[:, 1] == 0) & np.isnan(values[:, 2]), 2] = 0.0
    _check_rows(table, kept, rules)
    check_single(table)
    x, y, error = _merge(values[kept])
    require_rows(table, len(x), rules.fewest_rows)
    return Curve(x, y, error, path=table.path, n_dropped=len(values) - len(kept))


def _check_rows(table: Table, kept: NDArray[np.intp], rules: CurveRules) -> None:
    """Raise for the first row that holds a number that x, y or error cannot be."""
    values = table.values[kept]
    x, y = values[:, 0], values[:, 1]
    if _orderliness(x) < 0.8 and _orderliness(y) > 0.95:
        raise table.error(
            f"columns appear to be swapped: the second is in order; expected {rules.x} first"
        )
    wanted: list[tuple[NDArray[np.bool_], int, str, str]] = [
        (x >= rules.least_x, 0, rules.x, f"{rules.x} >= {rules.least_x:g}"),
        (y >= rules.least_y, 1, rules.y, rules.expected_y),
    ]
    if values.shape[1] == 3:
        wanted.append((values[:, 2] >= 0, 2, "error", "a standard error >= 0"))
    for valid, column, name, expected in wanted:
        for row in np.flatnonzero(~(valid & np.isfinite(values[:, column]))):
            got = values[row, column]
            raise table.error(f"got {name} = {got:g}, expected {expected}, finite", kept[row])


def _orderliness(x: NDArray[np.float64]) -> float:
    """The larger share of steps up or down: 1 for a monotonic sequence, 0.5 for a wavy one."""
    up, down = int((x[1:] > x[:-1]).sum()), int((x[1:] < x[:-1]).sum())
    return max(up, down) / max(up + down, 1)


def _merge(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """x ascending and unique, y and error averaged over rows of the same x."""
    x, place, count = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    y = np.bincount(place, weights=rows[:, 1]) / count
    if rows.shape[1] == 2:
        return x, y, None
    return x, y, np.sqrt(np.bincount(place, weights=rows[:, 2] ** 2)) / count
