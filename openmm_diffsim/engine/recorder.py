"""Recording frames of a running Simulation, as a reporter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from ..errors import ObservableError, SamplingError
from ..observables import Charges, Frame, Observable, Particles, Recorder, parts_of, record_frame
from ..potentials import Potential
from ..samples import Run, Samples
from ..statistics.kernels import PairHistogram, PairSums, largest_range, pair_sums
from ..statistics.molecules import molecule_centres
from ..statistics.scaling import SCALING, scaled
from ..units import state_numbers
from .adapters import Adapter, Bonds, acting_forces, attached, bonds_of
from .adapters.charges import charges_of
from .axes import AxisScaling
from .context import masses_of, platform_properties
from .identity import rest_identity
from .segments import SegmentRecorder, SegmentRunner

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SURE_IMAGE = 0.9  # of half the box: how long a bond may be whose ends are surely nearest images


class FrameRecorder:
    """Turns configurations into what ``Samples`` keep.

    It knows the particles and the learned force of one System. Of how the configurations come about
    it knows whether they were ``stored`` in a file, which may have cut any molecule at the faces of
    the box: from a running Context come molecules that are whole, but for bonds that act between
    nearest images.
    """

    def __init__(
        self,
        potential: Potential,
        context: openmm.Context,
        observables: Sequence[Observable],
        temperature: float | None = None,
        trajectory: str | Path | None = None,
        stored: bool = False,
    ) -> None:
        adapter = attached(potential, context.getSystem())
        self.potential = potential
        self.observables = parts_of(observables)
        self.periodic = bool(context.getSystem().usesPeriodicBoundaryConditions())
        self._learned_is_periodic = adapter.is_periodic
        bonds = bonds_of(context.getSystem())
        particles = describe_particles(context, bonds)
        self.particles = replace(particles, charges=_charges(context, adapter))
        self._molecules = WholeMolecules(bonds, self.particles, self.observables, stored)
        self._moving = adapter.types() >= 0
        self._runner: SegmentRunner | None = None
        self._temperature = temperature
        self._recorders = [self._recorder_of(o, context) for o in self.observables]
        self._features = adapter.recorder(context, self.particles, trajectory)
        self.others = RestForces(adapter.names, context, adapter)
        needs_virial = any(o.needs_virial for o in self.observables)
        self._features.want_virial(needs_virial)
        self._needs_virial = self.others.contribute and needs_virial
        self._axes = self._axis_scaling(adapter, context)
        self._rest = rest_identity(context, adapter)
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

    def _axis_scaling(self, adapter: Adapter, context: openmm.Context) -> AxisScaling | None:
        """None where nobody asks for it."""
        asking = [o.label for o in self.observables if o.needs_axes]
        if not asking:
            return None
        if not self.potential.energy_is_linear:
            raise ObservableError(
                f"{asking[0]}: expected a potential whose energy is linear in its coefficients, "
                f"got {type(self.potential).__name__}"
            )
        return AxisScaling(
            self.others.energy,
            adapter.recorder(context, self.particles, None),
            self.particles.molecule_of,
            self._learned_is_periodic,
            len(self.potential.coefficients(self._temperature)),
        )

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

        Its molecules are made whole. ``total_energy`` (kJ/mol) is needed only where other forces
        contribute.

        Raises
        ------
        SamplingError
            If a coordinate is not finite, or a box is missing.
        ObservableError
            If the centres of molecules are needed and cannot be told.
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
        positions = self.whole(positions, box)
        own_box = box if self._learned_is_periodic else None
        self._features.check(own_box)
        self._last = positions.copy()
        self._first = self._last if self._first is None else self._first
        volume = float(np.prod(np.diag(box))) if box is not None else float("nan")
        rest_virial = self._rest_virial(positions, box) if self._needs_virial else 0.0
        axes = self._axes(positions, box) if self._axes is not None and box is not None else None
        frame = Frame(positions, box, volume, rest_virial, axes)
        records, sums = record_frame(self._recorders, frame, partial(self._sums, positions, box))
        self._features.keep(positions, own_box, sums)
        self._frames.append((volume, total_energy or 0.0))
        self._records.append(records)

    def _rest_virial(self, positions: Array, box: Array | None) -> float:
        """Of the other forces, without what is learned of them."""
        own_box = box if self._learned_is_periodic else None
        within = self._features.virial_within(positions, own_box)
        return self.others.virial(positions, box) - within

    def whole(self, positions: Array, box: Array | None) -> Array:
        """The same configuration [particles, 3], nm, with no molecule cut by the box."""
        if box is None or not self.periodic:
            return positions
        return self._molecules.whole(positions, box)

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
        moved = self._displacement()
        run = Run(coefficients, temperature, pressure, len(rest), every, moved, self._rest)
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
    """All forces of a System but the learned ones: do they contribute, and what is their virial.

    Parameters
    ----------
    learned : collection of str
        Names of Forces that are left out.
    context : openmm.Context
    adapter : Adapter, optional
        What it learns of other Forces is taken out of them, as far as it can be.
    """

    def __init__(
        self, learned: Collection[str], context: openmm.Context, adapter: Adapter | None = None
    ) -> None:
        self._system = acting_forces(context.getSystem(), learned, adapter)
        self.contribute = self._system.getNumForces() > 0
        self._original = context
        self._molecule_of = molecules_of(context)
        self._context: openmm.Context | None = None

    def virial(self, positions: Array, box: Array | None) -> float:
        """W = -3 V dU/dV in kJ/mol, moving whole molecules; zero without a box."""
        if box is None or not self.contribute:
            return 0.0
        centres = molecule_centres(positions, self._molecule_of)[self._molecule_of]
        energies = [
            self.energy(*scaled(positions, centres, box, 1 + sign * SCALING)) for sign in (1, -1)
        ]
        return -(energies[0] - energies[1]) / (2 * SCALING)

    def energy(self, positions: Array, box: Array) -> float:
        """Their energy, kJ/mol."""
        if not self.contribute:
            return 0.0
        if self._context is None:
            self._context = self._make_context()
        for name, value in self._original.getParameters().items():
            if name in self._context.getParameters():
                self._context.setParameter(name, value)
        self._context.setPeriodicBoxVectors(*box)
        self._context.setPositions(positions)
        state = self._context.getState(getEnergy=True)
        return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))

    def _make_context(self) -> openmm.Context:
        platform = self._original.getPlatform()
        properties = platform_properties(self._original, "Threads", "Precision", "DeviceIndex")
        if properties.get("Precision") == "single":
            properties["Precision"] = "mixed"
        return openmm.Context(self._system, openmm.VerletIntegrator(0.001), platform, properties)


class SampleReporter:
    """An OpenMM reporter that records Samples on the fly; no trajectory is needed.

        reporter = SampleReporter(50, pair, [rdf], temperature=85)
        simulation.reporters.append(reporter)
        simulation.step(100_000)
        samples = reporter.samples()

    OpenMM calls reporters from ``simulation.step`` and nowhere else. Whatever steps the integrator
    itself, such as ``openmm.app.ReplicaExchangeSampler`` or a loop of one's own, gives them no
    frame: call ``record_now`` there, when the Simulation is at this temperature.

    Parameters
    ----------
    interval : int
        Steps between frames.
    potential : Potential
        Attached to the Simulation's System; its parameters must not change while it reports.
    record : sequence of Observable
        What else to record; of a FunctionOfAverages, what it is a function of.
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
        self.observables = parts_of(record)
        self.temperature, self.pressure = state_numbers(temperature, pressure)
        self.trajectory = trajectory
        self.recorder: FrameRecorder | None = None
        self._coefficients: Array = potential.coefficients(self.temperature).detach().numpy().copy()

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """Tell OpenMM when the next frame is due and what it needs."""
        recorder = self._recorder_of(simulation.context)
        include = ["positions"] + (["energy"] if recorder.others.contribute else [])
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": include}

    def report(self, simulation: Any, state: openmm.State) -> None:
        """Record one frame."""
        recorder = self._recorder_of(simulation.context)
        energy = None
        if recorder.others.contribute:
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        positions, box = configuration(state)
        recorder.add(positions, box, energy)

    def record_now(self, simulation: Any, state: openmm.State | None = None) -> None:
        """Record the Simulation as it is, or at a State of it, to which it is set for a moment.

        for _ in range(100):
            integrator.step(50)
            reporter.record_now(simulation)

        def cold_replica(sampler):  # one of the reporters of a ReplicaExchangeSampler
            replica = sampler.replicaStateIndex.index(0)  # the one that is in state 0
            reporter.record_now(sampler.simulation, sampler.replicaConformation[replica])
        """
        context = simulation.context
        if state is None:
            self.report(simulation, context.getState(positions=True, energy=True))
            return
        before = context.getState(
            positions=True, velocities=True, parameters=True, integratorParameters=True
        )
        context.setState(state)
        try:
            self.record_now(simulation)
        finally:
            context.setState(before)

    def _recorder_of(self, context: openmm.Context) -> FrameRecorder:
        if self.recorder is None:
            self.recorder = FrameRecorder(
                self.potential, context, self.observables, self.temperature, self.trajectory
            )
        return self.recorder

    def samples(self) -> Samples:
        """Everything recorded so far."""
        if self.recorder is None:
            raise SamplingError("no frame was recorded", reason="empty")
        return self.recorder.samples(
            self._coefficients, self.temperature, self.pressure, self.interval
        )


def configuration(state: openmm.State) -> tuple[Array, Array]:
    """Positions [particles, 3] and box [3, 3] of a State, nm."""
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    return np.asarray(positions, dtype=np.float64), np.asarray(box, dtype=np.float64)


def _charges(context: openmm.Context, adapter: Adapter) -> Charges | None:
    own = charges_of(context)
    return None if own is None else adapter.charges(Charges(own, np.zeros((len(own), 0))))


def describe_particles(context: openmm.Context, bonds: Bonds) -> Particles:
    """Masses, molecules, bonds and constraints of a Context's System."""
    system = context.getSystem()
    masses = masses_of(system)
    rigid = map(system.getConstraintParameters, range(system.getNumConstraints()))
    constraints = np.array([(i, j) for i, j, _ in rigid], dtype=np.int64).reshape(-1, 2)
    return Particles(len(masses), molecules_of(context), masses, bonds.pairs, constraints)


def molecules_of(context: openmm.Context) -> IntArray:
    """Molecule of each particle, as OpenMM has them, int [particles]."""
    molecules = context.getMolecules()
    molecule_of = np.empty(context.getSystem().getNumParticles(), dtype=np.int64)
    lengths = [len(atoms) for atoms in molecules]
    molecule_of[list(chain.from_iterable(molecules))] = np.repeat(np.arange(len(lengths)), lengths)
    return molecule_of


class WholeMolecules:
    """Undoes what a box cut, or refuses where the centres of molecules count and cannot be told."""

    def __init__(
        self, bonds: Bonds, particles: Particles, observables: Sequence[Observable], stored: bool
    ) -> None:
        self._bonding = bonds.bonding(particles.n_particles, stored)
        self._needing = [o.label for o in observables if o.needs_virial or o.needs_molecules]
        pieces = np.unique(np.stack([particles.molecule_of, self._bonding.part_of]), axis=1)
        n_parts = pieces.shape[1]
        if self._needing and stored and n_parts > particles.n_molecules:
            raise ObservableError(
                f"{self._needing[0]}: OpenMM has {particles.n_molecules} molecules, but the bonds "
                f"that are known leave {n_parts} pieces, so those that a box cut cannot be made "
                "whole; sample the Simulation itself"
            )

    def whole(self, positions: Array, box: Array) -> Array:
        """Positions [particles, 3] with no bond cut by the box [3, 3], nm."""
        positions, longest = self._bonding.whole(positions, box)
        limit = _SURE_IMAGE * largest_range(box)
        if self._needing and longest > limit:
            raise ObservableError(
                f"{self._needing[0]}: moves whole molecules, but a bond of one is {longest:.4g} nm "
                f"long, expected at most {limit:.4g} nm, {_SURE_IMAGE} of half the box: which "
                "images are one molecule cannot be told. Is it a bond, or does it join all "
                "particles to one molecule?",
                got=longest,
                limit=limit,
            )
        return positions
