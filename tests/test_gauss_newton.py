"""The Gauss-Newton step against closed forms, finite differences, and its own error bars."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import liquids
import networks
import numpy as np
import openmm
import pytest
import torch
from liquids import Array
from systems import numerical_derivative
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import (
    RDF,
    AngleDistribution,
    FunctionOfAverages,
    GaussNewton,
    GaussNewtonOptions,
    SplinePair,
    Target,
)
from openmm_diffsim.errors import OverlapError, PotentialError
from openmm_diffsim.observables import Observable, SegmentObservable
from openmm_diffsim.observables.segment import SegmentRecords
from openmm_diffsim.potentials import (
    PairPotential,
    ParameterPrior,
    Potential,
    SplineBasis,
    flat_parameters,
    set_flat_parameters,
)
from openmm_diffsim.refinement import Comparison, FitView, Step
from openmm_diffsim.refinement.comparison import JacobianNoise, Sight, compare, groups_of
from openmm_diffsim.refinement.low_rank import LowRank
from openmm_diffsim.refinement.methods import frame_space
from openmm_diffsim.refinement.methods.gauss_newton import (
    LinearModel,
    Normal,
    follow,
    linear_model,
    to_minimum,
)
from openmm_diffsim.refinement.methods.options import roughness_of
from openmm_diffsim.refinement.response import Response
from openmm_diffsim.refinement.species import Species
from openmm_diffsim.refinement.state import State
from openmm_diffsim.refinement.theory import LiquidTheory
from openmm_diffsim.samples import Features, Run, Samples, View
from openmm_diffsim.units import MOLAR_GAS_CONSTANT, beta

KELVIN = 100.0
BETA = beta(KELVIN)


class Anywhere:
    """All that a fit of these frames asks of its state point."""

    n_particles = 2
    timestep = 0.002
    temperature = KELVIN
    pressure = None

    def number_density(self) -> float:
        return 1.0

    def check_observable(self, observable: Any) -> None:
        """It measures all of them."""


ANYWHERE: Any = Anywhere()
KNOTS = 7  # five coefficients
N = KNOTS - 2


class Linear(PairPotential):
    """c = M theta."""

    def __init__(self, matrix: Array, theta: Array) -> None:
        super().__init__(SplineBasis(0.3, 0.9, KNOTS))
        self.matrix = torch.from_numpy(matrix)
        self.theta = nn.Parameter(torch.from_numpy(theta.copy()))

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        return (self.matrix @ self.theta).reshape(1, -1)


class Recorded(Observable):
    """Just what was recorded."""

    def __init__(self, n_values: int) -> None:
        self.n_values = n_values

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return records


def autoregressive(rng: np.random.Generator, n: int, width: int, memory: float) -> Array:
    """Standard normal series [n, width] with correlation memory^|lag|."""
    noise = rng.normal(size=(n, width))
    series = noise.copy()
    for row in range(1, n):
        series[row] = memory * series[row - 1] + (1 - memory**2) ** 0.5 * noise[row]
    return series


class Harmonic:
    """A system whose basis sums are Gaussian, so that it answers exactly linearly.

    Under coefficients c, S ~ N(mu - beta Sigma c, Sigma), and A = K S + independent noise.
    """

    def __init__(self, seed: int = 0, n_values: int = 8) -> None:
        rng = np.random.default_rng(seed)
        root = rng.normal(size=(N, N)) / BETA
        self.sigma = root @ root.T
        self.root = np.linalg.cholesky(self.sigma)
        self.mu = rng.normal(size=N)
        self.matrix = rng.normal(size=(n_values, N))
        self.own_noise = 0.3
        self.observable = Recorded(n_values)

    def mean(self, c: Array) -> Array:
        return self.matrix @ (self.mu - BETA * self.sigma @ c)

    def sample(
        self,
        potential: PairPotential,
        frames: int,
        rng: np.random.Generator,
        memory: float = 0.0,
        temperature: float = KELVIN,
    ) -> Samples:
        c = potential.coefficients(temperature).detach().numpy()
        normal = autoregressive(rng, frames, N, memory)
        s = self.mu - BETA * self.sigma @ c + normal @ self.root.T
        noise = self.own_noise * autoregressive(rng, frames, self.observable.n_values, memory)
        return Samples(
            potential=potential,
            runs=(Run(c, temperature, None, frames, 1),),
            learned=Features(s, np.zeros((frames, N))),
            volume=np.ones(frames),
            rest_energy=np.zeros(frames),
            records={self.observable: s @ self.matrix.T + noise},
            temperature=temperature,
        )


def target(observable: Observable, values: Array, uncertainty: Any, **options: Any) -> Target:
    return Target(ANYWHERE, observable, values, uncertainty=uncertainty, **options)


def view_state(
    targets: Sequence[Target],
    samples: Samples,
    theory: LiquidTheory | None,
    options: GaussNewtonOptions,
) -> Comparison:
    """All targets of one state point, at the present parameters."""
    return compare(targets, [Sight(targets[0].state_point, samples.at(), theory)], options)


def measured(view: Comparison) -> Array:
    """Deviations of a Jacobian that has noise, [blocks, points, coefficients]."""
    assert view.jacobian_noise is not None
    return view.jacobian_noise.dense()


def chain_of(potential: Potential, temperature: float) -> Array:
    """dc/dtheta, [coefficients, parameters]."""
    n = len(potential.coefficients(temperature))
    return potential.pull_back(np.eye(n), temperature=temperature)


def updated(potential: Potential, goal: Target, samples: Samples) -> Step:
    """What Gauss-Newton proposes for frames of one state point; the step is taken."""
    theta = flat_parameters(potential)
    state = State(ANYWHERE, [goal], None, np.zeros(N), samples, samples)
    step = GaussNewton().propose(FitView(potential, (state,), theta))
    set_flat_parameters(potential, theta + torch.from_numpy(step.change))
    return step


def view_of(
    prediction: Array, jacobian: Array, own: Array, other: Array, targets: Sequence[Target]
) -> Comparison:
    noise = LowRank.made(own), LowRank.made(other)
    return Comparison(targets, prediction, jacobian, *noise, 1000.0)


# What a state point looks like ------------------------------------------------------------------


@pytest.fixture(scope="module")
def harmonic() -> Harmonic:
    return Harmonic()


def test_a_view_holds_average_jacobian_and_noise_of_the_frames(harmonic: Harmonic) -> None:
    rng = np.random.default_rng(1)
    potential = Linear(np.eye(N), rng.normal(size=N))
    samples = harmonic.sample(potential, 500, rng)
    with torch.no_grad():
        potential.theta += 0.05 * torch.from_numpy(rng.normal(size=N))  # weights are not equal
    values = np.linspace(-1, 1, 8)
    goal = target(harmonic.observable, values, 0.5)
    view = view_state([goal], samples, None, GaussNewtonOptions())

    s, a = samples.features, samples.records[harmonic.observable]
    change = potential.coefficients().detach().numpy() - samples.runs[0].coefficients
    w = np.exp(-BETA * s @ change)
    w /= w.sum()
    ds, da = s - w @ s, a - w @ a
    np.testing.assert_allclose(view.prediction, w @ a, rtol=1e-10)
    np.testing.assert_allclose(view.residual, w @ a - values, rtol=1e-10)
    np.testing.assert_allclose(view.jacobian, -BETA * (da * w[:, None]).T @ ds, rtol=1e-8)
    np.testing.assert_allclose(view.target_covariance, 0.25 * np.eye(8), rtol=1e-12)
    assert view.n_effective == pytest.approx(np.exp(-np.sum(w * np.log(w))))
    # independent frames: the covariance of one frame / n, in any direction; correlations that are
    # looked for are found by chance, and only make it larger
    expected = (da * w[:, None]).T @ da * np.sum(w**2)
    root = np.linalg.cholesky(np.linalg.inv(expected))
    ratio = np.linalg.eigvalsh(root.T @ view.own_covariance @ root)
    assert 0.95 < ratio[0] < 1.2 and ratio[-1] < 2.5


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_noise_of_correlated_frames_is_that_of_repeated_runs(
    harmonic: Harmonic, memory: float
) -> None:
    rng = np.random.default_rng(2)
    potential = Linear(np.eye(N), np.ones(N))  # not zero: the energy tells of the correlations
    goal = target(harmonic.observable, np.zeros(8), 1.0)
    repeats = 150
    views = [
        view_state(
            [goal],
            harmonic.sample(potential, 200, rng, memory),
            None,
            GaussNewtonOptions(),
        )
        for _ in range(repeats)
    ]
    means = np.array([view.prediction for view in views])
    claimed = np.mean([np.diag(view.own_covariance) for view in views], axis=0)
    # a variance from 150 repeats is known to (2 / 150)^1/2 = 12 %; correlations that are looked for
    # are also found by chance, which adds up to a quarter
    ratio = claimed / means.var(axis=0, ddof=1)
    noise = (2 / repeats) ** 0.5
    assert ratio.min() > 1 - 3 * noise and ratio.max() < 1.25 + 3 * noise
    assert 0.9 < np.mean(ratio) < 1.25


def test_a_view_refuses_frames_that_do_not_reach(harmonic: Harmonic) -> None:
    rng = np.random.default_rng(3)
    potential = Linear(np.eye(N), np.zeros(N))
    samples = harmonic.sample(potential, 200, rng)
    with torch.no_grad():
        potential.theta += 20.0
    goal = target(harmonic.observable, np.zeros(8), 1.0)
    with pytest.raises(OverlapError):
        view_state([goal], samples, None, GaussNewtonOptions())


def test_several_targets_are_stacked_in_their_order(harmonic: Harmonic) -> None:
    rng = np.random.default_rng(4)
    potential = Linear(np.eye(N), np.zeros(N))
    samples = harmonic.sample(potential, 300, rng)
    other = Recorded(1)
    samples.records[other] = samples.features[:, :1]  # type: ignore[index]
    targets = [
        target(other, np.array([1.0]), 0.1),
        target(harmonic.observable, np.arange(8.0), 0.2),
        target(other, np.array([2.0]), 0.3),
    ]
    view = view_state(targets, samples, None, GaussNewtonOptions())
    assert view.prediction.shape == (10,) and view.jacobian.shape == (10, N)
    assert view.prediction[0] == view.prediction[9] == samples.features[:, 0].mean()
    np.testing.assert_allclose(view.residual[9] - view.residual[0], -1.0)
    np.testing.assert_allclose(
        np.diag(view.target_covariance), [0.01, *[0.04] * 8, 0.09], rtol=1e-12
    )
    # the first and the last are the same number, and the noise of their predictions is one
    assert view.own_covariance[0, 9] == pytest.approx(view.own_covariance[0, 0])


# Dynamic observables ----------------------------------------------------------------------------


class Moving(SegmentObservable):
    """Several values of a segment of one step; a test makes the records itself."""

    def __init__(self, n_values: int) -> None:
        self.n_values = n_values
        super().__init__(1, estimator="pathwise")


class Driven(Harmonic):
    """A Harmonic whose segments answer to the potential too: A = K S + L c + noise.

    d<A>/dc = L - beta K Sigma; of each segment L is measured with the noise ``slope_noise``.
    """

    def __init__(self, seed: int = 0, n_values: int = 4, slope_noise: float = 0.0) -> None:
        super().__init__(seed, n_values)
        self.along = np.random.default_rng(seed + 1).normal(size=(n_values, N))
        self.slope_noise = slope_noise
        self.moving = Moving(n_values)

    def dynamic_mean(self, c: Array) -> Array:
        return self.mean(c) + self.along @ c

    def sample(self, *arguments: Any, **options: Any) -> Samples:
        samples = super().sample(*arguments, **options)
        rng: np.random.Generator = arguments[2]
        c = samples.runs[0].coefficients
        rows = []
        for values in samples.records[self.observable]:
            slopes = self.along + self.slope_noise * rng.normal(size=self.along.shape)
            unknown = np.full(slopes.shape, np.nan)
            parts = (values + self.along @ c, slopes, unknown, unknown, np.nan)
            rows.append(SegmentRecords.pack(*parts))
        return replace(samples, records={**samples.records, self.moving: np.array(rows)})


def test_a_view_of_dynamics_is_what_the_segments_say() -> None:
    driven = Driven(3)
    rng = np.random.default_rng(31)
    potential = Linear(np.eye(N), 0.1 * rng.normal(size=N))
    samples = driven.sample(potential, 300, rng)
    goal = target(driven.moving, np.arange(4.0), [0.1, 0.2, 0.3, 0.4])
    operator = rng.normal(size=(4, 4))
    goal.response = Response(operator)
    view = view_state([goal], samples, None, GaussNewtonOptions())
    s, a = samples.features, samples.at().values(driven.moving).detach().numpy()
    expected = driven.along - BETA * np.cov(a.T, s.T, bias=True)[:4, 4:]
    np.testing.assert_allclose(view.prediction, operator @ a.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(view.jacobian, operator @ expected, rtol=1e-8, atol=1e-9)
    own = samples.estimate(driven.moving).covariance
    np.testing.assert_allclose(view.own_covariance, operator @ own @ operator.T)
    np.testing.assert_allclose(view.target_covariance, np.diag([0.01, 0.04, 0.09, 0.16]))
    assert view.n_effective == pytest.approx(300)


def test_dynamics_stands_beside_the_rest_in_the_order_of_the_targets() -> None:
    driven = Driven(4)
    rng = np.random.default_rng(32)
    potential = Linear(np.eye(N), 0.1 * rng.normal(size=N))
    samples = driven.sample(potential, 300, rng)
    one, two = (target(driven.observable, np.full(4, x), x) for x in (1.0, 2.0))
    moving = target(driven.moving, np.zeros(4), 3.0)
    options = GaussNewtonOptions()
    view = view_state([one, moving, two], samples, None, options)
    static = view_state([one, two], samples, None, options)
    dynamic = view_state([moving], samples, None, options)
    rest = np.r_[0:4, 8:12]
    for name in ("prediction", "jacobian", "residual"):
        np.testing.assert_array_equal(getattr(view, name)[rest], getattr(static, name))
        np.testing.assert_array_equal(getattr(view, name)[4:8], getattr(dynamic, name))
    for name in ("own_covariance", "target_covariance"):
        both = getattr(view, name)
        np.testing.assert_array_equal(both[np.ix_(rest, rest)], getattr(static, name))
        np.testing.assert_array_equal(both[4:8, 4:8], getattr(dynamic, name))
        assert not both[rest, 4:8].any()


def test_a_prediction_of_unknown_noise_has_no_weight() -> None:
    """One frame is one block: its variance is not known, and nothing may rest on it."""
    driven = Driven(5)
    rng = np.random.default_rng(33)
    samples = driven.sample(Linear(np.eye(N), np.zeros(N)), 1, rng)
    assert np.isinf(samples.estimate(driven.moving).standard_error).all()
    goal = target(driven.moving, np.zeros(4), 0.1)
    view = view_state([goal], samples, None, GaussNewtonOptions())
    np.testing.assert_allclose(view.own_covariance, np.diag(np.full(4, 100.0**2)))
    assert view.weight.max() < 1.1e-4 and view.noise_ratio() == pytest.approx(1e3)


def test_the_deviations_of_a_jacobian_are_those_of_repeated_runs() -> None:
    """100 runs of 200 segments: variances are known to 14 %; chance correlations add to them."""
    driven = Driven(6, slope_noise=20.0)
    rng = np.random.default_rng(35)
    potential = Linear(np.eye(N), np.ones(N))
    goal = target(driven.moving, np.zeros(4), 1.0)
    views = [
        view_state([goal], driven.sample(potential, 200, rng), None, GaussNewtonOptions())
        for _ in range(100)
    ]
    scatter = np.var([view.jacobian for view in views], axis=0, ddof=1)
    claimed = np.mean([(measured(view) ** 2).sum(axis=0) for view in views], axis=0)
    assert 0.9 < claimed.mean() / scatter.mean() < 1.25
    assert np.abs(claimed / scatter - 1.1).max() < 5 * 0.14


class Box(Recorded):
    """The volume, beside what was recorded."""

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return torch.as_tensor(conditions.volume)[:, None] + 0.0 * records


def breathing(harmonic: Harmonic, rng: np.random.Generator, memory: float) -> Samples:
    """400 frames at 1 bar, of which the features go with a volume of memory^|lag|."""
    samples = harmonic.sample(Linear(np.eye(N), np.zeros(N)), 400, rng, 0.0)
    volume = autoregressive(rng, 400, 1, memory)
    features = samples.features + 2.0 * volume * np.arange(N)
    return replace(
        samples,
        runs=(replace(samples.runs[0], pressure=1.0),),
        pressure=1.0,
        volume=20.0 + volume[:, 0],
        learned=Features(features, np.zeros((400, N))),
        records={BOX: np.zeros((400, 1))},
    )


BOX = Box(1)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_how_a_box_answers_is_known_as_well_as_repeated_runs_agree(memory: float) -> None:
    """120 runs: variances to 13 %; ten to a hundred stretches, to as much again."""
    rng = np.random.default_rng(36)
    harmonic, goal = Harmonic(6), target(BOX, np.array([20.0]), 0.1)
    views = [
        view_state([goal], breathing(harmonic, rng, memory), None, GaussNewtonOptions())
        for _ in range(120)
    ]
    scatter = np.var([view.jacobian for view in views], axis=0, ddof=1)
    claimed = np.mean([(measured(view) ** 2).sum(axis=0) for view in views], axis=0)
    assert np.all((claimed / scatter > 0.6) & (claimed / scatter < 1.5)), claimed / scatter


def test_damping_is_what_the_noise_of_the_jacobian_adds_to_the_misfit() -> None:
    views, *_ = random_problem(36, 3, 1)
    rng = np.random.default_rng(36)
    noise = JacobianNoise(rng.normal(size=(8, 6)), rng.normal(size=(5, 6, N)))
    view = replace(views[0], jacobian_noise=noise)
    step = rng.normal(size=N)
    expected = sum(d @ view.weight @ d for d in measured(view) @ step)
    data = Normal.of(view)
    assert step @ (data.damped - data.hessian) @ step == pytest.approx(expected)
    assert not Normal.of(views[0]).noise.any()


def test_a_jacobian_that_is_all_noise_gives_a_short_step_and_tells_nothing() -> None:
    views, chains, offsets, _ = random_problem(37, 3, 1)
    noisy = replace(
        views[0], jacobian_noise=JacobianNoise(np.eye(8), 100 * views[0].jacobian[None])
    )
    plain, damped = (LinearModel([v], chains, offsets, [None]).step() for v in (views[0], noisy))
    # the same shape of J, 100 times as large: the Hessian is 10001 times as large
    np.testing.assert_allclose(damped.change, plain.change / 10001, rtol=1e-6)
    assert np.all(np.diag(damped.covariance) > 1e5 * np.diag(plain.covariance))


def test_a_soft_mode_is_found_in_a_jacobian_that_is_mostly_noise() -> None:
    """y = J x + e of 100 points, J + E of ten stretches, E three times J along the second of two.

    Least squares finds 1 / (1 + 9) of x there, half of that if damped; a step goes farther. What
    frames say is all of it, within four standard errors of 400 times, and two of its own hold in 90
    to 99 %.
    """
    rng = np.random.default_rng(38)
    n, x = 100, np.array([0.05, 0.2])
    true = rng.normal(size=(n, 2)) / np.sqrt(n) * [40.0, 8.0]
    noise = 3 * 8.0 / np.sqrt(n) * np.array([0.0, 1.0])
    steps, found, errors = [], [], []
    for _ in range(400):
        parts = rng.normal(size=(10, n, 2)) * noise / np.sqrt(10)
        jacobian, deviations = true + parts.sum(axis=0), parts - parts.mean(axis=0)
        goal = target(Recorded(n), np.zeros(n), 1.0)
        view = view_of(
            -true @ x + rng.normal(size=n), jacobian, np.zeros((n, n)), np.eye(n), [goal]
        )
        view = replace(view, jacobian_noise=JacobianNoise(np.eye(n), deviations))
        model = LinearModel([view], [np.eye(2)], [np.zeros(2)], [None])
        step = model.step(is_damped=False)
        steps.append(model.step().change)
        found.append(step.change)
        errors.append(np.sqrt(np.diag(step.covariance)))
    off, size = np.array(found) - x, np.std(found, axis=0) / 20
    assert np.all(np.abs(off.mean(axis=0)) < 4 * size)
    assert 0.1 < np.mean(steps, axis=0)[1] / x[1] < 0.5
    coverage = np.mean(np.abs(off) < 2 * np.array(errors), axis=0)
    assert np.all((coverage > 0.90) & (coverage < 0.99)), coverage


def test_a_noisy_jacobian_of_dynamics_alone_does_not_wreck_the_step() -> None:
    """The mean of the measured slopes is off by half their size: 20 fits of six rounds each.

    Each round has its own frames, nothing is taken back: a step may go astray.
    """
    driven = Driven(6)
    exact = driven.along - BETA * driven.matrix @ driven.sigma
    driven.slope_noise = 0.5 * float(np.sqrt(np.mean(exact**2))) * 10  # 100 segments a round
    rng = np.random.default_rng(34)
    matrix = rng.normal(size=(N, 2))
    truth, start = np.array([0.3, -0.2]), np.array([0.4, -0.1])
    goal = target(driven.moving, driven.dynamic_mean(matrix @ truth), 0.02)
    away = np.empty((20, 6, 2))
    for fit in range(20):
        potential = Linear(matrix, start)
        for number in range(6):
            samples = driven.sample(potential, 100, rng)
            updated(potential, goal, samples)
            away[fit, number] = flat_parameters(potential).numpy() - truth
    distance = np.linalg.norm(away, axis=-1) / np.linalg.norm(start - truth)
    assert np.quantile(distance, 0.95) < 1.2 and distance.max() < 2.5, distance
    assert np.median(distance[:, -1]) < 0.85, distance


# Functions of averages ----------------------------------------------------------------------------


class Two:
    """Frames of two state points, away from the parameters that they were sampled with."""

    def __init__(self, harmonic: Harmonic) -> None:
        rng = np.random.default_rng(41)
        self.potential = Linear(np.eye(N), 0.1 * rng.normal(size=N))
        self.points: list[Any] = [Anywhere(), Anywhere()]
        self.observable = harmonic.observable
        parts = [harmonic.sample(self.potential, 400, rng) for _ in self.points]
        self.samples = [
            replace(p, temperature=t) for p, t in zip(parts, (100.0, 102.0), strict=True)
        ]
        with torch.no_grad():
            self.potential.theta += 0.02 * torch.from_numpy(rng.normal(size=N))

    def sights(self) -> list[Sight]:
        pairs = zip(self.points, self.samples, strict=True)
        return [Sight(point, samples.at()) for point, samples in pairs]

    def plain(self, which: int) -> Target:
        values = np.zeros(8)
        return Target(self.points[which], self.observable, values, uncertainty=0.5)  # type: ignore[arg-type]

    def ratio(self) -> Target:
        """Two values, of averages at both."""
        function = FunctionOfAverages(
            lambda a, b: torch.stack([(a[:3] * b[1:4]).sum(), a[7] / (1 + b[0] ** 2)]),
            [self.observable, self.observable],
            n_values=2,
            symbol="both",
        )
        return Target(self.points, function, np.ones(2), uncertainty=0.1)

    def predicted(self, target: Target, c: Array) -> Array:
        """With other coefficients at both, [2 * coefficients]."""
        views = [
            View(samples, torch.from_numpy(part))
            for samples, part in zip(self.samples, np.split(c, 2), strict=True)
        ]
        of_point = dict(zip(map(id, self.points), views, strict=True))
        averages = [of_point[id(point)].average(o) for point, o in target.terms]
        return target.predict(*averages).numpy()


@pytest.fixture(scope="module")
def two(harmonic: Harmonic) -> Two:
    return Two(harmonic)


def test_a_function_of_averages_at_two_points_has_the_slope_of_its_prediction(two: Two) -> None:
    goals = [two.ratio(), two.plain(1)]
    view = compare(goals, two.sights(), GaussNewtonOptions())
    c = np.tile(two.potential.coefficients().detach().numpy(), 2)
    assert view.jacobian.shape == (10, 2 * N)
    for goal, where in view.places():
        np.testing.assert_allclose(view.prediction[where], two.predicted(goal, c), rtol=1e-12)

        def shifted(x: Array, goal: Target = goal) -> Array:
            return two.predicted(goal, x)

        expected = numerical_derivative(shifted, c, step=1e-3)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(view.jacobian[where], expected, rtol=1e-6, atol=1e-9 * scale)
        assert np.abs(expected[:, N:]).max() > 0.1
    assert not view.jacobian[2:, :N].any()  # what is measured at the second alone


def test_the_noise_of_a_function_of_averages_is_propagated(two: Two) -> None:
    """C = L C_a L^T, of both state points, and of what is measured at one of them beside it."""
    plain = [compare([two.plain(k)], [two.sights()[k]], GaussNewtonOptions()) for k in (0, 1)]
    view = compare([two.ratio(), two.plain(1)], two.sights(), GaussNewtonOptions())
    a, b = (p.prediction for p in plain)
    by_a, by_b = np.zeros((2, 8)), np.zeros((2, 8))
    by_a[0, :3], by_b[0, 1:4] = b[1:4], a[:3]
    by_a[1, 7], by_b[1, 0] = 1 / (1 + b[0] ** 2), -2 * a[7] * b[0] / (1 + b[0] ** 2) ** 2
    maps = [np.concatenate([by_a, np.zeros((8, 8))]), np.concatenate([by_b, np.eye(8)])]
    pairs = list(zip(maps, plain, strict=True))
    expected = sum(m @ p.own_covariance @ m.T for m, p in pairs)
    np.testing.assert_allclose(view.own_covariance, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.diag(view.target_covariance), [0.01] * 2 + [0.25] * 8)
    assert view.n_effective == min(p.n_effective for p in plain)


def test_a_function_of_dynamics_has_its_share_of_the_noise_of_the_slopes() -> None:
    driven = Driven(4, slope_noise=3.0)
    rng = np.random.default_rng(42)
    samples = driven.sample(Linear(np.eye(N), 0.1 * rng.normal(size=N)), 200, rng)
    function = FunctionOfAverages(
        lambda a, b: a[:2] * b[3], [driven.moving, driven.moving], n_values=2
    )
    goal, plain = target(function, np.zeros(2), 1.0), target(driven.moving, np.zeros(4), 1.0)
    mine, own = (view_state([t], samples, None, GaussNewtonOptions()) for t in (goal, plain))
    a = own.prediction
    map_of = np.array([[a[3], 0, 0, a[0]], [0, a[3], 0, a[1]]])
    np.testing.assert_allclose(mine.jacobian, map_of @ own.jacobian, rtol=1e-9)
    np.testing.assert_allclose(
        mine.own_covariance, map_of @ own.own_covariance @ map_of.T, rtol=1e-9, atol=1e-15
    )
    expected, found = (map_of @ measured(own)).transpose(1, 2, 0), measured(mine).transpose(1, 2, 0)
    np.testing.assert_allclose((found**2).sum(axis=2), (expected**2).sum(axis=2), rtol=1e-9)


def test_targets_hang_together_by_the_state_points_that_they_share() -> None:
    a, b, c, d = (Anywhere() for _ in range(4))
    own, both = Recorded(1), FunctionOfAverages(torch.sub, [Recorded(1), Recorded(1)])

    def of(*points: Any) -> Target:
        return Target(points, own if len(points) == 1 else both, 1.0, uncertainty=1.0)

    first, second, third, fourth, fifth = of(a), of(b, c), of(c), of(d), of(d, a)
    groups = groups_of([first, second, third, fourth, fifth])
    assert [(set(ts), set(points)) for ts, points in groups] == [
        ({second, third}, {b, c}),
        ({first, fourth, fifth}, {a, d}),
    ]
    assert [ts for ts, _ in groups] == [[second, third], [first, fourth, fifth]]
    assert [points for _, points in groups_of([first, third])] == [[a], [c]]


# The step ---------------------------------------------------------------------------------------


def whitened_least_squares(
    views: Sequence[Comparison],
    chains: Sequence[Array],
    offsets: Sequence[Array],
    precision: Array | None,
) -> Array:
    """The same minimum by another way: one tall least-squares problem."""
    rows, right = [], []
    for view, chain, offset in zip(views, chains, offsets, strict=True):
        root = np.linalg.cholesky(view.weight).T
        rows.append(root @ view.jacobian @ chain)
        right.append(-root @ view.residual)
        if precision is not None:
            smooth = np.linalg.cholesky(precision).T
            rows.append(smooth @ chain)
            right.append(-smooth @ offset)
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]


def random_problem(seed: int, parameters: int, state_points: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    observable = Recorded(8)
    views, chains, offsets = [], [], []
    for _ in range(state_points):
        a, b = rng.normal(size=(2, 8, 8))
        goal = target(observable, rng.normal(size=8), 1.0, weight=rng.uniform(0.5, 2))
        views.append(
            view_of(rng.normal(size=8), rng.normal(size=(8, N)), a @ a.T, b @ b.T + 1, [goal])
        )
        chains.append(rng.normal(size=(N, parameters)))
        offsets.append(rng.normal(size=N))
    root = rng.normal(size=(N, N))
    return views, chains, offsets, root @ root.T


@pytest.mark.parametrize("state_points", [1, 3])
@pytest.mark.parametrize("with_prior", [False, True])
def test_the_step_is_the_minimum_of_the_linear_model(state_points: int, with_prior: bool) -> None:
    views, chains, offsets, precision = random_problem(5, 3, state_points)
    prior = precision if with_prior else None
    step = LinearModel(views, chains, offsets, [prior] * state_points).step()
    expected = whitened_least_squares(views, chains, offsets, prior)
    np.testing.assert_allclose(step.change, expected, rtol=1e-6, atol=1e-9)
    hessian = sum(
        (v.jacobian @ m).T @ v.weight @ v.jacobian @ m + (m.T @ precision @ m) * with_prior
        for v, m in zip(views, chains, strict=True)
    )
    np.testing.assert_allclose(step.covariance, np.linalg.inv(hessian), rtol=1e-6, atol=1e-9)


def test_the_prior_of_parameters_is_one_more_piece_of_data() -> None:
    """What no data speak of comes out as it was known, exactly, however much these decide."""
    views, chains, offsets, precision = random_problem(5, 3, 2)
    chains = [np.concatenate([1e4 * m, 1e-30 * m[:, :1]], axis=1) for m in chains]
    prior = ParameterPrior(np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.1, np.inf, 2.0, 0.3]))
    theta = np.array([0.2, 0.1, 0.4, 2.0])
    step = LinearModel(
        views, chains, offsets, [precision] * 2, (prior.precision, prior.slope(theta))
    ).step()
    hessian, slope = np.diag(prior.precision), prior.slope(theta)
    for v, m, apart in zip(views, chains, offsets, strict=True):
        own, down = linear_model(v)
        hessian = hessian + m.T @ (own + precision) @ m
        slope = slope + m.T @ (down + precision @ apart)
    np.testing.assert_allclose(step.change, -np.linalg.solve(hessian, slope), rtol=1e-6)
    np.testing.assert_allclose(step.change[3], 1.0, rtol=1e-8)  # to its mean
    assert step.covariance is not None
    np.testing.assert_allclose(step.covariance[3, 3], 0.3**2, rtol=1e-8)
    assert step.covariance[0, 0] < 1e-2 * 0.1**2


def test_a_step_is_no_longer_than_a_prior_is_wide(harmonic: Harmonic) -> None:
    """It has the direction of the whole step, which errors are told by; without a prior, all."""
    potential = Linear(np.eye(N), np.zeros(N))
    samples = harmonic.sample(potential, 4000, np.random.default_rng(3))
    goal = target(harmonic.observable, harmonic.mean(np.full(N, 0.5)), 1e-3)
    width = np.array([np.inf, 0.1, 0.1, 0.1, 0.1])
    state = State(ANYWHERE, [goal], None, np.zeros(N), samples, samples)
    view = FitView(potential, (state,), flat_parameters(potential))
    known = replace(view, prior=ParameterPrior(np.zeros(N), width))
    method = GaussNewton()
    whole = to_minimum(known, LinearModel.of(known, method.options)).change
    bounded = method.propose(known).change
    assert np.abs(whole / width).max() > 3
    assert np.abs(bounded / width).max() == pytest.approx(1.0)
    np.testing.assert_allclose(bounded / np.linalg.norm(bounded), whole / np.linalg.norm(whole))
    assert np.abs(method.propose(view).change / width).max() > 3


def test_parameters_that_are_not_linear_have_their_prior_too() -> None:
    """An exponent: the minimum of (a e^theta - b)^2 + ((theta - 1) / s)^2."""
    a, b, s, start = 2.0, 9.0, 0.4, 0.2

    class Exponent(Potential):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([start], dtype=torch.float64))

        def coefficients(self, temperature: float | None = None) -> Tensor:
            return self.theta.exp()

    model = np.array([[a * a]]), np.array([a * (a * np.exp(start) - b)])
    prior = ParameterPrior(np.array([1.0]), np.array([s]))
    at = torch.tensor([start], dtype=torch.float64)
    found = float(follow(Exponent(), at, [[KELVIN]], [model], prior)[0])
    slope = 2 * (a * np.exp(found) - b) * a * np.exp(found) + 2 * (found - 1) / s**2
    assert abs(slope) < 1e-3  # of 26 at the start
    assert abs(found - np.log(b / a)) > 0.01  # where the data alone are


def test_the_weight_of_a_target_scales_its_inverse_variance() -> None:
    views, chains, offsets, _ = random_problem(6, 3, 1)
    view = views[0]
    heavy = target(Recorded(8), view.targets[0].values, 1.0, weight=9.0)
    light = target(Recorded(8), view.targets[0].values, 1.0)
    same = view_of(
        view.prediction, view.jacobian, view.own_covariance / 9, view.target_covariance / 9, [light]
    )
    weighted = view_of(
        view.prediction, view.jacobian, view.own_covariance, view.target_covariance, [heavy]
    )
    np.testing.assert_allclose(weighted.weight, same.weight, rtol=1e-9)
    a, b = (LinearModel([v], chains, offsets, [None]).step() for v in (weighted, same))
    np.testing.assert_allclose(a.change, b.change, rtol=1e-9)
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-9)


def test_of_two_targets_that_disagree_the_heavier_wins(harmonic: Harmonic) -> None:
    observable, eye = Recorded(1), np.eye(1)
    jacobian = np.zeros((2, N))
    jacobian[:, 0] = 1.0
    chain = np.zeros((N, 1))
    chain[0] = 1.0
    for weight in (1.0, 4.0):
        targets = [
            target(observable, np.array([1.0]), 1.0, weight=weight),
            target(observable, np.array([-1.0]), 1.0),
        ]
        view = view_of(np.zeros(2), jacobian, np.zeros((2, 2)), np.eye(2), targets)
        step = LinearModel([view], [chain], [np.zeros(N)], [None]).step()
        np.testing.assert_allclose(step.change, (weight - 1) / (weight + 1), atol=1e-6)
    assert eye.shape == (1, 1)


def test_misfit_and_noise_ratio_are_in_units_of_the_errors() -> None:
    targets = [
        target(Recorded(2), np.array([0.0, 0.0]), 1.0),
        target(Recorded(1), np.array([0.0]), 1.0, weight=3.0),
    ]
    own, other = np.diag([0.5, 1.0, 2.0]), np.diag([0.5, 3.0, 0.5])
    view = view_of(np.array([1.0, 4.0, 2.0]), np.zeros((3, N)), own, other, targets)
    squares = np.array([1 / 1.0, 16 / 4.0, 4 / 2.5])
    expected = np.sqrt((squares[0] + squares[1] + 3 * squares[2]) / 5)
    assert view.misfit() == pytest.approx(expected)
    assert view.noise_ratio() == pytest.approx(np.median([1.0, 1 / 3, 4.0]) ** 0.5)


def test_error_bars_cover_the_truth_as_often_as_they_say() -> None:
    """Noise of target and prediction, correlated: 95 % of 300 x 3 intervals, within 90-99 %."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 8, 8))
    own, other = 0.1 * a @ a.T, 0.1 * b @ b.T + 0.01 * np.eye(8)
    roots = np.linalg.cholesky(own), np.linalg.cholesky(other)
    jacobian, chain = rng.normal(size=(8, N)), rng.normal(size=(N, 3))
    start, truth = rng.normal(size=(2, 3))
    inside = []
    for _ in range(300):
        exact = jacobian @ chain @ (truth - start)
        measured = roots[1] @ rng.normal(size=8) + exact
        view = view_of(
            roots[0] @ rng.normal(size=8), jacobian, own, other, [target(Recorded(8), measured, 1)]
        )
        step = LinearModel([view], [chain], [np.zeros(N)], [None]).step()
        error = np.sqrt(np.diag(step.covariance))
        inside.append(np.abs(start + step.change - truth) < 1.96 * error)
    coverage = np.mean(inside, axis=0)
    assert ((coverage > 0.90) & (coverage < 0.99)).all(), coverage


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_error_bars_from_sampled_frames_cover_the_truth_too(memory: float) -> None:
    """As above, but average, Jacobian and noise come from 300 frames of a system, 200 times."""
    rng = np.random.default_rng(8)
    harmonic = Harmonic(1)
    matrix = rng.normal(size=(N, 2))
    truth = np.array([0.3, -0.2])
    start = truth + 0.02
    values, error = harmonic.mean(matrix @ truth), np.full(8, 0.05)
    inside = []
    for _ in range(200):
        potential = Linear(matrix, start)
        measured = values + error * rng.normal(size=8)
        goal = target(harmonic.observable, measured, error)
        samples = harmonic.sample(potential, 300, rng, memory)
        view = view_state([goal], samples, None, GaussNewtonOptions())
        step = LinearModel([view], [chain_of(potential, KELVIN)], [np.zeros(N)], [None]).step()
        z = (start + step.change - truth) / np.sqrt(np.diag(step.covariance))
        inside.append(np.abs(z) < 1.96)
    coverage = np.mean(inside, axis=0)
    assert ((coverage > 0.90) & (coverage < 0.99)).all(), coverage


@pytest.mark.parametrize(
    "frames, n_values, memory", [(300, 30, 0.9), (1000, 30, 0.0), (1000, 8, 0)]
)
def test_few_frames_of_many_values_say_how_little_they_know(
    frames: int, n_values: int, memory: float
) -> None:
    """15 independent frames at the least; 60 repeats from the truth, rms known to 9 %."""
    rng = np.random.default_rng(8)
    harmonic, matrix = Harmonic(1, n_values), rng.normal(size=(N, 2))
    potential = Linear(matrix, np.array([0.3, -0.2]))
    values, error = harmonic.mean(matrix @ np.array([0.3, -0.2])), np.full(n_values, 0.005)
    found = []
    for _ in range(60):
        samples = harmonic.sample(potential, frames, rng, memory)
        goal = target(harmonic.observable, values + error * rng.normal(size=n_values), error)
        state = State(ANYWHERE, [goal], None, np.zeros(N), samples, samples)
        view = FitView(potential, (state,), flat_parameters(potential))
        step = LinearModel.of(view, GaussNewtonOptions()).step(is_damped=False)
        assert step.covariance is not None
        found.append(step.change / np.sqrt(np.diag(step.covariance)))
    rms = np.sqrt(np.mean(np.square(found), axis=0))
    assert np.all((rms > 0.7) & (rms < 1.3)), rms


def test_the_method_moves_a_potential_to_the_closed_form_and_says_the_covariance() -> None:
    """Of 400 frames the Jacobian is 1 % noise, which the step leaves out."""
    rng = np.random.default_rng(9)
    harmonic = Harmonic(2)
    matrix = rng.normal(size=(N, 2))
    potential = Linear(matrix, np.zeros(2))
    samples = harmonic.sample(potential, 400, rng)
    goal = target(harmonic.observable, harmonic.mean(matrix @ np.array([0.1, 0.1])), 0.1)
    covariance = updated(potential, goal, samples).covariance
    with torch.no_grad():
        moved = potential.theta.detach().clone()
        potential.theta.zero_()
    view = view_state([goal], samples, None, GaussNewtonOptions())
    expected = whitened_least_squares([view], [matrix], [np.zeros(N)], None)
    assert np.all(np.abs(moved.numpy() / expected - 1) < 0.03)
    hessian = (view.jacobian @ matrix).T @ view.weight @ view.jacobian @ matrix
    assert covariance is not None
    np.testing.assert_allclose(covariance, np.linalg.inv(hessian), rtol=0.05)


# Potentials that are not linear in their parameters ---------------------------------------------


def model_with_minimum(potential: PairPotential, goal: Array, seed: int) -> tuple[Array, Array]:
    """Hessian and slope, at the present coefficients, of (c - goal)^T H (c - goal) / 2."""
    now = potential.coefficients(KELVIN).detach().numpy().ravel()
    root = np.random.default_rng(seed).normal(size=(len(now), len(now)))
    hessian = root @ root.T
    return hessian, hessian @ (now - goal)


def followed(potential: PairPotential, temperatures: Any, models: Any) -> None:
    """The parameters are set to where ``follow`` leads."""
    theta = follow(potential, flat_parameters(potential), temperatures, models)
    set_flat_parameters(potential, theta)


def test_the_linear_model_is_the_misfit_and_the_prior() -> None:
    views, _, offsets, precision = random_problem(10, 3, 1)
    view, offset = views[0], offsets[0]
    model = LinearModel([view], [np.eye(N)], [offset], [precision])
    hessian, slope = model.data.hessian + model.prior[0], model.data.slope + model.prior[1]

    def half_misfit(step: Array) -> float:
        residual = view.residual + view.jacobian @ step
        shift = offset + step
        return 0.5 * float(residual @ view.weight @ residual + shift @ precision @ shift)

    step = np.random.default_rng(11).normal(size=N)
    expected = half_misfit(step) - half_misfit(np.zeros(N))
    assert slope @ step + 0.5 * step @ hessian @ step == pytest.approx(expected)


@pytest.mark.parametrize("form", ["LennardJones", "Mie"])
def test_a_closed_form_goes_all_the_way_to_the_minimum_in_one_update(form: str) -> None:
    make = {
        "LennardJones": lambda s, e: diffsim.LennardJones(s, e, 0.8, 0.27, 30),
        "Mie": lambda s, e: diffsim.Mie(s, e, 0.8, 12 * e, 6.0, 0.27, 30),
    }[form]
    pair, truth = make(0.36, 0.8), make(0.34, 1.1)
    goal = truth.coefficients().detach().numpy().ravel()
    followed(pair, [[KELVIN]], [model_with_minimum(pair, goal, 12)])
    np.testing.assert_allclose(
        flat_parameters(pair).numpy(), flat_parameters(truth).numpy(), rtol=1e-5
    )


def test_a_network_comes_near_a_minimum_that_it_can_reach() -> None:
    def network(seed: int) -> diffsim.NeuralPair:
        return diffsim.NeuralPair(0.28, 0.8, 0.3, knots=30, centers=10, hidden=(8,), seed=seed)

    pair, truth = network(1), network(2)
    set_flat_parameters(truth, 10 * flat_parameters(truth))  # away from its small start
    goal = truth.coefficients().detach().numpy().ravel()
    before = np.abs(pair.coefficients().detach().numpy().ravel() - goal).max()
    followed(pair, [[KELVIN]], [model_with_minimum(pair, goal, 13)])
    after = np.abs(pair.coefficients().detach().numpy().ravel() - goal).max()
    assert before > 0.1 and after < 0.25 * before


def test_two_state_points_are_followed_at_once() -> None:
    def make(energy: float, entropy: float) -> diffsim.TemperatureDependent:
        terms = [diffsim.LennardJones(0.34, x, 0.8, 0.27, 30) for x in (energy, entropy)]
        return diffsim.TemperatureDependent(*terms)

    pair, truth = make(1.0, 0.001), make(1.4, 0.003)
    models = []
    for seed, t in enumerate((100.0, 200.0)):
        now, goal = (p.coefficients(t).detach().numpy().ravel() for p in (pair, truth))
        root = np.random.default_rng(seed).normal(size=(len(now), len(now)))
        models.append((root @ root.T, root @ root.T @ (now - goal)))
    followed(pair, [[100.0], [200.0]], models)
    found = flat_parameters(pair).numpy()
    np.testing.assert_allclose(found, flat_parameters(truth).numpy(), rtol=1e-3)


# Targets that are g(r) --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gas() -> dict[str, Any]:
    """200 frames of a small fluid."""
    pair = liquids.lennard_jones()
    point = diffsim.StatePoint(liquids.simulation(pair, 64, 0.3, 1.5, seed=2), pair)
    rdf = RDF(2.4 * liquids.SIGMA, 40)
    theory = LiquidTheory(point, Species(point), [rdf.r])
    angles = AngleDistribution(1.5 * liquids.SIGMA, 18)
    samples = point.sample(4000, 20, [rdf, angles, *theory.rdfs], equilibration=1000)
    return {"point": point, "rdf": rdf, "angles": angles, "theory": theory, "samples": samples}


def rdf_target(gas: dict[str, Any], **options: Any) -> Target:
    rdf = gas["rdf"]
    g = gas["samples"].estimate(rdf)
    options.setdefault("uncertainty", g.standard_error)
    return Target(gas["point"], rdf, rdf.r, g.value, **options)


def test_sampled_noise_is_correlated_as_the_frames_are_and_independent_noise_is_not(
    gas: dict[str, Any],
) -> None:
    options = GaussNewtonOptions(theory=False)
    independent, sampled = (
        view_state([rdf_target(gas, noise=noise)], gas["samples"], None, options)
        for noise in ("independent", "sampled")
    )
    error = rdf_target(gas).uncertainty
    np.testing.assert_allclose(independent.target_covariance, np.diag(error**2), rtol=1e-12)
    g = gas["samples"].at().values(gas["rdf"]).numpy(force=True)
    one_frame = np.cov(g.T, bias=True)
    share = rdf_target(gas, noise="sampled").frames_share(np.diag(one_frame))
    assert share is not None
    # measured errors are those of 200 frames, more or less correlated
    assert 0.5 / 200 < share < 20 / 200
    found = np.diag(sampled.target_covariance) - 1e-6  # 0.001 is the error of a bin
    seen = np.diag(one_frame) > 0.1 * np.diag(one_frame).max()
    assert np.median(found[seen] / error[seen] ** 2) == pytest.approx(1.0, abs=0.1)
    assert np.abs(sampled.target_covariance[seen][:, seen] - np.diag(found[seen])).max() > 1e-6


def rdf_of_points(gas: dict[str, Any], n: int, noise: str) -> Target:
    """The g(r) of the fixture, interpolated to n points."""
    rdf, g = gas["rdf"], gas["samples"].estimate(gas["rdf"])
    r = np.linspace(rdf.r[0], rdf.r[-1], n)
    y, error = np.interp(r, rdf.r, g.value) + 0.01 * np.sin(20 * r), np.full(n, 0.02)
    return Target(gas["point"], rdf, r, y, uncertainty=error, noise=noise, weight=2.0)


@pytest.mark.parametrize("noise", ["independent", "sampled"])
def test_more_points_than_bins_are_weighted_as_whole_matrices_would(
    gas: dict[str, Any], noise: str
) -> None:
    theta = gas["angles"].theta
    angles = Target(gas["point"], gas["angles"], theta, np.sin(theta) / 2, uncertainty=0.1)
    goals = [rdf_of_points(gas, 300, noise), angles]
    view = view_state(goals, gas["samples"], gas["theory"], GaussNewtonOptions())
    assert view.own_noise.factor.shape == (len(view.residual), 58)  # values of both
    assert view.weighting.factor.shape[1] == 58 + view.modes.shape[1]  # and scales
    dense = replace(
        view,
        own_noise=LowRank.made(view.own_covariance),
        target_noise=LowRank.made(view.target_covariance),
    )
    for own, other in zip(
        linear_model(view),
        linear_model(dense),
        strict=True,
    ):
        np.testing.assert_allclose(own, other, rtol=1e-7, atol=1e-9 * np.abs(other).max())
    assert view.misfit() == pytest.approx(dense.misfit(), rel=1e-12)
    assert view.noise_ratio() == pytest.approx(dense.noise_ratio(), rel=1e-12)
    traces = [v.weighting.trace_with(v.own_noise) for v in (view, dense)]
    assert traces[0] == pytest.approx(traces[1], rel=1e-8)


@pytest.mark.parametrize("noise", ["independent", "sampled"])
def test_ten_thousand_points_take_no_matrix_of_their_square(
    gas: dict[str, Any], noise: str
) -> None:
    tracemalloc.start()
    goals = [rdf_of_points(gas, 10_000, noise)]
    view = view_state(goals, gas["samples"], gas["theory"], GaussNewtonOptions())
    hessian, _ = linear_model(view)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6 and np.isfinite(hessian).all()  # bytes; the square has 800e6


def test_a_window_leaves_only_its_points_in_the_view(gas: dict[str, Any]) -> None:
    low, high = 1.0 * liquids.SIGMA, 1.5 * liquids.SIGMA
    options = GaussNewtonOptions(theory=False)
    everything = view_state([rdf_target(gas)], gas["samples"], None, options)
    cut = view_state([rdf_target(gas, window=(low, high))], gas["samples"], None, options)
    r = gas["rdf"].r
    inside = (r >= low) & (r <= high)
    assert 0 < inside.sum() < len(r)
    np.testing.assert_allclose(cut.prediction, everything.prediction[inside], atol=1e-12)
    np.testing.assert_allclose(cut.jacobian, everything.jacobian[inside], atol=1e-12)


def test_without_theory_the_response_of_a_gas_has_the_noise_of_its_frames(
    gas: dict[str, Any],
) -> None:
    """Of five parts of 40 frames: a variance of four degrees of freedom, over many values."""
    goal, samples = [rdf_target(gas)], gas["samples"]
    place = np.arange(len(samples)) * 5 // len(samples)
    views = [
        view_state(goal, samples.without(place != k), None, GaussNewtonOptions()) for k in range(5)
    ]
    scatter = np.var([view.jacobian for view in views], axis=0, ddof=1).sum()
    claimed = np.mean([(measured(view) ** 2).sum() for view in views])
    assert 0.3 < claimed / scatter < 1.5, claimed / scatter
    assert view_state(goal, samples, gas["theory"], GaussNewtonOptions()).jacobian_noise is None


def test_theory_and_frames_are_mixed_by_their_frames_worth(gas: dict[str, Any]) -> None:
    samples, theory, rdf = gas["samples"], gas["theory"], gas["rdf"]
    goal = [rdf_target(gas)]
    frames = view_state(goal, samples, None, GaussNewtonOptions())
    trust_frames = view_state(goal, samples, theory, GaussNewtonOptions(prior_frames=1e-9))
    trust_theory = view_state(goal, samples, theory, GaussNewtonOptions(prior_frames=1e12))
    off = view_state(goal, samples, theory, GaussNewtonOptions(theory=False))
    mixed = view_state(goal, samples, theory, GaussNewtonOptions(prior_frames=100))
    c = samples.at().coefficients.detach().numpy()
    exact = theory.jacobian(theory.structure(samples.at()), [rdf], c)[0]
    np.testing.assert_allclose(trust_frames.jacobian, frames.jacobian, atol=1e-8)
    np.testing.assert_allclose(trust_theory.jacobian, exact, atol=1e-6)
    np.testing.assert_array_equal(off.jacobian, frames.jacobian)
    between = np.sum((mixed.jacobian - exact) * (frames.jacobian - exact))
    assert 0.1 < between / np.sum((frames.jacobian - exact) ** 2) < 0.9
    assert 0 < trust_frames.theory_weight < mixed.theory_weight < trust_theory.theory_weight < 1
    np.testing.assert_allclose(mixed.prediction, frames.prediction, rtol=1e-12)
    eigenvalues = np.linalg.eigvalsh(mixed.own_covariance + mixed.target_covariance)
    assert eigenvalues.min() > 0


def test_angles_beside_an_rdf_answer_as_the_frames_say(gas: dict[str, Any]) -> None:
    samples, theory, angles = gas["samples"], gas["theory"], gas["angles"]
    p = samples.estimate(angles)
    goal = Target(gas["point"], angles, angles.theta, p.value, uncertainty=p.standard_error)
    options = GaussNewtonOptions(prior_frames=100)
    alone = view_state([goal], samples, None, options)
    view = view_state([rdf_target(gas), goal], samples, theory, options)
    # dP/dc_k = -beta Cov(P, S_k)
    sums = samples.features
    values = samples.at().values(angles).numpy(force=True)
    expected = -beta(samples.temperature) * np.cov(values.T, sums.T, bias=True)[:18, 18:]
    np.testing.assert_allclose(
        alone.jacobian, goal.response.matrix @ expected, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(view.jacobian[40:], alone.jacobian, rtol=1e-12)
    np.testing.assert_allclose(view.residual[40:], 0, atol=1e-12)
    mixed = rdf_target(gas)
    np.testing.assert_allclose(
        view.jacobian[:40], view_state([mixed], samples, theory, options).jacobian, rtol=1e-9
    )
    # P sums to 1: its covariance alone is singular, and the error of a bin mends that
    total = view.own_covariance + view.target_covariance
    assert np.linalg.eigvalsh(total).min() > 0.5e-6
    assert np.isfinite(view.misfit()) and np.isfinite(view.weight).all()


def test_fewer_frames_than_points_of_a_network_leave_no_direction_without_noise() -> None:
    rdf = RDF(0.6, 80)
    point = networks.fluid(networks.embedded())
    samples = point.sample(200, 10, [rdf], equilibration=200)
    goal = Target(point, rdf, rdf.r, np.ones(80), uncertainty=0.01, noise="independent")
    view = view_state([goal], samples, None, GaussNewtonOptions(prior_frames=60))
    g = samples.at().values(rdf).detach().numpy()
    covariance = np.cov(g.T, bias=True)
    share = 60 / (60 + view.n_effective)
    shrunk = (1 - share) * covariance + share * np.diag(np.diag(covariance))
    own = view.own_covariance - 1e-6 * np.eye(80)  # 0.001 is the error of a bin
    noise = np.trace(own) / np.trace(shrunk)
    assert 0.9 / 20 < noise < 1
    seen = np.diag(covariance) > 0
    # Twenty frames span 19 of the directions; the others have the noise of independent points.
    assert np.linalg.matrix_rank(covariance) < seen.sum()
    least = np.linalg.eigvalsh(own[np.ix_(seen, seen)])[0]
    assert least > 0.2 * share / 20 * np.diag(covariance)[seen].min()


@pytest.fixture(scope="module")
def free_volume() -> dict[str, Any]:
    """800 frames at constant pressure, of a fluid that is easily compressed."""

    def add_barostat(system: Any) -> None:
        barostat = openmm.MonteCarloBarostat(330.0, liquids.kelvin(1.5), 5)
        barostat.setRandomNumberSeed(1)
        system.addForce(barostat)

    pair = liquids.lennard_jones()
    sim = liquids.simulation(pair, 64, 0.45, 1.5, seed=2, prepare=add_barostat)
    point = diffsim.StatePoint(sim, pair)
    rdf = RDF(2.1 * liquids.SIGMA, 21)
    theory = LiquidTheory(point, Species(point), [rdf.r])
    samples = point.sample(20_000, 25, [rdf, *theory.rdfs], equilibration=2000)
    return {"point": point, "rdf": rdf, "theory": theory, "samples": samples}


def test_at_constant_pressure_theory_counts_the_answer_of_the_box(
    free_volume: dict[str, Any],
) -> None:
    """A deeper well draws the box together, and a denser fluid has another g(r)."""
    samples, theory = free_volume["samples"], free_volume["theory"]
    goal = [rdf_target(free_volume)]
    stronger = liquids.lennard_jones(epsilon=1.05 * liquids.EPSILON).coefficients()
    direction = (stronger - samples.at().coefficients).detach().numpy().ravel()
    frames, by_theory = (
        view_state(goal, samples, theory, GaussNewtonOptions(prior_frames=m)).jacobian @ direction
        for m in (1e-9, 1e9)
    )
    fixed = replace(samples, pressure=None, runs=(replace(samples.runs[0], pressure=None),))
    blind = view_state(goal, fixed, theory, GaussNewtonOptions(prior_frames=1e9))
    seen = free_volume["rdf"].r > 1.3 * liquids.SIGMA  # beyond the first peak
    scale = np.sqrt(np.mean(frames[seen] ** 2))
    off, off_blind = (
        np.sqrt(np.mean((j - frames)[seen] ** 2)) for j in (by_theory, blind.jacobian @ direction)
    )
    assert off < 0.5 * scale and off < 0.5 * off_blind, (off, off_blind, scale)


# From coefficients to parameters ----------------------------------------------------------------

POTENTIALS = {
    "LennardJones": lambda: diffsim.LennardJones([0.34, 0.36, 0.33], 1.1, 0.8, n_types=2, knots=30),
    "Mie": lambda: diffsim.Mie(0.34, 1.1, 0.8, 13.0, 6.5, knots=30),
    "NeuralPair": lambda: diffsim.NeuralPair(
        0.28, 0.8, 0.3, knots=30, centers=6, hidden=(4,), seed=3
    ),
    "SplinePair": lambda: filled(SplinePair(0.28, 0.8, 20, n_types=2), 3.0),
    "SplinePair with a core": lambda: filled(SplinePair(0.28, 0.8, 20, core_radius=0.4), 3.0),
    "TemperatureDependent": lambda: diffsim.TemperatureDependent(
        filled(SplinePair(0.28, 0.8, 20), 3.0), filled(SplinePair(0.28, 0.8, 20), 0.01)
    ),
    "PairSum": lambda: diffsim.PairSum(
        [diffsim.LennardJones(0.34, 1.1, 0.8, 0.28, knots=20), filled(SplinePair(0.28, 0.8, 20), 3)]
    ),
    "Sum": lambda: (
        diffsim.LennardJones(0.34, 1.1, 0.8, 0.28, knots=20) + filled(SplinePair(0.28, 0.8, 20), 3)
    ),
}


def filled(spline: SplinePair, scale: float) -> SplinePair:
    falling = np.linspace(8, 0, spline.basis.n_coefficients) ** 2
    noise = np.random.default_rng(4).normal(size=tuple(spline.values.shape))
    return spline.set_coefficients(scale * (falling + 0.1 * noise))


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_chain_is_the_finite_difference_of_the_coefficients(name: str) -> None:
    potential = POTENTIALS[name]()
    chain = chain_of(potential, 90.0)
    columns = []
    for p in potential.parameters():
        for index in range(p.numel()):
            flat = p.data.view(-1)
            value = float(flat[index])
            step = 1e-5 * max(1e-2, abs(value))
            ends = []
            for x in (value + step, value - step):
                flat[index] = x
                ends.append(potential.coefficients(90.0).detach().numpy().ravel())
            flat[index] = value
            columns.append((ends[0] - ends[1]) / (2 * step))
    expected = np.stack(columns, axis=1)
    assert chain.shape == expected.shape
    np.testing.assert_allclose(chain, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert np.abs(chain).max() > 0


def test_the_chain_leaves_out_what_is_not_learned() -> None:
    potential = diffsim.LennardJones(0.34, 1.1, 0.8, knots=30)
    full = chain_of(potential, 90.0)
    potential.sigma.requires_grad_(False)
    np.testing.assert_allclose(chain_of(potential, 90.0), full[:, 1:], rtol=1e-12)


def test_the_entropic_part_enters_with_minus_the_temperature() -> None:
    potential = POTENTIALS["TemperatureDependent"]()
    chain = chain_of(potential, 90.0)
    half = chain.shape[1] // 2
    free = np.arange(4, 18)  # beyond the core
    np.testing.assert_allclose(chain[free, half:][:, free], -90.0 * chain[free, :half][:, free])


# The smoothness prior ---------------------------------------------------------------------------


def test_the_prior_counts_kinks_and_the_end_but_no_slope() -> None:
    spline = SplinePair(0.28, 0.8, 20, n_types=2)
    precision = spline.prior_precision(0.8 / MOLAR_GAS_CONSTANT, 0.36, 200.0)
    assert precision.shape == (3 * 18, 3 * 18)
    one = precision[18:36, 18:36]
    np.testing.assert_array_equal(precision[:18, 18:36], 0.0)
    unit = (0.36 / spline.basis.spacing) ** 3 / (200 * 0.8**2)  # a kink of 1 kJ/mol, once
    knot = np.arange(18.0)
    wall = np.maximum(10 - knot, 0)  # straight up into the core, bent at knot 10 only
    assert wall @ one @ wall == pytest.approx(unit)
    assert (3 * wall) @ one @ (3 * wall) == pytest.approx(9 * unit)
    level = np.ones(18)  # ends in a step at the cutoff
    assert level @ one @ level == pytest.approx(2 * unit)


def test_the_prior_allows_the_same_curvature_on_any_knots() -> None:
    """Its strength belongs to u(r), not to the number of knots: int u''^2 dr / density."""
    values = []
    for knots in (30, 60, 120):
        spline = SplinePair(0.28, 0.8, knots)
        x = (spline.basis.centers - 0.28) / 0.52
        c = np.sin(np.pi * x) ** 4 * (1 - x)
        precision = spline.prior_precision(0.8 / MOLAR_GAS_CONSTANT, 0.36, 200.0)
        values.append(c @ precision @ c)
    r = np.linspace(0, 1, 20001)
    u = np.sin(np.pi * r) ** 4 * (1 - r)
    curvature = np.gradient(np.gradient(u, r), r) / 0.52**2
    exact = np.mean(curvature**2) * 0.52 * 0.36**3 / (200 * 0.8**2)
    np.testing.assert_allclose(values[-1], exact, rtol=0.02)
    np.testing.assert_allclose(values, exact, rtol=0.15)


def free_form(**options: Any) -> diffsim.SplinePair:
    return diffsim.SplinePair(0.28, 0.8, 30, **options)


def closed_form() -> diffsim.LennardJones:
    return diffsim.LennardJones(0.34, 1.0, 0.8, 0.28, 30)


KNOWN = (120.0, 0.36, 200.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: diffsim.PairSum([free_form(), closed_form()]),
        lambda: diffsim.PairSum([closed_form(), diffsim.PairSum([free_form(), closed_form()])]),
        lambda: diffsim.TemperatureDependent(closed_form(), free_form()),
        lambda: diffsim.NeuralPair(0.28, 0.8, 0.3, knots=30),
    ],
)
def test_a_sum_is_as_smooth_as_its_freest_term(make: Any) -> None:
    pair = make()
    assert pair.is_free_form
    np.testing.assert_array_equal(pair.prior_precision(*KNOWN), free_form().prior_precision(*KNOWN))


def test_a_term_that_is_not_learned_counts_for_nothing() -> None:
    spline, lennard_jones = free_form(), closed_form()
    pair = diffsim.PairSum([spline, lennard_jones])
    assert not pair.is_linear and pair.is_free_form
    lennard_jones.requires_grad_(False)
    assert pair.is_linear and pair.is_free_form
    lennard_jones.requires_grad_(True)
    spline.requires_grad_(False)
    assert not pair.is_free_form and pair.prior_precision(*KNOWN) is None


def precisions_at(potential: Any, kelvins: Sequence[float]) -> list[Array]:
    point = SimpleNamespace
    states: Any = tuple(
        SimpleNamespace(temperature=t, nearest_distance=lambda: 0.36, state_point=point())
        for t in kelvins
    )
    view = FitView(potential, states, flat_parameters(potential))
    found = [view.prior_precision(k, 200.0) for k in range(len(states))]
    return [f for f in found if f is not None]


def test_the_prior_counts_once_at_however_many_state_points() -> None:
    """At one temperature each of n state points has 1 / n of it, and at n temperatures too."""
    pair = free_form()
    once = pair.prior_precision(*KNOWN)
    assert once is not None
    for kelvins in ([120.0] * 3, [120.0, 120.0 * (1 + 1e-9)]):
        np.testing.assert_allclose(sum(precisions_at(pair, kelvins)), once, rtol=1e-7)
    beside = diffsim.NeuralPair(0.28, 0.8, 0.3, knots=30, name="other")
    of_sum = sum(precisions_at(pair + beside, [120.0] * 4))
    np.testing.assert_allclose(of_sum, np.kron(np.eye(2), once), rtol=1e-12)


def test_a_potential_of_two_functions_has_a_prior_for_each() -> None:
    pair = diffsim.TemperatureDependent(free_form(), free_form())
    once = pair.prior_precision(*KNOWN)
    nearly = 120.0 * (1 + 1e-9 * np.arange(4))
    assert once is not None
    np.testing.assert_allclose(sum(precisions_at(pair, nearly[:1])), once, rtol=1e-7)
    np.testing.assert_allclose(sum(precisions_at(pair, nearly[:2])), 2 * once, rtol=1e-7)
    np.testing.assert_allclose(sum(precisions_at(pair, nearly)), 2 * once, rtol=1e-7)


def test_the_prior_is_stronger_between_digitised_points(gas: dict[str, Any]) -> None:
    options = GaussNewtonOptions()
    for noise, expected in (("sampled", 2e5), ("independent", 2e3)):
        view = view_state([rdf_target(gas, noise=noise)], gas["samples"], gas["theory"], options)
        assert roughness_of(view, options) == expected


def test_each_term_of_a_sum_has_its_own_roughness() -> None:
    """Also in the space of the frames, beside a network; and it is part of what a fit is."""
    smooth, rough = (SplinePair(0.28, 0.6, 12, name=name) for name in ("smooth", "rough"))
    known = (KELVIN, 0.36, 2e5)
    (_, before), (where, other) = (smooth + rough).prior_blocks(*known)
    form = (smooth + rough).form()
    both = smooth.set_roughness(2e2) + rough
    (_, after), (same, kept) = both.prior_blocks(*known)
    np.testing.assert_allclose(after, 1000 * before)
    assert same == where
    np.testing.assert_array_equal(kept, other)
    assert both.form() != form and smooth.roughness == 2e2
    shared = {"nearest_distance": lambda: 0.36, "prior_mean": None, "temperature": KELVIN}
    for potential in (both, networks.embedded(0.3) + smooth):
        states: Any = (SimpleNamespace(**shared),)
        view = FitView(potential, states, flat_parameters(potential))
        whole = view.prior_precision(0, 2e5)
        assert whole is not None
        prior = frame_space.Prior.at(view, [2e5])
        chain = view.chain(0)
        np.testing.assert_allclose(
            prior.rows.T @ prior.rows, chain.T @ whole @ chain, atol=1e-6 * whole.max()
        )
        assert whole.max() == pytest.approx(1000 * before.max())
    np.testing.assert_allclose(smooth.set_roughness(None).prior_blocks(*known)[0][1], before)
    for wrong in (0.0, -1.0, "much"):
        with pytest.raises(PotentialError, match="roughness: got"):
            smooth.set_roughness(wrong)  # type: ignore[arg-type]
