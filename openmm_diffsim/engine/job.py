"""A round's sampling as data: what a worker needs, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openmm
from numpy.typing import NDArray
from openmm import app

from ..errors import AttachError, SamplingError
from ..observables import Observable
from ..potentials import AttachOptions, Potential, adapter_of
from ..samples import Samples
from .adapters import Adapter, other_forces, readable_elsewhere
from .context import platform_properties
from .statepoint import StatePoint


@dataclass(frozen=True)
class Recording:
    """What to sample; see ``StatePoint.sample``."""

    steps: int
    every: int
    record: tuple[Observable, ...] = ()
    equilibration: int = 0
    discard_transient: bool = False
    trajectory: Path | None = None


@dataclass(frozen=True)
class SamplingJob:
    """Everything that a worker needs to sample a state point, as data that can be pickled.

        job = SamplingJob.of(liquid, Recording(steps=20_000, every=50, record=(rdf,)))
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            result = pool.submit(job.run).result()
        samples = result.take(liquid, job.recording)

    The worker goes on from where the state point is, random numbers included, and the state point
    from where the worker ends: the same, bit for bit, as sampling here would have been. On several
    threads, or on a GPU, OpenMM may add up in another order; Reference has one stream of random
    numbers for all Contexts of a process. (A process that has a Context must not be forked: take
    "spawn".) A job is pickled and holds code: take one, or a result, only from those you trust.
    """

    potential: Potential
    system: str  # XML, of all forces but the learned ones
    learned: tuple[tuple[int, int, Potential, AttachOptions], ...]
    """Of each learned Force: where it was among all, its force group, of what, attached how."""
    integrator: str  # XML
    platform: str
    properties: Mapping[str, str]
    state: Mapping[str, str]  # what ``StatePoint.serialize`` gave
    parameters: Mapping[str, float]  # global ones of the Context
    temperature: float  # K
    pressure: float | None  # bar
    recording: Recording

    @staticmethod
    def of(state_point: StatePoint, recording: Recording) -> SamplingJob:
        """The job of sampling a state point from where it is.

        Raises
        ------
        SamplingError
            If there are configurations to keep, as of a network, and no trajectory to keep them in.
        AttachError
            If the worker's Force would be another one than was attached.
        """
        _check_trajectory(state_point.potential, recording)
        context = state_point.simulation.context
        system, platform = context.getSystem(), context.getPlatform()
        adapter = state_point.attached
        names = [force.getName() for force in system.getForces()]
        learned = []
        for part in (p for p in adapter.parts if p.adds_force):
            place = names.index(part.potential.name)
            group = system.getForce(place).getForceGroup()
            options = part.options(state_point.temperature)
            _check_twin(part, system, options)
            learned.append((place, group, part.potential, options))
        rest = readable_elsewhere(other_forces(system, adapter.names, bookkeeping=True))
        return SamplingJob(
            state_point.potential,
            openmm.XmlSerializer.serialize(rest),
            tuple(sorted(learned, key=lambda entry: entry[0])),
            openmm.XmlSerializer.serialize(context.getIntegrator()),
            platform.getName(),
            platform_properties(
                context, "Threads", "Precision", "DeviceIndex", "DeterministicForces"
            ),
            state_point.serialize(),
            dict(context.getParameters()),
            state_point.temperature,
            state_point.pressure,
            recording,
        )

    def run(self) -> SamplingResult:
        """Sample, in a Simulation of its own.

        Raises
        ------
        SamplingError, EquilibrationError
            As ``StatePoint.sample``.
        """
        point = self._state_point()
        point.deserialize(dict(self.state))
        steps: list[int] = []
        plan = self.recording
        samples = point.sample(**vars(plan), progress=steps.append)
        arrays = samples.arrays(list(plan.record), Path())
        return SamplingResult(arrays, point.serialize(), sum(steps))

    def _state_point(self) -> StatePoint:
        rest = openmm.XmlSerializer.deserialize(self.system)
        forces = [openmm.XmlSerializer.clone(force) for force in rest.getForces()]
        for place, group, potential, options in self.learned:
            adapter: Adapter = adapter_of(potential)
            force = adapter.build(rest, options)
            force.setName(potential.name)
            force.setForceGroup(group)
            forces.insert(place, force)
        for index in reversed(range(rest.getNumForces())):
            rest.removeForce(index)
        for force in forces:
            rest.addForce(force)
        integrator = openmm.XmlSerializer.deserialize(self.integrator)
        platform = openmm.Platform.getPlatform(self.platform)
        simulation = app.Simulation(
            app.Topology(), rest, integrator, platform, dict(self.properties)
        )
        for name, value in self.parameters.items():
            simulation.context.setParameter(name, value)
        return StatePoint(simulation, self.potential, self.temperature, self.pressure)


def _check_twin(part: Adapter, system: openmm.System, options: AttachOptions) -> None:
    """AttachError where ``build`` makes another Force of these options: other numbers of terms."""
    if part.content(part.force) is not None:  # its XML does not say what it holds
        return
    attached, built = _terms(part.force), _terms(part.build(system, options))
    if attached != built:
        raise AttachError(
            f"{part.potential.name}: the Force that was attached holds {attached}, but what a "
            f"worker would build from {type(part).__name__}.options() {built}: give it types() or "
            "options() that say what attach() was given",
            got=built,
            expected=attached,
        )


def _terms(force: openmm.Force) -> dict[str, Any]:
    """How many of everything it holds, and whether it is periodic."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    periodic = {"periodic": force.usesPeriodicBoundaryConditions()}
    return periodic | {part.tag: len(part) for part in root}


def _check_trajectory(potential: Potential, recording: Recording) -> None:
    if not potential.energy_is_linear and recording.trajectory is None:
        raise SamplingError(
            f"trajectory: got none, but the configurations that {potential.name} is evaluated from "
            "would be in a temporary file, which goes with the worker; name one in Recording",
            reason="arguments",
        )


@dataclass(frozen=True)
class SamplingResult:
    """What a job gives back: arrays, and the state that the run ended in."""

    arrays: Mapping[str, NDArray[Any]]  # of ``Samples.arrays``
    state: Mapping[str, str]  # of ``StatePoint.serialize``
    md_steps: int

    def take(self, state_point: StatePoint, recording: Recording) -> Samples:
        """The samples; the state point goes on from where the worker ended."""
        samples = Samples.from_arrays(state_point.potential, recording.record, self.arrays, Path())
        state_point.deserialize(dict(self.state))
        return samples
