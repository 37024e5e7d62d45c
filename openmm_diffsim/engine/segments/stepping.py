"""Integrating a segment so that gradients can be carried back through it.

There are two ways, with the same result: ``integrate`` takes any differentiable field and leaves
the adjoint of a step to torch; ``NativeRun`` runs forward and backward inside the plugin, where
the learned force is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ...errors import SamplingError
from ...units import MOLAR_GAS_CONSTANT
from ..adapters import FieldPart
from ..native import ChainThermostat, SegmentGradient, SegmentPropagator, SegmentRun
from .fields import Field
from .integrators import Scheme, inverse_masses

Array = NDArray[np.float64]

_MOST_NOISE = 8_000_000  # numbers of noise in memory at once
_LEAST_KINETIC_ENERGY = 1e-8  # kJ/mol, below which OpenMM lets a Nose-Hoover chain rest
_FARTHEST = 1e9  # nm, from the origin: beyond it, a segment has exploded, as in the plugin


@dataclass(frozen=True)
class Noise:
    """The noise of a segment: given, or made of a seed whenever it is needed."""

    scale: Array  # standard deviation, nm/ps, [particles, 1]
    seed: tuple[int, ...]
    given: Tensor | None = None  # [steps, particles, 3], nm/ps

    def steps(self, first: int, last: int) -> Array | None:
        """Noise of the steps from ``first`` to before ``last``, or None where there is none."""
        if self.given is not None:
            return self.given[first:last].numpy(force=True)
        if not self.scale.any():
            return None
        noise = np.empty((last - first, len(self.scale), 3))
        for row, step in zip(noise, range(first, last), strict=True):
            # A stream of random numbers for each step, which can so be made again by itself.
            stream = np.random.Philox(key=self._key, counter=[0, 0, 0, step])
            np.random.Generator(stream).standard_normal(out=row)
        return noise * self.scale

    @cached_property
    def _key(self) -> NDArray[np.uint64]:
        return np.asarray(np.random.SeedSequence(self.seed).generate_state(2, np.uint64), np.uint64)

    def tensor(self, step: int) -> Tensor | None:
        """Noise of one step, with its graph where it was given."""
        if self.given is not None:
            return self.given[step]
        noise = self.steps(step, step + 1)
        return None if noise is None else torch.from_numpy(noise[0])


@dataclass(frozen=True)
class BatchNoise:
    """The noise of several segments at once."""

    segments: tuple[Noise, ...]

    def tensor(self, step: int) -> Tensor | None:
        """Noise of one step, [segments, particles, 3]."""
        found = [noise.tensor(step) for noise in self.segments]
        parts = [part for part in found if part is not None]
        return torch.stack(parts) if parts else None


@dataclass(frozen=True)
class Adjoint:
    """What is done to the adjoint on its way back, and what is learned about it."""

    timestep: float  # ps
    masses: Array
    truncation: int | None = None
    clipping: float | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)


# Any field: torch's own backpropagation, one step at a time ---------------------------------------


def integrate(
    force: Field,
    scheme: Scheme,
    masses: Array,
    x: Tensor,
    v: Tensor,
    steps: int,
    noise: Noise | BatchNoise,
    every: int,
    adjoint: Adjoint,
) -> tuple[Tensor, Tensor]:
    """Positions and velocities [steps / every + 1, particles, 3] from x, v [particles, 3].

    Several segments at once have a leading dimension, and a force that takes them at once.

    With ``every`` > 1 only every so many times are kept; the stretches between them are integrated
    again when gradients are carried back.
    """
    if not (x.requires_grad or v.requires_grad) and force(x, 0).requires_grad:
        x = x.detach().requires_grad_(True)  # so that the adjoint comes as far as the start
    stepper = _Stepper(force, scheme, masses, noise, _Watch(adjoint, steps, every))
    state = stepper.watch(0, x, v, stepper.first_chain(x))
    xs, vs = [state[0]], [state[1]]
    for first in range(0, steps, every):
        if every > 1:
            state = checkpoint(stepper.stretch, first, every, *state, use_reentrant=False)
        else:
            state = stepper.stretch(first, 1, *state)
        xs.append(state[0])
        vs.append(state[1])
    return torch.stack(xs, dim=-3), torch.stack(vs, dim=-3)


State = tuple[Tensor, Tensor, Tensor]  # positions, velocities, velocities of the chain


class _Stepper:
    def __init__(
        self, force: Field, scheme: Scheme, masses: Array, noise: Noise | BatchNoise, watch: _Watch
    ) -> None:
        self.force = force
        self.scheme = scheme
        self.noise = noise
        self.watch = watch
        self.masses = torch.from_numpy(masses)[:, None]
        self.inverse = torch.from_numpy(inverse_masses(masses))
        self.moves = (self.masses > 0).to(torch.float64)
        self._last: tuple[int, Tensor] | None = None  # the force at a time, for two kicks

    def first_chain(self, x: Tensor) -> Tensor:
        chain = self.scheme.chain
        length = 0 if chain is None else chain.length
        return torch.zeros(*x.shape[:-2], length, dtype=torch.float64)

    def stretch(self, first: int, steps: int, x: Tensor, v: Tensor, chain: Tensor) -> State:
        self._last = None
        for step in range(first, first + steps):
            x, v, chain = self.step(step, x, v, chain)
        return x, v, chain

    def step(self, step: int, x: Tensor, v: Tensor, chain: Tensor) -> State:
        kick1, drift1, scale, drift2, kick2 = self.scheme.splitting
        x, v, chain = self.watch.cut(step, x, v, chain)
        v1 = v + kick1 * self.inverse * self._force(x, step)
        if self.scheme.chain is not None:
            twice_kinetic = torch.sum(self.masses * v1**2, dim=(-2, -1))
            factor, chain = propagate(self.scheme.chain, self.scheme.timestep, twice_kinetic, chain)
            v2 = factor[..., None, None] * v1
        else:
            v2 = scale * v1
        noise = self.noise.tensor(step)
        if noise is not None:
            v2 = v2 + noise
        v2 = self.moves * v2 + (1 - self.moves) * v
        x = x + self.moves * (drift1 * v1 + drift2 * v2)
        _refuse_explosion(x, step + 1)  # no force is asked for there
        x, v, chain = self.watch(step + 1, x, v2, chain)  # before the last kick, as the plugin
        if kick2:
            v = v + kick2 * self.inverse * self._force(x, step + 1)
        return x, v, chain

    def _force(self, x: Tensor, time: int) -> Tensor:
        """Taken once for the two kicks at a time; a cut between them takes it twice."""
        if self._last is None or self._last[0] != time or self.watch.cuts:
            self._last = (time, self.force(x, time))
        return self._last[1]


class _Watch:
    """Sees the adjoint at every time, the last first: measures, clips and cuts it."""

    def __init__(self, adjoint: Adjoint, steps: int, every: int) -> None:
        self.adjoint = adjoint
        self.every = every  # of how many steps one is kept
        self.cuts = adjoint.truncation is not None
        self.scale = torch.from_numpy(inverse_masses(adjoint.masses))
        self.steps = steps
        self.reached = -1  # how far back this pass has come
        self.latest = torch.tensor(-1)  # where the adjoint of each segment started
        self.reference = torch.tensor(0.0)  # its size there

    def __call__(self, time: int, *state: Tensor) -> State:
        return _Seen.apply(self.see, time, *state)  # type: ignore[no-untyped-call]

    def cut(self, time: int, *state: Tensor) -> State:
        if not self.cuts:
            return state  # type: ignore[return-value]
        return _Seen.apply(self.drop, time, *state)  # type: ignore[no-untyped-call]

    def see(self, time: int, *gradients: Tensor) -> tuple[Tensor, ...]:
        gx, gv, chain = gradients
        squares = self.scale * ((self.adjoint.timestep * gx) ** 2 + gv**2)
        size = torch.sqrt(squares.sum(dim=(-2, -1)))
        if time >= self.reached:  # another pass
            self.latest = torch.full(size.shape, -1)
            self.reference = torch.zeros_like(size)
            self.adjoint.diagnostics["growth"] = np.zeros(self.steps // self.every + 1)
        self.reached = time
        starts = (self.latest < 0) & (size > 0)
        self.latest = torch.where(starts, time, self.latest)
        self.reference = torch.where(starts, size, self.reference)
        if time % self.every == 0:
            self.adjoint.diagnostics["growth"][time // self.every] = float(size.norm())
        if self.adjoint.clipping is None:
            return gradients
        most = self.adjoint.clipping * self.reference
        factor = torch.where(size > most, most / size, 1.0)
        return gx * factor[..., None, None], gv * factor[..., None, None], chain * factor[..., None]

    def drop(self, time: int, *gradients: Tensor) -> tuple[Tensor, ...]:
        assert self.adjoint.truncation is not None
        dropped = (time < self.latest) & ((self.latest - time) % self.adjoint.truncation == 0)
        gx, gv, chain = gradients
        whole = dropped[..., None, None]
        return (
            torch.where(whole, 0.0, gx),
            torch.where(whole, 0.0, gv),
            torch.where(dropped[..., None], 0.0, chain),
        )


class _Seen(torch.autograd.Function):
    """The identity; what goes back passes through a function."""

    @staticmethod
    def forward(ctx: Any, function: Any, time: int, *state: Tensor) -> tuple[Tensor, ...]:
        ctx.function, ctx.time = function, time
        return tuple(part.view_as(part) for part in state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return (None, None, *ctx.function(ctx.time, *gradients))


# The Nose-Hoover chain ----------------------------------------------------------------------------


def propagate(
    chain: ChainThermostat, timestep: float, twice_kinetic: Tensor, velocities: Tensor
) -> tuple[Tensor, Tensor]:
    """What to scale velocities with, and the new velocities of the chain, [..., length].

    Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996), with the time step split by
    Yoshida and Suzuki's weights, as in OpenMM, whose chain rests where nothing moves.
    """
    moves = twice_kinetic.detach() >= 2 * _LEAST_KINETIC_ENERGY
    thermal = MOLAR_GAS_CONSTANT * chain.temperature
    masses = [thermal / chain.frequency**2] * chain.length
    masses[0] *= chain.degreesOfFreedom
    v = list(velocities.unbind(dim=-1))
    scale = torch.ones_like(twice_kinetic)

    def force(bead: int) -> Tensor:
        if bead == 0:
            excess = scale**2 * twice_kinetic - chain.degreesOfFreedom * thermal
        else:
            excess = masses[bead - 1] * v[bead - 1] ** 2 - thermal
        return excess / masses[bead]

    def kick(bead: int, dt: float) -> None:
        if bead == chain.length - 1:
            v[bead] = v[bead] + 0.5 * dt * force(bead)
        else:
            drag = torch.exp(-0.25 * dt * v[bead + 1])
            v[bead] = drag * (drag * v[bead] + 0.5 * dt * force(bead))

    for weight in _YOSHIDA_SUZUKI[chain.yoshidaSuzuki] * chain.multipleTimeSteps:
        dt = weight * timestep / chain.multipleTimeSteps
        for bead in reversed(range(chain.length)):
            kick(bead, dt)
        scale = scale * torch.exp(-dt * v[0])
        for bead in range(chain.length):
            kick(bead, dt)
    chained = torch.where(moves[..., None], torch.stack(v, dim=-1), velocities)
    return torch.where(moves, scale, 1.0), chained


_YOSHIDA_SUZUKI = {  # those of OpenMM, by their number
    1: [1.0],
    3: [0.828981543588751, -0.657963087177502, 0.828981543588751],
    5: [0.2967324292201065] * 2 + [-0.186929716880426] + [0.2967324292201065] * 2,
    7: [
        *(0.784513610477560, 0.235573213359357, -1.17767998417887, 1.31518632068391),
        *(-1.17767998417887, 0.235573213359357, 0.784513610477560),
    ],
}


# The native force alone: the plugin does it -------------------------------------------------------


class NativeRun:
    """One segment of a System whose only force is a native one."""

    def __init__(
        self,
        part: FieldPart,
        context: openmm.Context,
        scheme: Scheme,
        noise: Noise,
        every: int,
        box: Array | None,
        adjoint: Adjoint,
    ) -> None:
        assert part.native is not None
        self.part = part
        self.propagator = SegmentPropagator(
            context, part.native, scheme.splitting, scheme.chain, box
        )
        self.noise = noise
        self.every = every
        self.adjoint = adjoint

    def run(self, c: Tensor, x: Tensor, v: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Positions and velocities [steps / every + 1, particles, 3], with a graph."""
        return _NativeSegment.apply(self, steps, c, x, v, self.noise.given)  # type: ignore[no-untyped-call]

    def forward(self, first: int, last: int, x: Array, v: Array, chain: Array | None) -> SegmentRun:
        """The steps from ``first`` to before ``last``."""
        try:
            return self.propagator.integrate(
                x, v, last - first, self.noise.steps(first, last), chain
            )
        except openmm.OpenMMException as error:
            if "exploded" not in str(error):
                raise
            raise SamplingError(str(error), reason="exploded") from error

    def backward(
        self, run: SegmentRun, gx: Array, gv: Array, include_noise: bool
    ) -> SegmentGradient:
        """The adjoint of what ``forward`` gave."""
        return self.propagator.computeGradient(
            run.positions,
            gx,
            gv,
            velocities=run.velocities,
            chainStates=run.chainStates,
            includeNoise=include_noise,
            truncation=self.adjoint.truncation or 0,
            clipping=self.adjoint.clipping or 0.0,
        )


class _NativeSegment(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: NativeRun, steps: int, c: Tensor, x: Tensor, v: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        n, every = len(x), run.every
        xs = np.empty((steps // every + 1, n, 3))
        vs = np.empty_like(xs)
        xs[0], vs[0] = x.numpy(force=True), v.numpy(force=True)
        chains: list[Array] = []
        length = every if every > 1 else min(steps, max(1, _MOST_NOISE // (3 * n)))
        with run.part.having(c.numpy(force=True)):
            for first in range(0, steps, length):
                last, row = min(first + length, steps), first // every
                part = run.forward(first, last, xs[row], vs[row], chains[-1] if chains else None)
                xs[row + 1 : last // every + 1] = part.positions[every::every]
                vs[row + 1 : last // every + 1] = part.velocities[every::every]
                if part.chainStates is not None:
                    chains.extend(part.chainStates[every if chains else 0 :: every])
        positions, velocities = torch.from_numpy(xs), torch.from_numpy(vs)
        ctx.run, ctx.steps, ctx.chains = run, steps, chains
        ctx.save_for_backward(positions, velocities, c)
        return positions, velocities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gx: Tensor, gv: Tensor) -> tuple[Any, ...]:
        run: NativeRun = ctx.run
        xs, vs, c = (saved.numpy() for saved in ctx.saved_tensors)
        wants_noise = ctx.needs_input_grad[5]
        with run.part.having(c):
            pull = _whole if run.every == 1 else _by_stretches
            found = pull(ctx, run, xs, vs, gx.contiguous().numpy(), gv.contiguous().numpy())
        run.adjoint.diagnostics["growth"] = found.growth[:: run.every]
        noise = torch.from_numpy(found.noise) if wants_noise else None
        parts = (found.parameters.ravel(), found.positions, found.velocities)
        return (None, None, *map(torch.from_numpy, parts), noise)


def _whole(ctx: Any, run: NativeRun, xs: Array, vs: Array, gx: Array, gv: Array) -> SegmentGradient:
    chains = np.array(ctx.chains) if ctx.chains else None
    return run.backward(SegmentRun(xs, vs, chains), gx, gv, ctx.needs_input_grad[5])


def _by_stretches(
    ctx: Any, run: NativeRun, xs: Array, vs: Array, gx: Array, gv: Array
) -> SegmentGradient:
    """From the last stretch to the first, each integrated again from where it started.

    Without a chain, whose adjoint would have to be carried over.
    """
    every, n_stretches = run.every, len(xs) - 1
    x, v = gx[-1], gv[-1]
    parameters: Array | float = 0.0
    noises, growth = [], []
    for row in reversed(range(n_stretches)):
        part = run.forward(row * every, (row + 1) * every, xs[row], vs[row], None)
        seeds_x, seeds_v = np.zeros_like(part.positions), np.zeros_like(part.positions)
        seeds_x[-1], seeds_v[-1] = x, v
        found = run.backward(part, seeds_x, seeds_v, ctx.needs_input_grad[5])
        x, v = found.positions + gx[row], found.velocities + gv[row]
        parameters = parameters + found.parameters
        growth.append(found.growth[1:][::-1])
        if found.noise is not None:
            noises.append(found.noise)
    flat = np.concatenate([*growth, found.growth[:1]])[::-1]
    noise = np.concatenate(noises[::-1]) if noises else None
    return SegmentGradient(np.asarray(parameters), x, v, noise, flat, None)


def _refuse_explosion(x: Tensor, step: int) -> None:
    if not bool((x.detach().abs() < _FARTHEST).all()):  # nor is NaN
        raise SamplingError(f"the segment exploded at step {step}", reason="exploded", step=step)
