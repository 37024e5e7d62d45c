"""Segments through networks: gradients by differences, batches, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from segment_systems import (
    BOX,
    DT,
    KELVIN,
    SCHEMES,
    N,
    Problem,
    assert_gradient,
    assert_parameters,
    assert_same,
    network,
    particles,
    problem,
    waves,
)
from systems import MASS, argon, empty_system, langevin, lattice, simulate
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import VACF, NetworkPotential, NeuralPair
from openmm_diffsim.engine.segments import SegmentOptions, SegmentRecorder, SegmentRunner, leapfrog
from openmm_diffsim.observables import Frame
from openmm_diffsim.observables.segment import SegmentRecords
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

pytestmark = pytest.mark.usefixtures("plugin")

every_scheme = pytest.mark.parametrize("name", SCHEMES)


def neural_pair() -> NeuralPair:
    pair = NeuralPair(0.25, 0.6, 0.33, centers=10, hidden=(8,), seed=3, name="pair")
    with torch.no_grad():
        pair.network[-1].weight.mul_(200)
    return pair


POTENTIALS: dict[str, Callable[[], NetworkPotential]] = {
    "TorchMDNet": network,
    "NeuralPair": lambda: neural_pair().as_network(),
    "scripted": lambda: NetworkPotential(torch.jit.script(network().network), prior=argon()),
}


def fluid(
    potential: NetworkPotential,
    others: bool = False,
    integrator: openmm.Integrator | None = None,
    **attached: Any,
) -> diffsim.StatePoint:
    """As ``segment_systems.fluid``, with a network."""
    system = particles(others)
    potential.attach(system, backend="python", **attached)
    simulation = simulate(system, lattice(N, BOX, 0.02), integrator or langevin(KELVIN))
    return diffsim.StatePoint(simulation, potential, temperature=KELVIN)


def network_problem(
    liquid: diffsim.StatePoint, name: str, steps: int, path: str = "native", **options: Any
) -> Problem:
    """Of all leaves but the parameters."""
    p = problem(path, name, steps, liquid, **options)
    for parameter, _ in liquid.potential.named_parameters():
        del p.leaves[parameter]
    return p


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "name", "others"),
    [
        *(("TorchMDNet", name, False) for name in SCHEMES),
        ("TorchMDNet", "LangevinMiddle", True),
        ("NeuralPair", "LangevinMiddle", True),
        ("NeuralPair", "Nose-Hoover", False),
        ("scripted", "LangevinMiddle", False),
    ],
)
def test_gradient(name: str, which: str, others: bool) -> None:
    """Of positions, velocities, noise, a protocol and the parameters of the network."""
    potential = POTENTIALS[which]()
    liquid = fluid(potential, others)
    p = network_problem(liquid, name, 5, "others" if others else "native")
    assert_gradient(p)
    assert_parameters(potential, p.loss)


def test_gradient_of_a_longer_segment_that_keeps_every_fifth_step() -> None:
    potential = network()
    p = network_problem(fluid(potential), "LangevinMiddle", 20)
    p.options = {"every": 5}
    assert_gradient(p, shrink=0.5)
    assert_parameters(potential, p.loss)
    p.options = {}
    whole = p.segment()
    sparse = p.segment(every=5)
    np.testing.assert_allclose(
        sparse.positions.detach(), whole.positions.detach()[::5], rtol=0, atol=1e-13
    )


def test_network_on_some_particles_of_two_types() -> None:
    potential = network(n_types=2)
    atoms = [0, 2, 3, 4, 6, 7, 9, 11]
    liquid = fluid(potential, True, atoms=atoms, types=[0, 1, 1, 0, 1, 0, 0, 1])
    p = network_problem(liquid, "LangevinMiddle", 3, "others")
    assert_gradient(p)
    assert_parameters(potential, p.loss)
    alone = fluid(potential, atoms=atoms, types=[0, 1, 1, 0, 1, 0, 0, 1])
    field = SegmentRunner(potential, alone.simulation.context, KELVIN).field(BOX)
    forces = field.forces(lattice(N, BOX, 0.02), [])
    assert np.all(np.abs(forces[atoms]).max(axis=1) > 0)
    np.testing.assert_array_equal(np.delete(forces, atoms, axis=0), 0.0)


def test_gradient_is_of_the_parameters_that_the_segment_ran_with() -> None:
    potential = network()
    p = network_problem(fluid(potential), "LangevinMiddle", 3)
    parameters = [q for q in potential.parameters() if q.requires_grad]
    expected = torch.autograd.grad(p.loss(), parameters, allow_unused=True)
    value = p.loss()
    start = flat_parameters(potential)
    set_flat_parameters(potential, 1.1 * start)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    assert torch.equal(flat_parameters(potential), 1.1 * start)
    for a, b in zip(found, expected, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


# Trajectories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [False, True])
def test_segment_is_the_trajectory_of_openmm(others: bool) -> None:
    liquid = fluid(network(), others, openmm.VerletIntegrator(DT))
    context = liquid.simulation.context
    context.setPositions(lattice(N, BOX, 0.02))
    context.setVelocitiesToTemperature(KELVIN, 3)
    state = context.getState(getPositions=True, getVelocities=True)
    segment = liquid.segment(
        10, state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)
    )
    for step in range(1, 11):
        context.getIntegrator().step(1)
        x = context.getState(getPositions=True).getPositions(asNumpy=True)._value
        np.testing.assert_allclose(segment.positions[step].detach(), x, rtol=0, atol=1e-10)


def test_pair_in_torch_goes_as_its_spline_does() -> None:
    """Natively and by a network, within what the table error makes of forces."""
    pair = neural_pair()
    pair.refine_knots(1e-5, KELVIN)
    positions, velocities = (
        lattice(N, BOX, 0.02),
        0.2 * np.random.default_rng(1).normal(size=(N, 3)),
    )
    system = empty_system(N, BOX, MASS)
    pair.attach(system)
    native = diffsim.StatePoint(simulate(system, positions), pair, temperature=KELVIN)
    system = empty_system(N, BOX, MASS)
    pair.as_network().attach(system, backend="python")
    torchwise = diffsim.StatePoint(
        simulate(system, positions), pair.as_network(), temperature=KELVIN
    )
    slopes = []
    for liquid in (native, torchwise):
        segment = liquid.segment(50, positions, velocities, SegmentOptions(leapfrog(DT)))
        slopes.append(
            (segment, torch.autograd.grad(segment.positions[-1].sin().sum(), pair.parameters()))
        )
    moved = slopes[0][0].positions[-1] - slopes[0][0].positions[0]
    gap = slopes[0][0].positions[-1] - slopes[1][0].positions[-1]
    assert float(moved.detach().abs().max()) > 0.05
    assert 0 < float(gap.detach().abs().max()) < 1e-5
    for a, b in zip(slopes[0][1], slopes[1][1], strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-3 * float(a.abs().max()))


# Batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"truncation": 2}, {"clipping": 1.05}, {"every": 2}], ids=str
)
@every_scheme
def test_a_batch_is_its_segments(name: str, options: dict[str, Any]) -> None:
    potential = network()
    p = network_problem(fluid(potential), name, 6, segments=(3,))
    p.options = options
    rng = np.random.default_rng(7)
    w = torch.from_numpy(rng.normal(size=(3, 6 // options.get("every", 1) + 1, N, 3)))
    weights = torch.tensor([1.0, 30.0, 0.0], dtype=torch.float64)  # nothing is asked of the last

    def value(positions: Tensor, velocities: Tensor) -> Tensor:
        each = (w * positions.sin()).sum(dim=(1, 2, 3)) + velocities.square().sum(dim=(1, 2, 3))
        return (weights * each).sum()

    parameters = [q for q in potential.parameters() if q.requires_grad]
    leaves = [*p.leaves.values(), *parameters]

    def gradient(positions: Tensor, velocities: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(value(positions, velocities), leaves, allow_unused=True)
        return {
            str(k): torch.zeros_like(leaf) if g is None else g
            for k, (leaf, g) in enumerate(zip(leaves, found, strict=True))
        }

    batch = p.segment()
    each = [
        p.liquid.segment(
            6,
            p.leaves["positions"][k],
            p.leaves["velocities"][k],
            SegmentOptions(
                integrator=p.scheme,
                noise=p.leaves["noise"][k] if "noise" in p.leaves else None,
                **options,
            ),
        )
        for k in range(3)
    ]
    positions = torch.stack([s.positions for s in each])
    velocities = torch.stack([s.velocities for s in each])
    np.testing.assert_allclose(batch.positions.detach(), positions.detach(), rtol=0, atol=1e-12)
    found, expected = gradient(batch.positions, batch.velocities), gradient(positions, velocities)
    assert_same(found, expected, 1e-9)


def test_a_batch_is_one_call_of_the_network_at_a_time() -> None:
    potential = network()
    p = network_problem(fluid(potential), "LangevinMiddle", 4, segments=(2, 3))
    seen = []
    energies = potential.energies
    potential.energies = lambda x, *rest: seen.append(tuple(x.shape)) or energies(x, *rest)  # type: ignore[method-assign,assignment,func-returns-value]
    with torch.no_grad():
        segment = p.segment()
    assert segment.positions.shape == (2, 3, 5, N, 3)
    assert set(seen) == {(6, N, 3)} and len(seen) == 4


def test_batch_with_a_field_and_other_forces() -> None:
    stiffness = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    p = network_problem(fluid(network(), True), "LangevinMiddle", 3, "others", segments=(2,))
    batch = p.segment(field=waves(stiffness))
    one = p.liquid.segment(
        3,
        p.leaves["positions"][1],
        p.leaves["velocities"][1],
        SegmentOptions(
            integrator=p.scheme,
            noise=p.leaves["noise"][1],
            protocol={"pull": p.leaves["pull"]},
            field=waves(stiffness),
        ),
    )
    np.testing.assert_allclose(
        batch.positions[1].detach(), one.positions.detach(), rtol=0, atol=1e-12
    )
    assert_gradient(p)


# What is recorded ---------------------------------------------------------------------------------

LAGS = [0, 2, 4]


def frame(seed: int) -> Frame:
    return Frame(lattice(N, BOX, 0.02, seed), BOX, float(np.prod(np.diag(BOX))), 0.0)


def recorder(potential: NetworkPotential, **options: Any) -> SegmentRecorder:
    context = fluid(potential).simulation.context
    return SegmentRecorder(VACF(LAGS, **options), SegmentRunner(potential, context, KELVIN))


@pytest.mark.parametrize("which", ["TorchMDNet", "NeuralPair"])
def test_recorded_derivative_is_that_of_the_values(which: str) -> None:
    """By differences in single parameters, to 1e-6 of the largest entry."""
    potential = POTENTIALS[which]()
    made = recorder(potential, estimator="pathwise")

    def recorded() -> SegmentRecords:
        row = torch.from_numpy(made.record(frame(1), []))
        return SegmentRecords.unpack(row[None], len(LAGS))

    data = recorded()
    found = data.pathwise[0].numpy()
    start = flat_parameters(potential)
    assert found.shape == (len(LAGS), len(start)) and np.isfinite(data.growth).all()
    largest = np.abs(found).max()
    assert largest > 0
    for k in np.argsort(-np.abs(found[-1]))[[0, 1, 5, 20]]:
        total = 0.0
        for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = start.clone()
            moved[k] += offset * 1e-3
            set_flat_parameters(potential, moved)
            total = total + weight * recorded().values[0].numpy()
        set_flat_parameters(potential, start)
        np.testing.assert_allclose(found[:, k], total / 12e-3, rtol=0, atol=1e-6 * largest)


def test_path_score_of_a_network() -> None:
    """sum_t w_t . dF_t/dtheta, against differences of the forces."""
    potential = network()
    made = recorder(potential, estimator="score")
    data = SegmentRecords.unpack(torch.from_numpy(made.record(frame(1), []))[None], len(LAGS))
    assert bool(torch.isfinite(data.score).all()) and bool(torch.isfinite(data.explicit).all())
    x = np.stack([lattice(N, BOX, 0.05, seed) for seed in range(3)])
    w = np.random.default_rng(1).normal(size=x.shape)
    theta = flat_parameters(potential)
    found = made.runner.field(BOX).parameter_product(x, w)
    direction = torch.from_numpy(np.random.default_rng(2).normal(size=len(theta)))
    expected = 0.0
    for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        field = made.runner.field(BOX, (theta + offset * 1e-4 * direction))
        expected += weight * sum(
            float(np.sum(row * field.forces(each, []))) for each, row in zip(x, w, strict=True)
        )
    assert found.shape == (len(theta),)
    assert float(found @ direction.numpy()) == pytest.approx(expected / 12e-4, rel=1e-8)
    assert torch.equal(flat_parameters(potential), theta)


def test_fixed_parameters_are_no_coefficients() -> None:
    potential = network()
    assert potential.prior is not None
    assert len(flat_parameters(potential)) < sum(p.numel() for p in potential.parameters())
    data = SegmentRecords.unpack(
        torch.from_numpy(recorder(potential).record(frame(1), []))[None], len(LAGS)
    )
    assert data.pathwise.shape[-1] == len(flat_parameters(potential))
