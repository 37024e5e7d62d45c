"""Segments of trajectories, and gradients that are carried back through them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import openmm
from numpy.typing import ArrayLike

from . import libraries
from .calls import Array, as_array, as_boxes, as_shape, call, checked
from .force import SplinePairForce


@dataclass(frozen=True)
class ChainThermostat:
    """A Nose-Hoover chain on all particles with mass, as that of OpenMM's NoseHooverIntegrator.

    It makes the scale of a step of the form (dt, dt/2, scale, dt/2, 0) a function of the kinetic
    energy of v1 and of the chain's own state, the positions of its ``length`` thermostats and then
    their velocities in 1/ps. Its masses are kT/frequency^2, the first n times as large; its
    propagator is that of Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), with
    multiple time steps and 1, 3, 5 or 7 Yoshida-Suzuki weights. OpenMM takes 3 per massive
    particle for the degrees of freedom n, and 3 less where there is a CMMotionRemover.

    Raises
    ------
    TypeError
        If one of the last four numbers is not whole.
    openmm.OpenMMException
        If a number is out of range.
    """

    temperature: float  # K
    frequency: float  # 1/ps
    degreesOfFreedom: int
    length: int = 3
    multipleTimeSteps: int = 3
    yoshidaSuzuki: int = 7

    def __post_init__(self) -> None:
        for number in astuple(self)[2:]:
            operator.index(number)
        if libraries.api is not None:
            call("checkChain", as_array(astuple(self)))


@dataclass(frozen=True)
class SegmentRun:
    """A trajectory segment as it was integrated; positions are never wrapped into the box."""

    positions: Array  # [steps + 1, particles, 3], nm
    velocities: Array  # [steps + 1, particles, 3], nm/ps
    chainStates: Array | None  # [steps + 1, 2 * length]: positions, then velocities in 1/ps


@dataclass(frozen=True)
class SegmentGradient:
    """Gradient of a function L of a trajectory segment."""

    parameters: Array  # dL/dc, [pairs of types, coefficients]
    positions: Array  # dL/dx(0), [particles, 3]
    velocities: Array  # dL/dv(0), [particles, 3]
    noise: Array | None  # dL/d(noise), [steps, particles, 3]; None if not asked for
    growth: Array  # norm of the adjoint at each time, [steps + 1]; zero where nothing follows
    chainState: Array | None  # dL/d(chainState at 0), [2 * length]; None without a chain


class SegmentPropagator:
    """Integrates segments of trajectories in a Context, and carries gradients back through them.

    A segment consists of steps of the form

        v1 = v + kick1 F(x)/m;  x1 = x + drift1 v1;  v2 = scale v1 + noise;
        x' = x1 + drift2 v2;    v' = v2 + kick2 F(x')/m.

    Particles without mass do not move, whatever the kicks and the noise.

    Parameters
    ----------
    context : openmm.Context
        Whose forces act, on its platform.
    force : SplinePairForce
        One of its System; gradients are with respect to its coefficients.
    splitting : (kick1, drift1, scale, drift2, kick2)
        ps. VerletIntegrator: (dt, dt, 1, 0, 0). Velocity Verlet: (dt/2, dt, 1, 0, dt/2).
        LangevinMiddleIntegrator: (dt, dt/2, exp(-friction dt), dt/2, 0).
        NoseHooverIntegrator: the same with a chain, and any scale.
    chain : ChainThermostat, optional
        Takes the place of the scale; goes with steps (dt, dt/2, any, dt/2, 0) and no noise.
    box : array [3, 3], optional
        nm, constant along each segment. Default: the one that the Context then has.

    Raises
    ------
    openmm.OpenMMException
        Here and in the methods: if an argument is out of range, or the System has constraints or
        virtual sites.
    """

    def __init__(
        self,
        context: openmm.Context,
        force: SplinePairForce,
        splitting: Sequence[float],
        chain: ChainThermostat | None = None,
        box: ArrayLike | None = None,
    ) -> None:
        if len(splitting) != 5:
            raise openmm.OpenMMException(
                "SplinePairForce: expected five numbers in splitting (kick1, drift1, scale, "
                f"drift2, kick2), got {len(splitting)}"
            )
        self.context = checked(context)
        self.force = force
        self.splitting = as_array(splitting)
        self.chain = chain
        self.box = None if box is None else as_boxes(box, 1)

    def integrate(
        self,
        positions: ArrayLike,
        velocities: ArrayLike,
        steps: int,
        noise: ArrayLike | None = None,
        chainState: ArrayLike | None = None,
    ) -> SegmentRun:
        """Integrate a segment from given positions and velocities, in one native call.

        Positions and velocities are in double precision; forces are those of the Context's
        platform, of all Forces in the force groups of its integrator, each computed once per
        stored time. Nothing else acts: barostats, CMMotionRemover and AndersenThermostat do not.
        Positions and box of the Context are put back at the end, also after an error; its
        velocities, time and parameters are not touched.

        Parameters
        ----------
        positions, velocities : array [particles, 3], nm and nm/ps
            The start, whose box images do not matter.
        steps : int
        noise : array [steps, particles, 3], optional
            nm/ps, as LangevinMiddleIntegrator draws it. Default: none.
        chainState : array [2 * length], optional
            Of the chain at the start. Default: zeros, as for a new NoseHooverIntegrator.

        Raises
        ------
        openmm.OpenMMException
            If the segment explodes: a force or velocity is not finite, or a coordinate beyond
            1e9 nm.
        """
        steps, n = operator.index(steps), self.force.getNumParticles()
        if steps < 0:
            raise openmm.OpenMMException(f"SplinePairForce: expected steps >= 0, got {steps}")
        x, v = np.zeros((2, steps + 1, n, 3))
        x[0] = as_shape("positions", positions, (n, 3))
        v[0] = as_shape("velocities", velocities, (n, 3))
        states = self._chain_states(steps + 1)
        if states is not None and chainState is not None:
            states[0] = as_shape("chainState", chainState, states[0].shape)
        noise = None if noise is None else as_shape("noise", noise, (steps, n, 3))
        call("integrateSegment", *self._arguments(), steps, x, v, noise, states)
        return SegmentRun(x, v, states)

    def computeGradient(
        self,
        positions: ArrayLike,
        positionGradients: ArrayLike | None = None,
        velocityGradients: ArrayLike | None = None,
        *,
        velocities: ArrayLike | None = None,
        chainStates: ArrayLike | None = None,
        includeNoise: bool = False,
        truncation: int = 0,
        clipping: float = 0.0,
    ) -> SegmentGradient:
        """Carry a gradient back through a whole stored segment, in one native call.

        The segment was integrated with this force alone; the result is the discrete adjoint of
        its steps, exact to rounding. Masses are those of the System, parameters those that the
        Context has now. With a chain, the scale is what the chain made it. Of a segment that
        other Forces acted on as well, only what this force does is carried back: callers take
        care.

        Parameters
        ----------
        positions : array [steps + 1, particles, 3], nm
        positionGradients : array [steps + 1, particles, 3], optional
            How L depends on each stored position directly. Default: not.
        velocityGradients : array [steps + 1, particles, 3], optional
            Likewise for velocities. Times after the last that L depends on cost nothing.
        velocities : array [steps + 1, particles, 3], nm/ps
            As ``integrate`` gave them; only needed with a chain.
        chainStates : array [steps + 1, 2 * length]
            As ``integrate`` gave them; only needed with a chain.
        includeNoise : bool
            Also give dL/d(noise), which is the adjoint of v2.
        truncation : int
            With t the last time that L depends on, the adjoint of the state is dropped at
            t - truncation, t - 2 truncation, ...: what follows a stretch of so many steps is
            taken to depend on the parameters there, not on the state that it starts from.
            0: never.
        clipping : float
            At least 1. Where the growth exceeds ``clipping`` times its value at t, the adjoint is
            scaled down to that. 0: never.

        Returns
        -------
        SegmentGradient
            Its growth is sqrt(sum of (abs(dL/dx)^2 dt^2 + abs(dL/dv)^2)/m) over particles with
            mass, dt being drift1 + drift2, before any clipping at that time. dL/dx and dL/dv are
            those of the state (x, v) at a stored time, but that with a last kick v is taken before
            that kick.
        """
        x = self._times(positions)
        gx, gv = positionGradients, velocityGradients
        given = {"positionGradients": gx, "velocityGradients": gv, "velocities": velocities}
        checked_times = [self._alike(name, array, x) for name, array in given.items()]
        states = None if chainStates is None else self._chain_states(len(x))
        if states is not None and chainStates is not None:
            states = as_shape("chainStates", chainStates, states.shape)
        found = self._empty_gradient(len(x), includeNoise)
        gx, gv, v = checked_times
        call(
            "computeSegmentGradient", *self._arguments(), len(x) - 1, x, v, states, gx, gv,
            operator.index(truncation), float(clipping), found.parameters, found.positions,
            found.velocities, found.growth, found.noise, found.chainState,
        )  # fmt: skip
        return found

    def _arguments(self) -> tuple[object, ...]:
        """What the C interface makes its propagator from."""
        chain = None if self.chain is None else as_array(astuple(self.chain))
        return self.force, self.context, self.splitting, chain, self.box

    def _chain_states(self, times: int) -> Array | None:
        return None if self.chain is None else np.zeros((times, 2 * self.chain.length))

    def _times(self, positions: ArrayLike) -> Array:
        """Stored positions, checked."""
        x, n = as_array(positions), self.force.getNumParticles()
        if x.ndim != 3 or len(x) < 1 or x.shape[1:] != (n, 3):
            raise openmm.OpenMMException(
                f"SplinePairForce: positions: expected the shape [steps + 1, {n}, 3], got {x.shape}"
            )
        return x

    def _alike(self, name: str, array: ArrayLike | None, x: Array) -> Array | None:
        """An array of all stored times, checked."""
        return None if array is None else as_shape(name, array, x.shape)

    def _empty_gradient(self, times: int, include_noise: bool) -> SegmentGradient:
        n = self.force.getNumParticles()
        states = self._chain_states(1)
        return SegmentGradient(
            parameters=np.zeros_like(self.force.getCoefficients()),
            positions=np.zeros((n, 3)),
            velocities=np.zeros((n, 3)),
            noise=np.zeros((times - 1, n, 3)) if include_noise else None,
            growth=np.zeros(times),
            chainState=None if states is None else states[0],
        )
