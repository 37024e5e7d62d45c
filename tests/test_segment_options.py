"""What can be asked of a segment, what it reports, and what is refused."""

from __future__ import annotations

import gc
import weakref
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
    KELVIN,
    SCHEMES,
    Array,
    N,
    Problem,
    argon,
    assert_same,
    fluid,
    free_particles,
    no_force,
    problem,
)
from systems import MASS, empty_system, lattice, simulate
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.engine.segments import (
    Scheme,
    SegmentOptions,
    SegmentRunner,
    TorchField,
    langevin,
    langevin_middle,
    leapfrog,
    nose_hoover,
    read_scheme,
    velocity_verlet,
)
from openmm_diffsim.engine.segments.fields import DifferenceContext
from openmm_diffsim.errors import AttachError, SamplingError, SegmentError

pytestmark = pytest.mark.usefixtures("plugin")

WAYS = pytest.mark.parametrize("way", [{}, {"field": no_force}], ids=["native", "general"])
every_scheme = pytest.mark.parametrize("name", SCHEMES)


def last_positions(p: Problem, **options: Any) -> Tensor:
    """Something that depends on the last positions only."""
    return p.segment(**options).positions[-1].sin().sum()


# Truncation, clipping and growth ------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "Nose-Hoover"])
def test_truncation_is_a_cut(name: str, way: dict[str, Any]) -> None:
    """The gradient is that of a segment which starts so many steps before the end.

    Not so with a chain, which would have to start in motion.
    """
    p = problem("native", name, 12)
    found = p.gradient(last_positions(p, truncation=5, **way))
    whole = p.segment()
    leaves = {
        **p.leaves,
        "positions": whole.positions[7].detach().requires_grad_(True),
        "velocities": whole.velocities[7].detach().requires_grad_(True),
    }
    if "noise" in leaves:
        leaves["noise"] = leaves["noise"].detach()[7:].requires_grad_(True)
    cut = Problem(p.liquid, p.scheme, 5, leaves)
    expected = cut.gradient(last_positions(cut))
    for start in ("positions", "velocities"):
        assert bool(expected.pop(start).any()) and not bool(found[start].any())
    if "noise" in found:
        assert not bool(found["noise"][:7].any())
        found["noise"] = found["noise"][7:]
    assert_same(found, expected, 1e-9)


@WAYS
@every_scheme
def test_what_is_never_reached_changes_nothing(name: str, way: dict[str, Any]) -> None:
    p = problem("native", name, 12)
    expected = p.gradient(last_positions(p, **way))
    for options in ({"truncation": 13}, {"truncation": 12}, {"clipping": 1e6}):
        found = p.gradient(last_positions(p, **options, **way))
        if options.get("truncation") == 12:  # what is dropped is that of the start itself
            for start in ("positions", "velocities"):
                assert not bool(found.pop(start).any())
        assert_same(found, {leaf: expected[leaf] for leaf in found}, 1e-14)


@pytest.mark.parametrize("options", [{"truncation": 1}, {"truncation": 5}, {"clipping": 1.5}])
@every_scheme
def test_both_ways_truncate_and_clip_alike(name: str, options: dict[str, Any]) -> None:
    p = problem("native", name, 20)
    native, general = p.segment(**options), p.segment(field=no_force, **options)
    found, expected = (p.gradient(s.positions[-1].sin().sum()) for s in (general, native))
    assert_same(found, expected, 1e-9)
    np.testing.assert_allclose(general.growth(), native.growth(), rtol=1e-9, atol=1e-14)


@WAYS
def test_clipping_bounds_the_growth(way: dict[str, Any]) -> None:
    """To its size at the last time; without, that of the last positions grows by far."""
    p = problem("native", "leapfrog Verlet", 20)
    starts = {}
    for clipping in (None, 1.0):
        segment = p.segment(clipping=clipping, **way)
        gradient = p.gradient(segment.positions[-1].sin().sum())
        dx, dv = gradient["positions"] * DT, gradient["velocities"]
        masses = torch.from_numpy(segment.masses)[:, None]
        moves = masses[:, 0] > 0
        size = ((dx**2 + dv**2)[moves] / masses[moves]).sum().sqrt()
        starts[clipping] = float(size) / segment.growth()[-1]
    assert starts[None] > 10
    assert starts[1.0] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("every", [1, 4])
@WAYS
@pytest.mark.parametrize("name", ["velocity Verlet", "leapfrog Verlet", "LangevinMiddle"])
def test_growth_of_free_particles(name: str, way: dict[str, Any], every: int) -> None:
    """From a . x at the last time: |a| dt sqrt(1 + (t_last - t)^2 / dt^2) / sqrt(m).

    With friction, v is worth (1 - s^n)/(1 - s) dt of x in n steps, less what LangevinMiddle
    drifts before the friction acts: dt/2 (1 + s) sum_k s^k.
    """
    potential, context = free_particles()
    runner = SegmentRunner(potential, context, KELVIN)
    v = np.ones((2, 3))
    scheme = SCHEMES[name]
    segment = runner.run(12, None, v, SegmentOptions(scheme, every=every, **way))
    assert np.isnan(segment.growth()).all() and len(segment.growth()) == 12 // every + 1
    a = torch.tensor([[1.0, 2.0, -2.0], [0.0, 3.0, 4.0]], dtype=torch.float64)
    (segment.positions[-1] * a).sum().backward()
    s = scheme.splitting[2]
    worth = np.array([0.5 * (1 + s) * sum(s**k for k in range(n)) for n in range(12, -1, -every)])
    expected = DT * np.sqrt((1 + worth**2) * (9 / 10 + 25 / 40))
    np.testing.assert_allclose(segment.growth(), expected, rtol=1e-12)


def test_growth_of_the_first_steps() -> None:
    """A part of a segment has that of its own times."""
    p = problem("native", "leapfrog Verlet", 6)
    segment = p.segment()
    p.gradient(segment.positions[-1].sum())
    assert len(segment.growth()) == 7
    np.testing.assert_array_equal(segment.first(4).growth(), segment.growth()[:5])


# Directional differences --------------------------------------------------------------------------


def differences_of(force: openmm.Force, n: int) -> DifferenceContext:
    """Of one force, beside a native one."""
    system = empty_system(n, np.eye(3) * 4)
    system.addForce(force)
    learned = argon().attach(system, periodic=False, backend="native")
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(DT), platform)
    return DifferenceContext(context, [learned.getName()])


@pytest.mark.parametrize("wavenumber", [1e5, 3e5])
def test_difference_error_of_what_is_too_steep(wavenumber: float) -> None:
    """Forces that change within 1e-6 nm: the error is that reported, to a tenth."""
    steep = openmm.CustomExternalForce(f"sin({wavenumber}*x)/{wavenumber}^2")
    for i in range(5):
        steep.addParticle(i)
    rng = np.random.default_rng(2)
    x, w = rng.uniform(0, 1, (5, 3)), rng.uniform(-1, 1, (5, 3))
    w[2] *= 3
    differences = differences_of(steep, 5)
    found, reported = differences.product(x, w)
    exact = np.sin(wavenumber * x) * w * np.array([1, 0, 0])  # of -F', F = -cos(kx)/k
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert error > 1e-5
    assert reported == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("stretch", [0.3, 3.0])
def test_difference_error_of_bonds(stretch: float) -> None:
    """Where rounding is all there is, ten times what is reported is not exceeded."""
    bonds = openmm.HarmonicBondForce()
    pairs = np.array([(0, 1), (1, 2), (2, 3), (0, 3)])
    for i, j in pairs:
        bonds.addBond(int(i), int(j), 0.3, 1000.0)
    rng = np.random.default_rng(3)
    x, w = stretch * rng.uniform(size=(4, 3)), rng.uniform(-1, 1, (4, 3))

    def force(y: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(y[pairs[:, 0]] - y[pairs[:, 1]], dim=1)
        (slope,) = torch.autograd.grad(500 * (lengths - 0.3).square().sum(), y, create_graph=True)
        return -slope

    y = torch.tensor(x, requires_grad=True)
    (exact,) = torch.autograd.grad((force(y) * torch.from_numpy(w)).sum(), y)
    found, reported = differences_of(bonds, 4).product(x, w)
    error = np.abs(found - exact.numpy()).max() / np.abs(exact.numpy()).max()
    assert error < 10 * reported < 1e-6


@pytest.mark.parametrize("path", ["native", "others", "table"])
def test_difference_error_is_reported(path: str) -> None:
    """After a backward pass, wherever there was a difference."""
    p = problem(path, "velocity Verlet", 3)
    segment = p.segment()
    assert "difference_error" not in segment.diagnostics
    p.gradient(segment.positions.square().sum() + segment.velocities.square().sum())
    if path == "native":
        assert "difference_error" not in segment.diagnostics
    else:
        assert 0 < segment.diagnostics["difference_error"] < 1e-6


# Memory and platforms -----------------------------------------------------------------------------


class Kept:
    """A tensor that torch saves for a backward pass; it can be counted while it is alive."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_numbers(build: Callable[[], Tensor]) -> list[int]:
    """How many numbers each tensor has that a graph keeps, those of the same memory once."""
    alive: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        value = build()
    gc.collect()
    sizes = {kept.tensor.data_ptr(): kept.tensor.numel() for kept in alive}
    assert value.requires_grad
    return list(sizes.values())


@pytest.mark.parametrize("every", [1, 5])
def test_no_graph_of_pairs_is_kept(every: int) -> None:
    """A field by torch over all pairs: per step a few arrays of particles, or none with every."""
    stiffness = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    pairs = np.triu_indices(N, 1)

    def energy(x: Tensor) -> Tensor:
        return stiffness * (x[pairs[0]] - x[pairs[1]]).square().sum(dim=1).cos().sum()

    liquid = fluid()
    runner = SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    c = liquid.potential.coefficients().detach().requires_grad_(True)

    def build() -> Tensor:
        field = TorchField(energy, [stiffness])
        options = SegmentOptions(velocity_verlet(DT), field=field, every=every)
        return runner.run(20, None, None, options, c).positions.sum()

    sizes = saved_numbers(build)
    assert max(sizes) <= 3 * N
    per_kept_step = 8 if every == 1 else 2
    assert sum(sizes) < per_kept_step * (20 // every + 2) * 3 * N


@pytest.mark.parametrize("path", ["native", "others"])
def test_cpu_platform(path: str) -> None:
    """Forces in single precision: gradients as on the Reference platform to 1e-3."""
    found, expected = (
        problem(path, "LangevinMiddle", 20, fluid(path, platform=platform)).gradient()
        for platform in ("CPU", "Reference")
    )
    assert_same(found, expected, 1e-3)


# Integrators --------------------------------------------------------------------------------------

NINE = empty_system(9, np.eye(3))
NINE.setParticleMass(4, 0.0)
CASES: dict[str, tuple[openmm.Integrator, Scheme]] = {
    "Verlet": (openmm.VerletIntegrator(2 * unit.femtosecond), leapfrog(0.002)),
    "LangevinMiddle": (
        openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 2.0, 0.004),
        langevin_middle(4 * unit.femtosecond, 300, 2 / unit.picosecond),
    ),
    "Langevin": (
        openmm.LangevinIntegrator(300, 2.0, 0.004),  # it is a LangevinMiddleIntegrator
        langevin_middle(0.004, 300 * unit.kelvin, 2.0),
    ),
    "Nose-Hoover": (
        openmm.NoseHooverIntegrator(250.0, 20.0, 0.001, 4, 2, 5),
        nose_hoover(1 * unit.femtosecond, 250, 20 / unit.picosecond, 24, 4, 2, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reads_integrators_of_openmm(name: str) -> None:
    integrator, scheme = CASES[name]
    assert read_scheme(integrator, NINE) == scheme
    assert read_scheme(scheme, NINE) == scheme


def test_nose_hoover_without_a_thermostat() -> None:
    """Is Verlet in OpenMM's own form, and conserves the energy as such."""
    scheme = read_scheme(openmm.NoseHooverIntegrator(0.004), NINE)
    assert scheme.splitting == (0.004, 0.002, 1.0, 0.002, 0.0)
    assert scheme.chain is None and not scheme.is_noisy


def test_degrees_of_freedom_of_a_chain() -> None:
    """Three for each particle with mass, three less with a CMMotionRemover, or as given."""
    system = openmm.XmlSerializer.clone(NINE)
    system.addForce(openmm.CMMotionRemover())
    open_scheme = nose_hoover(0.001, 300, 20)
    for scheme, owner, freedom in (
        (open_scheme, NINE, 24),
        (open_scheme, system, 21),
        (nose_hoover(0.001, 300, 20, 7), system, 7),
        (openmm.NoseHooverIntegrator(250.0, 20.0, 0.001), system, 21),
    ):
        chain = read_scheme(scheme, owner).chain
        assert chain is not None and chain.degreesOfFreedom == freedom


def subsystem_thermostat() -> openmm.Integrator:
    integrator = openmm.NoseHooverIntegrator(0.001)
    integrator.addSubsystemThermostat([0, 1], [], 300, 20, 300, 20, 3, 3, 7)
    return integrator


@pytest.mark.parametrize(
    ("integrator", "message"),
    [
        (openmm.BrownianIntegrator(300, 1, 0.001), "cannot follow BrownianIntegrator"),
        (openmm.VariableVerletIntegrator(0.001), "cannot follow VariableVerletIntegrator"),
        (openmm.VariableLangevinIntegrator(300, 1, 0.001), "VariableLangevinIntegrator"),
        (openmm.CustomIntegrator(0.001), "cannot follow CustomIntegrator"),
        (openmm.MTSIntegrator(0.001, [(0, 1)]), "cannot follow MTSIntegrator"),
        (openmm.DPDIntegrator(300, 1, 1, 0.001), "cannot follow DPDIntegrator"),
        (subsystem_thermostat(), "one thermostat for all particles"),
        ("leapfrog", "cannot follow str"),
    ],
)
def test_other_integrators_are_refused(integrator: Any, message: str) -> None:
    with pytest.raises(SegmentError, match=message):
        read_scheme(integrator, NINE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: velocity_verlet(0.0),
        lambda: leapfrog(-1 * unit.femtosecond),
        lambda: langevin_middle(0.001, -1.0, 1.0),
        lambda: langevin(0.001, 300, 0.0),
        lambda: nose_hoover(0.001, 300, float("inf")),
    ],
)
def test_numbers_of_schemes_are_positive(make: Callable[[], Scheme]) -> None:
    with pytest.raises(SegmentError, match="expected a positive number"):
        make()


# What is refused ----------------------------------------------------------------------------------

X = lattice(N, BOX, 0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": X[:3]}, r"positions: expected the shape \(12, 3\), got \(3, 3\)"),
        ({"positions": X[None, None, :, :2]}, r"positions: .*\(1, 1, 12, 3\)"),
        ({"velocities": X[:5]}, r"velocities: expected the shape \(12, 3\), got \(5, 3\)"),
        ({"velocities": X[None]}, r"velocities: expected the shape \(12, 3\)"),
        ({"positions": X * np.nan}, "positions: expected finite numbers"),
        ({"velocities": X * np.inf}, "velocities: expected finite numbers"),
        ({"noise": np.zeros((3, N, 3))}, r"noise: expected the shape \(10, 12, 3\)"),
        ({"noise": np.zeros((10, N, 3)), "integrator": SCHEMES["Nose-Hoover"]}, "noise: .* none"),
        ({"box": np.eye(2)}, r"box: expected the shape \(3, 3\)"),
        ({"protocol": {"pul": np.ones(11)}}, "no global parameter 'pul', only pull"),
        ({"protocol": {"pull": np.ones(10)}}, r"protocol\['pull'\]: expected the shape \(11,\)"),
        ({"every": 3}, "every a divisor of it, got steps = 10 and every = 3"),
        ({"every": 0}, "every a divisor of it"),
        ({"steps": 0}, "expected steps >= 1"),
        ({"every": 5, "truncation": 2}, "expected every = 1 with them, got 5"),
        ({"every": 5, "clipping": 2.0}, "expected every = 1 with them, got 5"),
        ({"every": 5.0}, "every: expected a whole number, got 5.0"),
        ({"truncation": 1.5}, "truncation: expected a whole number, got 1.5"),
        ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
        ({"seed": "one"}, "seed: expected a whole number, got 'one'"),
        ({"truncation": 0}, "truncation: expected at least one step, got 0"),
        ({"clipping": 0.5}, "clipping: expected a number >= 1, got 0.5"),
        ({"clipping": float("nan")}, "clipping: expected a number >= 1, got nan"),
    ],
)
def test_refused(others: diffsim.StatePoint, options: dict[str, Any], message: str) -> None:
    start: dict[str, Any] = {"steps": 10, "positions": X, "velocities": None}
    chosen = {name: value for name, value in options.items() if name not in start}
    start = {name: options.get(name, value) for name, value in start.items()}
    with pytest.raises(SegmentError, match=message):
        others.segment(**start, options=SegmentOptions(**chosen))


@pytest.fixture(scope="module")
def others() -> diffsim.StatePoint:
    return fluid("others")


def test_protocol_where_there_are_no_global_parameters() -> None:
    with pytest.raises(SegmentError, match="no global parameter 'pull', only none"):
        fluid().segment(3, options=SegmentOptions(protocol={"pull": np.ones(4)}))


def with_constraint(system: openmm.System) -> None:
    system.addConstraint(0, 1, 0.3)


def with_virtual_site(system: openmm.System) -> None:
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_constraint, "cannot follow constraints, and the System has 1"),
        (with_virtual_site, "cannot follow virtual sites, and the System has 1"),
    ],
)
def test_systems_refused(change: Callable[[openmm.System], None], message: str) -> None:
    """When a segment is asked for, and when one is to be recorded; not before."""
    potential = argon()
    system = empty_system(N, BOX)
    change(system)
    potential.attach(system)
    liquid = diffsim.StatePoint(simulate(system, X), potential)
    with pytest.raises(SegmentError, match=message):
        liquid.segment(3)
    with pytest.raises(SegmentError, match=message):
        liquid.sample(2, 1, [diffsim.VACF(2)])


def test_a_system_without_the_potential() -> None:
    simulation = simulate(empty_system(N, BOX, MASS), X)
    with pytest.raises(AttachError, match="no force named 'LennardJones'"):
        SegmentRunner(argon(), simulation.context, KELVIN)


@pytest.mark.parametrize("name", ["velocity Verlet", "leapfrog Verlet", "Nose-Hoover"])
@pytest.mark.parametrize(
    ("path", "options"),
    [("native", {}), ("native", {"field": no_force}), ("others", {}), ("others", {"every": 5})],
)
def test_exploded(path: str, options: dict[str, Any], name: str) -> None:
    """Whatever the way; the Simulation is as before."""
    liquid = fluid(path)
    before = openmm.XmlSerializer.serialize(liquid.snapshot())
    v = np.zeros((N, 3))
    v[3] = 1e18
    with pytest.raises(SamplingError, match="exploded") as caught:
        liquid.segment(10, X, v, SegmentOptions(SCHEMES[name], **options))
    assert caught.value.reason == "exploded"
    assert openmm.XmlSerializer.serialize(liquid.snapshot()) == before


def test_forces_that_are_not_numbers() -> None:
    """Two particles at one place, of another force."""

    def singular(x: Tensor, time: int) -> Tensor:
        return x / 0.0

    with pytest.raises(SamplingError, match="exploded at step 1") as caught:
        fluid().segment(4, X, np.zeros((N, 3)), SegmentOptions(field=singular))
    assert caught.value.step == 1


def test_noise_of_dynamics_that_has_none() -> None:
    """May be given, and acts."""
    liquid = fluid()
    v = np.zeros((N, 3))
    plain = liquid.segment(3, X, v, SegmentOptions(leapfrog(DT)))
    noise = np.zeros((3, N, 3))
    noise[1, 2] = 0.5
    kicked = liquid.segment(3, X, v, SegmentOptions(leapfrog(DT), noise=noise))
    assert torch.equal(kicked.velocities[1], plain.velocities[1])
    moved = (kicked.velocities[2] - plain.velocities[2]).detach().numpy()
    np.testing.assert_allclose(moved, noise[1], atol=1e-12)


def test_velocities_that_are_drawn() -> None:
    """At the temperature, and without motion of the whole where a CMMotionRemover is."""
    liquid = fluid()
    runner = SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    v = runner.draw_velocities(1, (2000,))
    assert v.shape == (2000, N, 3)
    moves = runner.masses > 0
    assert not v[:, ~moves].any()
    x = v[:, moves] * np.sqrt(runner.masses[moves] / (8.31446261815324e-3 * KELVIN))[:, None]
    assert abs(x.mean()) < 4 / x.size**0.5 and abs(x.var() - 1) < 4 * (2 / x.size) ** 0.5
    system = empty_system(N, BOX)
    potential = argon()
    potential.attach(system)
    system.addForce(openmm.CMMotionRemover())
    still = SegmentRunner(potential, simulate(system, X).context, KELVIN)
    drift: Array = still.draw_velocities(1, (3,)).mean(axis=1)
    np.testing.assert_allclose(drift, 0, atol=1e-15)


@pytest.mark.parametrize(
    ("energy", "value", "slope"),
    [
        ("lam^1.5*r", 0.0, 0.0),  # no number below 0
        ("(lam + (1 - lam)^2.5)*r", 1.0, 1.0),  # none above 1
        ("sin(lam)*r", 0.0, 1.0),
        ("sqrt(lam)*r", 0.0, None),
        ("sqrt(lam - 2)*r", 0.0, None),
    ],
)
def test_a_slope_at_a_bound_is_one_sided_or_refused(
    energy: str, value: float, slope: float | None
) -> None:
    force = openmm.CustomBondForce(energy)
    force.addGlobalParameter("lam", 0.5)
    force.addBond(0, 1, [])
    differences = differences_of(force, 2)
    x, w = np.array([[0.0, 0, 0], [0.4, 0, 0]]), np.array([[1.0, 0, 0], [0.0, 0, 0]])
    if slope is None:
        with pytest.raises(SegmentError, match=rf"no slope with respect to 'lam' at {value:g}"):
            differences.parameter_product(x, w, "lam", value)
    else:  # F on the first is +dU/dr
        found = differences.parameter_product(x, w, "lam", value)
        assert found == pytest.approx(slope, abs=1.1e-2 if "1.5" in energy else 1e-5)
