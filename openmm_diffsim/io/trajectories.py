"""Trajectories and topologies that other programs wrote, read by mdtraj and checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, FramesError
from .frames import missing_frames
from .regular import check_regular

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CHUNK = 100  # frames in memory
_MOST_BYTES = 2**28  # of a topology: some millions of atoms
_PYTABLES = (".h5", ".hdf5", ".lh5")
_TOPOLOGIES = (".pdb", ".pdb.gz", ".cif", ".gro", ".psf", ".prmtop", ".parm7", ".mol2", ".h5")
_TRAJECTORIES = (".dcd", ".xtc", ".trr", ".nc", ".h5", ".lammpstrj", ".pdb", ".gro", ".mdcrd")


class Chunk(NamedTuple):
    """Some frames of a trajectory."""

    positions: Array  # [frames, particles, 3], nm
    boxes: Array | None  # [frames, 3, 3], nm, reduced form


def read_topology(path: str | Path) -> mdtraj.Topology:
    """The atoms of a file, and the bonds that it names or that its residues are known for.

    Raises
    ------
    ConfigurationError
        If there is no such file, it is of another kind, or it holds no atom.
    """
    path = _existing(path)
    _check_pytables(path)
    try:
        check_regular(path, _MOST_BYTES)
        topology = mdtraj.load_topology(str(path))
    except Exception as error:  # mdtraj raises whatever its readers do
        known = path.name.lower().endswith(_TOPOLOGIES)
        what = _first_line(error) if known else f"mdtraj reads no {path.suffix or 'such file'}"
        raise ConfigurationError(
            f"{path}: cannot be read as a topology ({what}); expected a sound file of a kind that "
            f"mdtraj reads, such as {', '.join(_TOPOLOGIES)}",
            got=path,
        ) from error
    if topology.n_atoms == 0:
        raise ConfigurationError(f"{path}: holds no atom", got=path)
    return topology


def read_trajectory(path: str | Path, topology: mdtraj.Topology) -> Iterator[Chunk]:
    """The frames of a file, a few at a time, so that a long one fits into memory.

    Raises
    ------
    ConfigurationError
        If there is no such file.
    FramesError
        If it cannot be read, was cut short, has another number of atoms, scaled coordinates, a box
        that is open, or a coordinate that is not finite.
    """
    path = _existing(path)
    _check_pytables(path)
    for check in _CHECKS.get(path.suffix.lower(), ()):
        problem = check(path)
        if problem:
            raise FramesError(f"{path}: {problem}")
    yield from checked_chunks(_loaded(path, topology), f"{path}: ")


def topology_of(n_atoms: int) -> mdtraj.Topology:
    """Atoms of which nothing is known, enough to read the frames of a file."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(n_atoms):
        topology.add_atom("X", mdtraj.element.virtual, residue)
    return topology


def checked_chunks(trajectories: Iterable[Any], where: str = "") -> Iterator[Chunk]:
    """The frames of one ``mdtraj.Trajectory`` after the other, a few at a time.

    Raises
    ------
    FramesError
        If a coordinate or a box is not finite; ``where`` begins the message.
    """
    start = 0
    for trajectory in trajectories:
        vectors = trajectory.unitcell_vectors
        for first in range(0, len(trajectory.xyz), _CHUNK):
            frames = slice(first, first + _CHUNK)
            positions = np.asarray(trajectory.xyz[frames], dtype=np.float64)
            boxes = None if vectors is None else np.asarray(vectors[frames], dtype=np.float64)
            _check_finite(positions, boxes, where, start + first)
            yield Chunk(positions, None if boxes is None else np.array([*map(reduced_box, boxes)]))
        start += len(trajectory.xyz)


def _check_finite(positions: Array, boxes: Array | None, where: str, start: int) -> None:
    sound = np.isfinite(positions).all(axis=(1, 2))
    if boxes is not None:
        sound &= np.isfinite(boxes).all(axis=(1, 2)) & (np.abs(np.linalg.det(boxes)) > 0)
    if not sound.all():
        raise FramesError(
            f"{where}frame {start + int(np.argmin(sound))} (the first is 0) has a coordinate or a "
            "box that is not finite, or a box without a volume; leave it out"
        )


def reduced_box(box: Array) -> Array:
    """The same lattice in OpenMM's reduced form, [3, 3] in nm.

    A file's rounding leaves that form by a digit where a box is just at its bounds, as a rhombic
    dodecahedron is, and OpenMM then refuses the box.
    """
    a, b, c = box
    c = c - b * np.round(c[1] / b[1])
    c = c - a * np.round(c[0] / a[0])
    b = b - a * np.round(b[0] / a[0])
    reduced = np.array([a, b, c])
    for row, column in ((1, 0), (2, 0), (2, 1)):  # what is left of the rounding
        half = 0.5 * box[column, column]
        reduced[row, column] = np.clip(reduced[row, column], -half, half)
    return reduced


def decimals(positions: Array) -> int | None:
    """To how many decimals of a nm coordinates [..., 3] were rounded, 2 to 4; None if they are not.

    An XTC file keeps three, a PDB file four. In single precision more cannot be told.
    """
    for digits in (2, 3, 4):
        scaled = positions * 10.0**digits
        tolerance = 1e-6 * np.abs(scaled) + 1e-5
        if positions.size > 30 and np.all(np.abs(scaled - np.round(scaled)) < tolerance):
            return digits
    return None


def select(topology: mdtraj.Topology, selection: str, key: str) -> IntArray:
    """Indices of the atoms that a selection in mdtraj's language names.

    Raises
    ------
    ConfigurationError
        If the selection cannot be read, or names no atom; ``key`` says whose it is.
    """
    try:
        atoms = topology.select(selection)
    except Exception as error:  # mdtraj raises whatever its parser does
        raise ConfigurationError(
            f"{key}: {selection!r} is not a selection of atoms; expected something like 'name O', "
            "'resname HOH and name O' or 'index 0 to 99', in mdtraj's language",
            key=key,
            got=selection,
        ) from error
    if len(atoms) == 0:
        names = sorted({atom.name for atom in topology.atoms})
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ConfigurationError(
            f"{key}: {selection!r} selects no atom; the atoms are called {shown}",
            key=key,
            got=selection,
        )
    return np.asarray(atoms, dtype=np.int64)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ConfigurationError(f"there is no file {path}", got=path)
    return Path(path)


def _check_pytables(path: Path) -> None:
    if path.suffix.lower() in _PYTABLES and importlib.util.find_spec("tables") is None:
        raise ConfigurationError(
            f"{path}: reading {path.suffix} takes PyTables, which is not here: pip install tables",
            got=path,
        )


def _loaded(path: Path, topology: mdtraj.Topology) -> Iterable[Any]:
    try:
        yield from mdtraj.iterload(str(path), chunk=_CHUNK, top=topology)
    except Exception as error:  # mdtraj raises whatever its readers do
        if path.name.lower().endswith(_TRAJECTORIES):
            raise FramesError(
                f"{path}: mdtraj cannot read it with a topology of {topology.n_atoms} atoms: "
                f"{_first_line(error)}"
            ) from error
        raise FramesError(
            f"{path}: cannot be read as a trajectory ({_first_line(error)[:60]}); expected one of "
            f"a kind that mdtraj reads, such as {', '.join(_TRAJECTORIES)}"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _lammps_problem(path: Path) -> str | None:
    """What of a LAMMPS dump mdtraj would not see; None if nothing."""
    columns: list[str] = []
    expected, rows, n_atoms = 0, 0, 0
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith("ITEM: NUMBER OF ATOMS"):
                count = next(stream, "").strip()
                n_atoms = int(count) if count.isdecimal() else 0
            elif line.startswith("ITEM: BOX BOUNDS") and _is_open(line.split()[3:]):
                return f"its box is open ({line.strip()}), expected a periodic one, pp pp pp"
            elif line.startswith("ITEM: ATOMS"):
                columns, expected = line.split()[2:], expected + n_atoms
                if not any(set(names) <= set(columns) for names in ("xyz", ("xu", "yu", "zu"))):
                    return (
                        f"its columns are {' '.join(columns)}, expected x y z or xu yu zu among "
                        "them, not scaled by the box (xs): dump these, or convert the file"
                    )
            elif columns and len(line.split()) == len(columns):
                rows += 1
    return None if rows >= expected else "it ends in the middle of a frame: it was cut short"


def _is_open(bounds: list[str]) -> bool:
    return any(word[0] in "fsm" for word in bounds if word.isalpha() and len(word) <= 2)


_CHECKS: dict[str, tuple[Callable[[Path], str | None], ...]] = {
    ".dcd": (missing_frames,),
    ".lammpstrj": (_lammps_problem,),
}
