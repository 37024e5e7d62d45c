"""What is measured on segments: against plain loops, exact formulas and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from systems import BOXES, argon, context_of, empty_system

from openmm_diffsim import (
    MSD,
    RDF,
    VACF,
    Configurations,
    Diffusion,
    IncoherentScattering,
    Samples,
    Segment,
    SegmentFunction,
    SegmentObservable,
    SelfVanHove,
    SmoothRDF,
)
from openmm_diffsim.engine.recorder import FrameRecorder
from openmm_diffsim.errors import ObservableError
from openmm_diffsim.observables import Particles
from openmm_diffsim.statistics.kernels import pair_blocks

Array = NDArray[np.float64]

DT = 0.004  # ps
BOX = BOXES["skewed"]


def segment_of(x: Any, v: Any = None, box: Array | None = BOX, dt: float = DT) -> Segment:
    """A segment of positions [..., times, particles, 3] and velocities, at equal steps."""
    x = torch.as_tensor(x)
    v = torch.zeros_like(x) if v is None else torch.as_tensor(v)
    return Segment(x, v, dt * np.arange(x.shape[-3]), np.full(x.shape[-2], 40.0), box)


def random_walk(seed: int, *shape: int) -> Segment:
    """Positions that walk and velocities that are unrelated, of shape [*shape, 3]."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=0.05, size=(*shape, 3))
    start = rng.uniform(0, 2, (*shape[:-2], 1, shape[-1], 3))
    return segment_of(start + np.cumsum(steps, axis=-3), rng.normal(size=(*shape, 3)))


def observables(steps: int = 8) -> dict[str, SegmentObservable]:
    """One of each, for segments of at least ``steps`` (8 or more) and 7 particles."""
    lags, atoms = [0, 1, 3, 4], [5, 0, 3]
    return {
        "VACF": VACF(lags, atoms=atoms, origins=3, origin_spacing=2),
        "MSD": MSD(4, atoms=atoms, origins=2),
        "IncoherentScattering": IncoherentScattering([5.0, 20.0], lags, atoms=atoms, origins=2),
        "SelfVanHove": SelfVanHove(0.5, 8, lags, atoms=atoms, width=0.05),
        "Green-Kubo": Diffusion(steps, atoms=atoms),
        "Einstein": Diffusion(steps, "einstein", start=3, atoms=atoms),
        "SmoothRDF": SmoothRDF(0.7, 5, steps, every=3, width=0.06),
        "SegmentFunction": SegmentFunction(
            lambda s: s.positions[..., -1, :, :].prod(dim=-1).square(), steps, n_values=7
        ),
    }


NAMES = list(observables())


def averaged_over_pairs(
    x: Array, lags: Any, atoms: Any, origins: Any, term: Callable[[Array, Array], float]
) -> Array:
    """Mean of term(x_i(s), x_i(s + lag)) for each lag, by plain loops over x [times, n, 3]."""
    return np.array(
        [np.mean([term(x[s, i], x[s + lag, i]) for s in origins for i in atoms]) for lag in lags]
    )


# Against plain loops ----------------------------------------------------------------------------

CHOICES = {
    "one origin": ({"lags": 6}, range(7), range(9), [0]),
    "chosen lags and atoms": ({"lags": [1, 2, 7], "atoms": [4, 0]}, [1, 2, 7], [4, 0], [0]),
    "origins": ({"lags": 5, "origins": 3, "origin_spacing": 4}, range(6), range(9), [0, 4, 8]),
    "default spacing": ({"lags": [0, 9], "origins": 4}, [0, 9], range(9), [0, 2, 4, 6]),
    "more origins than lags": ({"lags": [2], "origins": 3}, [2], range(9), [0, 1, 2]),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_correlations_are_those_of_plain_loops(choice: str) -> None:
    arguments, lags, atoms, origins = CHOICES[choice]
    segment = random_walk(1, 16, 9)
    x, v = segment.positions.numpy(), segment.velocities.numpy()
    q = np.array([3.0, 30.0])

    def scattering(k: float) -> Callable[[Array, Array], float]:
        return lambda a, b: float(np.sinc(k * np.linalg.norm(b - a) / np.pi))

    vacf = VACF(**arguments).measure(segment)
    expected = averaged_over_pairs(v, lags, atoms, origins, np.dot)
    np.testing.assert_allclose(vacf, expected, rtol=1e-12, atol=1e-14)
    msd = MSD(**arguments).measure(segment)
    expected = averaged_over_pairs(x, lags, atoms, origins, lambda a, b: np.sum((b - a) ** 2))
    np.testing.assert_allclose(msd, expected, rtol=1e-12, atol=1e-14)
    f = IncoherentScattering(q, **arguments).measure(segment).reshape(2, -1)
    expected = [averaged_over_pairs(x, lags, atoms, origins, scattering(k)) for k in q]
    np.testing.assert_allclose(f, expected, rtol=1e-12, atol=1e-14)
    for observable in (VACF(**arguments), MSD(**arguments)):
        assert observable.steps == origins[-1] + lags[-1]
        np.testing.assert_array_equal(observable.reach(), np.array(lags) + origins[-1])
    np.testing.assert_array_equal(
        IncoherentScattering(q, **arguments).reach(), np.tile(np.array(lags) + origins[-1], 2)
    )


def test_narrow_van_hove_is_a_histogram() -> None:
    segment = random_walk(2, 9, 400)
    lags = [1, 8]
    observable = SelfVanHove(0.6, 12, lags, width=1e-9)
    value = observable.measure(segment).reshape(12, 2).numpy()
    x = segment.positions.numpy()
    for index, lag in enumerate(lags):
        d = np.linalg.norm(x[lag] - x[0], axis=-1)
        expected, _ = np.histogram(d, observable.edges)
        np.testing.assert_allclose(value[:, index], expected / (400 * 0.05), atol=1e-9)


def test_van_hove_is_the_gaussian_of_each_displacement_reflected_at_zero() -> None:
    segment = random_walk(3, 3, 5)
    observable = SelfVanHove(0.4, 4, [2], width=0.07)
    x = segment.positions.numpy()
    displacements = np.linalg.norm(x[2] - x[0], axis=-1)
    fine = np.linspace(0, 0.4, 4 * 1000 + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])
    density = np.zeros_like(middle)
    for d in displacements:
        for image in (d, -d):
            density += np.exp(-((middle - image) ** 2) / (2 * 0.07**2)) / (
                0.07 * np.sqrt(2 * np.pi)
            )
    expected = density.reshape(4, 1000).mean(axis=1) / 5
    # Midpoint rule: relative error (0.0001 / 0.07)^2 / 24 or so.
    np.testing.assert_allclose(observable.measure(segment), expected, rtol=1e-5)


@pytest.mark.parametrize("width", [None, 0.02, 0.2])
def test_van_hove_sums_to_one(width: float | None) -> None:
    observable = SelfVanHove(3.0, 60, [0, 3, 8], width=width)
    value = observable.measure(random_walk(4, 9, 50)).reshape(60, 3)
    np.testing.assert_allclose(value.sum(dim=0) * 0.05, 1.0, rtol=1e-8)


# Motion that is known ---------------------------------------------------------------------------


def test_vacf_of_harmonic_motion() -> None:
    """x = a cos(wt + phase): over phases evenly around the circle, C(t) = (a w)^2 / 2 cos(wt)."""
    omega, amplitude, n = 7.0, 0.1, 8
    t = DT * np.arange(101)
    angle = omega * t[:, None] + 2 * np.pi * np.arange(n) / n
    x, v = np.zeros((2, 101, n, 3))
    x[..., 1] = amplitude * np.cos(angle)
    v[..., 1] = -amplitude * omega * np.sin(angle)
    segment = segment_of(x, v)
    expected = 0.5 * (amplitude * omega) ** 2 * np.cos(omega * t)
    np.testing.assert_allclose(VACF(100).measure(segment), expected, atol=1e-13)
    msd = amplitude**2 * (1 - np.cos(omega * t))
    np.testing.assert_allclose(MSD(100).measure(segment), msd, atol=1e-14)
    d = Diffusion(100).measure(segment)
    exact = amplitude**2 * omega * np.sin(omega * t[-1]) / 6  # 1/3 of the integral of C
    # The trapezoidal rule has the relative error (w dt)^2 / 12 for a cosine.
    np.testing.assert_allclose(d, exact * (1 - (omega * DT) ** 2 / 12), rtol=1e-6)


def test_free_flight_scatters_as_a_gaussian() -> None:
    """x = vt with Maxwell-Boltzmann v: F_s(q, t) = exp(-(q v_th t)^2 / 2)."""
    thermal, n = 0.25, 20000
    rng = np.random.default_rng(5)
    v = rng.normal(scale=thermal, size=(n, 3))
    lags, q = np.array([0, 5, 20, 60]), np.array([4.0, 15.0])
    t = DT * np.arange(61)
    # Every particle is a segment of its own, so that the scatter gives the standard error.
    segment = segment_of((t[:, None] * v[:, None, :])[:, :, None, :])
    values = IncoherentScattering(q, lags).measure(segment).reshape(n, 2, 4).numpy()
    expected = np.exp(-0.5 * (q[:, None] * thermal * DT * lags) ** 2)
    assert expected.min() < 0.7
    error = values.std(axis=0) / np.sqrt(n)
    np.testing.assert_allclose(values[:, :, 0], 1.0, rtol=1e-14)
    deviation = (values.mean(axis=0) - expected)[:, 1:] / error[:, 1:]
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"


def test_van_hove_of_free_flight_is_a_maxwell_distribution() -> None:
    thermal, n = 0.25, 20000
    rng = np.random.default_rng(6)
    v = rng.normal(scale=thermal, size=(n, 3))
    segment = segment_of(np.stack([0 * v, v], axis=1)[:, :, None, :])  # one particle in each
    observable = SelfVanHove(0.9, 9, [1], width=1e-4)
    values = observable.measure(segment).numpy()
    fine = 0.5 * 0.001 + 0.001 * np.arange(900)
    maxwell = np.sqrt(2 / np.pi) * fine**2 / thermal**3 * np.exp(-0.5 * (fine / thermal) ** 2)
    expected = maxwell.reshape(9, 100).mean(axis=1)
    deviation = (values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(n))
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"


GAMMA, THERMAL = 10.0, 0.2  # 1/ps, nm/ps


def ornstein_uhlenbeck(n: int, steps: int, dt: float) -> Segment:
    """Free Langevin motion, exact at any step: n segments of one particle each.

    v' = a v + noise, x' = x + (1 - a) v / gamma + noise, with the covariance of both noises from
    Gillespie, Phys. Rev. E 54, 2084 (1996).
    """
    rng = np.random.default_rng(7)
    a = np.exp(-GAMMA * dt)
    vv = THERMAL**2 * (1 - a**2)
    xv = THERMAL**2 / GAMMA * (1 - a) ** 2
    xx = (THERMAL / GAMMA) ** 2 * (2 * GAMMA * dt - 3 + 4 * a - a**2)
    root = np.linalg.cholesky([[vv, xv], [xv, xx]])
    x, v = np.zeros((2, steps + 1, n, 1, 3))
    v[0] = rng.normal(scale=THERMAL, size=v[0].shape)
    for k in range(steps):
        noise_v, noise_x = np.einsum("ab,b...->a...", root, rng.normal(size=(2, *v[0].shape)))
        x[k + 1] = x[k] + (1 - a) / GAMMA * v[k] + noise_x
        v[k + 1] = a * v[k] + noise_v
    return segment_of(x.swapaxes(0, 1), v.swapaxes(0, 1), None, dt)


def test_green_kubo_is_einstein_and_exact_for_langevin_motion() -> None:
    n, steps, dt = 20000, 200, 0.005
    segment = ornstein_uhlenbeck(n, steps, dt)
    t = dt * np.arange(steps + 1)
    plateau = THERMAL**2 / GAMMA

    def within(values: Array, expected: float) -> None:
        deviation = (values.mean() - expected) / (values.std() / np.sqrt(len(values)))
        assert abs(deviation) < 4, f"{deviation} standard errors"

    def measured(observable: SegmentObservable) -> Array:
        return observable.measure(segment).numpy()[:, 0]

    # A short integral is not the plateau but the finite-time integral. The trapezoidal rule gives
    # gamma dt/2 coth(gamma dt/2) times it, 2e-4 more.
    finite = plateau * (1 - np.exp(-GAMMA * t[20]))
    rule = GAMMA * dt / 2 / np.tanh(GAMMA * dt / 2)
    assert finite < 0.7 * plateau
    within(measured(Diffusion(20)), rule * finite)

    # Both at ten decay times, each with what it exactly estimates, and with each other.
    green_kubo, einstein = measured(Diffusion(steps)), measured(Diffusion(steps, "einstein"))
    within(green_kubo, rule * plateau * (1 - np.exp(-GAMMA * t[-1])))
    msd = 6 * plateau / GAMMA * (GAMMA * t - 1 + np.exp(-GAMMA * t))
    within(einstein, np.polyfit(t[100:], msd[100:], 1)[0] / 6)
    within(einstein - green_kubo, 0.0)
    assert np.std(einstein - green_kubo) / np.sqrt(n) < 0.03 * plateau

    # The mean square displacement itself.
    values = MSD([10, 200]).measure(segment).numpy()
    within(values[:, 0], msd[10])
    within(values[:, 1], msd[200])


def test_einstein_fit_is_that_of_numpy() -> None:
    segment = random_walk(8, 13, 6)
    msd = MSD(12).measure(segment).numpy()
    for start, used in ((0, 0), (5, 5), (None, 6), (11, 11)):
        slope = np.polyfit(segment.times[used:], msd[used:], 1)[0]
        value = Diffusion(12, "einstein", start=start).measure(segment)
        assert value.item() == pytest.approx(slope / 6, rel=1e-10)


def test_green_kubo_is_numpys_trapezoid_of_the_vacf() -> None:
    segment = random_walk(9, 13, 6)
    vacf = VACF(10, atoms=[2, 3]).measure(segment).numpy()
    integral = 0.5 * np.sum((vacf[1:] + vacf[:-1]) * DT)
    assert Diffusion(10, atoms=[2, 3]).measure(segment).item() == pytest.approx(integral / 3)


# The smooth g(r) --------------------------------------------------------------------------------


def recorded_frames(observable: Any, frames: Array, box: Array | None) -> Samples:
    """Samples of frames, as a run records them."""
    potential = argon(cutoff=0.5)
    system = empty_system(frames.shape[1], BOX)
    potential.attach(system, periodic=box is not None)
    recorder = FrameRecorder(potential, context_of(system, frames[0], "Reference"), [observable])
    for positions in frames:
        recorder.add(positions, box, total_energy=0.0)
    return recorder.samples(potential.coefficients().detach().numpy(), 100.0, None, 1)


@pytest.mark.parametrize("shape", BOXES)
def test_narrow_smooth_rdf_is_the_rdf(shape: str) -> None:
    box = BOXES[shape]
    frames = np.random.default_rng(10).uniform(-1, 2, (4, 40, 3)) @ box
    r_max = 0.7
    for atoms in (None, [7, 3, 21, 30, 31]):
        hard = RDF(r_max, 10, atoms=atoms)
        expected = recorded_frames(hard, frames[[0, 2]], box).average(hard).detach()
        smooth = SmoothRDF(r_max, 10, 3, every=2, atoms=atoms, width=1e-9)
        assert expected.max() > 0
        np.testing.assert_allclose(smooth.measure(segment_of(frames, box=box)), expected, rtol=1e-9)
        np.testing.assert_array_equal(smooth.reach(), 2)
    np.testing.assert_allclose(smooth.r, hard.r)


def test_smooth_rdf_is_the_reflected_gaussian_of_each_pair() -> None:
    width, edges = 0.04, np.linspace(0, 0.6, 7)
    frames = np.random.default_rng(11).random((2, 30, 3)) @ BOX
    value = SmoothRDF(0.6, 6, 1, width=width).measure(segment_of(frames))
    normal = torch.distributions.Normal(0.0, width)
    expected = np.zeros(6)
    for x in frames:
        for block in pair_blocks(x, BOX, 0.9):
            for r in block.distance:
                below = normal.cdf(torch.from_numpy(edges - r)) - normal.cdf(
                    torch.from_numpy(-edges - r)
                )
                expected += np.diff(below.numpy())
    fine = np.linspace(0, 1.2, 12001)
    below = normal.cdf(torch.from_numpy(edges[:, None] - fine)) - normal.cdf(
        torch.from_numpy(-edges[:, None] - fine)
    )
    shells = np.trapezoid(4 * np.pi * fine**2 * np.diff(below.numpy(), axis=0), fine, axis=1)
    expected *= np.linalg.det(BOX) / (2 * (30 * 29 / 2) * shells)
    np.testing.assert_allclose(value, expected, rtol=2e-4)  # tails beyond r_max + 4 width


@pytest.mark.parametrize("width", [None, 0.01, 0.1])
def test_smooth_rdf_of_an_ideal_gas_is_one(width: float | None) -> None:
    frames = np.random.default_rng(12).random((400, 2, 25, 3)) @ BOX
    values = SmoothRDF(0.5, 10, 1, width=width).measure(segment_of(frames)).numpy()
    deviation = (values.mean(axis=0) - 1) / (values.std(axis=0) / np.sqrt(len(values)))
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"


def test_smooth_rdf_does_not_depend_on_the_image_of_a_particle() -> None:
    rng = np.random.default_rng(13)
    frames = rng.random((2, 20, 3)) @ BOX
    moved = frames + rng.integers(-2, 3, (2, 20, 3)) @ BOX
    rdf = SmoothRDF(0.6, 6, 1, width=0.05)
    values = [rdf.measure(segment_of(x)).numpy() for x in (frames, moved)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-9, atol=1e-9)


# Derivatives and batches ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_finite_differences(name: str) -> None:
    observable = observables()[name]
    walk = random_walk(14, 2, 9, 7)

    def measure(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return observable.measure(segment_of(x, v))

    x, v = walk.positions.requires_grad_(), walk.velocities.requires_grad_()
    gradients = torch.autograd.grad(measure(x, v).square().sum(), (x, v), materialize_grads=True)
    assert max(g.abs().max() for g in gradients) > 1e-5  # there is something to check
    assert torch.autograd.gradcheck(measure, (x, v), eps=1e-6, atol=1e-7, fast_mode=True)


# The pairs of SmoothRDF are compiled, which torch cannot batch.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "SmoothRDF"])
def test_derivatives_of_all_values_at_once_are_those_of_each(name: str) -> None:
    observable = observables()[name]
    walk = random_walk(15, 9, 7)
    x = walk.positions.requires_grad_()
    v = walk.velocities.requires_grad_()
    values = observable.measure(segment_of(x, v))
    each = [
        torch.autograd.grad(value, (x, v), retain_graph=True, materialize_grads=True)
        for value in values
    ]
    at_once = torch.autograd.grad(
        values,
        (x, v),
        torch.eye(observable.n_values, dtype=torch.float64),
        is_grads_batched=True,
        materialize_grads=True,
    )
    for index in range(2):
        expected = torch.stack([one[index] for one in each])
        torch.testing.assert_close(at_once[index].expand_as(expected), expected)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_depends_on_what_comes_after_its_reach(name: str) -> None:
    observable = observables()[name]
    walk = random_walk(16, 12, 7)
    x, v = walk.positions.requires_grad_(), walk.velocities.requires_grad_()
    values = observable.measure(segment_of(x, v))
    reach = observable.reach()
    assert reach.shape == (observable.n_values,) and reach.max() <= observable.steps
    for value, last in zip(values, reach, strict=True):
        gradients = torch.autograd.grad(
            value, (x, v), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for gradient in gradients:
            assert gradient[last + 1 :].abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_batch_is_each_segment_by_itself(name: str) -> None:
    observable = observables()[name]
    walk = random_walk(17, 2, 3, 9, 7)
    values = observable.measure(walk)
    assert values.shape == (2, 3, observable.n_values)
    assert values.dtype == torch.float64
    for a in range(2):
        for b in range(3):
            alone = observable.measure(segment_of(walk.positions[a, b], walk.velocities[a, b]))
            torch.testing.assert_close(values[a, b], alone, rtol=1e-12, atol=1e-14)


def test_particles_that_do_not_move_have_a_finite_derivative() -> None:
    x = torch.zeros(3, 4, 3, dtype=torch.float64, requires_grad=True)
    for observable in (IncoherentScattering(10.0, 2), SelfVanHove(0.2, 4, 2), MSD(2)):
        (gradient,) = torch.autograd.grad(observable.measure(segment_of(x)).square().sum(), x)
        assert gradient.abs().max() == 0


# Any function -----------------------------------------------------------------------------------


def test_function_gets_the_steps_that_it_asked_for() -> None:
    segment = random_walk(18, 12, 3)
    seen = []

    def last(part: Segment) -> torch.Tensor:
        seen.append(part)
        return part.positions[-1, 0, 0]

    observable = SegmentFunction(last, 5)
    assert observable.measure(segment).tolist() == [segment.positions[5, 0, 0].item()]
    assert seen[0].velocities.shape == (6, 3, 3)
    np.testing.assert_allclose(seen[0].times, DT * np.arange(6))
    np.testing.assert_array_equal(observable.reach(), [5])


def test_reach_of_a_function() -> None:
    one = SegmentFunction(lambda s: s.positions[0, 0], 5, n_values=3, reach=2)
    np.testing.assert_array_equal(one.reach(), [2, 2, 2])
    each = SegmentFunction(lambda s: s.positions[0, 0], 5, n_values=3, reach=[0, 5, 1])
    np.testing.assert_array_equal(each.reach(), [0, 5, 1])


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda s: s.positions.sum(), r"got \[\]"),
        (lambda s: s.positions[..., 0, 0, :], r"got \[2, 3\]"),
        (lambda s: 1.0, "got float"),
    ],
)
def test_function_of_the_wrong_shape_is_refused(function: Any, got: str) -> None:
    with pytest.raises(ObservableError, match=r"shape \[2, 2\], " + got):
        SegmentFunction(function, 3, n_values=2).measure(random_walk(19, 2, 4, 5))


# Configurations ---------------------------------------------------------------------------------


def test_configurations_are_the_recorded_frames() -> None:
    frames = np.random.default_rng(20).random((5, 8, 3)) @ BOX
    configurations = Configurations()
    samples = recorded_frames(configurations, frames, BOX)
    np.testing.assert_array_equal(configurations.positions(samples), frames)
    boxes = configurations.boxes(samples)
    assert boxes is not None
    np.testing.assert_array_equal(boxes, np.broadcast_to(BOX, (5, 3, 3)))
    flat = samples.at().values(configurations)
    np.testing.assert_array_equal(flat, frames.reshape(5, -1))


def test_configurations_without_a_box_have_none() -> None:
    frames = np.random.default_rng(21).random((2, 8, 3)) * 5
    configurations = Configurations()
    samples = recorded_frames(configurations, frames, None)
    np.testing.assert_array_equal(configurations.positions(samples), frames)
    assert configurations.boxes(samples) is None


def test_configurations_that_were_not_recorded_are_refused() -> None:
    samples = recorded_frames(Configurations(), np.zeros((1, 2, 3)) + np.eye(2, 3), BOX)
    with pytest.raises(ObservableError, match=r"record=\[\.\.\.\]"):
        Configurations().positions(samples)


# Arguments --------------------------------------------------------------------------------------


def test_times_and_units() -> None:
    vacf = VACF([0, 2, 5])
    np.testing.assert_allclose(vacf.times(0.002), [0, 0.004, 0.01])
    np.testing.assert_allclose(vacf.times(2 * unit.femtosecond), [0, 0.004, 0.01])
    with pytest.raises(ObservableError, match="positive"):
        vacf.times(0)
    np.testing.assert_allclose(IncoherentScattering([1, 2] / unit.angstrom, 3).q, [10, 20])
    van_hove = SelfVanHove(6 * unit.angstrom, 3, 2, width=0.1 * unit.angstrom)
    np.testing.assert_allclose(van_hove.r, [0.1, 0.3, 0.5])
    np.testing.assert_allclose(SmoothRDF(6 * unit.angstrom, 3, 2).edges, [0, 0.2, 0.4, 0.6])


def test_options_reach_the_base_class() -> None:
    options = {"estimator": "score", "gradient_every": 3, "seed": 9, "truncation": 4, "clipping": 2}
    for observable in (
        VACF(3, **options),
        MSD(3, **options),
        IncoherentScattering(1.0, 3, **options),
        SelfVanHove(1.0, 5, 3, **options),
        Diffusion(3, **options),
        SmoothRDF(1.0, 5, 3, **options),
        SegmentFunction(torch.sum, 3, **options),
    ):
        assert {name: getattr(observable, name) for name in options} == options


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VACF(0), "lags"),
        (lambda: VACF(2.5), "lags"),
        (lambda: VACF([0]), "lags"),
        (lambda: MSD([]), "lags"),
        (lambda: MSD([-1, 2]), r"lags.*-1"),
        (lambda: MSD([1, 3, 3]), "increasing"),
        (lambda: MSD([0.5, 1.0]), "whole numbers"),
        (lambda: MSD([[1, 2]]), "sequence"),
        (lambda: VACF(3, origins=0), "origins"),
        (lambda: VACF(3, origins=2, origin_spacing=0), "origin_spacing"),
        (lambda: VACF(3, atoms=[]), "atoms"),
        (lambda: VACF(3, atoms=[-1, 2]), "atoms"),
        (lambda: VACF(3, atoms=[2, 2]), "each of them once"),
        (lambda: VACF(3, atoms=[False, False]), "none by a mask"),
        (lambda: VACF(3, estimator="magic"), "estimator"),
        (lambda: IncoherentScattering(0.0, 3), "wavenumbers"),
        (lambda: IncoherentScattering([], 3), "wavenumbers"),
        (lambda: IncoherentScattering([1.0, np.nan], 3), "wavenumbers"),
        (lambda: SelfVanHove(0.0, 3, 3), "r_max"),
        (lambda: SelfVanHove(1.0, 0, 3), "bins"),
        (lambda: SelfVanHove(1.0, 5, 3, width=0), "width"),
        (lambda: Diffusion(0), "steps"),
        (lambda: Diffusion(10, "newton"), "green-kubo, einstein"),
        (lambda: Diffusion(10, start=3), "Einstein"),
        (lambda: Diffusion(10, "einstein", start=10), "before the last"),
        (lambda: SmoothRDF(-1.0, 5, 3), "r_max"),
        (lambda: SmoothRDF(1.0, 5, 3, every=0), "every"),
        (lambda: SegmentFunction(3, 5), "function"),
        (lambda: SegmentFunction(torch.sum, 5, n_values=0), "n_values"),
        (lambda: SegmentFunction(torch.sum, 5, reach=6), r"0 \.\. 5, got \[6\]"),
        (lambda: SegmentFunction(torch.sum, 5, n_values=2, reach=[1]), "expected 2"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_segment_that_is_too_short_is_refused(name: str) -> None:
    observable = observables()[name]
    segment = random_walk(22, observable.steps, 7)  # one step less
    with pytest.raises(ObservableError, match="too short") as error:
        observable.measure(segment)
    assert (error.value.got, error.value.expected) == (observable.steps - 1, observable.steps)


@pytest.mark.parametrize(
    "observable", [VACF(2, atoms=[0, 7]), Diffusion(2, atoms=[7]), SmoothRDF(0.3, 3, 2, atoms=[7])]
)
def test_atom_beyond_the_last_is_refused(observable: SegmentObservable) -> None:
    with pytest.raises(ObservableError, match=r"0 \.\. 6, got 7"):
        observable.measure(random_walk(23, 3, 7))


def test_smooth_rdf_refuses_a_box_that_does_not_fit() -> None:
    x = random_walk(24, 2, 7).positions
    with pytest.raises(ObservableError, match="none"):
        SmoothRDF(0.5, 5, 1).measure(segment_of(x, box=None))
    half = 0.5 * float(min(np.diag(BOX)))
    SmoothRDF(half - 0.04, 5, 1, width=0.01).measure(segment_of(x))
    with pytest.raises(ObservableError, match="half the box") as error:
        SmoothRDF(half - 0.03, 5, 1, width=0.01).measure(segment_of(x))
    assert error.value.limit == pytest.approx(half)
    with pytest.raises(ObservableError, match="no pair"):
        SmoothRDF(0.5, 5, 1, atoms=[2]).measure(segment_of(x))


def test_segment_observables_have_no_recorder_of_their_own() -> None:
    particles = Particles(2, np.arange(2), np.ones(2))
    with pytest.raises(ObservableError, match="Simulation"):
        VACF(3).recorder(particles)
