"""Samples of a trajectory that was stored: read, made whole, and evaluated frame by frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from ..errors import SamplingError
from ..io.trajectories import Chunk, checked_chunks, decimals, read_trajectory, topology_of
from ..observables import Observable, Pressure
from ..potentials import Potential
from ..samples import Samples
from ..units import state_numbers
from .adapters import attached
from .recorder import FrameRecorder

Array = NDArray[np.float64]

_ROUNDED_AGAIN = 8  # times, to see what it does to a pressure
_SEEN = 30  # frames, to see what it does to energies
_CONSTANT = 1e-12  # variance over mean square, of what is the same in all frames
_MOST_NOISE = 0.05  # of the variance of an energy: it answers too weakly by as much


def sample_trajectory(
    potential: Potential,
    trajectory: str | Path | mdtraj.Trajectory | Iterable[mdtraj.Trajectory] | Sequence[str | Path],
    context: openmm.Context,
    record: Sequence[Observable] = (),
    *,
    temperature: Any,
    pressure: Any = None,
    frames: str | Path | None = None,
) -> Samples:
    """Samples from a stored trajectory, run with ``potential`` as it is.

        samples = sample_trajectory(pair, "run.dcd", simulation.context, [rdf], temperature=298)

    Molecules that were cut at the faces of the box are made whole by the System's bonds and
    constraints: energies, pressures and segments take whole ones. Coordinates that were rounded, as
    those of an XTC file, are warned of where that matters, with the size of the error: to a
    pressure, and to the energy of something stiff.

    Parameters
    ----------
    trajectory : path, paths, mdtraj.Trajectory, or iterable of mdtraj.Trajectory
        A path or an iterable, such as ``mdtraj.iterload`` gives, is read a few frames at a time,
        and only what is recorded is kept. A file needs no topology: the atoms are those of the
        System, in its order. Several paths are several runs; the parts of an iterable are one.
    context : openmm.Context
        One of the System that the trajectory came from, with the potential attached; its own
        positions are restored. It is given the potential's present parameters.
    record, temperature, pressure : as for ``SampleReporter``
    frames : path, optional
        The DCD file that a network's frames are kept in. Default: a temporary one, which goes with
        the samples.

    Raises
    ------
    UnitError
        If the temperature is not positive, or the pressure no number that can be.
    SamplingError
        If the numbers of atoms differ, there is no frame, or a periodic System's has no box.
    ConfigurationError, FramesError
        If a file cannot be read, or a frame is not finite.
    ObservableError
        If a molecule that a box cut cannot be made whole, and its centre is needed.
    """
    temperature, pressure = state_numbers(temperature, pressure)
    attached(potential, context.getSystem()).update(context, temperature)
    runs = [
        _read(potential, each, context, record, temperature, pressure, place)
        for each, place in _runs(trajectory, frames)
    ]
    return runs[0] if len(runs) == 1 else Samples.pool(runs)


def _runs(trajectory: Any, frames: str | Path | None) -> list[tuple[Any, Path | None]]:
    """Each run of what was given, and where its frames are kept."""
    place = None if frames is None else Path(frames)
    is_several = isinstance(trajectory, list | tuple) and len(trajectory) > 0
    if not is_several or not all(isinstance(each, str | Path) for each in trajectory):
        return [(trajectory, place)]
    places = [place and place.with_stem(f"{place.stem}_{n}") for n in range(len(trajectory))]
    return list(zip(trajectory, places, strict=True))


def _read(
    potential: Potential,
    trajectory: Any,
    context: openmm.Context,
    record: Sequence[Observable],
    temperature: float,
    pressure: float | None,
    frames: Path | None,
) -> Samples:
    """The frames of one run."""
    recorder = FrameRecorder(potential, context, record, temperature, frames, stored=True)
    before = context.getState(getPositions=True, getVelocities=True)
    rounded: _Rounded | None = None
    try:
        for chunk in _chunks(trajectory, recorder.particles.n_particles):
            if len(recorder) == 0 and (digits := decimals(chunk.positions)) is not None:
                rounded = _Rounded(potential, context, temperature, 10.0**-digits)
                rounded.see(chunk)
                if any(o.needs_virial or o.needs_axes for o in record):
                    rounded.warn_of_pressure(chunk)
            for positions, box in _frames(chunk):
                add_stored(recorder, context, positions, box)
    finally:
        context.setState(before)
    samples = recorder.samples(
        _sampled_with(potential, temperature), temperature, pressure, every=1
    )
    if rounded is not None:
        rounded.warn_of_energies(samples)
    return samples


def _sampled_with(potential: Potential, temperature: float) -> Array:
    return np.array(potential.coefficients(temperature).numpy(force=True))


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
    parts = given if hasattr(given, "__iter__") and not hasattr(given, "xyz") else [given]
    for part in parts:
        if not hasattr(part, "xyz"):
            raise SamplingError(
                "trajectory: expected a path, paths, an mdtraj.Trajectory or an iterable of these, "
                f"got {'' if part is given else 'one of '}{type(part).__name__}",
                reason="arguments",
            )
        yield part


class _Rounded:
    """What rounding to ``step`` nm does to what is recorded: frames are rounded once more."""

    def __init__(
        self, potential: Potential, context: openmm.Context, temperature: float, step: float
    ) -> None:
        self._potential = potential
        self._context = context
        self._temperature = temperature
        self._step = step
        self._random = np.random.default_rng(1)
        self._noise = np.zeros(0)

    def see(self, chunk: Chunk) -> None:
        """How energies of a few frames change: the variance of each, [coefficients].

        What it does to all frames alike changes no weight.
        """
        few = list(_frames(chunk))[:_SEEN]
        before = self._energies(self._samples(few))
        again = [(x + self._once_more(x), box) for x, box in few]
        change = self._energies(self._samples(again)) - before
        self._noise = np.sum((change - change.mean(axis=0)) ** 2, axis=0) / max(len(few) - 1, 1)

    def warn_of_energies(self, samples: Samples) -> None:
        """Warn where that is a part of how they vary from frame to frame: of what is stiff."""
        energies = self._energies(samples)
        variance = np.var(energies, axis=0)
        varies = variance > _CONSTANT * np.mean(energies**2, axis=0)
        share = np.where(varies, self._noise / np.where(varies, variance, 1.0), 0.0)
        if share.max() > _MOST_NOISE:
            self._warn(
                f"adds {share.max():.2g} of its variance to an energy of {self._potential.name}, "
                "which so answers too weakly to its parameters by as much; record from the "
                "Simulation, or from a DCD or TRR file"
            )

    def warn_of_pressure(self, chunk: Chunk) -> None:
        """Say how much that of a frame changes."""
        positions, box = next(_frames(chunk))
        if box is None:
            return
        again = [positions + self._once_more(positions) for _ in range(_ROUNDED_AGAIN)]
        pressure = Pressure()
        samples = self._samples([(x, box) for x in (positions, *again)], [pressure])
        found = samples.at().values(pressure)[:, 0].detach().numpy()
        error = float(np.sqrt(np.mean((found[1:] - found[0]) ** 2)))
        self._warn(
            f"changes the pressure of a frame by about {error:.2g} bar "
            f"({found[1:].mean() - found[0]:+.2g} bar on average), and that of all frames alike; "
            "record from the Simulation, or from a DCD file"
        )

    def _once_more(self, positions: Array) -> Array:
        return np.asarray(self._step * (self._random.random(positions.shape) - 0.5))

    def _samples(
        self, frames: Iterable[tuple[Array, Array | None]], record: Sequence[Observable] = ()
    ) -> Samples:
        args = (self._potential, self._context, record, self._temperature)
        recorder = FrameRecorder(*args, stored=True)
        for positions, box in frames:
            add_stored(recorder, self._context, positions, box)
        c = _sampled_with(self._potential, self._temperature)
        return recorder.samples(c, self._temperature, None, every=1)

    def _energies(self, samples: Samples) -> Array:
        """Of each coefficient where the energy is linear in these, else all of it, [frames, n]."""
        if self._potential.energy_is_linear:
            return samples.features
        c = torch.from_numpy(_sampled_with(self._potential, self._temperature))
        return samples.learned.energy(c).numpy(force=True)[:, None]

    def _warn(self, what: str) -> None:
        warnings.warn(
            f"the coordinates were rounded to {self._step:g} nm, which {what}",
            RuntimeWarning,
            stacklevel=5,
        )
