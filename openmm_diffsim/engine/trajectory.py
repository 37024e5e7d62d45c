"""Samples of a trajectory that was stored: read, made whole, and evaluated frame by frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..errors import SamplingError
from ..io.trajectories import Chunk, checked_chunks, decimals, read_trajectory, topology_of
from ..observables import Observable, Pressure
from ..potentials import Potential
from ..samples import Samples
from .recorder import FrameRecorder, state_numbers

Array = NDArray[np.float64]

_ROUNDED_AGAIN = 8  # times, to see what it does


def sample_trajectory(
    potential: Potential,
    trajectory: str | Path | mdtraj.Trajectory | Iterable[mdtraj.Trajectory],
    context: openmm.Context,
    record: Sequence[Observable] = (),
    *,
    temperature: Any,
    pressure: Any = None,
) -> Samples:
    """Samples from a stored trajectory, run with ``potential`` as it is.

        samples = sample_trajectory(pair, "run.dcd", simulation.context, [rdf], temperature=298)

    Molecules that were cut at the faces of the box are made whole by the System's bonds and
    constraints: energies, pressures and segments take whole ones. A pressure that is recorded from
    coordinates rounded as those of an XTC file is warned of, with the size of the error.

    Parameters
    ----------
    trajectory : path, mdtraj.Trajectory, or iterable of mdtraj.Trajectory
        A path or an iterable, such as ``mdtraj.iterload`` gives, is read a few frames at a time.
        A file needs no topology: the atoms are those of the System, in its order.
    context : openmm.Context
        One of the System that the trajectory came from, with the potential attached; its own
        positions are restored.
    record, temperature, pressure : as for ``SampleReporter``

    Raises
    ------
    SamplingError
        If the numbers of atoms differ, there is no frame, or a periodic System's has no box.
    ConfigurationError, FramesError
        If a file cannot be read, or a frame is not finite.
    ObservableError
        If a molecule that a box cut cannot be made whole, and its centre is needed.
    """
    temperature, pressure = state_numbers(temperature, pressure)
    recorder = FrameRecorder(potential, context, record, temperature, stored=True)
    before = context.getState(getPositions=True, getVelocities=True)
    told = not any(o.needs_virial or o.needs_axes for o in record)
    try:
        for chunk in _chunks(trajectory, recorder.particles.n_particles):
            if not told and (digits := decimals(chunk.positions)) is not None:
                _warn_of_rounding(potential, context, temperature, chunk, digits)
            told = True
            for positions, box in _frames(chunk):
                add_stored(recorder, context, positions, box)
    finally:
        context.setState(before)
    coefficients = potential.coefficients(temperature).detach().numpy().copy()
    return recorder.samples(coefficients, temperature, pressure, every=1)


def add_stored(
    recorder: FrameRecorder, context: openmm.Context, positions: Array, box: Array | None
) -> None:
    """Record a stored frame, positions [particles, 3] and box [3, 3] in nm, with its energy."""
    positions = recorder.whole(positions, box)
    energy = None
    if recorder.others.contribute:
        if box is not None:
            context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        state = context.getState(getEnergy=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    recorder.add(positions, box, energy)


def _frames(chunk: Chunk) -> Iterator[tuple[Array, Array | None]]:
    """Positions and box of every frame."""
    boxes = [None] * len(chunk.positions) if chunk.boxes is None else chunk.boxes
    yield from zip(chunk.positions, boxes, strict=True)


def _chunks(trajectory: Any, n_atoms: int) -> Iterator[Chunk]:
    if isinstance(trajectory, str | Path):
        chunks = read_trajectory(trajectory, topology_of(n_atoms))
    else:
        chunks = checked_chunks(_trajectories(trajectory), "trajectory: ")
    for chunk in chunks:
        found = chunk.positions.shape[1]
        if found != n_atoms:
            raise SamplingError(
                f"the trajectory has {found} atoms, the System {n_atoms}", reason="atoms"
            )
        yield chunk


def _trajectories(given: Any) -> Iterator[Any]:
    for part in [given] if hasattr(given, "xyz") else given:
        if not hasattr(part, "xyz"):
            raise SamplingError(
                "trajectory: expected a path, an mdtraj.Trajectory or an iterable of these, got "
                f"{type(part).__name__}",
                reason="arguments",
            )
        yield part


def _warn_of_rounding(
    potential: Potential,
    context: openmm.Context,
    temperature: float,
    chunk: Chunk,
    digits: int,
) -> None:
    """Say how much the pressure of a frame changes when it is rounded once more."""
    step = 10.0**-digits
    positions, box = next(_frames(chunk))
    if box is None:
        return
    random = np.random.default_rng(1)
    pressure = Pressure()
    recorder = FrameRecorder(potential, context, [pressure], temperature, stored=True)
    for attempt in range(_ROUNDED_AGAIN + 1):
        noise = step * (random.random(positions.shape) - 0.5) if attempt else 0.0
        add_stored(recorder, context, positions + noise, box)
    coefficients = potential.coefficients(temperature).detach().numpy().copy()
    samples = recorder.samples(coefficients, temperature, None, every=1)
    found = samples.at().values(pressure)[:, 0].detach().numpy()
    error = float(np.sqrt(np.mean((found[1:] - found[0]) ** 2)))
    warnings.warn(
        f"the coordinates were rounded to {step:g} nm, which changes the pressure of a frame by "
        f"about {error:.2g} bar ({found[1:].mean() - found[0]:+.2g} bar on average), and that of "
        "all frames alike; record from the Simulation, or from a DCD file",
        RuntimeWarning,
        stacklevel=3,
    )
