"""A user's Simulation at a temperature and, with a barostat, a pressure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..errors import EquilibrationError, FileError, ObservableError, SamplingError, StatePointError
from ..limits import checked_whole
from ..observables import Observable, Place, Segment, SegmentObservable, parts_of
from ..potentials import Potential
from ..samples import Samples
from ..statistics.averages import detect_equilibration, drift
from ..statistics.kernels import largest_range
from ..units import MOLAR_GAS_CONSTANT, number_in_md_units, state_number
from .adapters import attached, beyond_pairs, bonds_of, charges_between, nonbonded_between
from .baths import conditions, read_pressure, read_temperature, warn_of_no_barostat
from .boxes import warn_of_other_box
from .context import box_of, masses_of
from .continuation import another_start, begin_anew, place_of, where, with_other_numbers
from .identity import rest_identity, system_identity
from .recorder import SampleReporter, check_recording, describe_particles, molecules_of
from .segments import DynamicAverage, SegmentOptions, SegmentRunner, dynamic_average
from .segments.integrators import removes_motion
from .start import check_start, too_small_for
from .xml import from_xml

MOST_DRIFT = 3.5  # standard errors
_MOST_EXTENSIONS = 4  # of a run that drifts, by half its length each


class StatePoint:
    """The user's own Simulation, with a learnable potential (or a sum of several) attached.

    Nothing of the Simulation is changed but the parameters of the potential's force: constraints,
    other forces, virtual sites and reporters stay as they are.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        Made after ``potential.attach(system)``, with positions set.
    potential : Potential
    temperature : float or Quantity, optional
        K, where there is no thermostat to read it from.
    pressure : float or Quantity, optional
        bar, where there is no isotropic barostat to read it from. None: constant volume. Where
        there is no barostat at all, runs have a constant volume, which is warned of.
    name : str
        What tables and figures call it, where there are several.

    Temperature and pressure are those that thermostat and barostat have at the moment: samples are
    labelled with what they were sampled at.

    Raises
    ------
    StatePointError
        If the temperature cannot be read (a Verlet integrator without a thermostat), thermostat,
        barostat and what is given do not agree, or the barostat is not isotropic.
    AttachError
        If the System lacks the potential's force, or the Context was made before ``attach``.
    """

    def __init__(
        self,
        simulation: Any,
        potential: Potential,
        temperature: Any = None,
        pressure: Any = None,
        name: str = "",
    ) -> None:
        self.name = name
        self.simulation = simulation
        self.potential = potential
        self._given = _given(temperature, "temperature"), _given(pressure, "pressure")
        self.attached = attached(potential, simulation.system)
        warn_of_no_barostat(simulation, self._given[1])
        warn_of_other_box(simulation, self.pressure)
        self._has_begun = False
        self.apply()

    @property
    def temperature(self) -> float:
        """K, as the thermostat is set now."""
        return read_temperature(self.simulation, self._given[0])

    @property
    def pressure(self) -> float | None:
        """bar, as the barostat is set now; None at constant volume."""
        return read_pressure(self.simulation, self._given[1])

    def apply(self) -> None:
        """Copy the potential's present parameters to the System and the live Context.

        A potential that what OpenMM runs no longer follows is warned of.
        """
        self.attached.update(self.simulation.context, self.temperature)
        self.potential.check(self.temperature)

    def snapshot(self) -> openmm.State:
        """Positions, velocities, box and parameters, to come back to with ``restore``."""
        return self.simulation.context.getState(
            getPositions=True, getVelocities=True, getParameters=True
        )

    def restore(self, snapshot: openmm.State) -> None:
        """Back to a ``snapshot``; the potential's parameters are not touched."""
        self.simulation.context.setState(snapshot)

    def serialize(self) -> dict[str, str]:
        """The Context as text: OpenMM's own checkpoint (exact, but only for the same platform and
        hardware) and, to fall back on, the State as XML.

        The Context itself goes on from the text, as ``deserialize`` does: neighbor lists, a
        barostat's step size and some random numbers are in no checkpoint, and begin anew in both.
        """
        context = self.simulation.context
        state = place_of(context)
        text = {
            "platform": context.getPlatform().getName(),
            "checkpoint": base64.b64encode(context.createCheckpoint()).decode(),
            "state": state,
            "parameters": json.dumps(dict(context.getParameters())),
            "seed": hashlib.sha256(state.encode()).hexdigest(),
            "step": str(self.simulation.currentStep),
        }
        self.deserialize(text)
        return text

    def deserialize(self, text: dict[str, str]) -> None:
        """Back to what ``serialize`` gave: what follows is the same, bit for bit, where platform,
        hardware and threads are, and OpenMM adds up in the same order.

        The Context is made anew. The random numbers of the integrator and of forces have seeds
        that follow from the state, where the checkpoint does not hold them.
        """
        context = self.simulation.context
        begin_anew(context, text["seed"])
        try:
            if text["platform"] != context.getPlatform().getName():
                raise openmm.OpenMMException("another platform")
            context.loadCheckpoint(base64.b64decode(text["checkpoint"]))
        except openmm.OpenMMException:
            context.setState(self._kept_state(text["state"]))
            for name, value in json.loads(text["parameters"]).items():
                context.setParameter(name, value)
            self.attached.update(context, self.temperature)
        self.simulation.currentStep = int(text["step"])

    def another_start(self, text: dict[str, str], number: int) -> dict[str, str]:
        """Where a replica begins: at the positions of ``text``, which ``serialize`` has just given.

        Velocities and random numbers are its own.
        """
        found = another_start(self.simulation.context, text, self.temperature, number)
        self.deserialize(text)
        return found

    def again(self, text: dict[str, str]) -> dict[str, str]:
        """The same positions and velocities as text, with other random numbers to go on with."""
        return with_other_numbers(text)

    def where(self) -> str:
        """A checksum of positions, velocities and box."""
        return where(self.simulation.context)

    def _kept_state(self, text: str) -> openmm.State:
        try:
            return from_xml(text, openmm.State)
        except FileError as error:
            raise type(error)(
                f"what the checkpoint keeps of the state at {self.temperature:g} K {error}"
            ) from error

    def identity(self) -> dict[str, Any]:
        """Everything that what is sampled here depends on, but for the learned parameters.

        Temperature and pressure, and the whole System with its box at constant volume, as plain
        data.
        """
        box = self.box() if self.pressure is None else None
        system = system_identity(self.simulation.context, self.attached, box)
        return {"temperature in K": self.temperature, "pressure in bar": self.pressure, **system}

    def rest(self) -> tuple[tuple[str, str], ...]:
        """Name and checksum of each force but the learned ones, as they act now."""
        return rest_identity(self.simulation.context, self.attached)

    def pair_types(self) -> list[NDArray[np.int64]]:
        """Type of each particle in each of the potential's ``pairs``, -1 for those left out."""
        return self.attached.pair_types()

    def type_of_tuples(self, observable: Observable) -> tuple[str, int] | None:
        """The bonded potential, by its name, and the type of it that a distribution is of alone."""
        context = self.simulation.context
        particles = describe_particles(context, bonds_of(context.getSystem()))
        counted = observable.counted_tuples(particles)
        if counted is None:
            return None
        for name, types in self.attached.tuples().items():
            for kind, tuples in enumerate(types):
                if same_tuples(counted, tuples):
                    return name, kind
        return None

    def check_observable(self, observable: Observable) -> None:
        """ObservableError where it cannot be recorded here, as its atoms are not there, say."""
        check_recording(observable, self.attached, self.simulation.context)

    def other_forces(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> list[str]:
        """Names of nonbonded forces besides the potential's own between two sets of particles."""
        names = self.attached.names
        return nonbonded_between(self.simulation.system, first, second, names)

    def charges_between(
        self, first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> tuple[float, float] | None:
        """Charges, e, of two sets of particles, if all else that acts between them is these."""
        return charges_between(self.simulation.system, first, second, self.attached.names)

    def beyond_pairs(self) -> str:
        """What else acts or holds particles together than learned pairs, for a message; or ""."""
        return beyond_pairs(self.simulation.system, self.attached)

    def box(self) -> NDArray[np.float64] | None:
        """Present box vectors, nm, [3, 3]; None where no force of the System is periodic."""
        if not self.simulation.system.usesPeriodicBoundaryConditions():
            return None
        return box_of(self.simulation.context)

    @property
    def n_particles(self) -> int:
        """Of the System."""
        return int(self.simulation.system.getNumParticles())

    @property
    def timestep(self) -> float:
        """Of the Simulation's integrator, ps."""
        return number_in_md_units(self.simulation.integrator.getStepSize(), "time")

    def place(self) -> Place:
        """What a measured curve is held against: masses, molecules, present box, temperature."""
        context, box = self.simulation.context, self.box()
        volume = None if box is None else float(np.linalg.det(box))
        masses = masses_of(context.getSystem())
        return Place(masses, molecules_of(context), volume, self.temperature)

    def number_density(self, n_atoms: int | None = None) -> float:
        """Particles (or ``n_atoms``) per nm^3 in the present box."""
        box = self.simulation.context.getState().getPeriodicBoxVolume()
        n = self.n_particles if n_atoms is None else n_atoms
        return n / float(box.value_in_unit(unit.nanometer**3))

    def sample(
        self,
        steps: int,
        every: int,
        record: Sequence[Observable] = (),
        equilibration: int = 0,
        discard_transient: bool = False,
        progress: Callable[[int], None] | None = None,
        trajectory: str | Path | None = None,
    ) -> Samples:
        """Run MD with the present parameters and record every ``every`` steps.

        Parameters
        ----------
        steps, every : int
            Steps to record over, and between frames.
        record : sequence of Observable
            What to record besides the basis sums; of a FunctionOfAverages, such as
            IsothermalCompressibility, what it is a function of.
        equilibration : int
            Steps to run first, unrecorded.
        discard_transient : bool
            Detect what is left of the transient in the recorded energy and cut it off. A run
            whose energy drifts even then goes on for half its length, up to four times, and only
            its last ``steps`` count.
        progress : callable, optional
            Called with the number of steps just done.
        trajectory : path, optional
            The DCD file that a network's frames are kept in. Default: a temporary one, which goes
            with the samples.

        Returns
        -------
        Samples

        Raises
        ------
        ObservableError
            If something to record is no Observable, or the particles do not fit it.
        StatePointError
            If no run can begin where the Simulation is, see ``check_start``; asked once. If
            thermostat and barostat do not agree, or are given other values during the run.
        SamplingError
            If the run explodes: a coordinate that is not a number, or a kinetic temperature that
            is too high by more than half the temperature and eight standard deviations; or if a
            barostat makes the box too small for a cutoff.
        EquilibrationError
            If ``discard_transient`` and the energy still drifts after all that.
        """
        steps, every = (
            checked_whole(name, number, _no_run)
            for name, number in (("steps", steps), ("every", every))
        )
        if steps < every:
            raise _no_run(f"expected steps >= every >= 1, got steps = {steps}, every = {every}")
        record = parts_of(record)
        self.apply()
        if not self._has_begun:
            check_start(self.simulation.context, self.temperature)
            self._has_begun = True
        self._step(equilibration, every, progress)
        reporter = SampleReporter(
            every,
            self.potential,
            record,
            temperature=self.temperature,
            pressure=self.pressure,
            trajectory=trajectory,
        )
        self.simulation.reporters.append(reporter)
        try:
            self._step(steps, every, progress)
            if discard_transient:
                samples = run_until_equilibrated(
                    reporter.samples, lambda: self._step(steps // 2, every, progress)
                )
            else:
                samples = reporter.samples()
        finally:
            self.simulation.reporters.remove(reporter)
        self._check_unchanged(samples)
        return samples

    def _check_unchanged(self, samples: Samples) -> None:
        """StatePointError where something set a thermostat or the barostat anew during the run."""
        before, now = ((s.temperature, s.pressure) for s in (samples, self))
        if before != now:
            raise StatePointError(
                f"the run began at {conditions(*before)} and ended at {conditions(*now)}: frames "
                "of one run have one state point; record at each in a run of its own",
                got=now,
                expected=before,
            )

    def segment(
        self,
        steps: int,
        positions: Any = None,
        velocities: Any = None,
        options: SegmentOptions = SegmentOptions(),
    ) -> Segment:
        """A trajectory segment as tensors [steps + 1, particles, 3], with a graph.

            segment = liquid.segment(200, positions=x0, velocities=v0)
            segment.velocities[-1].square().sum().backward()   # reaches liquid.potential, x0, v0

        The backward pass is the discrete adjoint of the integrator, exact to the rounding of the
        platform. Where the native force is the only one, forward and backward run in the plugin.
        Other forces count by directional differences of them, in double precision;
        ``segment.diagnostics["difference_error"]`` is their measured relative error. The
        Simulation is left as it was.

        Parameters
        ----------
        steps : int
        positions : array, Quantity or Tensor [particles, 3] or [segments, particles, 3], optional
            nm. Default: the Simulation's, with its velocities.
        velocities : likewise, optional
            nm/ps. Default: drawn from the Maxwell-Boltzmann distribution and, as OpenMM's
            setVelocitiesToTemperature does, shifted back by half a step where the integrator's
            velocities lag behind the positions.
        options : SegmentOptions
            Integrator, seed or noise, protocol, other forces, box, what is kept, and what is done
            to the adjoint.

        Raises
        ------
        SegmentError
            If the System has constraints or virtual sites, the integrator cannot be followed, or
            an argument has the wrong shape.
        SamplingError
            If the segment explodes.
        """
        self._runner.refresh(self.temperature)
        return self._runner.run(steps, positions, velocities, options)

    def dynamic_average(self, observable: SegmentObservable, samples: Samples) -> DynamicAverage:
        """<A> of segments started in equilibrium, and its total derivative, with error bars.

        ``samples`` recorded the observable: ``sample(record=[observable])``. See
        ``segments.dynamic_average``.
        """
        return dynamic_average(observable, samples)

    @cached_property
    def _runner(self) -> SegmentRunner:
        return SegmentRunner(self.potential, self.simulation.context, self.temperature)

    def _step(self, steps: int, every: int, progress: Callable[[int], None] | None) -> None:
        done = 0
        chunk = max(every, 200)
        freedom = degrees_of_freedom(self.simulation.system)
        box = self.box()
        while done < steps:
            n = min(chunk, steps - done)
            try:
                self.simulation.step(n)
                self._check_temperature(freedom)
            except openmm.OpenMMException as error:
                self.attached.raise_interrupt()
                raise self._failed(error) from error
            except ObservableError as error:
                self._check_shrinking(error, box)
                raise
            done += n
            if progress is not None:
                progress(n)

    def _failed(self, error: openmm.OpenMMException) -> SamplingError:
        step, small = self.simulation.currentStep, ""
        if "cutoff" in str(error):
            small = too_small_for(self.simulation.context)
        what = f"ended at step {step}: {small}" if small else f"exploded at step {step}: {error}"
        reason = "box" if small else "exploded"
        return SamplingError(f"the run at {self.temperature:g} K {what}", reason=reason, step=step)

    def _check_shrinking(self, error: ObservableError, before: NDArray[np.float64] | None) -> None:
        """SamplingError where a range that is counted fitted into the box as it was ``before``."""
        if error.r_max is None or before is None or error.r_max > largest_range(before):
            return
        raise SamplingError(
            f"the run at {self.temperature:g} K ended at step {self.simulation.currentStep}: the "
            f"box shrank, and {error}; or a lower pressure",
            reason="box",
            step=self.simulation.currentStep,
        ) from error

    def _check_temperature(self, freedom: int) -> None:
        measured = kinetic_temperature(self.simulation.context, freedom)
        if not measured < hottest(freedom, self.temperature):
            raise SamplingError(
                f"the run at {self.temperature:g} K exploded: the kinetic temperature is "
                f"{measured:.4g} K at step {self.simulation.currentStep}",
                reason="exploded",
                step=self.simulation.currentStep,
                measured=measured,
                expected=self.temperature,
            )


def _given(value: Any, kind: str) -> float | None:
    return None if value is None else state_number(value, kind)


def same_tuples(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Are they the same, in any order, forward or backward?"""

    def once(tuples: NDArray[np.int64]) -> set[tuple[int, ...]]:
        return {min(tuple(row), tuple(row[::-1])) for row in tuples.tolist()}

    return first.shape == second.shape and once(first) == once(second)


def run_until_equilibrated(recorded: Callable[[], Samples], extend: Callable[[], None]) -> Samples:
    """The last frames of a single run, without its transient; ``extend`` lets it run on.

    Raises
    ------
    EquilibrationError
        If the energy drifts even after the last extension.
    """
    wanted = len(recorded())
    for attempt in range(_MOST_EXTENSIONS + 1):
        if attempt:
            extend()
        samples = recorded()
        samples = samples.after(len(samples) - wanted)
        samples = samples.after(detect_equilibration(samples.run_energies()))
        measured = drift(samples.run_energies())
        if measured <= MOST_DRIFT:
            return samples
    raise EquilibrationError(
        f"the energy still drifts: over the last {len(samples)} frames it changes by "
        f"{measured:.1f} standard errors, expected at most {MOST_DRIFT}; run longer before "
        "recording",
        drift=measured,
        limit=MOST_DRIFT,
        n_frames=len(samples),
    )


def kinetic_temperature(context: openmm.Context, freedom: int) -> float:
    """2 K / (f R), in K, with f degrees of freedom."""
    energy = context.getState(energy=True).getKineticEnergy()
    kinetic = float(energy.value_in_unit(unit.kilojoule_per_mole))
    return 2 * kinetic / (freedom * MOLAR_GAS_CONSTANT)


def hottest(freedom: int, temperature: float) -> float:
    """The kinetic temperature, K, that no run at ``temperature`` comes to but one that explodes:
    half more, and eight standard deviations."""
    return temperature * (1.5 + 8 * float(np.sqrt(2 / freedom)))


def degrees_of_freedom(system: openmm.System) -> int:
    """3 per massive particle, less constraints and the removed centre-of-mass motion."""
    massive = masses_of(system) > 0
    constraints = map(system.getConstraintParameters, range(system.getNumConstraints()))
    n = 3 * int(massive.sum()) - sum(bool(massive[a] or massive[b]) for a, b, _ in constraints)
    return max(n - 3 * removes_motion(system), 1)


def _no_run(what: str, **_: Any) -> SamplingError:
    return SamplingError(what, reason="arguments")
