"""Recording frames: from a running Simulation, as a reporter, or from a stored trajectory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from ..errors import SamplingError
from ..observables import Frame, Observable, Particles, Recorder, record_frame
from ..potentials import Potential
from ..samples import Run, Samples
from ..statistics.kernels import PairHistogram, PairSums, pair_sums
from ..units import number_in_md_units
from .adapters import attached, other_forces
from .context import masses_of, platform_properties
from .segments import SegmentRecorder, SegmentRunner

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class FrameRecorder:
    """Turns configurations into what ``Samples`` keep.

    It knows the particles and the learned force of one System, and nothing of how the
    configurations come about.
    """

    def __init__(
        self,
        potential: Potential,
        context: openmm.Context,
        observables: Sequence[Observable],
        temperature: float | None = None,
        trajectory: str | Path | None = None,
    ) -> None:
        adapter = attached(potential, context.getSystem())
        self.potential = potential
        self.observables = tuple(observables)
        self.periodic = bool(context.getSystem().usesPeriodicBoundaryConditions())
        self._learned_is_periodic = adapter.is_periodic
        self.particles = describe_particles(context)
        self._moving = adapter.types() >= 0
        self._runner: SegmentRunner | None = None
        self._temperature = temperature
        self._recorders = [self._recorder_of(o, context) for o in self.observables]
        self._features = adapter.recorder(context, self.particles, trajectory)
        self.others = RestForces(adapter.names, context)
        self._needs_virial = self.others.contribute and any(
            o.needs_virial for o in self.observables
        )
        self.clear()

    def _recorder_of(self, observable: Observable, context: openmm.Context) -> Recorder:
        if not observable.is_dynamic:
            return observable.recorder(self.particles)
        if self._temperature is None:
            raise SamplingError(
                f"{type(observable).__name__} draws velocities: pass temperature= in K",
                reason="arguments",
            )
        if self._runner is None:
            self._runner = SegmentRunner(self.potential, context, self._temperature)
        return SegmentRecorder(observable, self._runner)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Forget what was recorded."""
        self._features.clear()
        self._frames: list[tuple[float, float]] = []
        self._records: list[list[Array]] = []
        self._first: Array | None = None
        self._last: Array | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, positions: Array, box: Array | None, total_energy: float | None = None) -> None:
        """Record one frame: positions [particles, 3] in nm, box [3, 3] in nm.

        ``total_energy`` (kJ/mol) is needed only where other forces contribute.
        """
        if not np.all(np.isfinite(positions)):
            raise SamplingError("a coordinate is not finite: the run exploded", reason="exploded")
        if self.periodic and box is None:
            raise SamplingError(
                "a frame has no box, but the System is periodic: take a trajectory with its "
                "unit cells",
                reason="box",
            )
        box = box if self.periodic else None
        own_box = box if self._learned_is_periodic else None
        self._features.check(own_box)
        self._last = positions.copy()
        self._first = self._last if self._first is None else self._first
        volume = float(np.prod(np.diag(box))) if box is not None else float("nan")
        rest_virial = self.others.virial(positions, box) if self._needs_virial else 0.0
        frame = Frame(positions, box, volume, rest_virial)
        records, sums = record_frame(self._recorders, frame, partial(self._sums, positions, box))
        self._features.keep(positions, own_box, sums)
        self._frames.append((volume, total_energy or 0.0))
        self._records.append(records)

    def _sums(
        self, positions: Array, box: Array | None, histograms: Sequence[PairHistogram]
    ) -> PairSums:
        """In one pass; in two where only other forces act across the faces of the box."""
        if box is None or self._learned_is_periodic:
            return self._features.sums(positions, box, histograms)
        counts = pair_sums(positions[None], box[None], histograms).counts
        return replace(self._features.sums(positions, None, ()), counts=counts)

    def samples(
        self, coefficients: Array, temperature: float, pressure: float | None, every: int
    ) -> Samples:
        """Everything recorded, as sampled with ``coefficients``."""
        if not self._frames:
            raise SamplingError("no frame was recorded", reason="empty")
        volume, energy = (np.array(column) for column in zip(*self._frames, strict=True))
        learned = self._features.learned()
        rest = np.zeros(len(volume))
        if self.others.contribute:
            rest = energy - learned.energy(torch.from_numpy(coefficients)).numpy()
        run = Run(coefficients, temperature, pressure, len(rest), every, self._displacement())
        return Samples(
            potential=self.potential,
            runs=(run,),
            learned=learned,
            volume=volume,
            rest_energy=rest,
            records={
                observable: np.array([record[index] for record in self._records])
                for index, observable in enumerate(self.observables)
            },
            temperature=temperature,
            pressure=pressure,
        )

    def _displacement(self) -> float:
        """Root mean square from the first frame to the last, nm."""
        assert self._first is not None and self._last is not None
        moved = (self._last - self._first)[self._moving]
        moved -= moved.mean(axis=0)  # a thermostat lets even a crystal drift as a whole
        return float(np.sqrt(np.mean(np.sum(moved**2, axis=1))))


class RestForces:
    """All forces of a System but the learned ones: do they contribute, and what is their virial."""

    scaling = 1e-3  # of the box length, for the central difference

    def __init__(self, learned: Collection[str], context: openmm.Context) -> None:
        self._system = other_forces(context.getSystem(), learned)
        self.contribute = self._system.getNumForces() > 0
        self._original = context
        self._molecules = context.getMolecules()
        self._context: openmm.Context | None = None

    def virial(self, positions: Array, box: Array | None) -> float:
        """W = -3 V dU/dV in kJ/mol, moving whole molecules; zero without a box."""
        if box is None or not self.contribute:
            return 0.0
        if self._context is None:
            self._context = self._make_context()
        for name, value in self._original.getParameters().items():
            if name in self._context.getParameters():
                self._context.setParameter(name, value)
        energies = [
            self._scaled_energy(positions, box, 1 + sign * self.scaling) for sign in (1, -1)
        ]
        return -(energies[0] - energies[1]) / (2 * self.scaling)

    def _make_context(self) -> openmm.Context:
        platform = self._original.getPlatform()
        properties = platform_properties(self._original, "Threads", "Precision", "DeviceIndex")
        if properties.get("Precision") == "single":
            properties["Precision"] = "mixed"
        return openmm.Context(self._system, openmm.VerletIntegrator(0.001), platform, properties)

    def _scaled_energy(self, positions: Array, box: Array, scale: float) -> float:
        assert self._context is not None
        scaled = positions.copy()
        for molecule in self._molecules:
            atoms = np.asarray(molecule)
            scaled[atoms] += (scale - 1) * positions[atoms].mean(axis=0)
        self._context.setPeriodicBoxVectors(*(box * scale))
        self._context.setPositions(scaled)
        state = self._context.getState(getEnergy=True)
        return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


class SampleReporter:
    """An OpenMM reporter that records Samples on the fly; no trajectory is needed.

        reporter = SampleReporter(50, pair, [rdf], temperature=85)
        simulation.reporters.append(reporter)
        simulation.step(100_000)
        samples = reporter.samples()

    Parameters
    ----------
    interval : int
        Steps between frames.
    potential : Potential
        Attached to the Simulation's System; its parameters must not change while it reports.
    record : sequence of Observable
        What else to record.
    temperature, pressure : float or Quantity
        K and bar, of the state point.
    trajectory : path, optional
        The DCD file that a network's frames are kept in. Default: a temporary one, which goes with
        the samples.
    """

    def __init__(
        self,
        interval: int,
        potential: Potential,
        record: Sequence[Observable] = (),
        *,
        temperature: Any,
        pressure: Any = None,
        trajectory: str | Path | None = None,
    ) -> None:
        self.interval = interval
        self.potential = potential
        self.observables = tuple(record)
        self.temperature, self.pressure = _numbers(temperature, pressure)
        self.trajectory = trajectory
        self.recorder: FrameRecorder | None = None
        self._coefficients: Array = potential.coefficients(self.temperature).detach().numpy().copy()

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """Tell OpenMM when the next frame is due and what it needs."""
        if self.recorder is None:
            self.recorder = FrameRecorder(
                self.potential,
                simulation.context,
                self.observables,
                self.temperature,
                self.trajectory,
            )
        include = ["positions"] + (["energy"] if self.recorder.others.contribute else [])
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": include}

    def report(self, simulation: Any, state: openmm.State) -> None:
        """Record one frame."""
        assert self.recorder is not None
        energy = None
        if self.recorder.others.contribute:
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        positions, box = configuration(state)
        self.recorder.add(positions, box, energy)

    def samples(self) -> Samples:
        """Everything recorded so far."""
        if self.recorder is None:
            raise SamplingError("no frame was recorded", reason="empty")
        return self.recorder.samples(
            self._coefficients, self.temperature, self.pressure, self.interval
        )


def sample_trajectory(
    potential: Potential,
    trajectory: Any,
    context: openmm.Context,
    record: Sequence[Observable] = (),
    *,
    temperature: Any,
    pressure: Any = None,
) -> Samples:
    """Samples from a stored trajectory (``mdtraj.Trajectory``), run with ``potential`` as it is.

    ``context`` is one of the System that the trajectory came from, with the potential attached;
    its own positions are restored.
    """
    temperature, pressure = _numbers(temperature, pressure)
    recorder = FrameRecorder(potential, context, record, temperature)
    if trajectory.n_atoms != recorder.particles.n_particles:
        raise SamplingError(
            f"the trajectory has {trajectory.n_atoms} atoms, the System "
            f"{recorder.particles.n_particles}",
            reason="atoms",
        )
    before = context.getState(getPositions=True, getVelocities=True)
    for n in range(trajectory.n_frames):
        positions = np.asarray(trajectory.xyz[n], dtype=np.float64)
        vectors = trajectory.unitcell_vectors
        box = None if vectors is None else reduced_box(np.asarray(vectors[n], dtype=np.float64))
        energy = None
        if recorder.others.contribute:
            if box is not None:
                context.setPeriodicBoxVectors(*box)
            context.setPositions(positions)
            state = context.getState(getEnergy=True)
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        recorder.add(positions, box, energy)
    context.setState(before)
    coefficients = potential.coefficients(temperature).detach().numpy().copy()
    return recorder.samples(coefficients, temperature, pressure, every=1)


def configuration(state: openmm.State) -> tuple[Array, Array]:
    """Positions [particles, 3] and box [3, 3] of a State, nm."""
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    return np.asarray(positions, dtype=np.float64), np.asarray(box, dtype=np.float64)


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


def describe_particles(context: openmm.Context) -> Particles:
    """Masses and molecules of a Context's System."""
    system = context.getSystem()
    n = system.getNumParticles()
    molecule_of = np.empty(n, dtype=np.int64)
    for index, atoms in enumerate(context.getMolecules()):
        molecule_of[list(atoms)] = index
    return Particles(n, molecule_of, masses_of(system))


def _numbers(temperature: Any, pressure: Any) -> tuple[float, float | None]:
    """In K and bar."""
    return (
        number_in_md_units(temperature, "temperature"),
        None if pressure is None else number_in_md_units(pressure, "pressure"),
    )
