"""Trajectory segments of a Context, as tensors that gradients can be carried back through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor

from ...errors import SegmentError
from ...observables import Segment
from ...potentials import NetworkPotential, PairPotential, Potential
from ...units import MOLAR_GAS_CONSTANT, value_in_md_units
from ..adapters import attached
from ..native import SplinePairForce
from .fields import ContextField, DifferenceContext, Field, SystemField, box_of
from .integrators import Scheme, inverse_masses, read_scheme, removes_motion
from .network_field import NetworkField
from .stepping import Adjoint, BatchNoise, NativeRun, Noise, integrate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Plan:
    """What all segments of a call have in common."""

    scheme: Scheme
    coefficients: Tensor  # with a graph
    protocol: Mapping[str, Tensor]
    field: Field | None
    box: Array | None
    steps: int
    every: int
    adjoint: Adjoint

    @property
    def is_plain(self) -> bool:
        """Can the plugin do it, where the native force is the only one?"""
        carries_chain = self.every > 1 and self.scheme.chain is not None
        return not self.protocol and self.field is None and not carries_chain

    def with_field(self, own: Field) -> Field:
        """The forces of the System, and those of the additional field."""
        more = self.field
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
        If the System has constraints or virtual sites.
    AttachError
        If it lacks the potential's force.
    """

    def __init__(self, potential: Potential, context: openmm.Context, temperature: float) -> None:
        system = context.getSystem()
        self.attached = attached(potential, system)
        force = self.attached.force
        _refuse_constraints(system)
        self.potential = potential
        self.context = context
        self.temperature = temperature
        self.force = force
        n = system.getNumParticles()
        masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(n)]
        self.masses = np.array(masses)
        self.periodic = force.usesPeriodicBoundaryConditions()
        self._removes_motion = removes_motion(system)
        self._make_field: Callable[..., SystemField]
        if isinstance(potential, PairPotential):
            self.differences = DifferenceContext(context, force, potential.basis)
            sums = self.attached.sums(context, np.arange(n))
            self._make_field = partial(ContextField, context, force, potential.basis, sums)
        else:
            assert isinstance(potential, NetworkPotential)
            self.differences = DifferenceContext(context, force, None)
            types = self.attached.types()
            self._make_field = partial(NetworkField, potential, types, context)

    def scheme(self, integrator: Any = None) -> Scheme:
        """The steps of an integrator, by default of the Context's."""
        chosen = self.context.getIntegrator() if integrator is None else integrator
        return read_scheme(chosen, self.context.getSystem())

    def run(
        self,
        steps: int,
        positions: Any = None,
        velocities: Any = None,
        *,
        integrator: Any = None,
        seed: int | tuple[int, ...] = 1,
        noise: Tensor | None = None,
        protocol: Mapping[str, Any] | None = None,
        field: Field | None = None,
        box: Any = None,
        every: int = 1,
        truncation: int | None = None,
        clipping: float | None = None,
        coefficients: Tensor | None = None,
    ) -> Segment:
        """See ``StatePoint.segment``.

        ``coefficients``, with the numbers that the potential has, take the gradient in its place.
        """
        scheme = self.scheme(integrator)
        seeds = (seed,) if isinstance(seed, int) else seed
        x, v, drawn = self._start(positions, velocities, seeds)
        _check(steps, every, truncation, clipping)
        values = self._protocol(protocol, steps)
        if noise is not None:
            if scheme.chain is not None:
                raise SegmentError("noise: expected none with a Nose-Hoover chain")
            noise = _tensor(noise)
            _check_shape("noise", noise, (*x.shape[:-2], steps, *x.shape[-2:]))
        vectors = self._box(box)
        adjoint = Adjoint(scheme.timestep, self.masses, truncation, clipping)
        if self.differences.contribute:
            self.differences.refresh()
        if isinstance(self.potential, PairPotential):
            self.attached.update(self.context, self.temperature)
        c = self.potential.coefficients(self.temperature) if coefficients is None else coefficients
        plan = _Plan(scheme, c, values, field, vectors, steps, every, adjoint)
        batch = x.shape[:-2]
        scale = scheme.noise_scale(self.masses)
        noises = [
            Noise(scale, (*seeds, 1, *index), None if noise is None else noise[index])
            for index in np.ndindex(batch)
        ]
        flat = (len(noises), *x.shape[-2:])
        xs, vs = self._all(plan, x.reshape(flat), v.reshape(flat), drawn, noises)
        return Segment(
            xs.reshape(*batch, *xs.shape[1:]),
            vs.reshape(*batch, *vs.shape[1:]),
            scheme.timestep * np.arange(0, steps + 1, every, dtype=np.float64),
            self.masses,
            vectors,
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
        return self._make_field(coefficients, self.differences, box, protocol)

    @property
    def is_native(self) -> bool:
        """Is the learned force native, and the only one there is?"""
        return isinstance(self.force, SplinePairForce) and not self.differences.contribute

    def _all(
        self, plan: _Plan, x: Tensor, v: Tensor, drawn: bool, noises: list[Noise]
    ) -> tuple[Tensor, Tensor]:
        """Positions and velocities [segments, times, particles, 3], from [segments, particles, 3].

        A network takes all segments at once; with a pair potential there is nothing to gain.
        """
        if isinstance(self.potential, NetworkPotential):
            v0 = self._lagging(plan, x, v) if drawn else v
            return self._by_torch(plan, x, v0, BatchNoise(tuple(noises)))
        one = self._natively if self.is_native and plan.is_plain else self._by_torch
        parts = []
        for x0, start, noise in zip(x, v, noises, strict=True):
            v0 = self._lagging(plan, x0, start) if drawn else start
            parts.append(one(plan, x0, v0, noise))
        xs, vs = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
        return xs, vs

    def _natively(self, plan: _Plan, x: Tensor, v: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        assert isinstance(self.force, SplinePairForce)
        assert isinstance(self.potential, PairPotential)
        run = NativeRun(
            self.force,
            self.context,
            self.potential.basis,
            plan.scheme,
            noise,
            plan.every,
            plan.box,
            plan.adjoint,
        )
        return run.run(plan.coefficients, x, v, plan.steps)

    def _by_torch(
        self, plan: _Plan, x: Tensor, v: Tensor, noise: Noise | BatchNoise
    ) -> tuple[Tensor, Tensor]:
        own = self.field(plan.box, plan.coefficients, plan.protocol)
        own.diagnostics = plan.adjoint.diagnostics
        forces = plan.with_field(own)
        with own.lent():
            return integrate(
                forces, plan.scheme, self.masses, x, v, plan.steps, noise, plan.every, plan.adjoint
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

    def _box(self, box: Any) -> Array | None:
        if not self.periodic:
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


def _check(steps: int, every: int, truncation: int | None, clipping: float | None) -> None:
    if steps < 1 or every < 1 or steps % every:
        raise SegmentError(
            "expected steps >= 1, and every a divisor of it, got "
            f"steps = {steps} and every = {every}"
        )
    if truncation is not None and truncation < 1:
        raise SegmentError(
            f"truncation: expected at least one step, got {truncation}", got=truncation
        )
    if clipping is not None and not clipping >= 1:
        raise SegmentError(f"clipping: expected a number >= 1, got {clipping}", got=clipping)
    if every > 1 and (truncation is not None or clipping is not None):
        raise SegmentError(
            f"truncation and clipping follow the adjoint at every step: expected every = 1 with "
            f"them, got {every}",
            got=every,
        )


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
