"""Tables of numbers as people have them: any separator, headers, comments, holes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..errors import TargetError

COMMENT_MARKS = re.compile("[#@].*")
"""What starts a comment; "@" starts one in xvg files."""

# No text file has these, whatever its encoding of letters.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")

_FEWEST_ROWS = 5


@dataclass(frozen=True)
class Table:
    """Rows of numbers, and where they come from."""

    values: NDArray[np.float64]
    """[rows, columns], 2 or 3 columns, rows in their original order; NaN where there is a hole."""
    path: Path | None = None
    """The file they were read from, if any."""
    lines: list[int] | None = None
    """[rows], the line of the file each row is on, counted from 1; None if on none of its own."""
    name: str = "table"
    """What a message calls it where it came from no file."""

    def error(self, what: str, row: SupportsIndex | None = None) -> TargetError:
        """A TargetError that names the file, and the line or else the index of a row."""
        if row is None:
            return table_error(self.path, what, name=self.name)
        if self.lines is None:
            return table_error(self.path, f"point {row}: {what}", name=self.name)
        return table_error(self.path, what, self.lines[row])


def table_error(
    path: Path | None, what: str, line: int | None = None, name: str = "table"
) -> TargetError:
    """A TargetError that names the file, or else the ``name`` of the table, and the line."""
    place = name if path is None else str(path)
    return TargetError(
        f"{place}: {what}" if line is None else f"{place}, line {line}: {what}",
        path=path,
        line=line,
    )


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read 2 or 3 columns of numbers.

    Columns are separated by semicolons, commas, tabs or blanks. The first line may be a header;
    comments and empty lines are skipped. An empty field is NaN. A file of just 2 or 3 lines, each
    of more than 3 numbers, is the same table lying on its side.

    Raises
    ------
    TargetError
        The file is missing, empty or not text; a field is not a finite number or NaN; lines
        differ in their number of columns, or it is not 2 or 3.
    """
    path = Path(path)
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        fields = _split(COMMENT_MARKS.sub("", text))
        if not any(fields) or (not rows and _is_header(fields)):
            continue
        rows.append([_number(path, number, field) for field in fields])
        lines.append(number)
    if not rows:
        raise table_error(path, "has no row of numbers; expected 2 or 3 columns of them")
    on_side = len(rows) in (2, 3) and min(map(len, rows)) > 3
    _check_lengths(path, rows, lines, on_side)
    values = np.array(rows)
    if on_side:
        return Table(values.T, path)
    return Table(values, path, lines)


def read_potential(
    path: str | os.PathLike[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a pair potential: columns r [nm], u [kJ/mol] and perhaps a standard error, unused.

    Returns
    -------
    r, u : [n], ascending in r

    Raises
    ------
    TargetError
        As for `read_table`; also when a number is missing, r is negative or there twice, or there
        are fewer than 5 rows.
    """
    table = read_table(path)
    r, u = table.values[:, 0], table.values[:, 1]
    for row in np.flatnonzero(np.isnan(r) | np.isnan(u) | (r < 0)):
        raise table.error(f"got r = {r[row]:g}, u = {u[row]:g}, expected r >= 0 and a number", row)
    order = np.argsort(r, kind="stable")
    for place in np.flatnonzero(np.diff(r[order]) == 0):
        raise table.error("this r is in the file twice", order[place + 1])
    require_rows(table, len(r))
    return r[order], u[order]


def require_rows(table: Table, n_rows: int, fewest: int = _FEWEST_ROWS) -> None:
    """Raise TargetError when a table has too few usable rows to be a curve."""
    if n_rows < fewest:
        raise table.error(
            f"got {n_rows} usable rows, expected at least {fewest}; is the file truncated?"
        )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise table_error(path, f"cannot be read: {problem.strerror or problem}") from problem
    if not data.strip():
        raise table_error(path, "is empty")
    if _BINARY.search(data):
        raise table_error(path, "is binary, expected a text file; save it as plain text or csv")
    # A letter of an older encoding in a header does no harm; in a number it is refused below.
    return data.decode("utf-8-sig", errors="replace")


def _split(text: str) -> list[str]:
    """The fields of a line; separators are tried in the order of how rarely they are padding."""
    for separator in (";", ",", "\t"):
        if separator in text.strip(" "):
            return [field.strip().strip('"') for field in text.split(separator)]
    return text.split()


def _is_header(fields: list[str]) -> bool:
    def is_number(field: str) -> bool:
        try:
            float(field)
        except ValueError:
            return False
        return True

    return not any(is_number(field) for field in fields)


def _number(path: Path, line: int, field: str) -> float:
    try:
        value = float(field or "nan")
    except ValueError:
        raise table_error(path, f"got {field[:40]!r}, expected a number", line) from None
    if np.isinf(value):
        raise table_error(path, f"got {field[:40]!r}, expected a finite number", line)
    return value


def _check_lengths(path: Path, rows: list[list[float]], lines: list[int], on_side: bool) -> None:
    n_columns = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != n_columns:
            raise table_error(
                path,
                f"got {len(row)} numbers, expected {n_columns} as on line {lines[0]}; "
                "is the line truncated?",
                line,
            )
    if not on_side and n_columns not in (2, 3):
        raise table_error(path, f"got {n_columns} columns, expected 2 or 3", lines[0])
