"""Numbers in text files as people have them: encodings, decimal marks, titles, blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..curve import MOST_POINTS
from ..errors import TargetError

LARGEST_FILE = 32 * 2**20
"""Bytes of text that are read at all."""

_MOST_LINES = 10 * MOST_POINTS  # of all tables in a file

_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# No text file has these, whatever its encoding of letters.
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")

# "#" may follow a number at once, but not the point of "1.#IND"; a "%" after a number is a unit.
_COMMENT = re.compile(r"(?<!\.)#.*|(?:^|(?<=[\s,;]))[@%!].*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", re.ASCII)
_BARE_EXPONENT = re.compile(
    r"([+-]?(?:\d+\.\d*|\.\d+))([+-]\d{3})", re.ASCII
)  # Fortran's 0.123-104
_INFINITY = re.compile(r"[+-]?(inf|infinity|1\.#inf)", re.IGNORECASE)
_HOLE = re.compile(r"[+-]?nan(\(.*\))?|[+-]?1\.#(ind|qnan)|n/?a|null|none|-+", re.IGNORECASE)
_MINUS = str.maketrans("\u2212\u2013\u2012", "---")
_FLAGS = frozenset("iou")
_OF_NUMBERS = frozenset('0123456789.,;+-eEdD" \t') | _FLAGS  # what stands in a line of them

Refusal = Callable[[str, "int | None"], TargetError]


@dataclass
class Block:
    """One table of numbers."""

    rows: list[list[float]] = field(default_factory=list)
    """NaN where there is a hole; infinities as they are."""
    lines: list[int] = field(default_factory=list)
    """[rows], counted from 1."""
    flags: list[str] = field(default_factory=list)
    """[rows], of VOTCA: i(n range), o(ut of range), u(ndefined); empty where there is none."""


@dataclass(frozen=True)
class Sheet:
    """All tables of a text file, and the words in it."""

    blocks: list[Block]
    words: list[str]
    """Titles and comments, each as it stands."""


def read_text(path: Path, refuse: Refusal) -> str:
    """The text of a file in UTF-8, UTF-16 with its mark, or an older encoding of letters."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise refuse(f"cannot be read: {problem.strerror or problem}", None) from problem
    if len(data) > LARGEST_FILE:
        raise refuse(too_many(f"more than {LARGEST_FILE // 2**20} MB"), None)
    if not data.strip():
        raise refuse("is empty", None)
    encoding = next((e for mark, e in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
    # A strange letter in a header does no harm; in a number it is refused below.
    text = data.decode(encoding, errors="replace")
    if _BINARY.search(text):
        raise refuse("is binary, expected a text file; save it as plain text or csv", None)
    return text


def parse(text: str, refuse: Refusal) -> Sheet:
    """The tables in a text.

    Columns are separated by semicolons, commas, tabs or blanks; a comma is the decimal mark where
    it can be nothing else. Lines of words above the numbers, the number of rows before them, and
    comments after ``# @ % !`` are skipped. ``&`` separates tables (xvg), and so does a line of
    time step and number of rows (LAMMPS, fix ave/time).

    Raises
    ------
    TargetError
        By ``refuse``: a field is no number, a comma may be this or that, there are too many rows,
        or a block has not as many as it says.
    """
    words: list[str] = []
    bodies: list[tuple[int, str]] = []
    for number, line in enumerate(text.translate(_MINUS).splitlines(), start=1):
        body = _COMMENT.sub("", line).strip(" \r")
        if body.strip():
            bodies.append((number, body))
        if body.strip() != line.strip():
            words.append(line.strip())
        if len(bodies) > _MOST_LINES:
            raise refuse(too_many(f"more than {_MOST_LINES} lines"), None)
    split = _splitter([body for _, body in bodies], refuse)
    lines = [(number, body, split(body)) for number, body in bodies]
    numbers = _below_titles(lines, words, refuse)
    blocks = [block for block in _blocks(numbers, refuse) if block.rows]
    for block in blocks:
        if len(block.rows) > MOST_POINTS:
            raise refuse(too_many(f"{len(block.rows)} rows"), None)
    return Sheet(blocks, words)


def too_many(what: str) -> str:
    """What is said of a table with more rows than any curve needs."""
    return (
        f"has {what}, expected a table of at most {MOST_POINTS} rows; average neighbouring ones, "
        "as no model is that fine"
    )


def _splitter(bodies: list[str], refuse: Refusal) -> Callable[[str], list[str]]:
    """What makes fields of a line, alike for a whole file."""
    numeric = [body.strip() for body in bodies if _OF_NUMBERS.issuperset(body)]
    if _comma_is_decimal(numeric, refuse):
        return lambda body: [f.replace(",", ".") for f in _split(body, (";", "\t"))]
    return lambda body: _split(body, (";", ",", "\t"))


def _comma_is_decimal(numeric: list[str], refuse: Refusal) -> bool:
    """Is it, in lines of numbers alone? Refuses where it may be."""
    text = "\n".join(numeric)
    commas, inside = text.count(","), len(re.findall(r"(?<=\d),(?=\d)", text))
    if not inside:
        return False
    others = ";" in text or re.search(r"\d[ \t]+[+\-\d]", text) is not None
    if "." in text:
        if ";" in text:
            raise refuse("has both commas and points in numbers, expected one decimal mark", None)
        return False
    if others and inside == commas:
        return True
    widest = max(body.count(",") for body in numeric) + 1
    table = widest > 2 and (len(numeric) > 3 or widest == 3)  # else it may lie on its side
    if inside < commas or table or re.search(r"(?<!\d)0\d", text):
        raise refuse(
            "a comma may be the decimal mark or separate columns here: write decimal points, or "
            "separate columns by semicolons",
            None,
        )
    return False


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The fields of a line; separators are tried in the order of how rarely they are padding."""
    for separator in separators:
        if separator in text.strip(" "):
            return [part.strip().strip('"') for part in text.split(separator)]
    return text.split()


def _value(text: str) -> float | None:
    """A number, NaN for a hole, infinity, or None for what is neither."""
    if _NUMBER.fullmatch(text):
        return float(text.replace("d", "e").replace("D", "e"))
    bare = _BARE_EXPONENT.fullmatch(text)
    if bare:
        return float(f"{bare[1]}e{bare[2]}")
    if not text or _HOLE.fullmatch(text):
        return float("nan")
    return float("inf") if _INFINITY.fullmatch(text) else None


def _below_titles(
    lines: list[tuple[int, str, list[str]]], words: list[str], refuse: Refusal
) -> list[tuple[int, list[str]]]:
    """Lines of numbers: without those of words above them, and without a count of the rows."""

    def is_row(fields: list[str]) -> bool:
        inner = fields[:-1] if len(fields) > 2 and fields[-1] in _FLAGS else fields
        return any(map(_NUMBER.fullmatch, inner)) and None not in map(_value, inner)

    fields_of = [fields for _, _, fields in lines]
    rows = [k for k, fields in enumerate(fields_of) if is_row(fields)]
    start = next((k for k in rows if len(fields_of[k]) > 1), rows[0] if rows else len(lines))
    for k, (number, body, fields) in enumerate(lines[:start]):
        if k in rows:
            _check_count(number, fields[0], len(lines) - start, refuse)
        elif _starts_a_row(fields, fields_of[start] if rows else fields):
            start = k  # with a slip in it
            break
        else:
            words.append(body)
    return [(number, fields) for number, _, fields in lines[start:]]


def _starts_a_row(fields: list[str], row: list[str]) -> bool:
    """Is a line of words among them rather a row than a title?"""
    return len(fields) == len(row) and bool(fields[0]) and fields[0][0] in "+-.0123456789"


def _check_count(number: int, text: str, n_rows: int, refuse: Refusal) -> None:
    if _value(text) != n_rows:
        raise refuse(
            f"got one number, {text}, above a table of {n_rows} rows: expected as many rows as "
            "it says; is the file truncated? Put # before what is none of them",
            number,
        )


def _blocks(numbers: list[tuple[int, list[str]]], refuse: Refusal) -> Iterator[Block]:
    """Rows, cut where ``&`` or a line of time step and number of rows stands."""
    block, wanted = Block(), 0
    for place, (line, fields) in enumerate(numbers):
        if fields == ["&"]:
            yield block
            block = Block()
            continue
        if fields[-1] in _FLAGS and len(fields) > 2:
            block.flags.append(fields.pop())
        row = [_known(field, line, refuse) for field in fields]
        following = numbers[place + 1][1] if place + 1 < len(numbers) else []
        if len(block.rows) == wanted and _announces(row, fields, following):
            if block.rows:
                yield block
            block, wanted = Block(), int(row[1])
            continue
        if wanted and len(block.rows) == wanted:
            raise refuse(f"got another row, expected {wanted} in this block as it says", line)
        block.rows.append(row)
        block.lines.append(line)
    if wanted and len(block.rows) != wanted:
        raise refuse(
            f"the last block has {len(block.rows)} rows and says {wanted}; is the file truncated?",
            None,
        )
    yield block


def _announces(row: list[float], fields: list[str], following: list[str]) -> bool:
    """Is it the time step and number of rows above a block of numbered rows?"""
    whole = len(row) == 2 and all(text.isdigit() for text in fields)
    return whole and len(following) > 2 and following[0] == "1"


def _known(text: str, line: int, refuse: Refusal) -> float:
    value = _value(text)
    if value is None and text and set(text) == {"*"}:
        raise refuse(f"got {text[:40]!r}, a number too long for the columns of its writer", line)
    if value is None:
        raise refuse(f"got {text[:40]!r}, expected a number", line)
    return value
