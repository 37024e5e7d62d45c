"""Segments as tensors: gradients by differences, trajectories of OpenMM, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from segment_systems import (
    BOX,
    DT,
    FRICTION,
    KELVIN,
    MASS,
    PATHS,
    SCHEMES,
    Array,
    N,
    Problem,
    argon,
    assert_gradient,
    assert_same,
    fluid,
    no_force,
    problem,
    spline,
)
from systems import lattice
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.engine.segments import (
    SegmentOptions,
    nose_hoover,
    read_scheme,
    stepping,
)
from openmm_diffsim.engine.segments.stepping import Noise
from openmm_diffsim.observables import Segment

pytestmark = pytest.mark.usefixtures("plugin")

every_scheme = pytest.mark.parametrize("name", SCHEMES)


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 20])
@every_scheme
@pytest.mark.parametrize("path", PATHS)
def test_gradient(path: str, name: str, steps: int) -> None:
    """Of positions, velocities, noise, a protocol, sigma, epsilon and a parameter of a field.

    Against four-point differences, to 1e-6 of the largest entry.
    """
    assert_gradient(problem(path, name, steps))


@every_scheme
@pytest.mark.parametrize("path", ["native", "table"])
def test_gradient_of_free_coefficients(path: str, name: str) -> None:
    assert_gradient(problem(path, name, 20 if path == "native" else 5, fluid(path, spline())))


@pytest.mark.parametrize(
    ("path", "name"), [*(("native", name) for name in SCHEMES), ("others", "LangevinMiddle")]
)
def test_gradient_of_a_long_segment(path: str, name: str) -> None:
    """200 steps, 0.8 ps: differences have to be smaller, and what is left is their rounding."""
    assert_gradient(problem(path, name, 200), shrink=0.02)


@every_scheme
@pytest.mark.parametrize("path", PATHS)
def test_every(path: str, name: str) -> None:
    """Keeping every fifth step changes neither what is kept nor the gradient, to rounding."""
    p = problem(path, name, 20)
    whole, sparse = p.segment(), p.segment(every=5)
    np.testing.assert_allclose(sparse.times, whole.times[::5], rtol=1e-15)
    np.testing.assert_allclose(
        sparse.positions.detach(), whole.positions.detach()[::5], rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        sparse.velocities.detach(), whole.velocities.detach()[::5], rtol=0, atol=1e-11
    )

    def value(segment: Segment, stride: int) -> Tensor:
        x, v = segment.positions[::stride], segment.velocities[::stride]
        return torch.sin(3 * x).sum() + v.square().sum()

    expected = p.gradient(value(whole, 5))
    # A product by differences is as exact as forces over the displacement are, at some 1e-9.
    rtol = 1e-10 if path in ("native", "TorchField") else 1e-8
    assert_same(p.gradient(value(sparse, 1)), expected, rtol)


@every_scheme
def test_general_and_native_ways_agree(name: str) -> None:
    """Forward to 1e-12, gradients and the growth of the adjoint to 1e-9."""
    p = problem("native", name, 20)
    native, general = p.segment(), p.segment(field=no_force)
    np.testing.assert_allclose(
        general.positions.detach(), native.positions.detach(), rtol=0, atol=1e-12
    )
    value = native.positions.sin().sum() + native.velocities.square().sum()
    same = general.positions.sin().sum() + general.velocities.square().sum()
    assert_same(p.gradient(same), p.gradient(value), 1e-9)
    np.testing.assert_allclose(general.growth(), native.growth(), rtol=1e-9)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("yoshida_suzuki", [1, 3, 5, 7])
def test_chains_of_both_ways_agree(yoshida_suzuki: int, length: int) -> None:
    """Whatever the length of the chain and the splitting of its step."""
    p = problem("native", "Nose-Hoover", 10)
    p.scheme = nose_hoover(DT, KELVIN, 25.0, None, length, 2, yoshida_suzuki)
    native, general = p.segment(), p.segment(field=no_force)
    np.testing.assert_allclose(
        general.positions.detach(), native.positions.detach(), rtol=0, atol=1e-12
    )
    found, expected = (p.gradient(s.velocities[-1].square().sum()) for s in (general, native))
    assert_same(found, expected, 1e-9)


@every_scheme
def test_a_table_and_the_native_force_agree(name: str) -> None:
    """Gradients to 1e-7: a table's second derivatives are differences."""
    native, table = problem("native", name, 20), problem("table", name, 20)
    assert_same(table.gradient(), native.gradient(), 1e-7)


@every_scheme
def test_long_noise_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin is handed some steps at a time; how many makes no difference."""
    p = problem("native", name, 20)
    whole = p.gradient()
    monkeypatch.setattr(stepping, "_MOST_NOISE", 7 * 3 * N)
    parts = p.gradient()
    for leaf, gradient in whole.items():
        np.testing.assert_array_equal(parts[leaf], gradient, err_msg=leaf)


@every_scheme
def test_the_plugin_runs_a_segment_in_one_call_each_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none where a field acts besides."""
    calls = []
    for way in ("forward", "backward"):
        whole = getattr(stepping.NativeRun, way)

        def counted(*arguments: Any, way: str = way, whole: Any = whole) -> Any:
            calls.append(way)
            return whole(*arguments)

        monkeypatch.setattr(stepping.NativeRun, way, counted)
    p = problem("native", name, 20)
    p.gradient()
    assert calls == ["forward", "backward"]
    p.gradient(p.loss(field=no_force))
    assert len(calls) == 2


@pytest.mark.parametrize("path", ["native", "others"])
@pytest.mark.parametrize("name", ["LangevinMiddle", "Nose-Hoover"])
def test_a_batch_is_its_segments(path: str, name: str) -> None:
    """Starts [2, particles, 3], and noise for each: values and gradients as one by one."""
    liquid = fluid(path)
    batch = problem(path, name, 10, liquid, (2,))
    together = batch.segment()
    assert together.positions.shape == (2, 11, N, 3)
    gradient = batch.gradient(together.positions.sin().sum() + together.velocities.square().sum())
    shared = {leaf for leaf in gradient if batch.leaves[leaf].shape[:1] != (2,)}
    sums = {leaf: torch.zeros_like(gradient[leaf]) for leaf in shared}
    for k in range(2):
        leaves = {
            leaf: tensor if leaf in shared else tensor.detach()[k].requires_grad_(True)
            for leaf, tensor in batch.leaves.items()
        }
        one = Problem(liquid, batch.scheme, 10, leaves)
        segment = one.segment()
        np.testing.assert_array_equal(segment.positions.detach(), together.positions.detach()[k])
        found = one.gradient(segment.positions.sin().sum() + segment.velocities.square().sum())
        for leaf in shared:
            sums[leaf] += found.pop(leaf)
        assert_same({leaf: gradient[leaf][k] for leaf in found}, found, 1e-12)
    assert_same({leaf: gradient[leaf] for leaf in shared}, sums, 1e-12)


def test_gradients_of_some_leaves_alone() -> None:
    """What needs no gradient may be an array; what does gets it all the same."""
    liquid = fluid()
    x, v = lattice(N, BOX, 0.02), np.zeros((N, 3))
    for parameter in liquid.potential.parameters():
        parameter.requires_grad_(False)
    assert not liquid.segment(3, x, v).positions.requires_grad
    start = torch.tensor(x, requires_grad=True)
    for options in ({}, {"field": no_force}):
        value = liquid.segment(3, start, v, SegmentOptions(**options)).positions[-1].square().sum()
        (gradient,) = torch.autograd.grad(value, start)
        assert bool(gradient.any())


# Trajectories -------------------------------------------------------------------------------------


INTEGRATORS: dict[str, Callable[[], openmm.Integrator]] = {
    "Verlet": lambda: openmm.VerletIntegrator(DT),
    "Nose-Hoover": lambda: openmm.NoseHooverIntegrator(KELVIN, 25.0, DT, 4, 2, 5),
    "Nose-Hoover without a thermostat": lambda: openmm.NoseHooverIntegrator(DT),
    "LangevinMiddle": lambda: openmm.LangevinMiddleIntegrator(KELVIN, FRICTION, DT),
    "Langevin": lambda: openmm.LangevinIntegrator(KELVIN, FRICTION, DT),
}


def state_of(liquid: diffsim.StatePoint) -> tuple[Array, Array]:
    """Positions and velocities of its Simulation, [particles, 3]."""
    state = liquid.snapshot()
    x, v = state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)
    return np.array(x._value), np.array(v._value)


@pytest.mark.parametrize("integrator", list(INTEGRATORS)[:3])
@pytest.mark.parametrize("path", ["native", "others", "table"])
def test_segment_is_the_trajectory_of_the_simulation(path: str, integrator: str) -> None:
    """50 steps from where the Simulation is, to 1e-10 in nm and 1e-8 in nm/ps."""
    liquid = fluid(path, integrator=INTEGRATORS[integrator]())
    segment = liquid.segment(50)
    for time in range(0, 51, 10):
        x, v = state_of(liquid)
        np.testing.assert_allclose(segment.positions.detach()[time], x, rtol=0, atol=1e-10)
        np.testing.assert_allclose(segment.velocities.detach()[time], v, rtol=0, atol=1e-8)
        liquid.simulation.step(10)
    assert np.abs(x - segment.positions.detach().numpy()[0]).max() > 0.01


@pytest.mark.parametrize("integrator", ["LangevinMiddle", "Langevin"])
def test_noise_of_openmm_gives_its_trajectory(integrator: str) -> None:
    """Noise found from OpenMM's velocities and forces, and then its positions to 1e-10."""
    liquid = fluid(integrator=INTEGRATORS[integrator](), resting=False)
    kick, _, scale, _, _ = read_scheme(liquid.simulation.integrator, None).splitting
    context = liquid.simulation.context
    masses = MASS * (1 + 0.1 * np.arange(N))[:, None]
    times, noise = [state_of(liquid)], []
    for _ in range(20):
        f = context.getState(getForces=True).getForces(asNumpy=True)._value
        liquid.simulation.step(1)
        times.append(state_of(liquid))
        noise.append(times[-1][1] - scale * (times[-2][1] + kick * f / masses))
    segment = liquid.segment(20, *times[0], SegmentOptions(noise=np.array(noise)))
    np.testing.assert_allclose(segment.positions.detach()[-1], times[-1][0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(segment.velocities.detach()[-1], times[-1][1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"field": no_force}, {"every": 5}])
@pytest.mark.parametrize("name", ["LangevinMiddle", "Langevin"])
def test_seed(name: str, options: dict[str, Any]) -> None:
    """The same gives the same segment, another another; the noise has the right size."""
    liquid = fluid()
    x = lattice(N, BOX, 0.02)

    def run(seed: int, **more: Any) -> Segment:
        with torch.no_grad():
            chosen = SegmentOptions(integrator=SCHEMES[name], seed=seed, **options)
            return liquid.segment(20, x, options=chosen, **more)

    first, again, other = run(5), run(5), run(6)
    assert torch.equal(first.positions, again.positions)
    assert not torch.equal(first.velocities[0], other.velocities[0])
    v = first.velocities[0]
    assert not torch.equal(run(5, velocities=v).positions, run(6, velocities=v).positions)


def test_segments_of_a_batch_have_their_own_noise() -> None:
    """That of seed, 1 and the index of the segment, whatever the way."""
    liquid = fluid()
    scheme = SCHEMES["LangevinMiddle"]
    x = np.broadcast_to(lattice(N, BOX, 0.02), (2, N, 3)).copy()
    v = np.zeros_like(x)
    scale = scheme.noise_scale(np.array(liquid.segment(1).masses))
    noise = [Noise(scale, (4, 1, k)).steps(0, 6) for k in range(2)]
    given = liquid.segment(6, x, v, SegmentOptions(scheme, noise=np.array(noise)))
    assert not torch.equal(given.positions[0], given.positions[1])
    for options in ({}, {"field": no_force}):
        drawn = liquid.segment(6, x, v, SegmentOptions(scheme, 4, **options))
        np.testing.assert_allclose(
            drawn.positions.detach(), given.positions.detach(), rtol=0, atol=1e-13
        )


def test_noise_is_that_of_the_temperature() -> None:
    """Mean and variance of 4000 steps, within four standard errors; no step like another."""
    scheme = SCHEMES["LangevinMiddle"]
    masses = np.array([10.0, 0.0, 40.0])
    noise = Noise(scheme.noise_scale(masses), (1,)).steps(0, 4000)
    assert noise is not None and not noise[:, 1].any()
    thermal = 8.31446261815324e-3 * KELVIN
    for i in (0, 2):
        x = noise[:, i].ravel() / (thermal * (1 - np.exp(-2 * FRICTION * DT)) / masses[i]) ** 0.5
        assert abs(x.mean()) < 4 / len(x) ** 0.5
        assert abs(x.var() - 1) < 4 * (2 / len(x)) ** 0.5
        assert abs(np.mean(x[3:] * x[:-3])) < 4 / len(x) ** 0.5


@pytest.mark.parametrize("path", ["native", "others", "table"])
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_the_simulation_goes_on_as_if_there_had_been_no_segment(path: str, integrator: str) -> None:
    """State, time, box and parameters are as before; so are the next steps, noise and all."""
    liquid = fluid(path, integrator=INTEGRATORS[integrator]())
    liquid.simulation.step(10)
    checkpoint = liquid.simulation.context.createCheckpoint()
    liquid.simulation.step(10)
    expected = state_of(liquid)
    liquid.simulation.context.loadCheckpoint(checkpoint)
    before = openmm.XmlSerializer.serialize(liquid.snapshot())
    box = 1.1 * BOX
    segment = liquid.segment(5, lattice(N, box, 0.02), options=SegmentOptions(box=box))
    assert openmm.XmlSerializer.serialize(liquid.snapshot()) == before
    segment.positions[-1].square().sum().backward()
    assert openmm.XmlSerializer.serialize(liquid.snapshot()) == before
    liquid.simulation.step(10)
    np.testing.assert_array_equal(state_of(liquid), expected)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("path", PATHS)
def test_gradient_is_that_at_the_parameters_of_the_forward_pass(path: str, every: int) -> None:
    """Though the potential, and with it the Context, has others by the time it is asked for."""
    p = problem(path, "LangevinMiddle", 10)
    expected = p.gradient(p.loss(every=every))
    late = p.loss(every=every)
    liquid, potential = p.liquid, p.liquid.potential
    changed = {name: tensor.detach() * 1.05 for name, tensor in potential.named_parameters()}
    for name, tensor in changed.items():
        # Replaced in place of being written to: the graph refers to the old one.
        setattr(potential, name, torch.nn.Parameter(tensor))
    liquid.apply()
    energy = liquid.simulation.context.getState(getEnergy=True).getPotentialEnergy()
    with torch.no_grad():
        assert not torch.equal(p.loss(every=every), late)
    assert_same(p.gradient(late), expected, 1e-12)
    after = liquid.simulation.context.getState(getEnergy=True).getPotentialEnergy()
    assert after == energy, "the Context has lost the present parameters"


def test_gradient_is_that_at_the_global_parameters_of_the_forward_pass() -> None:
    p = problem("others", "LangevinMiddle", 10)
    del p.leaves["pull"]
    expected = p.gradient(p.loss(every=5))
    late = p.loss(every=5)
    p.liquid.simulation.context.setParameter("pull", 50.0)
    assert_same(p.gradient(late), expected, 1e-12)
    assert p.liquid.simulation.context.getParameter("pull") == 50.0


@pytest.mark.parametrize("path", PATHS)
def test_another_box(path: str) -> None:
    """The segment is that of a Simulation which has that box; so is the gradient."""
    box = BOX * 1.07
    here, there = problem(path, "velocity Verlet", 10), problem(path, "velocity Verlet", 10)
    there.liquid.simulation.context.setPeriodicBoxVectors(*box)
    found = here.segment(box=box * unit.nanometer)
    np.testing.assert_array_equal(found.box, box)
    expected = there.segment()
    np.testing.assert_allclose(
        found.positions.detach(), expected.positions.detach(), rtol=0, atol=1e-12
    )
    assert not np.allclose(found.positions.detach(), here.segment().positions.detach(), atol=1e-6)
    assert_same(here.gradient(here.loss(box=box)), there.gradient(), 1e-8)


def test_a_segment_of_the_parameters_as_they_are() -> None:
    """No need to ``apply()`` first."""
    liquid = fluid()
    x, v = lattice(N, BOX, 0.02), np.zeros((N, 3))
    before = liquid.segment(5, x, v).positions
    with torch.no_grad():
        liquid.potential.epsilon.mul_(2)
    np.testing.assert_array_equal(
        liquid.segment(5, x, v).positions.detach(),
        fluid(potential=argon_with(2.0)).segment(5, x, v).positions.detach(),
    )
    assert not torch.equal(before, liquid.segment(5, x, v).positions)


def argon_with(factor: float) -> diffsim.PairPotential:
    """Deeper by a factor."""
    potential = argon(knots=25)
    with torch.no_grad():
        potential.epsilon.mul_(factor)
    return potential
