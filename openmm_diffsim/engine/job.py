"""A round's sampling as data: what a worker needs, and what comes back."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary
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
from .continuation import seeded
from .statepoint import StatePoint
from .worker import Device, kept


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
class Blueprint:
    """What a state point is made of, but for parameters, positions and random numbers, as data."""

    potential: Potential
    system: str  # XML, of all forces but the learned ones
    learned: tuple[tuple[int, int, Potential, AttachOptions], ...]
    """Of each learned Force: where it was among all, its force group, of what, attached how."""
    integrator: str  # XML
    platform: str
    properties: Mapping[str, str]
    parameters: Mapping[str, float]  # global ones of the Context
    temperature: float  # K
    pressure: float | None  # bar

    @staticmethod
    def of(state_point: StatePoint) -> Blueprint:
        """That of a state point.

        Raises
        ------
        AttachError
            If the worker's Force would be another one than was attached.
        """
        context = state_point.simulation.context
        system = context.getSystem()
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
        return Blueprint(
            state_point.potential,
            openmm.XmlSerializer.serialize(rest),
            tuple(sorted(learned, key=lambda entry: entry[0])),
            _integrator_xml(context),
            context.getPlatform().getName(),
            _properties(context),
            dict(context.getParameters()),
            state_point.temperature,
            state_point.pressure,
        )

    def build(self, device: Device) -> StatePoint:
        """A state point of its own, made of copies."""
        own: Blueprint = pickle.loads(pickle.dumps(self))
        platform = device.platform_or(own.platform)
        simulation = app.Simulation(
            app.Topology(),
            own._system(),
            openmm.XmlSerializer.deserialize(own.integrator),
            platform,
            device.properties(platform, own.properties),
        )
        for name, value in own.parameters.items():
            simulation.context.setParameter(name, value)
        return StatePoint(simulation, own.potential, own.temperature, own.pressure)

    def _system(self) -> openmm.System:
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
        return rest


@dataclass(frozen=True)
class SamplingJob:
    """Everything that a worker needs to sample a state point, as data that can be pickled.

        job = SamplingJob.of(liquid, Recording(steps=20_000, every=50, record=(rdf,)))
        with Processes(2) as workers:
            result = workers.submit(job.run).result()
        samples = result.take(liquid, job.recording)

    The worker goes on from where the state point is, random numbers included, and the state point
    from where the worker ends: the same, bit for bit, as sampling here would have been. On several
    threads, or on a GPU, OpenMM may add up in another order. Reference has one stream of random
    numbers for all Contexts of a process: each job brings its own, and a process runs one job at a
    time. (A process that has a Context must not be forked: take "spawn".) A job is pickled and
    holds code: take one, or a result, only from those you trust.

    A worker keeps the Context that it has made. One who has it needs no blueprint any more.
    """

    key: str
    """Of what is the same in all jobs of a state point."""
    values: bytes
    """Parameters and buffers of the potential, pickled."""
    state: Mapping[str, str]
    """What ``StatePoint.serialize`` gave."""
    recording: Recording
    blueprint: Blueprint | None = None

    @staticmethod
    def of(
        state_point: StatePoint,
        recording: Recording,
        state: Mapping[str, str] | None = None,
        whole: bool = True,
    ) -> SamplingJob:
        """The job of sampling a state point.

        Parameters
        ----------
        state_point : StatePoint
        recording : Recording
        state : mapping, optional
            What ``serialize`` gave of where to begin. Default: where it is.
        whole : bool
            With the blueprint.

        Raises
        ------
        SamplingError
            If there are configurations to keep, as of a network, and no trajectory to keep them in.
        AttachError
            If the worker's Force would be another one than was attached.
        """
        _check_trajectory(state_point.potential, recording)
        return SamplingJob(
            key_of(state_point),
            pickle.dumps(dict(state_point.potential.state_dict())),
            state_point.serialize() if state is None else state,
            recording,
            Blueprint.of(state_point) if whole else None,
        )

    def with_blueprint(self, state_point: StatePoint) -> SamplingJob:
        """The same job of a state point, for a worker that has no Context for it."""
        return replace(self, blueprint=Blueprint.of(state_point))

    def run(self) -> SamplingResult | None:
        """Sample, in a Simulation of its own; None where there is none and no blueprint for one.

        Raises
        ------
        SamplingError, EquilibrationError
            As ``StatePoint.sample``.
        """
        with kept.alone:
            point = kept.get(self.key)
            if point is None and self.blueprint is None:
                return None
            kept.drop(self.key)  # until this has gone well
            if point is None:
                assert self.blueprint is not None
                point = self.blueprint.build(kept.device)
            result = self._sampled(point)
            kept.put(self.key, point)
        return result

    def _sampled(self, point: StatePoint) -> SamplingResult:
        point.potential.load_state_dict(pickle.loads(self.values))
        point.apply()
        point.deserialize(dict(self.state))
        steps: list[int] = []
        plan = self.recording
        start = time.perf_counter()
        samples = point.sample(**vars(plan), progress=steps.append)
        seconds = time.perf_counter() - start
        arrays = samples.arrays(list(plan.record), Path())
        return SamplingResult(arrays, point.serialize(), sum(steps), seconds)


_tokens: WeakKeyDictionary[StatePoint, str] = WeakKeyDictionary()


def key_of(state_point: StatePoint) -> str:
    """A checksum of what a state point is made of, and of which one it is, among all there are."""
    token = _tokens.setdefault(state_point, uuid4().hex)
    context = state_point.simulation.context
    learned = state_point.attached.global_parameters
    parameters = {n: v for n, v in dict(context.getParameters()).items() if n not in learned}
    whole = (
        token,
        state_point.identity() | {"box in nm": None, "density in 1/nm^3": None},
        state_point.potential.form(),
        _integrator_xml(context),
        context.getPlatform().getName(),
        _properties(context),
        parameters,
    )
    return hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()


def _integrator_xml(context: openmm.Context) -> str:
    """Without its seeds, which a state decides."""
    integrator = openmm.XmlSerializer.clone(context.getIntegrator())
    for part in seeded(integrator, openmm.System()):
        part.setRandomNumberSeed(0)
    return str(openmm.XmlSerializer.serialize(integrator))


def _properties(context: openmm.Context) -> dict[str, str]:
    return platform_properties(
        context, "Threads", "Precision", "DeviceIndex", "DeterministicForces"
    )


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
    seconds: float  # that the sampling itself took

    def take(self, state_point: StatePoint, recording: Recording) -> Samples:
        """The samples; the state point goes on from where the worker ended."""
        samples = self.samples(state_point, recording)
        state_point.deserialize(dict(self.state))
        return samples

    def samples(self, state_point: StatePoint, recording: Recording) -> Samples:
        """The samples alone."""
        return Samples.from_arrays(state_point.potential, recording.record, self.arrays, Path())
