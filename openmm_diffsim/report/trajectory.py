"""g(r) of a stored trajectory, with error bars."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, ObservableError
from ..io.trajectories import read_topology, read_trajectory, select
from ..observables import RDF, Frame, Particles, record_frame
from ..statistics.averages import Estimate
from ..statistics.correlated import assign_blocks
from ..statistics.kernels import largest_range, pair_sums
from ..statistics.molecules import parts_of

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def trajectory_rdf(
    topology: str | Path,
    trajectory: str | Path,
    atoms: str = "all",
    atoms2: str | None = None,
    r_max: float | None = None,
    bins: int = 200,
    intramolecular: bool = False,
    exclude_bonds: int | None = None,
    molecules: str = "bonds",
) -> tuple[RDF, Estimate]:
    """g(r) of the frames of a file, read in pieces, so that a long one fits into memory.

    Parameters
    ----------
    topology, trajectory : files that mdtraj reads
    atoms, atoms2 : selections in mdtraj's language
    r_max : nm; default half the smallest box of all frames
    bins, intramolecular, exclude_bonds : of the ``RDF``
    molecules : "bonds" or "residues"
        What makes a molecule: the bonds of the topology file, or, where it has none, its residues.

    Returns
    -------
    rdf : RDF that was counted
    estimate : Estimate of g, correlations between frames accounted for

    Raises
    ------
    ConfigurationError
        If a file is missing, the topology cannot be read, a selection is empty, or atoms of one
        residue are selected and no bond says whether they are one molecule, or how many bonds
        lie between them where ``exclude_bonds`` asks for that.
    FramesError
        If the trajectory cannot be read; see ``io.trajectories.read_trajectory``.
    ObservableError
        If there is no box, ``r_max`` is beyond half of it, or ``exclude_bonds`` is given and no
        atom selected has a bond.
    """
    atoms_of = read_topology(topology)
    first = select(atoms_of, atoms, "atoms")
    second = None if atoms2 is None else select(atoms_of, atoms2, "atoms2")
    particles = _particles(atoms_of, molecules)
    chosen = np.unique(first if second is None else np.concatenate([first, second]))
    if exclude_bonds:
        _check_bonds(topology, atoms_of, particles, chosen, _OF_EXCLUDED)
    elif exclude_bonds is None and not intramolecular and molecules == "bonds":
        _check_bonds(topology, atoms_of, particles, chosen, _OF_MOLECULES)
    if r_max is None:
        r_max = min(largest_range(box) for _, box in _frames(trajectory, atoms_of))
    rdf = RDF(
        r_max, bins, first, second, intramolecular=intramolecular, exclude_bonds=exclude_bonds
    )
    recorder = rdf.recorder(particles)
    records = []
    for positions, box in _frames(trajectory, atoms_of):
        frame = Frame(positions, box, float(np.linalg.det(box)), float("nan"))
        (g,), _ = record_frame([recorder], frame, partial(pair_sums, positions[None], box[None]))
        records.append(g)
    return rdf, _estimate(np.array(records))


def _estimate(g: Array) -> Estimate:
    n, mean = len(g), g.mean(axis=0)
    return Estimate.of(mean, (g - mean) / n, np.full(n, 1 / n), assign_blocks([n]), float(n))


def _frames(trajectory: str | Path, topology: mdtraj.Topology) -> Iterator[tuple[Array, Array]]:
    """Positions and box of every frame; there is one at least."""
    chunk = None
    for chunk in read_trajectory(trajectory, topology):
        if chunk.boxes is None:
            raise ObservableError(f"{trajectory}: has no box, so g(r) has no density to refer to")
        yield from zip(chunk.positions, chunk.boxes, strict=True)
    if chunk is None:
        raise ConfigurationError(f"{trajectory}: holds no frame")


def _particles(topology: mdtraj.Topology, molecules: str) -> Particles:
    n = topology.n_atoms
    bonds = [(a.index, b.index) for a, b in topology.bonds]
    pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    molecule_of = parts_of(pairs, n)
    if molecules == "residues":
        molecule_of = _residues(topology)
    masses = [0.0 if a.element is None else a.element.mass for a in topology.atoms]
    return Particles(n, molecule_of, np.array(masses, dtype=float), pairs)


def _residues(topology: mdtraj.Topology) -> IntArray:
    return np.array([atom.residue.index for atom in topology.atoms], dtype=np.int64)


_WITH_BONDS = "Give a topology with bonds (PDB with CONECT, PSF, prmtop); or, "
_OF_MOLECULES = (
    "which pairs are within one molecule is unknown. " + _WITH_BONDS + "where each residue is a "
    "molecule, --molecules residues; or, where nothing is bonded, --intramolecular, which counts "
    "all pairs"
)
_OF_EXCLUDED = (
    "--exclude-bonds has none to count. " + _WITH_BONDS + "to leave out all pairs of a residue, "
    "--molecules residues without --exclude-bonds; or, where nothing is bonded, --intramolecular, "
    "which counts all pairs"
)


def _check_bonds(
    path: str | Path,
    topology: mdtraj.Topology,
    particles: Particles,
    chosen: IntArray,
    consequence: str,
) -> None:
    """Refuse where atoms of one residue are selected that no bond holds together."""
    residue_of = _residues(topology)[chosen]
    part_of = parts_of(particles.bonds, particles.n_particles)
    joined = np.unique(np.stack([residue_of, part_of[chosen]]), axis=1)
    loose, pieces = np.unique(joined[0], return_counts=True)
    if not (pieces > 1).any():
        return
    residue = topology.residue(int(loose[np.argmax(pieces > 1)]))
    raise ConfigurationError(
        f"{path}: has no bond between some atoms of residue {residue}, so {consequence}",
        got=str(residue),
    )
