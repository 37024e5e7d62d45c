"""g(r) of a stored trajectory, with error bars."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.recorder import reduced_box
from ..errors import ConfigurationError, ObservableError
from ..observables import RDF, Frame, Particles, record_frame
from ..statistics.averages import (
    Estimate,
    assign_blocks,
    block_covariance,
    statistical_inefficiency,
)
from ..statistics.kernels import largest_range, pair_sums

Array = NDArray[np.float64]

_CHUNK = 100  # frames in memory


def trajectory_rdf(
    topology: str | Path,
    trajectory: str | Path,
    atoms: str = "all",
    atoms2: str | None = None,
    r_max: float | None = None,
    bins: int = 200,
    intramolecular: bool = False,
) -> tuple[RDF, Estimate]:
    """g(r) of the frames of a file, read in pieces, so that a long one fits into memory.

    Parameters
    ----------
    topology, trajectory : files that mdtraj reads
    atoms, atoms2 : selections in mdtraj's language
    r_max : nm; default half the box of the first frame

    Returns
    -------
    rdf : RDF that was counted
    estimate : Estimate of g, correlations between frames accounted for

    Raises
    ------
    ConfigurationError
        If a file cannot be read or a selection is empty.
    ObservableError
        If there is no box, or ``r_max`` is beyond half of it.
    """
    frames = _frames(Path(topology), Path(trajectory))
    first = next(frames, None)
    if first is None:
        raise ConfigurationError(f"{trajectory}: holds no frame")
    system, positions, box = first
    if box is None:
        raise ObservableError(f"{trajectory}: has no box, so g(r) has no density to refer to")
    rdf = RDF(
        largest_range(box) if r_max is None else r_max,
        bins,
        atoms=_select(system, atoms),
        atoms2=None if atoms2 is None else _select(system, atoms2),
        intramolecular=intramolecular,
    )
    recorder = rdf.recorder(_particles(system))
    records = []
    while True:
        frame = Frame(positions, box, float(np.linalg.det(box)), float("nan"))
        (g,), _ = record_frame([recorder], frame, partial(pair_sums, positions[None], box[None]))
        records.append(g)
        following = next(frames, None)
        if following is None:
            return rdf, _estimate(np.array(records))
        _, positions, box = following
        if box is None:
            raise ObservableError(f"{trajectory}: a frame has no box")


def _estimate(g: Array) -> Estimate:
    n = len(g)
    peak = int(np.argmax(g.mean(axis=0)))
    blocks = assign_blocks([n], statistical_inefficiency(g[:, peak]))
    weights = np.full(n, 1 / n)
    covariance = block_covariance(g, weights, blocks)
    return Estimate(
        value=g.mean(axis=0),
        standard_error=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        n_effective=float(n),
        n_blocks=int(blocks.max()) + 1,
    )


def _frames(topology: Path, trajectory: Path) -> Iterator[tuple[Any, Array, Array | None]]:
    import mdtraj

    for path in (topology, trajectory):
        if not path.is_file():
            raise ConfigurationError(f"there is no file {path}", got=path)
    try:
        for chunk in mdtraj.iterload(str(trajectory), chunk=_CHUNK, top=str(topology)):
            for n in range(chunk.n_frames):
                box = None if chunk.unitcell_vectors is None else chunk.unitcell_vectors[n]
                yield (
                    chunk.topology,
                    chunk.xyz[n].astype(float),
                    None if box is None else (reduced_box(box.astype(float))),
                )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigurationError(f"{trajectory}: mdtraj cannot read it: {error}") from error


def _particles(topology: Any) -> Particles:
    molecule_of = np.empty(topology.n_atoms, dtype=np.int64)
    for index, molecule in enumerate(topology.find_molecules()):
        molecule_of[[atom.index for atom in molecule]] = index
    masses = [0.0 if a.element is None else a.element.mass for a in topology.atoms]
    return Particles(topology.n_atoms, molecule_of, np.array(masses, dtype=float))


def _select(topology: Any, selection: str) -> NDArray[np.int64]:
    try:
        atoms = topology.select(selection)
    except Exception as error:  # mdtraj raises whatever its parser does
        raise ConfigurationError(
            f"{selection!r} is not a selection that mdtraj understands: {error}", got=selection
        ) from error
    if len(atoms) == 0:
        raise ConfigurationError(f"{selection!r} selects no atom", got=selection)
    return np.asarray(atoms, dtype=np.int64)
