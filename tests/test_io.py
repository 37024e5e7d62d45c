"""Tables are read as people have them or refused by file and line; files are whole or as before."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openmm import unit

from openmm_diffsim import RDF, VACF, AngleDistribution, Curve
from openmm_diffsim.errors import TargetError
from openmm_diffsim.io import (
    atomic_write_bytes,
    read_curve,
    read_potential,
    tidy,
    write_csv,
    write_json,
)
from openmm_diffsim.io.process import Process, _started
from openmm_diffsim.io.temporary import discard, temporary_path
from openmm_diffsim.observables.dynamics import check_vacf
from openmm_diffsim.observables.plausible import check_rdf
from openmm_diffsim.units import GRAM_PER_CM3

R = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
G = np.array([0.0, 0.1, 1.8, 0.9, 1.1, 1.0])
ROWS = [f"{r} {g}" for r, g in zip(R, G, strict=True)]
Write = Callable[[str | bytes], Path]


def read_rdf(path: Path, unit: str = "nm") -> Curve:
    return read_curve(path, RDF.rules, unit)


def clean_rdf(r: object, g: object, error: object = None) -> Curve:
    return tidy(r, g, error, RDF.rules)


def read_correlation(path: Path) -> Curve:
    return read_curve(path, VACF.rules, "ps")


def clean_correlation(t: object, c: object, error: object = None, kind: str = "area") -> Curve:
    return tidy(t, c, error, VACF.rules, kind)


def plausible(curve: Curve) -> Curve:
    AngleDistribution(0.3).check(curve)
    return curve


def read_angles(path: Path, unit: str = "rad") -> Curve:
    return plausible(read_curve(path, AngleDistribution.rules, unit))


def clean_angles(theta: object, p: object, error: object = None) -> Curve:
    return plausible(tidy(theta, p, error, AngleDistribution.rules, "angular_density"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Puts a text or bytes into a new file."""

    def write_file(content: str | bytes) -> Path:
        path = tmp_path / "gr.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


# Forms a good table may have --------------------------------------------------------------------

FORMS = {
    "blanks": "\n".join(ROWS),
    "padded": "\n".join("  " + row.replace(" ", "    ") + "  " for row in ROWS) + "\n",
    "commas": "\n".join(row.replace(" ", ", ") for row in ROWS),
    "semicolons": "\n".join(row.replace(" ", ";") for row in ROWS),
    "tabs": "\n".join(row.replace(" ", "\t") for row in ROWS),
    "header": "\n".join(["r_nm,g", *(row.replace(" ", ",") for row in ROWS)]),
    "quoted header of other length": "\n".join(['"r / nm" "g of r"', *ROWS]),
    "comments": "\n".join(["# r g", '@ title "g(r)"', "", *(row + "  # a remark" for row in ROWS)]),
    "windows": "\r\n".join(["r,g", *(row.replace(" ", ",") for row in ROWS), ""]),
    "old mac": "\r".join(ROWS),
    "byte order mark": b"\xef\xbb\xbf" + "\n".join(ROWS).encode(),
    "latin-1 header": "r/Å,g\n".encode("latin-1") + "\n".join(ROWS).replace(" ", ",").encode(),
    "descending": "\n".join(ROWS[::-1]),
    "unsorted": "\n".join(ROWS[2:] + ROWS[:2]),
    "on its side": ",".join(map(str, R)) + "\n" + ",".join(map(str, G)) + "\n",
    "no errors after all": "\n".join(row.replace(" ", ",") + "," for row in ROWS),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_form_is_read(write: Write, content: str | bytes) -> None:
    path = write(content)
    data = read_rdf(path)
    np.testing.assert_array_equal(data.x, R)
    np.testing.assert_array_equal(data.y, G)
    assert (data.error, data.path, data.n_dropped) == (None, path, 0)


@pytest.mark.parametrize("on_its_side", [False, True])
def test_third_column_is_the_error(write: Write, on_its_side: bool) -> None:
    table = np.array([R, G, 0.1 * G + 0.05])
    table = table if on_its_side else table.T
    data = read_rdf(write("\n".join(",".join(map(str, row)) for row in table)))
    assert data.error is not None
    np.testing.assert_array_equal(data.error, 0.1 * G + 0.05)


@pytest.mark.parametrize("length_unit", ["angstrom", "A"])
def test_angstrom_becomes_nm(write: Write, length_unit: str) -> None:
    data = read_rdf(write("\n".join(ROWS)), length_unit)
    np.testing.assert_allclose(data.x, R / 10, rtol=1e-15)


def test_holes_are_dropped_and_counted(write: Write) -> None:
    rows = [row.replace(" ", ",") for row in ROWS]
    data = read_rdf(write("\n".join([*rows, "0.7,nan", "0.8,NaN", "0.9,", ",1.0"])))
    np.testing.assert_array_equal(data.x, R)
    assert data.n_dropped == 4


@pytest.mark.parametrize("word", ["--", "-", "-nan", "NA", "n/a", "null", "-1.#IND", "nan(ind)"])
def test_words_for_holes(write: Write, word: str) -> None:
    data = read_rdf(write("\n".join([f"0.05 {word}", *ROWS])))
    np.testing.assert_array_equal(data.x, R)
    assert data.n_dropped == 1


def test_a_minus_and_an_exponent_in_other_spellings(write: Write) -> None:
    data = read_rdf(write("0.01 \u22120.01\n0.02 1.0-103\n" + "\n".join(ROWS)))
    np.testing.assert_array_equal(data.y[:3], [-0.01, 1e-103, 0.0])


def test_rows_that_votca_flags_are_left_out(write: Write) -> None:
    flags = ["u", "o", "i", "i", "i", "i", "i", "u"]
    rows = ["0.01 0.5", "0.02 0.5", *ROWS[:5], "0.9 0"]
    path = write("\n".join(f"{row} {flag}" for row, flag in zip(rows, flags, strict=True)))
    data = read_rdf(path)
    np.testing.assert_array_equal(data.x, R[:5])
    r, (u,) = read_potential(path)  # what was extrapolated is a potential all the same
    np.testing.assert_array_equal(r, [0.02, *R[:5]])
    np.testing.assert_array_equal(u, [0.5, *G[:5]])
    with pytest.raises(TargetError, match="only some rows end in a flag"):
        read_rdf(write("\n".join([*ROWS, "0.7 1 i"])))


def test_errors_of_bins_without_counts(write: Write) -> None:
    """As gmx, mdtraj and everyone write them: no counts, no spread, or 0 / 0."""
    for nothing in ("0", "0.000", "nan", "-nan"):
        rows = [f"{row} {0.02 if g else nothing}" for row, g in zip(ROWS, G, strict=True)]
        data = read_rdf(write("\n".join(rows)))
        np.testing.assert_array_equal(data.error, np.where(G > 0, 0.02, 0.0))


def lammps(g: np.ndarray, step: int) -> str:
    found = np.cumsum(R**2 * g)
    rows = [f"{k + 1} {R[k]} {g[k]:.6g} {found[k]:.6g}" for k in range(len(R))]
    return "\n".join([f"{step} {len(R)}", *rows, ""])


def test_which_of_several_tables_is_said(write: Write) -> None:
    path = write("# TimeStep Number-of-rows\n" + lammps(0.9 * G, 100) + lammps(G, 200))
    with pytest.raises(TargetError, match="holds 2 tables, the second from line 10 on: say which"):
        read_rdf(path)
    for block, expected in ((1, 0.9 * G), (2, G), (-1, G), (-2, 0.9 * G)):
        read = read_curve(path, RDF.rules, "nm", block=block)
        np.testing.assert_allclose(read.y, expected, rtol=1e-12)
    for block in (0, 3, -3):
        with pytest.raises(TargetError, match=f"block: got {block}, and the file holds 2"):
            read_curve(path, RDF.rules, "nm", block=block)


def test_a_block_of_fewer_rows_than_it_says_is_refused(write: Write) -> None:
    with pytest.raises(
        TargetError, match="the last block has 5 rows and says 6; is the file trunc"
    ):
        read_rdf(write(lammps(G, 100).rsplit("\n", 2)[0]))


def test_which_column_is_what_is_said(write: Write) -> None:
    table = np.stack([R, 2 * G, G, 0.01 + 0 * G, 0.7 * G], axis=1)
    path = write("\n".join(" ".join(map(str, row)) for row in table))
    read = read_curve(path, RDF.rules, "nm", columns=(1, 3))
    np.testing.assert_array_equal(read.y, G)
    assert read.error is None
    for error in (4, 5):  # who says that it is an error knows
        read = read_curve(path, RDF.rules, "nm", columns=[1, 3, error])
        np.testing.assert_array_equal(read.error, table[:, error - 1])
    for wrong in ([1], [1, 6], [0, 1], [1, 1], [1, 2, 3, 4], [1.0, 2.0]):
        with pytest.raises(TargetError, match=r"columns: got .*, from 1 to 5"):
            read_curve(path, RDF.rules, "nm", columns=wrong)  # type: ignore[arg-type]


def test_what_stands_in_other_columns_does_not_matter(write: Write) -> None:
    rows = [f"{row} {'inf' if g == 0 else -1}" for row, g in zip(ROWS, G, strict=True)]
    np.testing.assert_array_equal(
        read_curve(write("\n".join(rows)), RDF.rules, "nm", columns=[1, 2]).y, G
    )


@pytest.mark.parametrize("head", ["@TYPE xydy", "# r g error", "r g stderr", "r g d_g", "# r g e"])
def test_large_errors_are_errors_where_they_are_called_so(write: Write, head: str) -> None:
    data = read_rdf(write("\n".join([head, *(f"{row} {0.9}" for row in ROWS)])))
    np.testing.assert_array_equal(data.error, 0.9)


def test_repeated_r_is_averaged(write: Write) -> None:
    rows = [f"{row} 0.3" for row in ROWS]
    data = read_rdf(write("\n".join([*rows, "0.3 1.2 0.4"])))
    assert data.error is not None
    np.testing.assert_array_equal(data.x, R)
    assert data.y[2] == pytest.approx(1.5, rel=1e-15)
    assert data.error[2] == pytest.approx(0.25, rel=1e-15)
    assert data.error[3] == pytest.approx(0.3, rel=1e-15)


# What is refused, where and why -----------------------------------------------------------------

REFUSED = {
    "empty": ("", None, "is empty"),
    "blank": (" \n\n", None, "is empty"),
    "only comments": ("# r g\n", None, "has no row of numbers"),
    "only words": ("no numbers here\nnor here\n", None, "has no row of numbers"),
    "all NaN": ("\n".join(["0.1 nan"] * 9), None, "has no row of numbers"),
    "truncated": ("\n".join([*ROWS, "0.7"]), 7, "got 1 numbers, expected 2"),
    "too long": ("\n".join([*ROWS, "0.7 1 1"]), 7, "got 3 numbers, expected 2"),
    "one column": ("\n".join(map(str, R)), 1, "got 1 columns, expected 2 or 3"),
    "four columns": ("\n".join(["1 2 3 4"] * 9), None, "got 4 columns, expected 2 or 3; say which"),
    "side cut off": ("1,2,3,4,5,6\n0,0,1,1,1", 2, "got 5 numbers, expected 6"),
    "word": ("# r g\n" + "\n".join([*ROWS, "0.7 abc"]), 8, "got 'abc', expected a number"),
    "all undefined": ("\n".join(row + " 0.1 u" for row in ROWS), None, "all are flagged o or u"),
    "a point alone": ("\n".join([*ROWS, "0.7 .-830"]), 7, "got '.-830', expected a number"),
    "a percent": ("\n".join([*ROWS, "0.7 99%"]), 7, "got '99%', expected a number"),
    "underscores": ("\n".join([*ROWS, "0_7 1"]), 7, "got '0_7', expected a number"),
    "too wide a number": ("\n".join([*ROWS, "0.7 *****"]), 7, "a number too long for the columns"),
    "a slip in the first row": ("0.05 o.0\n" + "\n".join(ROWS), 1, "got 'o.0', expected a number"),
    "a title and a slip": ("Argon\n0.05 o.0\n" + "\n".join(ROWS), 2, "got 'o.0'"),
    "commas for points and between": (
        "\n".join(row.replace(".", ",").replace(" ", ",") for row in ROWS),
        None,
        "a comma may be the decimal mark or separate columns",
    ),
    "a comma that may be either": (
        "\n".join(f"{10 + k},1,{k}" for k in range(9)),
        None,
        "write decimal points, or separate columns by semicolons",
    ),
    "commas and points in numbers": (
        "\n".join(row.replace(" ", ";").replace(".", ",", 1) for row in ROWS),
        None,
        "both commas and points",
    ),
    "a number above": (
        "298.15\n" + "\n".join(ROWS),
        1,
        "above a table of 6 rows: expected as many",
    ),
    "a count of more rows": ("9\n" + "\n".join(ROWS), 1, "got one number, 9, above a table of 6"),
    "two sets": ("\n".join([*ROWS, "&", *(f"{r} {r}" for r in R), "&"]), None, "holds 2 tables"),
    "one below the other": (
        "\n".join([*ROWS, *(f"{r} {1.3 * g}" for r, g in zip(R, G, strict=True))]),
        None,
        "holds 2 curves, one below the other",
    ),
    "two curves of one x": (
        '@ s0 legend "OW"\n@ s1 legend "HW"\n' + "\n".join(f"{row} 0.1" for row in ROWS),
        None,
        "holds two curves of one x, not errors; say which.*columns = [1, 2]",
    ),
    "a second curve": (
        "\n".join(f"{row} {g}" for row, g in zip(ROWS, 1 - 0.1 * G, strict=True)),
        None,
        "hardly its error (a second curve, a count?)",
    ),
    "numbers of rows": (
        "\n".join(f"{k + 1} {row}" for k, row in enumerate(ROWS)),
        None,
        "the first column numbers the rows; say which are x and y.*columns = [2, 3]",
    ),
    "many rows": ("0.1 1\n" * 20_001, None, "has 20001 rows, expected a table of at most 20000"),
    "very many rows": ("0.1 1\n" * 1_000_000, None, "has more than 200000 lines, expected a table"),
    "large": (b"0.1 1 " * 6_000_000, None, "has more than 32 MB, expected a table of at most"),
    "infinite": ("\n".join([*ROWS, "0.7 inf"]), 7, "got g = inf, expected g of about 0 or more"),
    "overflow": ("\n".join([*ROWS, "0.7 1e999"]), 7, "got g = inf, expected g of about 0"),
    "negative r": ("\n".join(["-0.1 0", *ROWS]), 1, "got r = -0.1, expected r >= 0"),
    "negative g": ("\n".join([*ROWS, "0.7 -0.6"]), 7, "got g = -0.6"),
    "negative error": ("\n".join(row + " -1" for row in ROWS), 1, "got error = -1, expected"),
    "mixed separators": ("\n".join(row + ",1" for row in ROWS), 1, "got '0.1 0.0'"),
    "missing error": ("r,g,e\n" + "0.1,0,1\n" * 5 + "0.7,1,", 7, "got error = nan"),
    "few": ("\n".join(ROWS[:4]), None, "got 4 usable rows, expected at least 5"),
    "few different": ("\n".join(ROWS[:1] * 9), None, "got 1 usable rows"),
    "swapped": ("\n".join(f"{g} {r}" for r, g in zip(R, G, strict=True)), None, "swapped"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00", None, "is binary"),
    "utf-16 without its mark": ("\n".join(ROWS).encode("utf-16-le"), None, "is binary"),
}


@pytest.mark.parametrize(("content", "line", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_table_is_refused(
    write: Write, content: str | bytes, line: int | None, message: str
) -> None:
    path = write(content)
    with pytest.raises(TargetError) as caught:
        read_rdf(path)
    place = str(path) if line is None else f"{path}, line {line}"
    assert str(caught.value).startswith(f"{place}: ")
    assert all(part in str(caught.value) for part in message.split(".*"))
    assert (caught.value.path, caught.value.line) == (path, line)


@pytest.mark.parametrize(
    "title",
    [
        "r,g_OO,g_OH",
        "r,g_inter,g_intra",
        '"r","gOO","gOH"',
        "# r (nm)  g(r)  n(r)",
        "r;g;cn",
        "r,g,counts",
        "distance\tg\tcoordination",
        "r / nm, O-O, O-H",
        "r,rdf_1,rdf_2",
        "r,g,g2",
        "r g h",
    ],
)
def test_a_third_column_with_the_name_of_another_curve_is_no_error(
    write: Write, title: str
) -> None:
    path = write(
        title + "\n" + "\n".join(f"{row} {0.1 * g}" for row, g in zip(ROWS, G, strict=True))
    )
    with pytest.raises(TargetError, match=r"third column is named .* columns = \[1, 2\]"):
        read_rdf(path)


@pytest.mark.parametrize(
    "name",
    [
        "error",
        "err",
        "e",
        "sigma",
        "sd",
        "std",
        "se",
        "sem",
        "d",
        "dg",
        "d_g",
        "delta",
        "uncertainty",
        "+-",
        "+/-",
        "±",
        "standard_error",
        "g_err",
        "g_std",
        "unheard_of",
    ],
)
def test_a_third_column_named_an_error_is_one(write: Write, name: str) -> None:
    errors = 0.1 if name == "unheard_of" else 0.9  # unknown: its size decides
    data = read_rdf(write(f"r,g,{name}\n" + "\n".join(f"{row} {errors}" for row in ROWS)))
    np.testing.assert_array_equal(data.error, np.full(len(ROWS), errors))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be read: No such file"):
        read_rdf(tmp_path / "none.csv")
    with pytest.raises(TargetError, match="cannot be read"):
        read_rdf(tmp_path)


@pytest.mark.parametrize("length_unit", ["pm", "NM", "", None])
def test_other_length_units_are_refused(write: Write, length_unit: str) -> None:
    with pytest.raises(TargetError, match="expected one of 'nm', 'angstrom', 'A'") as caught:
        read_rdf(write("\n".join(ROWS)), length_unit)
    assert caught.value.key == "length_unit"


# Arrays -----------------------------------------------------------------------------------------


def test_arrays_are_tidied_like_files() -> None:
    r = unit.Quantity([*(10 * R[::-1]), 7.0], unit.angstrom)
    data = clean_rdf(r, [*G[::-1], np.nan], 0.0)
    np.testing.assert_allclose(data.x, R, rtol=1e-15)
    np.testing.assert_array_equal(data.y, G)
    np.testing.assert_array_equal(data.error, np.zeros(6))
    assert (data.path, data.n_dropped) == (None, 1)


@pytest.mark.parametrize(
    ("r", "g", "error", "message"),
    [
        (R, G[:-1], None, "expected lists of one length"),
        (R, G, [0.1], "expected lists of one length"),
        (1.0, 1.0, None, "expected lists of one length"),
        (R, [*G[:-1], np.inf], None, "point 5: got g = inf"),
        (R, G, [*G[:-1], -0.1], "point 5: got error = -0.1"),
        (R, G, [0.1, 0.1, np.nan, 0.1, 0.1, 0.1], "point 2: got error = nan"),
        ([*R, *R], [*G, *(1.3 * G)], None, "g\\(r\\): holds 2 curves, one below the other"),
        (
            np.arange(1.0, 30_000),
            np.ones(29_999),
            None,
            "g\\(r\\): has 29999 rows, expected a table of at most 20000",
        ),
    ],
)
def test_bad_arrays_are_refused(r: object, g: object, error: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        clean_rdf(r, g, error)


# Functions of time ------------------------------------------------------------------------------

T = np.array([0.0, 0.1, 0.2, 0.3])
C = np.array([0.05, 0.02, -0.01, -0.005])


def test_correlation_is_read_sorted_and_without_holes(write: Write) -> None:
    rows = [f"{t},{c},0.001" for t, c in zip(T[::-1], C[::-1], strict=True)]
    path = write("\n".join(["t_ps,C", *rows, "0.4,nan,0.001", "0.5,,"]))
    data = read_correlation(path)
    np.testing.assert_array_equal(data.x, T)
    np.testing.assert_array_equal(data.y, C)
    np.testing.assert_array_equal(data.error, np.full(4, 0.001))
    assert (data.path, data.n_dropped) == (path, 2)


def test_correlation_arrays_are_converted() -> None:
    data = clean_correlation(
        unit.Quantity(1000 * T, unit.femtosecond),
        unit.Quantity(100 * C, unit.angstrom**2 / unit.picosecond**2),
        unit.Quantity(0.1, unit.angstrom**2 / unit.picosecond**2),
        kind="squared_velocity",
    )
    np.testing.assert_allclose(data.x, T, rtol=1e-14)
    np.testing.assert_allclose(data.y, C, rtol=1e-14)
    np.testing.assert_allclose(data.error, 0.001, rtol=1e-14)


CORRELATION_REFUSED = {
    "negative t": ("-0.1 1\n0 1\n0.1 0.5\n0.2 0.3", 1, "got t = -0.1, expected t >= 0"),
    "few": ("0 1\n0.1 0.5", None, "got 2 usable rows, expected at least 3"),
    "all NaN": ("0 nan\n0.1 nan\n0.2 nan", None, "t or value is NaN in each"),
    "negative error": ("0 1 0.1\n0.1 0.5 -1\n0.2 0.1 0.1", 2, "got error = -1"),
    "infinite": ("0 1\n0.1 inf\n0.2 0.1", 2, "got value = inf, expected a number, finite"),
    "swapped": ("0.5 0\n-0.1 1\n0.3 2\n0.1 3\n0.2 4", None, "swapped"),
    "empty": ("", None, "is empty"),
}


@pytest.mark.parametrize(
    ("content", "line", "message"), CORRELATION_REFUSED.values(), ids=CORRELATION_REFUSED
)
def test_bad_correlation_is_refused(
    write: Write, content: str, line: int | None, message: str
) -> None:
    path = write(content)
    with pytest.raises(TargetError) as caught:
        read_correlation(path)
    place = str(path) if line is None else f"{path}, line {line}"
    assert str(caught.value).startswith(f"{place}: ")
    assert message in str(caught.value)


def test_bad_correlation_arrays_are_refused_by_name() -> None:
    with pytest.raises(TargetError, match="function of time: point 1: got value = inf"):
        clean_correlation(T, [1, np.inf, 0, 0])
    with pytest.raises(TargetError, match=r"got t, value \(and error\) of shapes"):
        clean_correlation(T, C[:-1])


def test_vacf_is_held_against_equipartition() -> None:
    def data(c_0: float, t_0: float = 0.0) -> Curve:
        return Curve(T + t_0, c_0 * C / C[0])

    for c_0 in (0.05, 0.03, 0.06):
        check_vacf(data(c_0), 0.05)
    check_vacf(data(1.0, t_0=0.1), 0.05)  # does not start at 0: says nothing
    for c_0 in (1.0, 0.05 / 3, 5.0, -0.05, 0.0):
        with pytest.raises(TargetError, match=r"C\(0\).*expected about 3RT/m = 0\.05 .*normalised"):
            check_vacf(data(c_0), 0.05)


# Angles -----------------------------------------------------------------------------------------

THETA = np.linspace(0.0, np.pi, 13)
P = np.sin(THETA) / 2  # of random directions


@pytest.mark.parametrize("angle_unit", ["rad", "degree"])
def test_angles_are_read_sorted_and_without_holes(write: Write, angle_unit: str) -> None:
    scale = 1.0 if angle_unit == "rad" else 180 / np.pi
    rows = [
        f"{scale * t:.17g};{p / scale:.17g};{0.01 / scale:.17g}"
        for t, p in zip(THETA[::-1], P[::-1], strict=True)
    ]
    path = write("\n".join(["theta;P;error", *rows, "1.0;nan;0.1"]))
    data = read_angles(path, angle_unit)
    np.testing.assert_allclose(data.x, THETA, rtol=1e-12)
    np.testing.assert_allclose(data.y, P, rtol=1e-12)
    np.testing.assert_allclose(data.error, 0.01, rtol=1e-12)
    assert (data.path, data.n_dropped) == (path, 1)


def test_part_of_the_angles_may_have_any_integral() -> None:
    part = THETA < 2
    np.testing.assert_array_equal(clean_angles(THETA[part], 3 * P[part]).y, 3 * P[part])
    with pytest.raises(TargetError, match=r"P\(theta\): the integral of P over theta is 2\.98"):
        clean_angles(THETA, 3 * P)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 0\n45 0.005\n90 0.01\n135 0.005\n180 0", "got angles up to 180 rad, expected at most"),
        ("0 0\n1 1\n2 -1\n2.5 1\n3 0", "got P = -1, expected P of about 0 or more"),
        ("0 0\n1 1\n2 1\n3 0", "got 4 usable rows"),
        ("", "is empty"),
    ],
)
def test_bad_angles_are_refused(write: Write, content: str, message: str) -> None:
    path = write(content)
    with pytest.raises(TargetError, match=message) as caught:
        read_angles(path)
    assert caught.value.path == path


def test_other_angle_units_are_refused(write: Write) -> None:
    with pytest.raises(TargetError, match="expected one of 'rad', 'degree'") as caught:
        read_angles(write("0 0"), "gon")
    assert caught.value.key == "angle_unit"


def test_measured_angles_of_water_are_a_distribution(shared_data: Callable[[str], Path]) -> None:
    data = read_angles(shared_data("experiment/water_ooo_angles.csv"))
    assert len(data.x) > 80 and data.error is None
    assert np.degrees(data.x[np.argmax(data.y)]) == pytest.approx(98, abs=2)


# Measured data ----------------------------------------------------------------------------------

WATER = GRAM_PER_CM3 / 18.015
SIGMA = 0.34

MEASURED = {
    "experiment/argon_gr.csv": ("angstrom", 1.417 * GRAM_PER_CM3 / 39.948),
    "experiment/water_oo_soper2008.csv": ("nm", WATER),
    "experiment/water_oo_298K.csv": ("angstrom", 0.99749 * WATER),
    "experiment/water_oo_338K.csv": ("angstrom", 0.98103 * WATER),
    "experiment/silicon_102K.csv": ("angstrom", 2.327 * GRAM_PER_CM3 / 28.0855),
    "diffsim/H2O_288K_spce.csv": ("angstrom", WATER),
    "diffsim/H2O_338K_spce.csv": ("angstrom", WATER),
}

REDUCED = {
    "lj_rdf_rho0.3_T1.2": 0.3,
    "lj_rdf_rho0.7_T1.2": 0.7,
    "lj_rdf_rho0.845_T1.0": 0.845,
    "ljfamily_rdf_12_10": 0.5,
    "ljfamily_rdf_8_4": 0.5,
    **{f"{x}_rdf{pair}": 0.8 for x in ("x0.25", "x0.75") for pair in (11, 12, 22)},
}


@pytest.mark.parametrize("name", MEASURED)
def test_measured_rdf_is_accepted(shared_data: Callable[[str], Path], name: str) -> None:
    length_unit, density = MEASURED[name]
    data = read_rdf(shared_data(name), length_unit)
    check_rdf(data, density)
    assert np.all(np.diff(data.x) > 0)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_rdf_in_the_wrong_unit_is_refused(
    shared_data: Callable[[str], Path], name: str
) -> None:
    length_unit, density = MEASURED[name]
    wrong = "angstrom" if length_unit == "nm" else "nm"
    data = read_rdf(shared_data(name), wrong)
    with pytest.raises(TargetError, match=f"read as {wrong}"):
        check_rdf(data, density)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.2, 1.3])
@pytest.mark.parametrize("name", [name for name in MEASURED if "silicon" not in name])  # a crystal
def test_measured_rdf_of_another_norm_is_refused(
    shared_data: Callable[[str], Path], name: str, factor: float
) -> None:
    length_unit, density = MEASURED[name]
    data = read_rdf(shared_data(name), length_unit)
    with pytest.raises(TargetError, match="does not go to 1"):
        check_rdf(Curve(data.x, factor * data.y), density)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.2, 1.3])
@pytest.mark.parametrize("name", REDUCED)
def test_reduced_rdf_of_another_norm_is_refused(
    shared_data: Callable[[str], Path], name: str, factor: float
) -> None:
    data = read_rdf(shared_data(f"diffsim/{name}.csv"))
    with pytest.raises(TargetError, match="does not go to 1"):
        check_rdf(Curve(data.x * SIGMA, factor * data.y), REDUCED[name] / SIGMA**3)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_rdf_with_swapped_columns_is_refused(
    shared_data: Callable[[str], Path], name: str
) -> None:
    data = read_rdf(shared_data(name))
    with pytest.raises(TargetError, match="swapped"):
        clean_rdf(data.y, data.x)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_rdf_in_any_order_is_read(shared_data: Callable[[str], Path], name: str) -> None:
    data = read_rdf(shared_data(name))
    order = np.random.default_rng(3).permutation(len(data.x))
    np.testing.assert_array_equal(clean_rdf(data.x[order], data.y[order]).y, data.y)


@pytest.mark.parametrize("name", REDUCED)
def test_reduced_rdf_is_accepted(shared_data: Callable[[str], Path], name: str) -> None:
    data = read_rdf(shared_data(f"diffsim/{name}.csv"))
    assert len(data.x) == 100
    check_rdf(clean_rdf(data.x * SIGMA, data.y), REDUCED[name] / SIGMA**3)


# Plausibility -----------------------------------------------------------------------------------


def liquid(end: float = 1.5, scale: float = 1.0, tail: float = 1.0) -> Curve:
    """Something like g(r) of a liquid that fills space at 20 particles per nm^3."""
    r = np.linspace(0.01, end, 300)
    g = np.where(r < 0.32, 0.0, tail + 1.5 * np.exp(-(r - 0.32) / 0.1) * np.cos(19 * (r - 0.35)))
    return Curve(r * scale, g, path=Path("liquid.csv"))


IMPLAUSIBLE = {
    "angstrom as nm": (liquid(scale=10), 20, "in angstrom and read as nm"),
    "nm as angstrom": (liquid(scale=0.1), 20, "in nm and read as angstrom"),
    "density": (liquid(), 200, "is the density wrong"),
    "no density": (liquid(), 0.0, "expected a positive one"),
    "never rises": (liquid(end=0.3), 20, "never rises above 0.5"),
    "cut off": (liquid(end=0.35), 20, "is the file truncated"),
    "tail": (liquid(tail=1.4), 20, "does not go to 1"),
    "tail a little off": (liquid(tail=1.2), 20, "does not go to 1"),
    "tail of zero": (liquid(tail=0.4), 20, "does not go to 1"),
}


def test_liquid_is_plausible() -> None:
    check_rdf(liquid(), 20)
    check_rdf(liquid(), 0.02 / unit.angstrom**3)
    check_rdf(liquid(end=0.45, tail=1.4), 20)  # too short to say


@pytest.mark.parametrize(("data", "density", "message"), IMPLAUSIBLE.values(), ids=IMPLAUSIBLE)
def test_implausible_rdf_is_refused(data: Curve, density: float, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        check_rdf(data, density)
    assert str(caught.value).startswith("liquid.csv: ")
    assert caught.value.path == Path("liquid.csv")


# Potentials -------------------------------------------------------------------------------------


def test_potential_is_read_back_exactly(tmp_path: Path) -> None:
    r, u = np.linspace(0.2, 1.0, 7) / 3, np.random.default_rng(1).normal(size=7) * 1e5
    path = tmp_path / "potential.csv"
    write_csv(path, "r_nm,u_kJ_mol,standard_error", r[::-1], u[::-1], np.full(7, np.nan))
    r_read, (u_read,) = read_potential(path)
    np.testing.assert_array_equal(r_read, r)
    np.testing.assert_array_equal(u_read, u)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0.5,1", "line 6: this r is in the file twice"),
        ("-0.5,1", "line 6: got r = -0.5"),
        ("0.7,nan", "line 6: got r = 0.7, u = nan"),
        ("0.7,inf", "line 6: got r = 0.7, u = inf, expected"),
        (None, "got 4 usable rows"),
    ],
)
def test_bad_potential_is_refused(tmp_path: Path, row: str | None, message: str) -> None:
    path = tmp_path / "potential.csv"
    rows = ["r_nm,u_kJ_mol", "0.3,9", "0.4,2", "0.5,1", "0.6,0"]
    path.write_text("\n".join(rows if row is None else [*rows, row]))
    with pytest.raises(TargetError, match=message):
        read_potential(path)


# Writing ----------------------------------------------------------------------------------------


def test_csv_of_numbers_and_words(tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    write_csv(path, "round,loss,note", [1, 2], np.array([0.1, np.nan]), ["a", "b, c"])
    assert path.read_bytes() == b'round,loss,note\n1,0.1,a\n2,nan,"b, c"\n'


@pytest.mark.parametrize("columns", [([1, 2],), ([1, 2], [1]), ([1], [1], [1])])
def test_csv_columns_match_the_header(tmp_path: Path, columns: tuple[list[int], ...]) -> None:
    with pytest.raises(ValueError, match="expected one length and a column for each name"):
        write_csv(tmp_path / "bad.csv", "r,g", *columns)
    assert not list(tmp_path.iterdir())


def test_json_has_plain_values(tmp_path: Path) -> None:
    data = {"a": np.arange(2), "b": (np.float64(0.5), np.nan), "c": tmp_path, "d": None, 1: True}
    write_json(tmp_path / "x.json", data)
    read = json.loads((tmp_path / "x.json").read_text())
    assert read == {"a": [0, 1], "b": [0.5, None], "c": str(tmp_path), "d": None, "1": True}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_write_cut_short_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = """if True:
        import resource, sys
        from openmm_diffsim.io import atomic_write_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            atomic_write_bytes(sys.argv[1], bytes(1_000_000))
        except OSError as problem:
            print(problem.errno)
    """
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_behind_goes_with_the_next_file(tmp_path: Path) -> None:
    program = """if True:
        import os, signal, sys
        from openmm_diffsim.io import atomic_write_bytes
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        atomic_write_bytes(sys.argv[1], b"half")
    """
    path = tmp_path / ("a name of its own " * 10 + ".csv")
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    other = temporary_path(path)  # of this process, which goes on
    other.write_bytes(b"in work")
    mine = tmp_path / ".own.tmp"
    mine.write_bytes(b"the user's")
    atomic_write_bytes(path, b"whole")
    assert not left.exists() and path.read_bytes() == b"whole"
    assert sorted(tmp_path.iterdir()) == sorted([path, other, mine])
    discard(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([path, mine])


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write_bytes(path, b"")
    assert caught.value.filename == str(path)


def test_a_process_is_known_from_any_other() -> None:
    me = Process.this()
    assert not me.is_gone and not me.is_elsewhere and str(os.getpid()) in str(me)
    assert Process.of(vars(me)) == me
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(me, pid=child.pid, started=_started(child.pid))
    assert not other.is_gone
    child.kill()
    child.wait()
    assert other.is_gone
    assert replace(me, started="1").is_gone  # its number was given to this process since
    assert replace(me, system="another boot pid:[1]").is_gone
    boot = me.system.partition(" ")[0]
    for elsewhere in (replace(me, host="node7"), replace(me, system=f"{boot} pid:[1]")):
        assert elsewhere.is_elsewhere and not elsewhere.is_gone
    for nothing in ({}, [], None, vars(me) | {"pid": "1"}, vars(me) | {"host": 1}):
        with pytest.raises(ValueError, match="does not name a process"):
            Process.of(nothing)
