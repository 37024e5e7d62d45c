"""The loop of a refinement without MD: on frames of two particles, drawn from what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import liquids
import numpy as np
import pytest
import torch
from fake_statepoint import FakeStatePoint
from liquids import CUTOFF, EPSILON, SIGMA, Array
from systems import FreePair

from openmm_diffsim import (
    RDF,
    FitView,
    FunctionOfAverages,
    GaussNewton,
    GaussNewtonOptions,
    IterativeBoltzmannInversion,
    PairPotential,
    Pressure,
    Refinement,
    RelativeEntropy,
    SoftSphere,
    SplinePair,
    Step,
    Target,
    TorchOptimizer,
    boltzmann_inversion,
    reweighted_loss,
)
from openmm_diffsim.errors import CheckpointError, SamplingError, StatePointError, TargetError
from openmm_diffsim.potentials import (
    SplineBasis,
    flat_parameters,
    pair_index,
    set_flat_parameters,
)
from openmm_diffsim.refinement import errors
from openmm_diffsim.statistics.kernels import PairHistogram, SplineInteraction, pair_sums
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

KELVIN = liquids.kelvin(1.5)
LENGTH = 2.05 * CUTOFF
UNCERTAINTY = 0.1
FRAMES = 4000  # a round


def point_of(potential: PairPotential, seed: int = 1, kelvin: float = KELVIN) -> FakeStatePoint:
    return FakeStatePoint(potential, kelvin, LENGTH, seed)


def g_of_two() -> RDF:
    return RDF(1.02 * CUTOFF, 20, r_min=0.9 * SIGMA)


def true_g(kelvin: float = KELVIN) -> Array:
    return point_of(liquids.lennard_jones(), kelvin=kelvin).g(g_of_two())


def target_of(point: FakeStatePoint, g: Array | None = None) -> Target:
    """What the truth gives at that temperature, or another g(r)."""
    rdf = g_of_two()
    if g is None:
        g = true_g(point.temperature)
    return Target(point, rdf, rdf.r, g, uncertainty=UNCERTAINTY)  # type: ignore[arg-type]


def wrong() -> Any:
    return liquids.lennard_jones(0.36, 0.5)


def spline() -> SplinePair:
    """As wrong, but free in its form."""
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 16)
    return pair.set_coefficients(
        liquids.lennard_jones(0.36, 0.5, knots=16).spline_coefficients().detach()
    )


def fit_of(pair: PairPotential, seed: int = 1, **options: Any) -> Refinement:
    return Refinement(pair, [target_of(point_of(pair, seed))], **options)


def run(fit: Refinement, rounds: int, frames: int = FRAMES) -> Refinement:
    return fit.run(rounds, frames, 1, progress=False)


def point_in(fit: Refinement, index: int = 0) -> FakeStatePoint:
    point: Any = fit.states[index].state_point
    return point


def exact_rms(fit: Refinement) -> float:
    """Of g(r) at the present parameters, without the noise of any frame."""
    target = fit.targets[0]
    return float(np.sqrt(np.mean((point_in(fit).g(g_of_two()) - target.values) ** 2)))


def parameters(fit: Refinement) -> Array:
    return flat_parameters(fit.potential).numpy().copy()


# The helper itself --------------------------------------------------------------------------------


def chi_square(found: Array, exact: Array) -> float:
    """Of the means over frames [frames, values], per value; of those that are seen often."""
    seen = np.count_nonzero(found, axis=0) > 20
    assert seen.sum() >= 8
    left = (found.mean(axis=0) - exact)[seen]
    covariance = np.cov(found[:, seen].T) / len(found)
    return float(left @ np.linalg.solve(covariance, left) / len(left))


def test_averages_of_drawn_frames_are_those_that_are_known() -> None:
    point, rdf = point_of(liquids.lennard_jones(knots=12), seed=3), g_of_two()
    samples, basis = point.sample(10_000, 1, [rdf]), point.potential.basis
    for found, exact in (
        (samples.records[rdf], point.g(rdf)),
        (samples.features, point.mean(basis.values)),
        (samples.virial_features, point.mean(lambda r: -r[:, None] * basis.derivatives(r))),
    ):
        assert chi_square(found, exact) < 3.3  # of 8 values in one of a thousand cases
        assert chi_square(found, 1.3 * exact) > 3.3


def test_what_is_recorded_of_a_frame_is_what_is_counted_of_its_pairs() -> None:
    point, rdf = point_of(liquids.lennard_jones(knots=12)), g_of_two()
    state = point.snapshot()
    samples, basis = point.sample(200, 1, [rdf]), point.potential.basis
    point.restore(state)
    shifts = np.random.default_rng(2).uniform(-5, 5, (200, 1, 3))
    pairs = np.stack([np.zeros((200, 3)), point.draw(200)], axis=1) + shifts
    knots = (basis.r_min, basis.spacing, basis.cutoff, basis.n_coefficients)
    one_type, none = np.zeros(2, dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
    interaction = SplineInteraction(*knots, one_type, pair_index(1), none, np.arange(2))
    everyone = np.ones(2, dtype=bool)
    histogram = PairHistogram(rdf.edges, everyone, everyone)
    boxes = np.broadcast_to(point.box(), (200, 3, 3))
    sums = pair_sums(pairs, boxes, [histogram], interaction)
    np.testing.assert_allclose(samples.features, sums.basis[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(samples.virial_features, sums.virial[:, 0], rtol=1e-9, atol=1e-9)
    counts = samples.records[rdf] * rdf.shells * 2 / point.volume
    np.testing.assert_allclose(counts, sums.counts[0], rtol=1e-9)


def test_the_known_slope_is_a_finite_difference_of_the_known_g() -> None:
    point = point_of(FreePair(SplineBasis(0.8 * SIGMA, CUTOFF, 12)))
    rdf, step = g_of_two(), 1e-4
    direction = torch.cos(torch.arange(point.potential.basis.n_coefficients, dtype=torch.float64))
    slope = point.g_slope(rdf) @ direction.numpy()

    def shifted(by: float) -> Array:
        with torch.no_grad():
            point.potential.c[0] = by * direction
        return point.g(rdf)

    difference = (shifted(step) - shifted(-step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-8)


def test_the_slope_from_frames_is_the_known_one() -> None:
    point, rdf = point_of(liquids.lennard_jones(), seed=4), g_of_two()
    slopes = [point.sample(2000, 1, [rdf]).at().jacobian(rdf) for _ in range(20)]
    found, exact = np.array(slopes).reshape(20, -1), point.g_slope(rdf).ravel()
    seen = found.std(axis=0, ddof=1) > 1e-3
    error = found.std(axis=0, ddof=1)[seen] / np.sqrt(20)
    z = (found.mean(axis=0) - exact)[seen] / error
    assert seen.sum() > 100 and np.mean(z**2) < 1.5  # 19/17 on average, of Student's t
    assert np.mean(((found.mean(axis=0) + exact)[seen] / error) ** 2) > 3  # a wrong sign


# The loop -----------------------------------------------------------------------------------------


def test_a_fit_finds_the_parameters_of_the_truth() -> None:
    fit = run(fit_of(wrong()), 12)
    assert fit.last_step is not None
    covariance = fit.last_step.covariance
    assert covariance is not None
    error = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(parameters(fit) - [SIGMA, EPSILON]) < 4 * error)
    assert error[0] < 0.02 * SIGMA and error[1] < 0.2 * EPSILON
    assert exact_rms(fit) < 0.2 * fit.history[0].rdf_rms
    assert fit.converged and len(fit.history) < 12


def test_a_spline_comes_to_the_g_of_the_truth() -> None:
    fit = run(fit_of(spline()), 5)
    assert exact_rms(fit) < 0.3 * fit.history[0].rdf_rms


@pytest.mark.parametrize("method", ["ibi", "relative-entropy", "adam"])
def test_every_method_comes_nearer(method: str) -> None:
    fit = run(fit_of(spline(), method=method), 4)
    assert exact_rms(fit) < 0.7 * fit.history[0].rdf_rms


def test_two_state_points_are_fitted_together() -> None:
    pair = wrong()
    points = [point_of(pair, 1), point_of(pair, 2, 1.4 * KELVIN)]
    fit = run(Refinement(pair, [target_of(p) for p in points]), 6)
    leads = [FRAMES // (10 if n else 2) for n in range(len(fit.history))]
    assert fit.md_steps == 2 * sum(FRAMES + lead for lead in leads)
    assert np.abs(parameters(fit) / [SIGMA, EPSILON] - 1).max() < 0.1


def test_a_difference_between_two_temperatures_is_fitted() -> None:
    """Nothing is known but how g(r) changes from one to the other."""
    pair = wrong()
    points: list[Any] = [point_of(pair, 1), point_of(pair, 2, 2.5 * KELVIN)]
    change = FunctionOfAverages(torch.sub, [g_of_two()] * 2, n_values=20, symbol="change of g")
    values = true_g(KELVIN) - true_g(2.5 * KELVIN)
    fit = Refinement(pair, [Target(points, change, values, uncertainty=UNCERTAINTY)])
    assert [state.state_point for state in fit.states] == points

    def off() -> float:
        exact = [point.g(g_of_two()) for point in points]
        return float(np.sqrt(np.mean((exact[0] - exact[1] - values) ** 2)))

    before = off()
    run(fit, 30)
    assert fit.converged and len(fit.comparisons()) == 1
    assert off() < 0.2 * before and before > 1.5 * UNCERTAINTY
    assert fit.last_step is not None and fit.last_step.covariance is not None
    error = np.sqrt(np.diag(fit.last_step.covariance))
    assert np.all(np.abs(parameters(fit) - [SIGMA, EPSILON]) < 4 * error)


@pytest.mark.parametrize("unknown", [{}, {"offset": 0.2}, {"scale": 0.1, "offset": 0.2}])
def test_the_loss_of_an_optimizer_marginalises_what_is_unknown(unknown: dict[str, float]) -> None:
    point: Any = point_of(wrong())
    rdf, rng = g_of_two(), np.random.default_rng(4)
    root = 0.05 * rng.normal(size=(20, 20)) + 0.1 * np.eye(20)
    data = (point, rdf, rdf.r, true_g())
    targets = [
        Target(*data, uncertainty=rng.uniform(0.05, 0.2, 20), weight=2.0, **unknown),
        Target(*data, covariance=root @ root.T, **unknown),
    ]
    fit = run(Refinement(point.potential, targets, "adam"), 1)
    view = fit.view()
    g = view.averages(targets[0])[0].detach().numpy()
    off, ones = g - targets[0].values, np.ones(20)
    expected = 0.0
    for target, own in zip(
        targets, (np.diag(targets[0].uncertainty ** 2), root @ root.T), strict=True
    ):
        modes = np.stack([unknown.get("scale", 0) * g, unknown.get("offset", 0) * ones])
        expected += target.weight * off @ np.linalg.solve(own + modes.T @ modes, off) / 20
    theta = view.parameters.clone().requires_grad_(True)
    loss = reweighted_loss(view.at(theta))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
    if "scale" not in unknown:  # of which the mode follows the parameters, and no step does
        (slope,) = torch.autograd.grad(loss, theta)
        for k in range(2):
            h = torch.zeros(2, dtype=torch.float64)
            h[k] = 1e-5 * float(view.parameters[k])
            up, down = (float(reweighted_loss(view.at(view.parameters + s * h))) for s in (1, -1))
            assert float(slope[k]) == pytest.approx((up - down) / (2 * float(h[k])), rel=1e-6)


def test_an_optimizer_finds_the_truth_of_values_of_unknown_scale() -> None:
    """A tenth too high, which is known to be possible: counted as an error it would be followed."""

    def found(**unknown: Any) -> Array:
        point: Any = point_of(wrong())
        target = Target(
            point, g_of_two(), g_of_two().r, 1.1 * true_g(), uncertainty=0.02, **unknown
        )
        fit = Refinement(point.potential, [target], "adam")
        return np.abs(parameters(run(fit, 8)) / [SIGMA, EPSILON] - 1)

    assert found(scale=0.2)[1] < 0.12 < 0.2 < found(scale=0)[1]


PURE: dict[str, Callable[[], Any]] = {
    "gauss-newton": GaussNewton,
    "ibi": IterativeBoltzmannInversion,
    "relative-entropy": RelativeEntropy,
    "adam": lambda: TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.02), steps=3),
    "SGD": lambda: TorchOptimizer(lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9), steps=3),
    "LBFGS": lambda: TorchOptimizer(lambda p: torch.optim.LBFGS(p, max_iter=2), steps=2),
}


def bits(value: Any) -> Any:
    """Comparable to the last bit, and independent of what is compared later."""
    if isinstance(value, Mapping):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    if isinstance(value, torch.Tensor | np.ndarray):
        return torch.as_tensor(value).numpy(force=True).tobytes()
    return value


@pytest.mark.parametrize("name", PURE)
def test_a_method_is_pure(name: str) -> None:
    method, pair = PURE[name](), spline()
    fit = run(fit_of(pair, method=method, largest_step=0.1), 2, 500)
    view = fit.view()
    assert bool(view.memory) == isinstance(method, TorchOptimizer)

    def everything() -> Any:
        own = {**dict(pair.named_parameters()), **dict(pair.named_buffers())}
        state = view.states[0]
        return bits([own, vars(method), view.parameters, view.memory, state.frames.records])

    before = everything()
    steps = [method.propose(v) for v in (view, view, fit.view(), view.at(view.parameters.clone()))]
    for step in steps:
        assert bits(vars(step)) == bits(vars(steps[0])) and step.change.any()
    assert everything() == before
    assert all(p.grad is None for p in pair.parameters())


def test_a_resumed_fit_is_the_same_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole = run(fit_of(wrong(), checkpoint=tmp_path / "whole.ckpt", largest_step=0.1), 4, 500)
    path = tmp_path / "fit.ckpt"
    run(fit_of(wrong(), checkpoint=path, largest_step=0.1), 2, 500)
    resumed = run(fit_of(wrong(), seed=9, largest_step=0.1).resume(path), 4, 500)
    np.testing.assert_array_equal(parameters(resumed), parameters(whole))
    assert [r.misfit for r in resumed.history] == [r.misfit for r in whole.history]
    assert [r.md_steps for r in resumed.history] == [r.md_steps for r in whole.history]


class Far:
    """Steps so far that few frames reach there."""

    def propose(self, view: FitView) -> Step:
        return Step(np.where(np.arange(len(view.parameters)) == 9, -20.0, 0.0))

    def identity(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_fit_that_stops_in_between_is_the_same(tmp_path: Path, is_kept: bool) -> None:
    """What is given back after a long step is half of it, and the fit goes on from the whole."""

    def fit() -> Refinement:
        where = tmp_path / f"{len(list(tmp_path.iterdir()))}.ckpt" if is_kept else None
        return fit_of(spline(), method=Far(), largest_step=np.inf, checkpoint=where)

    whole, stopped = run(fit(), 2, 30), run(fit(), 1, 30)
    given = parameters(stopped)
    went_on_from = stopped._position.going_on_from().numpy().copy()
    assert np.abs(given - went_on_from).max() > 0
    stopped.settle()
    np.testing.assert_array_equal(parameters(stopped), given)
    stopped.save(tmp_path / "copy")
    run(stopped, 2, 30)
    np.testing.assert_array_equal(parameters(stopped), parameters(whole))
    resumed = run(fit().resume(tmp_path / "copy"), 2, 30)
    np.testing.assert_array_equal(parameters(resumed), parameters(whole))


def test_a_checkpoint_of_another_target_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    run(fit_of(wrong(), checkpoint=path), 1, 500)
    pair = wrong()
    other = Refinement(pair, [target_of(point_of(pair), np.linspace(0.8, 1.2, 20))])
    with pytest.raises(CheckpointError, match="target"):
        other.resume(path)
    assert not other.history and np.array_equal(parameters(other), [0.36, 0.5])


def test_boltzmann_inversion_is_right_where_there_are_only_pairs() -> None:
    rdf, truth = RDF(CUTOFF, 100, r_min=0.8 * SIGMA), liquids.lennard_jones()
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 40)
    boltzmann_inversion(pair, rdf.r, point_of(truth).g(rdf), KELVIN)
    r = np.linspace(SIGMA, 0.98 * CUTOFF, 50)  # further in, u changes too much within a bin
    found, exact = (p.energy(r).detach().numpy()[0] for p in (pair, truth))
    np.testing.assert_allclose(found, exact, atol=0.01 * EPSILON)
    point = point_of(pair)
    np.testing.assert_allclose(point.g(g_of_two()), true_g(), atol=0.02)


# What goes wrong ----------------------------------------------------------------------------------


def test_particles_that_go_through_each_other_have_no_core() -> None:
    """g = exp(-beta u) of a Gaussian core, from r = 0 on: the force at r_min is its own."""
    r = np.arange(0.005, 1.0, 0.01)
    u = 3.0 * np.exp(-((r / 0.4) ** 2))
    g = np.exp(-u / (MOLAR_GAS_CONSTANT * 300.0))
    pair = boltzmann_inversion(SplinePair(0.02, 0.95, 60), r, g, 300.0)
    found = pair.energy(r).detach().numpy()[0]
    np.testing.assert_allclose(found[2:-5], u[2:-5], atol=0.02)
    late = boltzmann_inversion(SplinePair(0.2, 0.95, 60), r[30:], g[30:], 300.0)
    assert float(late.core_radius) == pytest.approx(r[30])  # data that begin late


def test_an_explosion_is_rolled_back_and_half_the_step_tried() -> None:
    fit = run(fit_of(wrong(), largest_step=0.2), 1)
    first, tried = np.array([0.36, 0.5]), parameters(fit)
    point_in(fit).explosions = 1
    run(fit, 2)
    assert "exploded" in fit.history[1].event and fit.history[1].misfit == fit.history[0].misfit
    np.testing.assert_allclose(parameters(fit), 0.5 * (first + tried), rtol=1e-12)
    run(fit, 12)
    assert [bool(r.event) for r in fit.history] == [False, True] + [False] * (len(fit.history) - 2)
    assert fit.converged
    assert exact_rms(fit) < 1.5 * UNCERTAINTY  # that of the average counts too


def test_a_g_that_got_far_worse_is_rolled_back() -> None:
    fit = run(fit_of(wrong()), 1)
    good, bad = fit.history[0], np.array([0.42, 2.0])
    set_flat_parameters(fit.potential, torch.from_numpy(bad))
    run(fit, 2)
    assert "far worse" in fit.history[1].event and fit.history[1].misfit == good.misfit
    assert np.all(np.abs(parameters(fit) - bad) > 0.2 * np.abs(bad - [SIGMA, EPSILON]))


def test_a_fit_that_only_explodes_ends() -> None:
    fit = run(fit_of(wrong()), 1)
    point_in(fit).explosions = 10
    with pytest.raises(SamplingError, match="in a row"):
        run(fit, 9)
    assert len(fit.history) < 6


def test_a_first_guess_that_explodes_is_an_error() -> None:
    fit = fit_of(wrong())
    point_in(fit).explosions = 1
    with pytest.raises(SamplingError, match="exploded"):
        run(fit, 2)
    assert not fit.history


# What is asked of a fit ---------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["potential_table", "summary", "comparisons"])
def test_before_the_first_round_there_is_nothing_to_say(ask: str) -> None:
    arguments = [[0.3, 0.4]] if ask == "potential_table" else []
    with pytest.raises(StatePointError, match="nothing was sampled yet"):
        getattr(fit_of(spline()), ask)(*arguments)


@pytest.mark.parametrize(
    "method", [GaussNewton(GaussNewtonOptions(roughness=2.0)), RelativeEntropy(roughness=2.0)]
)
def test_error_bars_are_those_of_the_roughness_that_the_fit_has(method: Any) -> None:
    r = np.linspace(SIGMA, 0.95 * CUTOFF, 20)
    fit = run(fit_of(spline(), method=method), 1)
    error = fit.potential_table(r)[1]
    fit.method = GaussNewton(GaussNewtonOptions(roughness=2.0))
    np.testing.assert_array_equal(error, fit.potential_table(r)[1])
    fit.method = GaussNewton()
    assert np.median(error / fit.potential_table(r)[1]) < 0.8


def test_what_is_costly_is_found_once_for_the_same_parameters_and_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much is asked; and anew for others, or by another method."""
    solved = []
    solve = errors.to_minimum
    monkeypatch.setattr(
        errors, "to_minimum", lambda view, model: solved.append(view) or solve(view, model)
    )

    def ask() -> int:
        before = len(solved)
        fit.potential_table([0.4])
        fit.parameter_table()
        fit.agreement()
        fit.warnings()
        fit.summary()
        return len(solved) - before

    fit = run(fit_of(wrong(), method="relative-entropy"), 1)
    counts = [ask(), ask()]
    set_flat_parameters(fit.potential, 1.001 * flat_parameters(fit.potential))
    counts += [ask()]
    run(fit, 2)
    counts += [ask(), ask()]
    fit.method = RelativeEntropy(roughness=2.0)
    assert [*counts, ask()] == [1, 0, 1, 1, 0, 1]


# Targets that a method does not use ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["relative-entropy", "ibi"])
def test_targets_that_a_method_does_not_use_are_named(method: str) -> None:
    point: Any = point_of(spline())
    pressure = Target(point, Pressure(), 500.0, uncertainty=20.0)
    twice = [target_of(point), target_of(point)]  # of two g(r) of one pair it follows one
    with pytest.warns(UserWarning, match=r"does not use the target .*g\(r\).* and .*Pressure"):
        fit = Refinement(point.potential, [*twice, pressure], method)
    assert fit.unused_targets == [twice[0], pressure]


@pytest.mark.parametrize("method", ["gauss-newton", "adam"])
def test_methods_for_every_target_warn_of_none(
    method: str, recwarn: pytest.WarningsRecorder
) -> None:
    point: Any = point_of(spline())
    pressure = Target(point, Pressure(), 500.0, uncertainty=20.0)
    assert Refinement(point.potential, [target_of(point), pressure], method).unused_targets == []
    assert not list(recwarn)


@pytest.mark.parametrize("method", ["relative-entropy", "ibi"])
def test_a_method_that_is_not_for_these_targets_says_so_before_any_md(method: str) -> None:
    point: Any = point_of(spline())
    with pytest.raises(TargetError, match="needs an RDF target for every pair of types"):
        Refinement(point.potential, [Target(point, Pressure(), 500.0, uncertainty=20.0)], method)
    rdf = RDF(0.8 * CUTOFF, 20)
    short = Target(point, rdf, rdf.r, np.ones(20), uncertainty=0.1)
    if method == "relative-entropy":
        with pytest.raises(TargetError, match=r"needs g\(r\) up to the cutoff"):
            Refinement(point.potential, [short], method)


def test_a_fit_whose_potential_cannot_follow_says_once_that_it_has_stalled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A soft sphere has no well, however long it is learned."""
    pair = SoftSphere(0.9 * SIGMA, EPSILON, CUTOFF, r_min=0.8 * SIGMA, knots=40)
    fit = run(fit_of(pair), 9, 400)
    stalled = [entry.has_stalled for entry in fit.history]
    assert len(stalled) == 9 and stalled[-1] and not any(stalled[:4])
    assert capsys.readouterr().err.count(" stalled: what is off most") == 1


# What may not change under a fit ------------------------------------------------------------------


def test_a_fit_whose_state_point_went_to_another_temperature_is_not_gone_on_with() -> None:
    fit = run(fit_of(wrong()), 1)
    at_first = fit.comparisons()[0].prediction
    point_in(fit).temperature = 1.25 * KELVIN
    np.testing.assert_array_equal(fit.comparisons()[0].prediction, at_first)
    with pytest.raises(
        StatePointError, match=r"now at .* K, but was at .* K when the fit was made"
    ):
        run(fit, 2)
    point_in(fit).temperature = KELVIN
    assert len(run(fit, 2).history) == 2


# When it has converged ----------------------------------------------------------------------------


def exact_pressure(pair: Any) -> float:
    """Of two particles, bar, from many frames: to a tenth of what the test asks."""
    point, pressure = point_of(pair, seed=8), Pressure()
    return float(point.sample(60_000, 1, [pressure]).estimate(pressure).value[0])


def spline_of_truth() -> SplinePair:
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 40)
    truth = liquids.lennard_jones(knots=40).spline_coefficients().detach()
    return pair.set_coefficients(truth)


def test_a_fit_with_an_unused_target_that_is_off_never_converges() -> None:
    pair = spline_of_truth()
    point: Any = point_of(pair)
    scale = 10.0
    pressure = Target(point, Pressure(), exact_pressure(pair) + 5 * scale, uncertainty=scale)
    targets = [target_of(point), pressure]
    with pytest.warns(UserWarning, match="does not use"):
        fit = Refinement(pair, targets, "relative-entropy")
    run(fit, 2)
    assert not fit.converged and fit.verdict().worst.name == "Pressure"
    assert "does not use it" in fit.verdict().sentence()
    alone = Refinement(pair, [target_of(point)], "relative-entropy")
    assert run(alone, 4).converged


def test_a_fit_says_why_it_has_not_converged() -> None:
    fit = fit_of(wrong())
    with pytest.raises(StatePointError, match="nothing was sampled yet"):
        fit.verdict()
    run(fit, 1)
    assert not fit.converged
    assert "g(r) is off by" in fit.verdict().sentence()
    assert fit.history[0].worst == "g(r)"
    assert fit.history[0].excess == fit.verdict().worst.excess > 1


def test_what_has_converged_is_not_moved_once_more() -> None:
    fit = run(fit_of(liquids.lennard_jones()), 4)
    assert fit.converged and fit.history[-1].largest_change == 0
    assert fit._position.believed is not None
    np.testing.assert_array_equal(parameters(fit), fit._position.believed.numpy())
    assert fit.verdict().step is not None and fit.verdict().targets[0].noise < 1


def test_a_fluid_that_never_moves_does_not_converge() -> None:
    fit = fit_of(liquids.lennard_jones())
    point_in(fit).displacement = 0.02 * SIGMA
    run(fit, 2)
    assert not fit.converged and len(fit.history) == 2
    assert "a glass or a crystal" in fit.verdict().sentence()


def test_frames_of_the_last_round_are_held_against_the_target_by_themselves() -> None:
    """A pool of many frames that agree does not outvote a round that does not."""
    fit = run(fit_of(liquids.lennard_jones()), 4)
    state = fit.states[0]
    assert state.last is not None
    n = state.last.runs[0].n_frames
    other = point_of(wrong()).sample(n, 1, state.recorded())
    state.last = replace(state.last, records=other.records)
    found = fit._judged().targets[0]
    assert found.misfit < found.limit and found.alone > found.alone_limit
    assert "g(r) of the last round alone is off" in fit._judged().sentence()


def test_a_verdict_is_kept_in_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    first = run(fit_of(wrong(), checkpoint=path), 1, 500)
    assert fit_of(wrong(), seed=9).resume(path).verdict() == first.verdict()
