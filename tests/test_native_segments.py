"""SegmentPropagator: segments of trajectories, and the discrete adjoint of stored ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import openmm
import pytest
import torch
from native_systems import (
    REFERENCE,
    Case,
    Live,
    Where,
    case,
    context_on,
    live,
    mixture,
    why_missing,
)
from systems import Array, numerical_derivative
from torch import Tensor

from openmm_diffsim.engine import native
from openmm_diffsim.potentials import pair_index

pytestmark = pytest.mark.skipif(
    why_missing(REFERENCE) is not None, reason=str(why_missing(REFERENCE))
)

DT = 0.004  # ps
SPLITTINGS = {  # kick1, drift1, scale, drift2, kick2
    "leapfrog Verlet": (DT, DT, 1.0, 0.0, 0.0),
    "velocity Verlet": (DT / 2, DT, 1.0, 0.0, DT / 2),
    "LangevinMiddle": (DT, DT / 2, float(np.exp(-5 * DT)), DT / 2, 0.0),
    "Langevin": ((np.exp(5 * DT) - 1) / 5, 0.0, float(np.exp(-5 * DT)), DT, 0.0),
    "Nose-Hoover": (DT, DT / 2, np.nan, DT / 2, 0.0),
}
CHAIN = native.ChainThermostat(200.0, 20.0, 24, multipleTimeSteps=2, yoshidaSuzuki=3)
CHAIN_STATE = np.array([0.1, -0.2, 0.3, 5.0, -3.0, 4.0])
UNUSED = 7  # a force group that is not integrated

Force = Callable[[Tensor, Tensor], Tensor]  # of positions and coefficients


class Start(NamedTuple):
    """A small fluid and all that fixes a segment of it."""

    case: Case
    velocities: Array  # [particles, 3], nm/ps
    noise: Array  # [steps, particles, 3]
    weights: Array  # what the loss weighs positions and velocities with, [2, steps+1, particles, 3]


def start(n_steps: int, splitting: str) -> Start:
    """Nine particles of three species, one of them with no mass, in a triclinic box."""
    box = np.array([[1.3, 0, 0], [0.4, 1.35, 0], [-0.5, 0.3, 1.4]])
    c = mixture(box, 9, 0.6, seed=4)
    masses = np.linspace(1.0, 4.0, 9)
    masses[4] = 0.0
    rng = np.random.default_rng(n_steps)
    core = 40 * np.exp(-np.arange(c.basis.n_coefficients))  # so that no pair meets at r = 0
    fluid = Case(
        c.positions, c.box, core + 0.5 * c.coefficients, np.array([0, 1, 2] * 3), c.basis,
        [(0, 1), (2, 7)], (), masses,
    )  # fmt: skip
    velocities = rng.normal(size=(9, 3)) * (masses > 0)[:, None]
    noise = rng.normal(size=(n_steps, 9, 3)) * splitting.startswith("Langevin") * 0.1
    noise *= (masses > 0)[:, None]
    return Start(fluid, velocities, noise, rng.uniform(0.5, 1.5, (2, n_steps + 1, 9, 3)))


class Segment(NamedTuple):
    """What a segment consists of, of all times."""

    positions: Tensor  # [steps + 1, particles, 3]
    velocities: Tensor
    chain_states: Tensor  # [steps + 1, 6], constant without a chain


State = tuple[Tensor, Tensor, Tensor]  # positions, velocities, chain
Change = Callable[[int, State], State]  # of the state at a time


def unchanged(_: int, state: State) -> State:
    return state


def integrate(
    s: Start, splitting: str, force: Force, x: Tensor, v: Tensor, c: Tensor, noise: Tensor,
    chain: Tensor, watch: Change = unchanged, carry: Change = unchanged,
) -> Segment:  # fmt: skip
    """As the docstring of a step says.

    ``watch`` sees the state at each time, before the last kick of a step, and ``carry`` what the
    next step starts from.
    """
    kick1, drift1, scale, drift2, kick2 = SPLITTINGS[splitting]
    masses = torch.from_numpy(s.case.masses)[:, None]
    inverse = torch.where(masses > 0, 1 / masses, 0.0)
    moves = (inverse > 0).to(x.dtype)
    x, v, chain = watch(0, (x, v, chain))
    states = [(x, v, chain)]
    for step, disturbance in enumerate(noise):
        x, v, chain = carry(step, (x, v, chain))
        v1 = v + kick1 * inverse * force(x, c)
        if splitting == "Nose-Hoover":
            scale, chain = propagate_chain(torch.sum(masses * v1**2), chain)
        v2 = moves * (scale * v1 + disturbance) + (1 - moves) * v
        x = x + moves * (drift1 * v1 + drift2 * v2)
        x, v, chain = watch(step + 1, (x, v2, chain))
        v = v + kick2 * inverse * force(x, c)
        states.append((x, v, chain))
    return Segment(*map(torch.stack, zip(*states, strict=True)))


YOSHIDA_SUZUKI = (0.828981543588751, -0.657963087177502, 0.828981543588751)


def propagate_chain(double_energy: Tensor, chain: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and new state: the operators of Martyna et al. (1996), one after the other."""
    kT = openmm.unit.MOLAR_GAS_CONSTANT_R._value * 1e-3 * CHAIN.temperature
    n = CHAIN.degreesOfFreedom
    q = kT / CHAIN.frequency**2 * np.array([n, 1, 1])
    eta, v = list(chain[:3]), list(chain[3:])
    scale = torch.ones((), dtype=chain.dtype)

    def g(k: int) -> Tensor:
        if k == 0:
            return (scale**2 * double_energy - n * kT) / q[0]
        return (q[k - 1] * v[k - 1] ** 2 - kT) / q[k]

    for weight in YOSHIDA_SUZUKI * CHAIN.multipleTimeSteps:
        dt = weight * DT / CHAIN.multipleTimeSteps
        v[2] = v[2] + dt / 2 * g(2)
        for k in (1, 0):
            v[k] = v[k] * torch.exp(-dt / 4 * v[k + 1])
            v[k] = v[k] + dt / 2 * g(k)
            v[k] = v[k] * torch.exp(-dt / 4 * v[k + 1])
        scale = scale * torch.exp(-dt * v[0])
        eta = [e + dt * w for e, w in zip(eta, v, strict=True)]
        for k in (0, 1):
            v[k] = v[k] * torch.exp(-dt / 4 * v[k + 1])
            v[k] = v[k] + dt / 2 * g(k)
            v[k] = v[k] * torch.exp(-dt / 4 * v[k + 1])
        v[2] = v[2] + dt / 2 * g(2)
    return scale, torch.stack([*eta, *v])


def loss(s: Start, x: Tensor, v: Tensor) -> Tensor:
    """Something not linear in positions and velocities of all times."""
    a, b = torch.from_numpy(s.weights)
    return torch.sum(a * torch.sin(x)) + torch.sum(b * v**2)


def numpy_force(s: Start) -> Force:
    """From the pairs by brute force and the core's own spline; it carries no graph."""

    def force(x: Tensor, c: Tensor) -> Tensor:
        at_x = replace(s.case, positions=x.numpy(), coefficients=c.numpy())
        return torch.from_numpy(at_x.spline_forces())

    return force


def torch_force(s: Start) -> Force:
    """The same, differentiable: for each pair, u'(r) from the four coefficients around it."""
    i, j = np.triu_indices(9, 1)
    included = [pair not in s.case.exclusions for pair in zip(i, j, strict=True)]
    i, j = i[included], j[included]
    kind = torch.from_numpy(pair_index(3)[s.case.types[i], s.case.types[j]])
    b, box = s.case.basis, torch.from_numpy(s.case.box)

    def force(x: Tensor, c: Tensor) -> Tensor:
        delta = x[i] - x[j]
        for axis in (2, 1, 0):
            shift = torch.floor(delta[:, axis].detach() / box[axis, axis] + 0.5)
            delta = delta - shift[:, None] * box[axis]
        r = torch.linalg.norm(delta, dim=1)
        knot = (r - b.r_min) / b.spacing
        cell = knot.detach().long().clamp(0, b.knots - 2)
        t = knot - cell
        padded = torch.cat([2 * c[:, :1] - c[:, 1:2], c, torch.zeros(len(c), 3)], dim=1)
        weights = (-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2)
        slope = sum(w / 2 * padded[kind, cell + m] for m, w in enumerate(weights))
        slope = torch.where(knot < 0, c[kind, 1] - c[kind, 0], slope) / b.spacing
        pull = (torch.where(r < b.cutoff, -slope, 0.0) / r)[:, None] * delta
        return (
            torch.zeros_like(x)
            .index_add(0, torch.from_numpy(i), pull)
            .index_add(0, torch.from_numpy(j), -pull)
        )

    return force


def tensors(s: Start) -> tuple[Tensor, ...]:
    """Positions, velocities, coefficients, noise and chain, from which a segment follows."""
    arrays = (s.case.positions, s.velocities, s.case.coefficients, s.noise, CHAIN_STATE)
    return tuple(torch.tensor(a, dtype=torch.float64) for a in arrays)


def chain_arguments(splitting: str, velocities: Any, chain_states: Any) -> dict[str, Any]:
    """What a gradient needs besides, where there is a chain."""
    if splitting != "Nose-Hoover":
        return {}
    return {"velocities": velocities, "chainStates": chain_states}


def propagator(at: Live, splitting: str) -> native.SegmentPropagator:
    """That of a Context, by the name of the splitting."""
    chain = CHAIN if splitting == "Nose-Hoover" else None
    return native.SegmentPropagator(at.context, at.force, SPLITTINGS[splitting], chain)


@cache
def stored(splitting: str, n_steps: int) -> Segment:
    """A segment that NumPy integrated."""
    s = start(n_steps, splitting)
    return integrate(s, splitting, numpy_force(s), *tensors(s))


def native_gradient(s: Start, splitting: str, at: Live, **options: Any) -> native.SegmentGradient:
    """The gradient of the loss, by one native call over what NumPy integrated."""
    x, v, chain = stored(splitting, len(s.noise))
    xs, vs = x.clone().requires_grad_(), v.clone().requires_grad_()
    gx, gv = torch.autograd.grad(loss(s, xs, vs), (xs, vs))
    return propagator(at, splitting).computeGradient(
        x, gx, gv, includeNoise=True, **chain_arguments(splitting, v, chain), **options
    )


def parts(gradient: native.SegmentGradient) -> list[Array]:
    """In the order of the ``tensors``."""
    g = gradient
    found = [g.positions, g.velocities, g.parameters, g.noise, g.chainState]
    return [a for a in found if a is not None]


@pytest.fixture(scope="module")
def fluid(where: Where) -> Live:
    """Contexts know nothing of the integrator: one serves all segments."""
    return live(start(1, "leapfrog Verlet").case, where)


class Through(torch.autograd.Function):
    """The state as it is, and its gradient as ``change(time, gradient)`` makes it."""

    @staticmethod
    def forward(ctx: Any, change: Change, time: int, *state: Tensor) -> State:
        ctx.change, ctx.time = change, time
        x, v, chain = (a.clone() for a in state)
        return x, v, chain

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, None, Tensor, Tensor, Tensor]:
        return None, None, *ctx.change(ctx.time, gradient)


class Adjoint:
    """What growth, truncation and clipping are, by torch."""

    def __init__(self, s: Start, last: int, truncation: int, clipping: float) -> None:
        self.masses = torch.from_numpy(s.case.masses)[:, None]
        self.last, self.truncation, self.clipping = last, truncation, clipping
        self.growth = np.zeros(len(s.noise) + 1)

    def watch(self, time: int, state: State) -> State:
        return Through.apply(self.clip, time, *state)

    def carry(self, time: int, state: State) -> State:
        return Through.apply(self.cut, time, *state)

    def clip(self, time: int, gradient: State) -> State:
        x, v, chain = gradient
        squares = torch.where(self.masses > 0, ((x * DT) ** 2 + v**2) / self.masses, 0.0)
        self.growth[time] = torch.sqrt(torch.sum(squares))
        allowed = self.clipping * self.growth[self.last]
        factor = allowed / self.growth[time] if 0 < allowed < self.growth[time] else 1.0
        return factor * x, factor * v, factor * chain

    def cut(self, time: int, gradient: State) -> State:
        dropped = self.truncation and time < self.last and (self.last - time) % self.truncation == 0
        x, v, chain = (a * (0 if dropped else 1) for a in gradient)
        return x, v, chain


@cache
def torch_gradient(
    splitting: str, n_steps: int, last: int, truncation: int = 0, clipping: float = 0
) -> tuple[Sequence[Tensor], Array]:
    """Gradients with respect to the ``tensors``, and growth; no later time matters."""
    s = start(n_steps, splitting)
    s.weights[:, last + 1 :] = 0
    adjoint = Adjoint(s, last, truncation, clipping)
    inputs = [a.requires_grad_() for a in tensors(s)]
    segment = integrate(s, splitting, torch_force(s), *inputs, adjoint.watch, adjoint.carry)
    value = loss(s, segment.positions, segment.velocities)
    return torch.autograd.grad(value, inputs, materialize_grads=True), adjoint.growth


def assert_agree(found: list[Array], expected: Sequence[Tensor], where: Where) -> None:
    """See ``test_backpropagation``. Without a chain, nothing was found for what comes last."""
    rtol = 1e-10 if where.precision == "double" else 1e-3
    for a, b in zip(found, expected, strict=False):
        atol = rtol * np.abs(b.numpy()).max(initial=0)
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=atol)


def own_integrator(name: str) -> openmm.Integrator:
    """OpenMM's integrator that makes such steps."""
    if name == "leapfrog Verlet":
        return openmm.VerletIntegrator(DT)
    if name == "LangevinMiddle":
        return openmm.LangevinMiddleIntegrator(300, 5, DT)
    return openmm.NoseHooverIntegrator(
        CHAIN.temperature, CHAIN.frequency, DT, CHAIN.length, CHAIN.multipleTimeSteps, int(name[-1])
    )


def own_system(s: Start, remover: bool) -> tuple[openmm.System, native.SplinePairForce]:
    """The fluid with a bond and a field besides, and a bond that is not integrated."""
    force = s.case.force()
    system = s.case.system(force)
    for group in (0, UNUSED):
        bond = openmm.HarmonicBondForce()
        bond.addBond(2, 3, 0.3, 500.0)
        bond.setForceGroup(group)
        system.addForce(bond)
    field = openmm.CustomExternalForce("3*x+20*y^2")
    for i in range(9):
        field.addParticle(i)
    system.addForce(field)
    if remover:
        system.addForce(openmm.CMMotionRemover(1000))  # acts once, before the first step
    return system, force


def read(context: openmm.Context) -> tuple[Array, Array, Array]:
    """Positions, velocities and the forces that are integrated, [particles, 3]."""
    groups = context.getIntegrator().getIntegrationForceGroups()
    state = context.getState(positions=True, velocities=True, forces=True, groups=groups)
    x, v = state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)
    return np.array(x._value), np.array(v._value), np.array(state.getForces(asNumpy=True)._value)


@pytest.mark.parametrize("remover", [False, True])
@pytest.mark.parametrize(
    "name", ["leapfrog Verlet", "LangevinMiddle", *(f"Nose-Hoover with {n}" for n in (1, 3, 5, 7))]
)
def test_segment_is_a_trajectory_of_openmm(name: str, remover: bool) -> None:
    """To 1e-10 over 50 steps, on the Reference platform, with all Forces that are integrated.

    The noise of Langevin dynamics is found from OpenMM's own trajectory.
    """
    s = start(50, name)
    system, force = own_system(s, remover)
    integrator = own_integrator(name)
    integrator.setIntegrationForceGroups(set(range(32)) - {UNUSED})
    context = context_on(REFERENCE, system, integrator)
    mass = s.case.masses[:, None]
    at_rest = s.velocities - np.sum(mass * s.velocities, axis=0) / np.sum(mass) * (mass > 0)
    context.setPositions(s.case.positions)
    context.setVelocities(at_rest)
    times = [read(context)]
    for _ in range(50):
        integrator.step(1)
        times.append(read(context))
    x, v, f = map(np.array, zip(*times, strict=True))
    splitting = SPLITTINGS[name.split(" with")[0]]
    noise = None
    if name == "LangevinMiddle":
        kick = splitting[0] * np.divide(f, mass, out=np.zeros_like(f), where=mass > 0)
        noise = v[1:] - splitting[2] * (v[:-1] + kick[:-1])
    chain = None
    if name.startswith("Nose"):
        chain = replace(CHAIN, degreesOfFreedom=21 if remover else 24, yoshidaSuzuki=int(name[-1]))
    own = native.SegmentPropagator(context, force, splitting, chain)
    found = own.integrate(x[0], at_rest, 50, noise)
    np.testing.assert_allclose(found.positions, x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.velocities, v, rtol=0, atol=1e-10)


def run(s: Start, splitting: str, at: Live, **options: Any) -> native.SegmentRun:
    """The native segment."""
    chain = splitting == "Nose-Hoover"
    arguments: dict[str, Any] = {
        "positions": s.case.positions,
        "velocities": s.velocities,
        "steps": len(s.noise),
        "noise": None if chain else s.noise,
        "chainState": CHAIN_STATE if chain else None,
    }
    return propagator(at, splitting).integrate(**{**arguments, **options})


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_segment_integrated_in_numpy(fluid: Live, where: Where, splitting: str) -> None:
    """To 1e-10 on the double platforms; forces on a GPU are in fixed point, good to 1e-9.

    In single precision forces are wrong by up to ``Case.tolerance``, of which a position gets
    dt^2/m at each of the steps that follow, 30^2/2 times over 30 steps if all errors pointed one
    way, and errors grow meanwhile.
    """
    s = start(30, splitting)
    expected = stored(splitting, 30)
    found = run(s, splitting, fluid)
    atol = 1e-10
    if where.precision != "double":
        atol = 30**2 / 2 * DT**2 * s.case.tolerance(where).forces
    np.testing.assert_allclose(found.positions, expected.positions, rtol=0, atol=atol)
    np.testing.assert_allclose(found.velocities, expected.velocities, rtol=0, atol=atol / DT)
    assert (found.chainStates is None) == (splitting != "Nose-Hoover")
    if found.chainStates is not None:
        states = expected.chain_states
        np.testing.assert_allclose(found.chainStates, states, rtol=0, atol=atol / DT)


def test_segment_goes_on_where_another_ended() -> None:
    """Exactly, in double precision: the state of the chain is all there is besides."""
    s = start(30, "Nose-Hoover")
    at = live(s.case, REFERENCE)
    whole = run(s, "Nose-Hoover", at)
    first = run(s, "Nose-Hoover", at, steps=12)
    assert first.chainStates is not None
    second = run(
        s, "Nose-Hoover", at, positions=first.positions[-1], velocities=first.velocities[-1],
        steps=18, chainState=first.chainStates[-1],
    )  # fmt: skip
    for name, array in vars(whole).items():
        parts = getattr(first, name), getattr(second, name)[1:]
        np.testing.assert_array_equal(np.concatenate(parts), array, err_msg=name)


def test_chain_rests_where_nothing_moves() -> None:
    """As OpenMM's does, whatever the velocities of the thermostats; so does its adjoint."""
    s = start(3, "Nose-Hoover")
    at = live(replace(s.case, coefficients=0 * s.case.coefficients), REFERENCE)
    found = run(s, "Nose-Hoover", at, velocities=np.zeros((9, 3)))
    np.testing.assert_array_equal(found.velocities, 0)
    np.testing.assert_array_equal(found.chainStates, np.tile(CHAIN_STATE, (4, 1)))
    gradient = propagator(at, "Nose-Hoover").computeGradient(
        found.positions, None, s.weights[1],
        velocities=found.velocities, chainStates=found.chainStates,
    )  # fmt: skip
    expected = np.where(s.case.masses[:, None] > 0, s.weights[1], 0).sum(axis=0)
    moves = s.case.masses > 0
    np.testing.assert_allclose(gradient.velocities[moves], expected[moves], rtol=1e-14)
    np.testing.assert_array_equal(gradient.chainState, 0)


@pytest.fixture(scope="module")
def nonbonded(where: Where) -> tuple[Live, openmm.System]:
    """A fluid that also has a NonbondedForce, whose neighbor list is OpenMM's own."""
    fluid = replace(case("many"), exclusions=())
    force = fluid.force()
    system = fluid.system(force)
    other = openmm.NonbondedForce()
    other.setNonbondedMethod(other.CutoffPeriodic)
    other.setCutoffDistance(fluid.basis.cutoff)
    for _ in fluid.positions:
        other.addParticle(0.0, 0.2, 1.0)
    system.addForce(other)
    return Live(fluid, where, force, context_on(where, system)), system


def test_box_of_a_segment_and_what_a_context_has_after_it(
    nonbonded: tuple[Live, openmm.System], where: Where
) -> None:
    """Forces are those of a fresh Context with that box, though nothing has moved.

    They are the velocities after a step of 1e-9 ps, relative to 1e-4 of the largest.
    """
    at, system = nonbonded
    n = len(at.case.positions)
    box = np.diag([3.6, 4.0, 3.4])
    fresh = context_on(REFERENCE, system)
    fresh.setPeriodicBoxVectors(*box)
    fresh.setPositions(at.case.positions)
    expected = read(fresh)[2]
    at.place(at.case.positions, at.case.box)
    at.context.setVelocities(np.tile([1.0, 2.0, 3.0], (n, 1)))
    at.context.setTime(5.0)
    x, v, before = read(at.context)
    dt = 1e-9
    splitting = (dt, dt, 1.0, 0.0, 0.0)
    in_box = native.SegmentPropagator(at.context, at.force, splitting, box=box)
    found = in_box.integrate(at.case.positions, np.zeros((n, 3)), 1)
    forces = found.velocities[1] * 30.0 / dt
    scale = np.abs(expected).max()
    assert np.abs(forces - before).max() > 0.1 * scale
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-4 * scale)
    x_after, v_after, after = read(at.context)
    atol = 1e3 * where.epsilon
    np.testing.assert_allclose(x_after, x, rtol=0, atol=atol)
    np.testing.assert_array_equal(v_after, v)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(at.box(), at.case.box, rtol=1e-6)
    state = at.context.getState()
    assert state.getTime()._value == 5.0 and state.getStepCount() == 0


@pytest.mark.parametrize("energy", ["0", "sqrt(0.4-x)"])
def test_exploded(energy: str) -> None:
    """Too fast, or where a force is not a number; the Context is restored."""
    s = start(10, "leapfrog Verlet")
    force = s.case.force()
    system = s.case.system(force)
    field = openmm.CustomExternalForce(energy)
    field.addParticle(0)
    system.addForce(field)
    context = context_on(REFERENCE, system)
    context.setPositions(s.case.positions)
    x, v = np.tile([0.1, 0.0, 0.0], (9, 1)), np.zeros((9, 3))
    x[:, 1] = np.arange(9)
    v[0, 0] = 24.0 if energy != "0" else 1e20
    message = "step 4: .* force of particle 0 is -?nan" if energy != "0" else "step 1: .* position"
    with pytest.raises(openmm.OpenMMException, match=f"the segment exploded at {message}"):
        native.SegmentPropagator(
            context, force, SPLITTINGS["leapfrog Verlet"], box=2 * s.case.box
        ).integrate(x, v, 10)
    np.testing.assert_array_equal(read(context)[0], s.case.positions)
    box = context.getState().getPeriodicBoxVectors(asNumpy=True)._value
    np.testing.assert_array_equal(box, s.case.box)


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of a propagator, and those of its methods."""
    own = {name: a for name, a in arguments.items() if name in ("splitting", "chain", "box")}
    return own, {name: a for name, a in arguments.items() if name not in own}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((8, 3))}, r"positions: .*\(9, 3\), got \(8, 3\)"),
        ({"velocities": np.full((9, 3), np.inf)}, "velocities, time 0: .* particle 0 is inf"),
        ({"steps": -1}, "steps >= 0, got -1"),
        ({"noise": np.zeros((2, 9, 3))}, r"noise: .*\(3, 9, 3\)"),
        ({"noise": np.full((3, 9, 3), np.nan)}, "noise, step 0: .* particle 0 is nan"),
        ({"noise": np.zeros((3, 9, 3)), "chain": CHAIN}, "has no noise"),
        ({"chain": CHAIN, "chainState": np.zeros(3)}, r"chainState: .*\(6,\)"),
        ({"splitting": SPLITTINGS["velocity Verlet"], "chain": CHAIN}, "last kick of 0.002 ps"),
        ({"box": np.eye(3)}, "cutoff, 0.6 nm.*0.5 nm"),
    ],
)
def test_segment_refused(change: dict[str, Any], message: str) -> None:
    s = start(3, "leapfrog Verlet")
    at = live(s.case, REFERENCE)
    arguments: dict[str, Any] = {
        "splitting": SPLITTINGS["leapfrog Verlet"],
        "positions": s.case.positions,
        "velocities": s.velocities,
        "steps": 3,
    }
    with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
        own, rest = split({**arguments, **change})
        native.SegmentPropagator(at.context, at.force, **own).integrate(**rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature above zero, got 0 K"),
        ({"frequency": -1.0}, "frequency above zero, got -1 1/ps"),
        ({"degreesOfFreedom": 0}, "at least 1 .* got 0, 3 and 2"),
        ({"yoshidaSuzuki": 4}, "1, 3, 5 or 7 .* got 4"),
    ],
)
def test_chain_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(openmm.OpenMMException, match=f"Nose-Hoover chain: expected .*{message}"):
        replace(CHAIN, **change)


@pytest.mark.parametrize("n_steps", [1, 30])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_differences_of_segments_integrated_in_numpy(splitting: str, n_steps: int) -> None:
    """To 1e-6 of the largest.

    Some coordinates and coefficients are moved, by some 1e-6: the force has continuous
    slopes, so a pair that crosses a knot meanwhile costs 1e-6/h of one kick's share.
    """
    s = start(n_steps, splitting)
    at = live(s.case, REFERENCE)
    arrays = [a.numpy() for a in tensors(s)]
    for which, found in enumerate(parts(native_gradient(s, splitting, at))):
        some = np.arange(which, found.size, max(9, found.size // 2))

        def value(moves: Array, which: int = which, some: Array = some) -> float:
            moved = [a.copy() for a in arrays]
            moved[which].flat[some] += moves - 1
            segment = integrate(s, splitting, numpy_force(s), *map(torch.from_numpy, moved))
            return float(loss(s, segment.positions, segment.velocities))

        step = 1e-3 if len(found) == len(CHAIN_STATE) else 1e-6  # a chain acts weakly, and smoothly
        expected = numerical_derivative(value, np.ones(len(some)), step=step)
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found.flat[some], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("n_steps", [0, 1, 30])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_backpropagation(fluid: Live, where: Where, splitting: str, n_steps: int) -> None:
    """To 1e-10 of the largest on the double platforms.

    In single precision each step's Hessian product is wrong by up to 1e-4 (see ``Case.tolerance``
    relative to the largest), of which it adds dt^2 H/m, about 0.1, to what is carried back: 1e-3
    over 30 steps if all errors pointed one way.
    """
    expected, _ = torch_gradient(splitting, n_steps, n_steps)
    found = native_gradient(start(n_steps, splitting), splitting, fluid)
    assert_agree(parts(found), expected, where)


@pytest.mark.parametrize(("truncation", "clipping"), [(0, 0), (1, 0), (7, 0), (0, 3), (8, 2)])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_growth_truncation_and_clipping(
    fluid: Live, where: Where, splitting: str, truncation: int, clipping: float
) -> None:
    """They are those of autograd. Nothing depends on the last 5 of 30 steps."""
    expected, growth = torch_gradient(splitting, 30, 25, truncation, clipping)
    if clipping:
        assert np.sum(growth > clipping * growth[25]) > 3
    s = start(30, splitting)
    s.weights[:, 26:] = 0
    found = native_gradient(s, splitting, fluid, truncation=truncation, clipping=clipping)
    assert_agree(parts(found), expected, where)
    rtol = 1e-10 if where.precision == "double" else 1e-3
    np.testing.assert_allclose(found.growth, growth, rtol=rtol)
    assert found.noise is not None
    assert not np.any(found.growth[26:]) and not np.any(found.noise[25:])


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_gradients_may_be_left_out(splitting: str) -> None:
    """Either of them, or both, in place of zeros."""
    s = start(7, splitting)
    at = live(s.case, REFERENCE)
    segment = run(s, splitting, at)
    more = chain_arguments(splitting, segment.velocities, segment.chainStates)
    zero = np.zeros_like(segment.positions)
    for gx, gv in ((None, s.weights[1]), (s.weights[0], None), (None, None)):
        own, x = propagator(at, splitting), segment.positions
        short = own.computeGradient(x, gx, gv, **more)
        full = own.computeGradient(
            x, zero if gx is None else gx, zero if gv is None else gv, **more
        )
        assert np.any(short.parameters) == (gx is not None or gv is not None)
        for a, b in zip([*parts(short), short.growth], [*parts(full), full.growth], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_wrong_splitting_is_noticed() -> None:
    """The comparison above tells the integrators apart by far."""
    s = start(7, "velocity Verlet")
    at = live(s.case, REFERENCE)
    right = native_gradient(s, "velocity Verlet", at).parameters
    xs, vs, _ = integrate(s, "velocity Verlet", numpy_force(s), *tensors(s))
    gx, gv = torch.from_numpy(s.weights) * torch.stack([torch.cos(xs), 2 * vs])
    other = propagator(at, "leapfrog Verlet")
    wrong = other.computeGradient(xs.numpy(), gx.numpy(), gv.numpy()).parameters
    assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


def test_box_and_velocity_gradients_may_be_left_out(fluid: Live, where: Where) -> None:
    s = start(7, "leapfrog Verlet")
    xs = integrate(s, "leapfrog Verlet", numpy_force(s), *tensors(s)).positions
    own = fluid.context, fluid.force, SPLITTINGS["leapfrog Verlet"]
    short = native.SegmentPropagator(*own).computeGradient(xs.numpy(), s.weights[0])
    full = native.SegmentPropagator(*own, box=s.case.box).computeGradient(
        xs.numpy(), s.weights[0], np.zeros_like(s.weights[0])
    )
    rtol = 0 if where == REFERENCE else 1e3 * where.epsilon
    assert short.noise is None and short.chainState is None
    for a, b in zip([*parts(short), short.growth], [*parts(full), full.growth], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((3, 8, 3))}, r"positions.*\[steps \+ 1, 9, 3\].*\(3, 8, 3\)"),
        ({"positionGradients": np.zeros((2, 9, 3))}, "positionGradients"),
        ({"velocityGradients": np.zeros((4, 9, 3))}, "velocityGradients"),
        ({"splitting": (1.0, 2.0)}, "five numbers.*got 2"),
        (
            {"positions": np.full((3, 9, 3), np.nan)},
            "time 0: a coordinate of particle 0 is nan, expected a finite",
        ),
        ({"box": np.eye(3)}, "cutoff, 0.6 nm.*0.5 nm"),
        ({"truncation": -1}, "truncation of at least 1 .* got -1"),
        ({"clipping": 0.5}, "clipping of at least 1, .* got 0.5"),
        ({"clipping": np.nan}, "clipping of at least 1, .* got nan"),
        ({"chain": CHAIN}, "needs its velocities and the chain's states"),
        ({"chain": CHAIN, "chainStates": np.zeros((3, 5))}, r"chainStates: .*\(3, 6\)"),
        (
            {
                "chain": CHAIN,
                "chainStates": np.zeros((3, 6)),
                "velocities": np.full((3, 9, 3), np.nan),
            },
            "velocities, time 0: .* particle 0 is nan",
        ),
    ],
)
def test_gradient_refused(change: dict[str, object], message: str) -> None:
    s = start(2, "leapfrog Verlet")
    at = live(s.case, REFERENCE)
    arguments: dict[str, object] = {
        "splitting": SPLITTINGS["leapfrog Verlet"],
        "positions": np.tile(s.case.positions, (3, 1, 1)),
        "positionGradients": np.zeros((3, 9, 3)),
    }
    with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
        own, rest = split({**arguments, **change})
        native.SegmentPropagator(at.context, at.force, **own).computeGradient(**rest)


def test_constraints_and_virtual_sites_are_refused() -> None:
    """Their motion is not that of the steps that the gradient is carried back through."""
    s = start(2, "leapfrog Verlet")
    x = np.tile(s.case.positions, (3, 1, 1))
    for kind, message in (
        ("constraint", "no constraints, .* has 1"),
        ("site", "particle 4 is one"),
    ):
        force = s.case.force()
        system = s.case.system(force)
        if kind == "constraint":
            system.addConstraint(0, 1, 0.3)
        else:
            system.setVirtualSite(4, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        at = Live(s.case, REFERENCE, force, context_on(REFERENCE, system))
        with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
            propagator(at, "leapfrog Verlet").computeGradient(x, x)
        with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
            propagator(at, "leapfrog Verlet").integrate(x[0], x[0], 2)
