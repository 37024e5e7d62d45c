"""Segments of several potentials learned together, and of a kind of one's own."""

from __future__ import annotations

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
)
from systems import argon, langevin, lattice, simulate
from torch import nn

import openmm_diffsim as diffsim
from openmm_diffsim import LennardJones, SplinePair
from openmm_diffsim.engine.adapters import Adapter, FieldPart
from openmm_diffsim.engine.segments import (
    SegmentOptions,
    SegmentRecorder,
    SegmentRunner,
    dynamic_average,
)
from openmm_diffsim.errors import SegmentError
from openmm_diffsim.observables import Frame
from openmm_diffsim.observables.segment import SegmentRecords
from openmm_diffsim.potentials import AttachOptions, Potential, Sum, adapts

pytestmark = pytest.mark.usefixtures("plugin")

FIRST, SECOND = list(range(8)), [0, 2, 5, 6, 7, 9, 10, 11]  # atoms; some are in both
BACKENDS = [("native", "native"), ("table", "table"), ("native", "table")]


def first() -> LennardJones:
    return argon(knots=25, name="first")


def second() -> SplinePair:
    """Shorter, on two types, with every coefficient a parameter."""
    made = SplinePair(0.25, 0.55, 9, n_types=2, name="second")
    c = 0.7 * argon(0.55, 9).spline_coefficients().detach()
    return made.set_coefficients(torch.cat([c, 0.8 * c, 1.3 * c]))


def state_point(
    potential: Potential, system: openmm.System, integrator: openmm.Integrator | None = None
) -> diffsim.StatePoint:
    simulation = simulate(system, lattice(N, BOX, 0.02), integrator or langevin(KELVIN))
    return diffsim.StatePoint(simulation, potential, temperature=KELVIN)


def pairs(
    backends: tuple[str, str] = ("native", "native"),
    others: bool = False,
    integrator: openmm.Integrator | None = None,
) -> diffsim.StatePoint:
    """Two pair potentials, each on atoms of its own."""
    a, b = first(), second()
    system = particles(others)
    a.attach(system, atoms=FIRST, backend=backends[0])
    b.attach(system, atoms=SECOND, types=[0, 1] * 4, backend=backends[1])
    return state_point(a + b, system, integrator)


def network_and_pair(
    backend: str = "native", others: bool = False, integrator: openmm.Integrator | None = None
) -> diffsim.StatePoint:
    """A network on all particles, and a pair potential on some."""
    a, b = network(), second()
    system = particles(others)
    a.attach(system, backend="python")
    b.attach(system, atoms=SECOND, types=[0, 1] * 4, backend=backend)
    return state_point(a + b, system, integrator)


def sum_problem(
    liquid: diffsim.StatePoint, name: str, steps: int, path: str = "native", **options: Any
) -> Problem:
    """Of all leaves but the parameters, which are many."""
    p = problem(path, name, steps, liquid, **options)
    for parameter, _ in liquid.potential.named_parameters():
        del p.leaves[parameter]
    return p


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("backends", BACKENDS, ids="-".join)
def test_gradient_of_two_pair_potentials(backends: tuple[str, str], name: str) -> None:
    """Of starts, noise, and each parameter of both, against differences, to 1e-6."""
    p = problem("native", name, 10, pairs(backends))
    assert {"terms.0.sigma", "terms.0.epsilon", "terms.1.values"} < set(p.leaves)
    assert_gradient(p)


@pytest.mark.parametrize("backends", BACKENDS[:2], ids="-".join)
def test_gradient_of_two_pair_potentials_with_other_forces(backends: tuple[str, str]) -> None:
    assert_gradient(problem("others", "LangevinMiddle", 5, pairs(backends, others=True)))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("backend", ["native", "table"])
def test_gradient_of_a_network_and_a_pair_potential(backend: str, name: str) -> None:
    liquid = network_and_pair(backend)
    p = sum_problem(liquid, name, 4)
    assert_gradient(p)
    for term in terms(liquid):
        assert_parameters(term, p.loss)


@pytest.mark.parametrize("backend", ["native", "table"])
def test_gradient_of_a_network_and_a_pair_potential_with_other_forces(backend: str) -> None:
    liquid = network_and_pair(backend, others=True)
    p = sum_problem(liquid, "LangevinMiddle", 4, "others", segments=(2,))
    assert_gradient(p)
    for term in terms(liquid):
        assert_parameters(term, p.loss)


def terms(liquid: diffsim.StatePoint) -> list[Potential]:
    assert isinstance(liquid.potential, Sum)
    return list(liquid.potential)


@pytest.mark.parametrize("make", [pairs, network_and_pair])
def test_gradient_is_that_at_the_parameters_of_the_forward_pass(make: Any) -> None:
    """Of all terms; what the Context has later does not matter, and it keeps it."""
    liquid = make()
    p = problem("native", "LangevinMiddle", 5, liquid)
    p.leaves = {name: leaf for name, leaf in p.leaves.items() if leaf.requires_grad}
    pair = terms(liquid)[1]
    expected, late = p.gradient(p.loss()), p.loss()
    pair.values = torch.nn.Parameter(1.05 * pair.values.detach())
    liquid.apply()
    energy = liquid.simulation.context.getState(getEnergy=True).getPotentialEnergy()
    assert_same(p.gradient(late), expected, 1e-11)
    assert liquid.simulation.context.getState(getEnergy=True).getPotentialEnergy() == energy
    with torch.no_grad():
        assert not torch.equal(p.loss(), late)


# Trajectories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "table"])
@pytest.mark.parametrize("kind", ["pairs", "network and pair"])
def test_segment_is_the_trajectory_of_the_simulation(kind: str, backend: str) -> None:
    """10 steps from where it is, to 1e-10 nm; afterwards the Simulation is as before."""
    verlet = openmm.VerletIntegrator(DT)
    if kind == "pairs":
        liquid = pairs((backend, backend), others=True, integrator=verlet)
    else:
        liquid = network_and_pair(backend, others=True, integrator=verlet)
    before = openmm.XmlSerializer.serialize(liquid.snapshot())
    segment = liquid.segment(10)
    segment.positions[-1].square().sum().backward()
    assert openmm.XmlSerializer.serialize(liquid.snapshot()) == before
    liquid.simulation.step(10)
    x = liquid.snapshot().getPositions(asNumpy=True)._value
    np.testing.assert_allclose(segment.positions[-1].detach(), x, rtol=0, atol=1e-10)


def test_a_pair_without_a_box_beside_one_with() -> None:
    """Each term has images or none, as its own Force does."""
    a, b = argon(knots=25, name="first"), argon(knots=25, name="second")
    system = particles()
    a.attach(system, atoms=FIRST, periodic=True, backend="table")
    b.attach(system, atoms=SECOND, periodic=False, backend="table")
    assert_gradient(problem("native", "leapfrog Verlet", 5, state_point(a + b, system)))


@pytest.mark.parametrize("make", [pairs, network_and_pair])
def test_a_batch_is_its_segments(make: Any) -> None:
    liquid = make()
    batch = sum_problem(liquid, "LangevinMiddle", 4, segments=(2,))
    together = batch.segment()
    for k in range(2):
        leaves = {name: leaf.detach()[k] for name, leaf in batch.leaves.items()}
        alone = Problem(liquid, batch.scheme, 4, leaves).segment()
        np.testing.assert_allclose(
            together.positions.detach()[k], alone.positions.detach(), rtol=0, atol=1e-12
        )


# What is recorded ---------------------------------------------------------------------------------

LAGS = [0, 2, 4]


@pytest.mark.parametrize("make", [pairs, network_and_pair])
def test_path_score(make: Any) -> None:
    """sum_t w_t . dF_t/dc of all terms, against differences of the forces."""
    liquid = make()
    runner = SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    rng = np.random.default_rng(1)
    x = np.stack([lattice(N, BOX, 0.05, seed) for seed in range(3)])
    w = rng.normal(size=x.shape)
    c = liquid.potential.coefficients().detach()
    found = runner.field(BOX).parameter_product(x, w)
    assert found.shape == c.shape
    for where in liquid.potential.slices():
        direction = torch.zeros_like(c)
        direction[where] = torch.from_numpy(rng.normal(size=len(c[where])))
        expected = 0.0
        for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            field = runner.field(BOX, c + offset * 1e-4 * direction)
            expected += weight * float(np.sum(w * np.stack([field.forces(f, []) for f in x])))
        assert found @ direction.numpy() == pytest.approx(expected / 12e-4, rel=1e-7)


@pytest.mark.parametrize("make", [pairs, network_and_pair])
def test_recorded_derivative_is_that_of_the_values(make: Any) -> None:
    """Along a direction in the parameters of each term, by differences, to 1e-6."""
    liquid = make()
    runner = SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    made = SegmentRecorder(diffsim.VACF(LAGS, estimator="pathwise"), runner)
    frame = Frame(lattice(N, BOX, 0.02, 1), BOX, float(np.prod(np.diag(BOX))), 0.0)

    def recorded() -> SegmentRecords:
        row = torch.from_numpy(made.record(frame, []))
        return SegmentRecords.unpack(row[None], len(LAGS))

    slopes = recorded().pathwise[0].numpy()
    assert slopes.shape == (len(LAGS), len(liquid.potential.coefficients()))
    for where, term in zip(liquid.potential.slices(), terms(liquid), strict=True):
        parameters = [p for p in term.parameters() if p.requires_grad]
        found = term.pull_back(slopes[:, where]).sum(axis=1)
        expected = np.zeros(len(LAGS))
        for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            with torch.no_grad():
                for p in parameters:
                    p.add_(offset * 1e-4)
                expected += weight * recorded().values[0].numpy() / 12e-4
                for p in parameters:
                    p.sub_(offset * 1e-4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("make", [pairs, network_and_pair])
def test_average_and_its_total_derivative(make: Any) -> None:
    """From sampling to both terms of the derivative: the graph of the average has them, too."""
    liquid = make()
    vacf = diffsim.VACF(LAGS, estimator="pathwise")
    samples = liquid.sample(200, 10, [vacf])
    parameters = [p for p in liquid.potential.parameters() if p.requires_grad]
    average = samples.average(vacf)
    found = torch.autograd.grad(average[1], parameters, allow_unused=True)
    flat = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).ravel()
            for g, p in zip(found, parameters, strict=True)
        ]
    )
    total = dynamic_average(vacf, samples).total.value[1]
    np.testing.assert_allclose(flat, total, rtol=0, atol=1e-9 * np.abs(total).max())


# A kind of one's own ------------------------------------------------------------------------------


class Tether(Potential):
    """k |x - x_0|^2 / 2 of each particle, x_0 being where it starts."""

    energy_is_linear = True

    def __init__(self, stiffness: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor([stiffness], dtype=torch.float64))


@adapts(Tether)
class TetherAdapter(Adapter):
    """Without any part."""

    def build(self, system: openmm.System, options: AttachOptions) -> openmm.Force:
        force = openmm.CustomExternalForce("0.5*k*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
        force.addPerParticleParameter("k")
        for axis in "xyz":
            force.addPerParticleParameter(f"{axis}0")
        for i, x in enumerate(lattice(N, BOX)):
            force.addParticle(i, [self.potential.k.item(), *x])
        return force

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        return force if isinstance(force, openmm.CustomExternalForce) else None

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        put_stiffness(self.force, context, self.potential.k.item())


def put_stiffness(force: Any, context: openmm.Context | None, k: float) -> None:
    for i in range(N):
        particle, (_, *origin) = force.getParticleParameters(i)
        force.setParticleParameters(i, particle, [k, *origin])
    if context is not None:
        force.updateParametersInContext(context)


class Followed(Tether):
    """One whose adapter has a part."""


class Coefficient:
    """Lends a stiffness to a Force."""

    def __init__(self, part: TetherPart, k: float) -> None:
        self.part, self.k = part, k

    def __enter__(self) -> None:
        _, (self.before, *_) = self.part.force.getParticleParameters(0)
        put_stiffness(self.part.force, self.part.context, self.k)

    def __exit__(self, *error: object) -> None:
        put_stiffness(self.part.force, self.part.context, self.before)


class TetherPart(FieldPart):
    """Its forces come with the Context's; how they depend on positions is found by differences."""

    def __init__(self, force: Any, context: openmm.Context) -> None:
        super().__init__(force.getName(), False)
        self.force, self.context = force, context

    def having(self, c: Any) -> Any:
        return Coefficient(self, float(c[0]))

    def put(self, force: openmm.Force, context: openmm.Context, c: Any) -> None:
        put_stiffness(force, context, float(c[0]))

    def parameter_product(self, c: Any, positions: Any, w: Any, box: Any) -> Any:
        return np.array([-np.sum(w * (positions - lattice(N, BOX)))])


@adapts(Followed)
class FollowedAdapter(TetherAdapter):
    """With a part."""

    def part(self, context: openmm.Context) -> FieldPart:
        return TetherPart(self.force, context)


def test_an_adapter_without_a_part_is_refused() -> None:
    """Alone, and as a term of a sum; when a segment is asked for."""
    for more in ([], [first()]):
        system = particles()
        potential = Sum([Tether(50.0), *more])
        potential.attach(system)
        liquid = state_point(potential, system)
        with pytest.raises(SegmentError, match=r"follow the forces of Tether: .* has no part\(\)"):
            liquid.segment(3)


@pytest.mark.parametrize("beside", ["alone", "pair", "network"])
def test_a_part_of_ones_own(beside: str) -> None:
    """By itself, beside a native pair potential, and beside a network."""
    more = {"alone": [], "pair": [first()], "network": [network()]}[beside]
    potential, system = Sum([Followed(500.0), *more]), particles()
    potential.attach(system)
    liquid = state_point(potential, system)
    p = sum_problem(liquid, "LangevinMiddle", 5)
    tether, *others = potential
    p.leaves["k"] = tether.k
    assert_gradient(p)
    for term in others:
        assert_parameters(term, p.loss)


def test_options_are_checked_where_they_are_made() -> None:
    """Before any segment is asked for; how long it is matters to one of them alone."""
    with pytest.raises(SegmentError, match="truncation: expected at least one step, got 0"):
        SegmentOptions(truncation=0)
    SegmentOptions(every=3).check(9)
    with pytest.raises(SegmentError, match="got steps = 10 and every = 3"):
        SegmentOptions(every=3).check(10)
