"""Trajectory segments of a Context, as tensors that gradients can be carried back through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import SegmentError
from ...observables import Segment
from ...potentials import Potential
from ...units import MOLAR_GAS_CONSTANT, value_in_md_units
from ..adapters import attached
from ..context import box_of, masses_of
from .fields import Field, LearnedParts, SystemField
from .integrators import Scheme, inverse_masses, read_scheme, removes_motion
from .options import SegmentOptions
from .stepping import Adjoint, BatchNoise, NativeRun, Noise, integrate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Plan:
    """What all segments of a call have in common."""

    options: SegmentOptions
    scheme: Scheme
    coefficients: Tensor  # with a graph
    protocol: Mapping[str, Tensor]
    box: Array | None
    steps: int
    adjoint: Adjoint

    @property
    def is_plain(self) -> bool:
        """Can the plugin do it, where the native force is the only one?"""
        carries_chain = self.options.every > 1 and self.scheme.chain is not None
        return not self.protocol and self.options.field is None and not carries_chain

    def with_field(self, own: Field) -> Field:
        """The forces of the System, and those of the additional field."""
        more = self.options.field
        if more is None:
            return own

        def forces(positions: Tensor, time: int) -> Tensor:
            if positions.dim() == 2:
                return own(positions, time) + more(positions, time)
            return own(positions, time) + torch.stack([more(x, time) for x in positions])

        return forces


class SegmentRunner:
    """Makes segments from a Context that has a learnable potential.

    With a pair potential the Context computes forces, on its own platform; its positions,
    velocities and box are as before afterwards. The forces of a network are computed by torch, for
    several segments at once, and all others in double precision. Within a segment the box is
    constant, and neither a barostat nor an AndersenThermostat nor a CMMotionRemover acts.

    Parameters
    ----------
    potential : Potential
    context : openmm.Context
    temperature : float
        K, of the potential and of velocities that are drawn.

    Raises
    ------
    SegmentError
        If the System has constraints or virtual sites, or the potential's adapter knows no forces
        along a segment.
    AttachError
        If it lacks the potential's force.
    """

    def __init__(self, potential: Potential, context: openmm.Context, temperature: float) -> None:
        system = context.getSystem()
        self.attached = attached(potential, system)
        _refuse_constraints(system)
        self.potential = potential
        self.context = context
        self.temperature = temperature
        self.masses = masses_of(system)
        self.learned = LearnedParts(context, self.attached.field_parts(context))
        self._removes_motion = removes_motion(system)

    def scheme(self, integrator: Any = None) -> Scheme:
        """The steps of an integrator, by default of the Context's."""
        chosen = self.context.getIntegrator() if integrator is None else integrator
        return read_scheme(chosen, self.context.getSystem())

    def refresh(self, temperature: float) -> None:
        """Take over what has changed since the last time: the System's other forces, and T in K."""
        self.temperature = temperature
        if self.learned.differences.contribute:
            self.learned.differences.refresh()

    def run(
        self,
        steps: int,
        positions: Any,
        velocities: Any,
        options: SegmentOptions,
        coefficients: Tensor | None = None,
    ) -> Segment:
        """See ``StatePoint.segment``.

        ``coefficients``, with the numbers that the potential has, take the gradient in its place.
        """
        options.check(steps)
        scheme = self.scheme(options.integrator)
        x, v, drawn = self._start(positions, velocities, options.seeds)
        noises = self._noises(options, scheme, x, steps)
        adjoint = Adjoint(scheme.timestep, self.masses, options.truncation, options.clipping)
        protocol, box = self._protocol(options.protocol, steps), self._box(options.box)
        if self.learned.in_context:
            self.attached.update(self.context, self.temperature)
        c = self.potential.coefficients(self.temperature) if coefficients is None else coefficients
        plan = _Plan(options, scheme, c, protocol, box, steps, adjoint)
        flat = (len(noises), *x.shape[-2:])
        xs, vs = self._all(plan, x.reshape(flat), v.reshape(flat), drawn, noises)
        batch = x.shape[:-2]
        return Segment(
            xs.reshape(*batch, *xs.shape[1:]),
            vs.reshape(*batch, *vs.shape[1:]),
            scheme.timestep * np.arange(0, steps + 1, options.every, dtype=np.float64),
            self.masses,
            box,
            adjoint.diagnostics,
        )

    def draw_velocities(self, seed: Any, segments: tuple[int, ...] = ()) -> Array:
        """Velocities from the Maxwell-Boltzmann distribution, nm/ps, [*segments, particles, 3].

        Where the System has a CMMotionRemover, without motion of the whole.
        """
        mass = self.masses[:, None]
        scale = np.sqrt(MOLAR_GAS_CONSTANT * self.temperature * inverse_masses(self.masses))
        rng = np.random.default_rng(seed)
        v = scale * rng.standard_normal((*segments, len(self.masses), 3))
        if self._removes_motion:
            drift = np.sum(mass * v, axis=-2, keepdims=True) / mass.sum()
            v = np.where(mass > 0, v - drift, 0.0)
        return v

    def field(
        self,
        box: Array | None,
        c: Tensor | None = None,
        protocol: Mapping[str, Tensor] | None = None,
    ) -> SystemField:
        """The forces of this System in a box, as a field; ``c`` are coefficients with a graph."""
        coefficients = self.potential.coefficients(self.temperature) if c is None else c
        return SystemField(self.learned, coefficients, box, protocol)

    def _all(
        self, plan: _Plan, x: Tensor, v: Tensor, drawn: bool, noises: list[Noise]
    ) -> tuple[Tensor, Tensor]:
        """Positions and velocities [segments, times, particles, 3], from [segments, particles, 3].

        What computes its own forces takes all segments at once; a Context takes one by one.
        """
        if not self.learned.in_context:
            v0 = self._lagging(plan, x, v) if drawn else v
            return self._by_torch(plan, x, v0, BatchNoise(tuple(noises)))
        parts = []
        for x0, start, noise in zip(x, v, noises, strict=True):
            v0 = self._lagging(plan, x0, start) if drawn else start
            parts.append(self._one(plan, x0, v0, noise))
        xs, vs = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
        return xs, vs

    def _one(self, plan: _Plan, x: Tensor, v: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """One segment of forces of the Context, in the plugin where it can do it."""
        native = self.learned.native
        if native is None or not plan.is_plain:
            return self._by_torch(plan, x, v, noise)
        every, adjoint = plan.options.every, plan.adjoint
        run = NativeRun(native, self.context, plan.scheme, noise, every, plan.box, adjoint)
        return run.run(plan.coefficients, x, v, plan.steps)

    def _by_torch(
        self, plan: _Plan, x: Tensor, v: Tensor, noise: Noise | BatchNoise
    ) -> tuple[Tensor, Tensor]:
        own = self.field(plan.box, plan.coefficients, plan.protocol)
        own.diagnostics = plan.adjoint.diagnostics
        forces, every = plan.with_field(own), plan.options.every
        with own.lent():
            return integrate(
                forces, plan.scheme, self.masses, x, v, plan.steps, noise, every, plan.adjoint
            )

    def _lagging(self, plan: _Plan, x: Tensor, drawn: Tensor) -> Tensor:
        """Velocities that belong to positions x and those drawn for the same time, with a graph.

        As OpenMM's setVelocitiesToTemperature does.
        """
        if plan.scheme.lag == 0:
            return drawn
        own = self.field(plan.box, plan.coefficients, plan.protocol)
        force = plan.with_field(own)(x, 0)
        return drawn - plan.scheme.lag * torch.from_numpy(inverse_masses(self.masses)) * force

    def _start(
        self, positions: Any, velocities: Any, seed: tuple[int, ...]
    ) -> tuple[Tensor, Tensor, bool]:
        """Positions, velocities, and whether these were drawn."""
        shape = (len(self.masses), 3)
        if positions is None:
            state = self.context.getState(getPositions=True, getVelocities=velocities is None)
            x = _tensor(state.getPositions(asNumpy=True), "length")
            if velocities is None:
                velocities = state.getVelocities(asNumpy=True)
        else:
            x = _tensor(positions, "length")
        _check_shape("positions", x, (*x.shape[:-2], *shape))
        drawn = velocities is None
        if drawn:
            velocities = self.draw_velocities((*seed, 0), tuple(x.shape[:-2]))
        v = _tensor(velocities, "velocity")
        _check_shape("velocities", v, tuple(x.shape))
        for name, start in (("positions", x), ("velocities", v)):
            if not bool(torch.isfinite(start).all()):
                raise SegmentError(f"{name}: expected finite numbers to start from, got NaN or inf")
        return x, v, drawn

    def _noises(
        self, options: SegmentOptions, scheme: Scheme, x: Tensor, steps: int
    ) -> list[Noise]:
        """Of each segment that starts at x [..., particles, 3]."""
        given = options.noise
        if given is not None:
            if scheme.chain is not None:
                raise SegmentError("noise: expected none with a Nose-Hoover chain")
            given = _tensor(given)
            _check_shape("noise", given, (*x.shape[:-2], steps, *x.shape[-2:]))
        scale = scheme.noise_scale(self.masses)
        return [
            Noise(scale, (*options.seeds, 1, *index), None if given is None else given[index])
            for index in np.ndindex(x.shape[:-2])
        ]

    def _box(self, box: Any) -> Array | None:
        if not self.context.getSystem().usesPeriodicBoundaryConditions():
            return None
        if box is None:
            return box_of(self.context)
        vectors = np.asarray(value_in_md_units(box, "length"), dtype=np.float64)
        _check_shape("box", vectors, (3, 3))
        return vectors

    def _protocol(self, protocol: Mapping[str, Any] | None, steps: int) -> dict[str, Tensor]:
        known = self.context.getParameters()
        values = {name: _tensor(series) for name, series in (protocol or {}).items()}
        for name, series in values.items():
            if name not in known:
                raise SegmentError(
                    f"protocol: the Context has no global parameter {name!r}, only "
                    f"{', '.join(sorted(known)) or 'none'}",
                    got=name,
                )
            _check_shape(f"protocol[{name!r}]", series, (steps + 1,))
        return values


def _tensor(values: Any, kind: str | None = None) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(torch.float64)
    plain = values if kind is None else value_in_md_units(values, kind)
    return torch.from_numpy(np.array(plain, dtype=np.float64))


def _check_shape(name: str, values: Any, expected: tuple[int, ...]) -> None:
    if tuple(values.shape) != tuple(expected):
        raise SegmentError(
            f"{name}: expected the shape {tuple(expected)}, got {tuple(values.shape)}",
            got=tuple(values.shape),
        )


def _refuse_constraints(system: openmm.System) -> None:
    if system.getNumConstraints() > 0:
        raise SegmentError(
            f"a segment cannot follow constraints, and the System has {system.getNumConstraints()}:"
            " give the bonds a force instead, or use reweighting alone",
            got=system.getNumConstraints(),
        )
    sites = sum(system.isVirtualSite(i) for i in range(system.getNumParticles()))
    if sites:
        raise SegmentError(
            f"a segment cannot follow virtual sites, and the System has {sites}", got=sites
        )
