"""Which of several tables in a file, and which of its columns, a measured curve is."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .tables import Table
from .text import Sheet

Array = NDArray[np.float64]

_ERRORS = re.compile(
    r"err|sig|std|dev|unc(?!t)|rms|conf|±|\+/?-|delta|(\b|_)(s\.?[ed]\.?m?|ci)(\b|_)|\b[de]\b|\bu\b(?!\(r)"
    r"|\bd[ _]?[a-z](\(|\b)",
    re.IGNORECASE,
)
_CURVES = re.compile(
    r"[gh]([\W_\d].*)?|(?-i:[gh][A-Z].*)|(cn|nn?|n_?c|[npswuf])([\W_\d].*)?|g_?(of_?)?r|r[dp]f.*"
    r"|counts?|number.*|coord.*|neighbou?rs?.*|cum.*|integral.*|hist.*|pmf.*|pot.*|energ.*|force.*"
    r"|density|rho.*|prob.*|var.*|fit.*|model.*|ref.*|sim.*|exp.*",
    re.IGNORECASE,
)
_ABSCISSA = re.compile(r"[rxqtd]\b.*|(dist|rad|time|theta|angle|lag|bin).*", re.IGNORECASE)
_WITH_ERRORS = re.compile(r"@\s*type\s+xydy", re.IGNORECASE)
_SETS = re.compile(r"@\s*(s\d+\s+legend|type\s+xy\b)", re.IGNORECASE)
_AS_LARGE = 0.5  # of y: a column that is mostly more is no error
_SAME = 0.15  # of the standard deviation of y: how much a curve differs when measured again
_SEEN = 0.3  # of the largest y: where y is far from 0


def choose_columns(table: Table, sheet: Sheet, columns: Sequence[int] | None) -> Table:
    """x, y and perhaps an error, of a table of several columns.

    Parameters
    ----------
    table : values [rows, n]
    sheet : the file it is from
    columns : those of x, y and perhaps of the error, counted from 1. None: the first two, and the
        third where it can be an error; of a LAMMPS table (row, r, g, coordination) the second and
        third.

    Raises
    ------
    TargetError
        There are other columns, or it is not clear which they are.
    """
    values = table.values
    if columns is not None:
        return table.with_values(values[:, _checked(table, columns)])
    n = values.shape[1]
    if n == 3 and _is_number_of_row(values):
        raise table.error(f"the first column numbers the rows; {_say([2, 3])}")
    if n == 3 and _adds_up(*values.T):
        return table.with_values(values[:, :2])
    if n == 3:
        _check_error(table, sheet)
    elif n == 4 and _is_number_of_row(values) and _adds_up(*values[:, 1:].T):
        return table.with_values(values[:, 1:3])
    elif n != 2:
        raise table.error(f"got {n} columns, expected 2 or 3; {_say([1, 2])}")
    return table


def check_single(table: Table) -> None:
    """Raise where several curves stand one below the other: x starts again and y is another.

    The same one measured several times is no error.
    """
    x, y = table.values[np.isfinite(table.values[:, 0]), :2].T
    steps = np.sign(np.diff(x))
    main = 1 if (steps > 0).sum() >= (steps < 0).sum() else -1
    starts = np.flatnonzero(steps == -main) + 1
    runs = [run for run in np.split(np.arange(len(x)), starts) if len(run) > 4]
    for run in runs[1:]:
        first = runs[0]
        _, mine, other = np.intersect1d(x[first], x[run], return_indices=True)
        if len(mine) <= 0.5 * min(len(run), len(first)):
            continue
        difference = y[first[mine]] - y[run[other]]
        if np.nanmean(difference**2) > _SAME**2 * np.nanvar(y[first]):
            raise table.error(
                f"holds {len(runs)} curves, one below the other: x starts again at "
                f"{x[run[0]]:g}; keep one of them"
            )


def _say(columns: list[int]) -> str:
    return (
        f"say which are x and y, and the error if there is one, counted from 1, as columns = "
        f"{columns}"
    )


def _checked(table: Table, columns: Sequence[int]) -> list[int]:
    n = table.values.shape[1]
    known = [c for c in columns if isinstance(c, int | np.integer) and 1 <= c <= n]
    if len(known) < len(columns) or len(set(known)) < len(known) or len(known) not in (2, 3):
        raise table.error(
            f"columns: got {list(columns)}, expected those of x, y and perhaps of the error, from "
            f"1 to {n}"
        )
    return [int(c) - 1 for c in known]


def _is_number_of_row(values: Array) -> bool:
    first, second = values[:, 0], values[:, 1]
    counts = np.array_equal(first, first[0] + np.arange(len(first))) and first[0] in (0, 1)
    rises = bool(np.all(second[1:] > second[:-1]))  # a difference of infinities would warn
    return counts and len(first) > 4 and rises


def _adds_up(x: Array, y: Array, column: Array) -> bool:
    """Is it the number of neighbours, the integral of 4 pi rho x^2 y?"""
    if len(x) < 5 or not np.all(np.isfinite([x, y, column])) or np.any(np.diff(x) <= 0):
        return False
    total = np.cumsum(x**2 * y * np.gradient(x))
    rise = column[-1] - column[0]
    if rise <= 0 or total[-1] <= total[0] or np.any(np.diff(column) < 0):
        return False
    found, expected = (column - column[0]) / rise, (total - total[0]) / (total[-1] - total[0])
    return bool(np.abs(found - expected).max() < 0.02)


def _check_error(table: Table, sheet: Sheet) -> None:
    """Raise where the third column is not, by its name or its size, an error of the second."""
    if any(map(_WITH_ERRORS.match, sheet.words)):
        return
    if any(map(_SETS.match, sheet.words)):
        raise table.error(f"holds two curves of one x, not errors; {_say([1, 2])}")
    titles = [names for names in map(_names, sheet.words) if len(names) == 3]
    for names in titles:
        if _names_a_curve(*names):
            raise table.error(
                f"the third column is named {names[2]!r}, which is no error of {names[1]!r}; "
                f"{_say([1, 2])}"
            )
    if any(_ERRORS.search(names[2]) for names in titles):
        return
    y, error = table.values[:, 1], table.values[:, 2]
    seen = np.isfinite(y) & np.isfinite(error)
    seen &= np.abs(y) > _SEEN * np.abs(y[seen]).max(initial=0.0)
    if seen.any() and np.median(error[seen] / np.abs(y[seen])) > _AS_LARGE:
        raise table.error(
            "the third column is mostly more than half the second, so hardly its error (a second "
            f"curve, a count?); {_say([1, 2])}"
        )


def _names(words: str) -> list[str]:
    """Those of the columns, without units, of a line that may be their title."""
    bare = re.sub(r"\s+[(\[][^)\]]*[)\]]|\s+/\s*\w+", "", words.strip("#%!@ "))
    separator = r"\s*[;,\t]\s*" if re.search(r"[;,\t]", bare) else r"\s+"
    return [name.strip("\"' ") for name in re.split(separator, bare)]


def _names_a_curve(x: str, y: str, third: str) -> bool:
    """Does the third name say another curve, as the second does, or a number of neighbours?"""
    if not _ABSCISSA.fullmatch(x) or _ERRORS.search(third):
        return False
    stems = [re.split(r"[\W\d_]", name)[0].lower() for name in (y, third)]
    return bool(_CURVES.fullmatch(third)) or (bool(stems[0]) and stems[0] == stems[1])
