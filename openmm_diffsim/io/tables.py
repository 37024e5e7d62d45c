"""Tables of numbers: where they come from, and pair potentials among them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..errors import TargetError
from .engines import LammpsTable, angles_in_radians, is_lammps_table, lammps_tables, xvg_potential
from .text import Block, Sheet, parse, read_text

_FEWEST_ROWS = 5


@dataclass(frozen=True)
class Table:
    """Rows of numbers, and where they come from."""

    values: NDArray[np.float64]
    """[rows, columns], rows in their original order; NaN where there is a hole."""
    path: Path | None = None
    """The file they were read from, if any."""
    lines: list[int] | None = None
    """[rows], the line of the file each row is on, counted from 1; None if on none of its own."""
    name: str = "table"
    """What a message calls it where it came from no file."""

    def with_values(self, values: NDArray[np.float64]) -> Table:
        """The same rows with other columns."""
        return replace(self, values=values)

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


def read_table(
    path: str | os.PathLike[str], block: int | None = None, left_out: str = "u"
) -> tuple[Table, Sheet]:
    """Read rows of two or more numbers, and the whole sheet that they stand on.

    A table of just 2 or 3 lines, each of more than 3 numbers, is the same lying on its side. See
    ``text.parse`` for what else a file may look like.

    Parameters
    ----------
    block : which of several tables in the file, counted from 1, or from -1 for the last
    left_out : flags of VOTCA (in range, out of range, undefined), whose rows do not count

    Raises
    ------
    TargetError
        The file is missing, empty, too large or not text; it holds several tables and block says
        not which; a field is not a number or a hole; lines differ in their number of
        columns, or there is one only.
    """
    path = Path(path)

    def refuse(what: str, line: int | None) -> TargetError:
        return table_error(path, what, line)

    sheet = parse(read_text(path, refuse), refuse)
    chosen = _choose(path, sheet.blocks, block)
    on_side = len(chosen.rows) in (2, 3) and min(map(len, chosen.rows)) > 3
    _check_lengths(path, chosen, on_side)
    values = np.array(chosen.rows)
    if on_side:
        return Table(values.T, path), sheet
    flags = chosen.flags or [""] * len(values)
    kept = [row for row, flag in enumerate(flags) if not flag or flag not in left_out]
    if not kept:
        raise table_error(path, f"has no row of numbers: all are flagged {' or '.join(left_out)}")
    return Table(values[kept], path, [chosen.lines[row] for row in kept]), sheet


def read_potential(
    path: str | os.PathLike[str], n_pairs: int = 1, least: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a pair potential: columns r [nm], u [kJ/mol] and perhaps a third, unused.

    Or one of another coordinate, which may be smaller than 0, from ``least`` on.

    Of several pairs of types it may have a column each, or two with an unused one behind each, as
    in the potential.csv of a fit; else all have the same u. Rows that VOTCA flags as undefined are
    left out. A table of LAMMPS, which has to say its units, or of GROMACS is known by its content;
    one from 0 to 180 or from -180 to 180 is of angles in degrees, which become rad.

    Returns
    -------
    r : [n], ascending
    u : [pairs of types, n]

    Raises
    ------
    TargetError
        As for `read_table`; also when there are more columns, a number is missing, r is negative
        or there twice, or there are fewer than 5 rows.
    """
    return _as_potential(_potential_table(Path(path), n_pairs), n_pairs, least)


def _as_potential(
    table: Table, n_pairs: int, least: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As ``read_potential``."""
    n = table.values.shape[1]
    shared = {2: [1] * n_pairs, 3: [1] * n_pairs}
    own = {1 + n_pairs: range(1, n), 1 + 2 * n_pairs: range(1, n, 2)}
    if n not in own | shared:
        each = "" if n_pairs == 1 else f", one column or one for each of {n_pairs} pairs of types"
        raise table.error(
            f"got {n} columns, expected r (nm) and u (kJ/mol){each}; keep these alone"
        )
    r, u = table.values[:, 0], table.values[:, list((own | shared)[n])].T
    for row in np.flatnonzero(~(np.isfinite(r) & np.isfinite(u).all(axis=0) & (r >= least))):
        values = ", ".join(f"{value:g}" for value in u[:, row])
        raise table.error(
            f"got r = {r[row]:g}, u = {values}, expected r >= {least:g} and a finite number", row
        )
    order = np.argsort(r, kind="stable")
    for place in np.flatnonzero(np.diff(r[order]) == 0):
        raise table.error("this r is in the file twice", order[place + 1])
    require_rows(table, len(r))
    return r[order], u[:, order]


def read_tabulated(
    path: str | os.PathLike[str], section: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """q and u of a table of pairs, bonds, angles or dihedral angles, as ``set_table`` takes them.

        bond.set_table(*diffsim.export.read_tabulated("bond.table", "BOND_2"), type=1)

    Of LAMMPS (which has to say its units: # UNITS: real), GROMACS, VOTCA, or any columns of q
    (nm, rad) and u (kJ/mol).

    Parameters
    ----------
    section : keyword of one of several tables in a file of LAMMPS

    Returns
    -------
    q : [n], ascending, nm or rad
    u : [n], kJ/mol

    Raises
    ------
    TargetError
        As for `read_potential`; or there is no such section.
    """
    path = Path(path)
    r, u = _as_potential(_potential_table(path, 1, section), 1, -np.inf)
    return r, u[0]


def _potential_table(path: Path, n_pairs: int, section: str | None = None) -> Table:
    """r and u, from a file of LAMMPS or GROMACS or any other, in md units."""

    def refuse(what: str, line: int | None) -> TargetError:
        return table_error(path, what, line)

    text = read_text(path, refuse)
    if is_lammps_table(text):
        return _of_sections(path, lammps_tables(text, refuse), n_pairs, section)
    if section is not None:
        raise refuse(f"section: got {section!r}, and it is no table file of LAMMPS", None)
    table, _ = read_table(path)
    values = xvg_potential(table.values)
    values = table.values if values is None else values
    q = angles_in_radians(values[:, 0])
    return table.with_values(np.column_stack([q, values[:, 1:]]))


def _of_sections(
    path: Path, sections: list[LammpsTable], n_pairs: int, wanted: str | None
) -> Table:
    """One table, or one of each pair of types in their order."""
    names = ", ".join(each.keyword for each in sections)
    if wanted is not None:
        sections = [each for each in sections if each.keyword == wanted]
    if len(sections) not in {1, n_pairs}:
        raise table_error(
            path,
            f"section: got {wanted!r}, expected {n_pairs} of {names}; take out the others",
        )
    first = sections[0]
    if any(not np.array_equal(each.q, first.q) for each in sections):
        raise table_error(path, f"the tables {names} are of other distances; expected the same")
    return Table(np.column_stack([first.q, *(each.u for each in sections)]), path, first.lines)


def require_rows(table: Table, n_rows: int, fewest: int = _FEWEST_ROWS) -> None:
    """Raise TargetError when a table has too few usable rows to be a curve."""
    if n_rows < fewest:
        raise table.error(
            f"got {n_rows} usable rows, expected at least {fewest}; is the file truncated?"
        )


def _choose(path: Path, blocks: list[Block], block: int | None) -> Block:
    """The only table of a file, or the one that is asked for."""
    if not blocks:
        raise table_error(path, "has no row of numbers; expected 2 or 3 columns of them")
    if block is None:
        if any(other.rows != blocks[0].rows for other in blocks):
            raise table_error(
                path,
                f"holds {len(blocks)} tables, the second from line {blocks[1].lines[0]} on: say "
                "which, as block = 1, or block = -1 for the last",
            )
        return blocks[0]
    if not (1 <= block <= len(blocks) or -len(blocks) <= block <= -1):
        raise table_error(path, f"block: got {block}, and the file holds {len(blocks)}")
    return blocks[block - 1 if block > 0 else block]


def _check_lengths(path: Path, block: Block, on_side: bool) -> None:
    n_columns, first = len(block.rows[0]), block.lines[0]
    for row, line in zip(block.rows, block.lines, strict=True):
        if len(row) != n_columns:
            raise table_error(
                path,
                f"got {len(row)} numbers, expected {n_columns} as on line {first}; "
                "is the line truncated?",
                line,
            )
    if not on_side and n_columns < 2:
        raise table_error(path, f"got {n_columns} columns, expected 2 or 3", first)
    if block.flags and len(block.flags) != len(block.rows):
        raise table_error(path, "only some rows end in a flag i, o or u; expected all or none")
