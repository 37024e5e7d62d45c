"""Refinement of a network: the step in the space of the frames, and the fit as a whole."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from networks import Embedded, embedded, fluid
from systems import Array, argon
from torch import Tensor

from openmm_diffsim import (
    RDF,
    GaussNewtonOptions,
    NetworkPotential,
    Pressure,
    Refinement,
    Samples,
    SplinePair,
    StatePoint,
    Target,
    TorchOptimizer,
)
from openmm_diffsim.errors import CheckpointError, FramesError, SamplingError, TargetError
from openmm_diffsim.io.temporary import temporary_path
from openmm_diffsim.potentials import (
    ParameterPrior,
    flat_parameters,
    learned_parameters,
    set_flat_parameters,
)
from openmm_diffsim.refinement import Comparison, FitView, Step
from openmm_diffsim.refinement.comparison import Sight, compare
from openmm_diffsim.refinement.methods.frame_space import (
    Prior,
    Rows,
    expected_misfit,
    rows_at,
    sizes_of,
    step,
)
from openmm_diffsim.refinement.state import State
from openmm_diffsim.refinement.trust import Trust
from openmm_diffsim.samples import EvaluatedFrames
from openmm_diffsim.units import beta

RDF_, PRESSURE = RDF(0.64, 16), Pressure()


def moved(potential: NetworkPotential, by: float, seed: int) -> None:
    theta = flat_parameters(potential)
    noise = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed))
    set_flat_parameters(potential, theta + by * noise.double())


# The step ---------------------------------------------------------------------------------------


@dataclass
class Dense:
    """One state point, with matrices over all parameters made frame by frame."""

    view: Comparison
    rows: Rows
    samples: Samples

    @cached_property
    def jacobian(self) -> Array:
        """[points, parameters]."""
        return np.concatenate(
            [t.response.matrix @ self.samples.at().jacobian(t.observable) for t in self.targets]
        )

    @property
    def targets(self) -> list[Target]:
        return list(self.view.targets)

    @cached_property
    def fisher(self) -> Array:
        """Covariance of the gradients of U/kT, [parameters, parameters]."""
        potential = self.samples.potential
        parameters = learned_parameters(potential)
        gradients = []
        for run, indices in self.samples.learned.runs:  # type: ignore[attr-defined]
            for x, box in zip(*run.frames.read(indices), strict=True):
                energy = potential.energy(torch.from_numpy(x), torch.from_numpy(box))
                parts = torch.autograd.grad(energy, parameters)
                gradients.append(torch.cat([part.reshape(-1) for part in parts]).numpy())
        w = self.samples.weights().detach().numpy()
        deviations = np.array(gradients) - w @ np.array(gradients)
        return beta(self.samples.temperature) ** 2 * (deviations * w[:, None]).T @ deviations


@pytest.fixture(scope="module")
def dense() -> list[Dense]:
    """Two densities, each sampled twice with other parameters; g(r) of both, and one pressure."""
    potential = embedded(0.3)
    points = [fluid(potential, length=length, seed=seed) for length, seed in ((1.3, 1), (1.5, 2))]
    record = [[RDF_, PRESSURE], [RDF_]]
    parts: list[list[Samples]] = [[], []]
    for n in range(2):
        for point, some, runs in zip(points, record, parts, strict=True):
            runs.append(point.sample(300, 10, some, equilibration=100))
        moved(potential, 0.02, n)
    found = []
    for point, some, runs in zip(points, record, parts, strict=True):
        samples = Samples.pool(runs)
        goal = np.random.default_rng(3).normal(1.0, 0.3, 16)
        targets = [Target(point, RDF_, RDF_.r, goal, uncertainty=0.05)]
        if PRESSURE in some:
            targets.append(Target(point, PRESSURE, 500.0, uncertainty=20.0, weight=3.0))
        sight = Sight(point, samples.at())
        view = compare(targets, [sight], GaussNewtonOptions(), jacobian=False)
        fit = FitView(potential, (State(point, targets, pool=samples),), flat_parameters(potential))
        (rows,) = rows_at(fit, [view])
        found.append(Dense(view, rows, samples))
    return found


def dense_step(
    states: list[Dense], largest: float, ridge: float
) -> tuple[Array, list[Array], Array]:
    """x, the Fisher matrices and m, of matrices [parameters, parameters]."""
    jacobians, fishers = [s.jacobian for s in states], [s.fisher for s in states]
    views = [s.view for s in states]
    pairs = list(zip(jacobians, views, strict=True))
    hessian = sum(j.T @ v.weight @ j for j, v in pairs)
    slope = sum(j.T @ v.weight @ v.residual for j, v in pairs)
    hessian = hessian + ridge * np.diag(1 / SIZES**2)
    m = np.array([np.trace(v.weight @ v.own_covariance) for v in views])
    while True:
        x = -np.linalg.solve(hessian + sum(k * f for k, f in zip(m, fishers, strict=True)), slope)
        variances = np.array([x @ f @ x for f in fishers])
        if (variances <= largest).all():
            return x, fishers, m
        m = np.where(variances > largest, 2 * m, m)


SIZES = np.random.default_rng(6).uniform(0.2, 5.0, 30)


def nothing_known() -> Prior:
    return Prior(np.zeros((0, 30)), np.zeros(0), SIZES)


def rows_of(states: list[Dense]) -> list[Rows]:
    """Each in a group of its own."""
    return [replace(state.rows, group=group) for group, state in enumerate(states)]


def test_rows_make_up_the_jacobian_and_the_fisher_metric(dense: list[Dense]) -> None:
    for state in dense:
        jacobian = state.rows.values @ state.rows.energies + state.rows.explicit
        scale = np.abs(state.jacobian).max(axis=1, keepdims=True) + 1e-12
        np.testing.assert_allclose(jacobian / scale, state.jacobian / scale, rtol=0, atol=1e-9)
        fisher = state.rows.energies.T @ state.rows.energies
        np.testing.assert_allclose(fisher, state.fisher, rtol=0, atol=1e-10)
    assert dense[0].rows.explicit[-1].any() and not dense[1].rows.explicit.any()


@pytest.mark.parametrize("ridge", [1e-2, 1e2])
@pytest.mark.parametrize("largest", [np.inf, 0.5, 1e-3])
@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]], ids=["with pressure", "g(r)", "both"])
def test_the_step_is_that_of_dense_matrices(
    dense: list[Dense], chosen: list[int], largest: float, ridge: float
) -> None:
    states = [dense[k] for k in chosen]
    views, rows = [s.view for s in states], rows_of(states)
    expected, fishers, m = dense_step(states, largest, ridge)
    x = step(views, rows, [largest] * len(states), ridge, nothing_known())
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))
    assert all(x @ fisher @ x <= largest * (1 + 1e-5) for fisher in fishers)
    raised = m > [1.5 * np.trace(v.weight @ v.own_covariance) for v in views]
    assert raised.all() if largest < 0.01 else largest < np.inf or not raised.any()


def test_what_is_known_beforehand_counts_like_a_measurement(dense: list[Dense]) -> None:
    """|P^1/2 (c + x - c_0)|^2, of seven combinations of the parameters."""
    view, rows = dense[1].view, dense[1].rows
    rng = np.random.default_rng(7)
    prior = Prior(rng.normal(size=(7, 30)), rng.normal(size=7), SIZES)
    jacobian, m = dense[1].jacobian, np.trace(view.weight @ view.own_covariance)
    hessian = jacobian.T @ view.weight @ jacobian + m * dense[1].fisher
    hessian = hessian + prior.rows.T @ prior.rows + np.diag(1 / SIZES**2)
    slope = jacobian.T @ view.weight @ view.residual + prior.rows.T @ prior.offsets
    expected = -np.linalg.solve(hessian, slope)
    x = step([view], [rows], [np.inf], 1.0, prior)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


def test_the_unit_of_a_parameter_does_not_matter(dense: list[Dense]) -> None:
    """A length in pm in place of nm: its slopes are a thousandth, its size is a thousand times."""
    view, rows = dense[0].view, dense[0].rows
    unit = np.ones(30)
    unit[3] = 1000.0
    scaled = replace(rows, energies=rows.energies / unit, explicit=rows.explicit / unit)
    prior = Prior(np.zeros((0, 30)), np.zeros(0), SIZES * unit)
    expected = step([view], [rows], [0.1], 1.0, nothing_known())
    found = step([view], [scaled], [0.1], 1.0, prior)
    np.testing.assert_allclose(found / unit, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_size_of_a_parameter_is_that_of_its_tensor() -> None:
    potential = embedded(0.3)
    with torch.no_grad():
        potential.network.w.copy_(2 * torch.eye(5))  # rms 2 / sqrt 5
        potential.network.v.zero_()
    sizes = sizes_of(FitView(potential, (), flat_parameters(potential)))
    np.testing.assert_allclose(sizes[:25], 2 / np.sqrt(5))
    np.testing.assert_allclose(sizes[25:], 0.1 * 2 / np.sqrt(5))
    with torch.no_grad():
        potential.network.w.zero_()
    sizes = sizes_of(FitView(potential, (), flat_parameters(potential)))
    np.testing.assert_allclose(sizes, 1.0)


def repulsive(name: str = "pair") -> SplinePair:
    """Steeper than its core has to be, so that the coefficients are the parameters."""
    spline = SplinePair(0.28, 0.6, 20, name=name)
    return spline.set_coefficients(200 * (0.6 - spline.basis.centers)[None])


def test_a_pair_potential_in_a_network_or_beside_it_keeps_its_prior() -> None:
    known = (120.0, 0.36, 200.0)
    spline = repulsive()
    own = spline.prior_precision(*known)
    assert own is not None
    inside = NetworkPotential(Embedded(0.3), prior=spline)
    beside = embedded(0.3) + repulsive()
    for potential, start in ((inside, 30), (beside, 30), (spline.as_network(), 0)):
        ((where, found),) = potential.prior_blocks(*known)
        assert (where.start, where.stop) == (start, start + 18)
        np.testing.assert_allclose(found, own, rtol=1e-12)
    spline.requires_grad_(False)
    assert inside.prior_blocks(*known) == [] == embedded(0.3).prior_blocks(*known)


def test_the_prior_of_a_fit_counts_in_every_state_what_it_is_about() -> None:
    spline = repulsive()
    potential = NetworkPotential(Embedded(0.3), prior=spline)
    theta = flat_parameters(potential)
    mean = theta.numpy() - 1.0
    shared = {"nearest_distance": lambda: 0.36, "prior_mean": mean, "state_point": None}
    states: Any = tuple(SimpleNamespace(temperature=t, **shared) for t in (120.0, 240.0))
    view = FitView(potential, states, theta)
    prior = Prior.at(view, [200.0, 200.0])
    whole = sum(spline.prior_precision(t, 0.36, 200.0, 2) for t in (120.0, 240.0))
    np.testing.assert_allclose((prior.rows.T @ prior.rows)[30:, 30:], whole, rtol=0, atol=1e-9)
    assert not prior.rows[:, :30].any()
    np.testing.assert_allclose(np.sum(prior.offsets**2), np.ones(18) @ whole @ np.ones(18))
    known = ParameterPrior(theta.numpy() - 1, np.append(np.full(len(theta) - 1, np.inf), 0.5))
    both = Prior.at(replace(view, prior=known), [200.0, 200.0])
    np.testing.assert_allclose(
        both.rows.T @ both.rows, prior.rows.T @ prior.rows + np.diag(known.precision), atol=1e-9
    )
    np.testing.assert_allclose(np.sum(both.offsets**2) - np.sum(prior.offsets**2), 4.0)


def test_each_state_has_its_own_bound(dense: list[Dense]) -> None:
    views, rows = [s.view for s in dense], rows_of(dense)
    for bounds in ([np.inf, 1e-2], [1e-2, np.inf]):
        x = step(views, rows, bounds, 1.0, nothing_known())
        assert all(
            np.sum((r.energies @ x) ** 2) <= bound for r, bound in zip(rows, bounds, strict=True)
        )


def test_the_unit_of_an_observable_does_not_matter(dense: list[Dense]) -> None:
    """A pressure in mbar, with its error, asks for the same step."""
    view, rows = dense[0].view, dense[0].rows
    unit = np.ones(len(view.prediction))
    unit[-1] = 1000.0
    pressure = view.targets[1]
    in_mbar = Target(
        pressure.state_point, PRESSURE, 1000 * pressure.values, uncertainty=20e3, weight=3.0
    )
    scaled_view = replace(
        view,
        targets=[view.targets[0], in_mbar],
        prediction=unit * view.prediction,
        own_noise=view.own_noise.scaled(unit),
        target_noise=view.target_noise.scaled(unit),
    )
    scaled_rows = replace(
        rows, values=unit[:, None] * rows.values, explicit=unit[:, None] * rows.explicit
    )
    known = nothing_known()
    found = step([scaled_view], [scaled_rows], [0.1], 1.0, known)
    expected = step([view], [rows], [0.1], 1.0, known)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


def test_what_a_step_should_gain_is_what_the_linear_model_says(dense: list[Dense]) -> None:
    views, rows = [s.view for s in dense], rows_of(dense)
    x = step(views, rows, [0.5, 0.5], 1.0, nothing_known())
    expected = 0.0
    for state in dense:
        residual = state.view.residual + state.jacobian @ x
        expected += residual @ state.view.weight @ residual
    assert expected_misfit(views, rows, x) == pytest.approx(expected, rel=1e-9)
    assert expected < expected_misfit(views, rows, np.zeros_like(x))


def test_nonlinearity_is_the_part_that_did_not_follow(dense: list[Dense]) -> None:
    rows = dense[0].rows
    x = np.random.default_rng(1).normal(size=rows.energies.shape[1])
    w = rows.weights
    change = np.zeros(len(w))
    change[w > 0] = rows.energies @ x / np.sqrt(w[w > 0])
    assert rows.nonlinearity(change + 7.0, x) < 1e-9  # a constant is no change
    assert rows.nonlinearity(1.5 * change, x) == pytest.approx(0.5)


# Fits -------------------------------------------------------------------------------------------

LENGTH, KELVIN = 1.2, 240.0
FIT_RDF = RDF(0.57, 14)


def other_fluid(potential: NetworkPotential, seed: int = 1, **options: Any) -> StatePoint:
    return fluid(
        potential, length=LENGTH, temperature=KELVIN, seed=seed, backend="python", **options
    )


@pytest.fixture(scope="module")
def truth() -> tuple[Array, float]:
    """g(r) and pressure (bar) of a network with other weights."""
    samples = other_fluid(embedded(1.5, seed=2)).sample(
        2400, 20, [FIT_RDF, PRESSURE], equilibration=300
    )
    g, p = samples.average(FIT_RDF), samples.average(PRESSURE)
    return g.detach().numpy(), float(p.detach())


def make(
    truth: tuple[Array, float],
    method: Any = "gauss-newton",
    potential: NetworkPotential | None = None,
    checkpoint: Path | None = None,
    seed: int = 1,
    **options: Any,
) -> Refinement:
    potential = potential or embedded()
    point = other_fluid(potential, seed, **options)
    targets = [
        Target(point, FIT_RDF, FIT_RDF.r, truth[0], uncertainty=0.03),
        Target(point, PRESSURE, truth[1], uncertainty=50.0),
    ]
    return Refinement(potential, targets, method, checkpoint=checkpoint)


@pytest.mark.parametrize("name, left", [("gauss-newton", 0.5), ("adam", 0.85)])
def test_a_fit_approaches_the_structure_of_another_network(
    truth: tuple[Array, float], name: str, left: float
) -> None:
    adam = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.1), steps=5)
    fit = make(truth, adam if name == "adam" else name, seed=4)
    fit.run(4, 600, 20, progress=False)
    first, last = fit.history[0], fit.history[-1]
    assert first.rdf_rms > 0.2
    assert last.rdf_rms < left * first.rdf_rms
    assert last.misfit < left * first.misfit
    assert not any(entry.event for entry in fit.history)
    assert fit.summary()["n_effective"] > 10


@pytest.mark.parametrize("name", ["gauss-newton", "adam"])
def test_a_method_is_pure(truth: tuple[Array, float], name: str) -> None:
    """It moves the energies' parameters only in its thoughts; nothing of the view changes."""
    adam = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.05), steps=2)
    fit = run(make(truth, adam if name == "adam" else name), 1)
    start = flat_parameters(fit.potential)
    view = fit.view()
    memory = copy.deepcopy(dict(view.memory))
    first, second, third = (fit.method.propose(v) for v in (view, view, fit.view()))
    for other in (second, third):
        np.testing.assert_array_equal(other.change, first.change)
    assert first.change.any() and first.covariance is None
    assert torch.equal(flat_parameters(fit.potential), start)
    assert torch.equal(view.parameters, start)
    assert all(p.grad is None for p in learned_parameters(fit.potential))
    assert memory.keys() == view.memory.keys() and bool(memory) == (name == "adam")
    for index, moments in memory.items():
        for key, value in moments.items():
            assert torch.equal(value, view.memory[index][key])


# Going on ---------------------------------------------------------------------------------------

STEPS, EVERY = 200, 20


def test_what_was_evaluated_where_several_steps_end_is_not_evaluated_again() -> None:
    potential = embedded(0.3)
    point = fluid(potential)
    samples = point.sample(600, 10, [RDF_], equilibration=100)
    state = State(point, [Target(point, RDF_, RDF_.r, np.ones(16), uncertainty=0.05)], pool=samples)
    view = FitView(potential, (state,), flat_parameters(potential))
    proposed = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.03), steps=5).propose(view)
    before = potential.network.evaluated
    _, size = Trust().follow(view, proposed, 1.0)
    assert size > 0.1 and potential.network.evaluated == before


def test_a_step_of_all_that_a_view_was_moved_by_ends_where_it_is() -> None:
    rng = np.random.default_rng(1)
    view = FitView(embedded(), (), torch.from_numpy(rng.normal(size=1000)))
    there = view.moved(rng.normal(size=1000)).moved(rng.normal(size=1000))
    assert torch.equal(view.moved(there.change.numpy()).parameters, there.parameters)


def run(fit: Refinement, rounds: int) -> Refinement:
    return fit.run(rounds, STEPS, EVERY, progress=False)


def everything(fit: Refinement) -> dict[str, Any]:
    """All that a fit consists of but the time it took, comparable to the last bit."""
    state = fit.states[0]
    context = state.state_point.simulation.context.getState(positions=True, velocities=True)
    frames = state.frames
    return {
        "history": [asdict(entry) | {"seconds": 0} for entry in fit.history],
        "numbers": [fit.converged, fit.md_steps, asdict(fit._progress.trust)],
        "step": state.state_point.simulation.currentStep,
        "positions": context.getPositions(asNumpy=True)._value.tobytes(),
        "velocities": context.getVelocities(asNumpy=True)._value.tobytes(),
        "theta": flat_parameters(fit.potential).numpy().tobytes(),
        "method": {
            (index, name): torch.as_tensor(value).numpy().tobytes()
            for index, entry in fit._memory.items()
            for name, value in entry.items()
        },
        "runs": [run.coefficients.tobytes() for run in frames.runs],
        "energies": frames.run_energies().tobytes(),
        "weights": frames.weights().detach().numpy().tobytes(),
        "records": [record.tobytes() for record in frames.records.values()],
        "frames": [run.frames.mark for run, _ in evaluated(frames).runs],
    }


def evaluated(samples: Samples) -> EvaluatedFrames:
    assert isinstance(samples.learned, EvaluatedFrames)
    return samples.learned


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    different = [key for key in one if one[key] != other[key]]
    assert not different, different


@pytest.fixture(scope="module")
def whole(truth: tuple[Array, float], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A fit of three rounds that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "fit.ckpt"
    return everything(run(make(truth, checkpoint=path), 3))


@pytest.fixture(scope="module")
def two_rounds(
    truth: tuple[Array, float], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Refinement, Path]:
    """A fit, and its folder: the checkpoint after two rounds, and the frames."""
    folder = tmp_path_factory.mktemp("two")
    return run(make(truth, checkpoint=folder / "fit.ckpt"), 2), folder


def copy_of(two_rounds: tuple[Refinement, Path], tmp_path: Path) -> Path:
    shutil.copytree(two_rounds[1], tmp_path / "fit")
    return tmp_path / "fit/fit.ckpt"


def test_a_resumed_fit_is_the_same_to_the_last_bit(
    truth: tuple[Array, float],
    whole: dict[str, Any],
    two_rounds: tuple[Refinement, Path],
    tmp_path: Path,
) -> None:
    path = copy_of(two_rounds, tmp_path)
    names = sorted(p.name for p in (tmp_path / "fit/fit_frames").iterdir())
    assert names == ["state_0_round_0.dcd", "state_0_round_1.dcd"]
    again = make(truth, checkpoint=path, seed=77)
    assert len(again.resume(path).history) == 2
    assert_same(everything(again), everything(two_rounds[0]))
    assert evaluated(again.states[0].frames).files()[0].parent == tmp_path / "fit/fit_frames"
    assert_same(everything(run(again, 3)), whole)


def test_the_moments_of_an_optimizer_go_on_too(truth: tuple[Array, float], tmp_path: Path) -> None:
    def adam(name: str, **options: Any) -> Refinement:
        method = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.05), steps=2)
        return make(truth, method, checkpoint=tmp_path / name, **options)

    expected = everything(run(adam("whole.ckpt"), 2))
    run(adam("fit.ckpt"), 1)
    second = adam("fit.ckpt", seed=5).resume(tmp_path / "fit.ckpt")
    assert_same(everything(run(second, 2)), expected)


def test_a_checkpoint_whose_frames_are_gone_or_others_is_refused(
    truth: tuple[Array, float], two_rounds: tuple[Refinement, Path], tmp_path: Path
) -> None:
    path = copy_of(two_rounds, tmp_path)
    original = two_rounds[1] / "fit_frames/state_0_round_0.dcd"
    fit = run(make(truth), 1)
    before = everything(fit)
    first, second = (path.parent / f"fit_frames/state_0_round_{n}.dcd" for n in range(2))
    shutil.copy(second, first)
    with pytest.raises(FramesError, match=r"round_0\.dcd holds other frames"):
        fit.resume(path)
    first.write_bytes(original.read_bytes()[:-500])
    with pytest.raises(FramesError, match=r"holds \d+ frames, expected"):
        fit.resume(path)
    first.unlink()
    original.rename(original.with_suffix(".hidden"))
    try:
        with pytest.raises(FramesError, match="the samples need that file"):
            fit.resume(path)
    finally:
        original.with_suffix(".hidden").rename(original)
    assert_same(everything(fit), before)
    assert len(fit.resume(path).history) == 2  # from where they lay at first


def another_size() -> NetworkPotential:
    return NetworkPotential(Embedded(size=6), prior=argon(0.6).requires_grad_(False))


def another_prior() -> NetworkPotential:
    return NetworkPotential(Embedded(), prior=argon(0.58).requires_grad_(False))


def prior_that_begins_elsewhere() -> NetworkPotential:
    return NetworkPotential(Embedded(), prior=argon(0.6, r_min=0.25).requires_grad_(False))


def learned_prior() -> NetworkPotential:
    return NetworkPotential(Embedded(), prior=argon(0.6))


@pytest.mark.parametrize(
    "other, what",
    [
        (another_size, r"potential, buffers: the network.mu was 5, is 6"),
        (another_prior, "potential: the structure was .*cutoff=0.6,.*, is .*cutoff=0.58"),
        (prior_that_begins_elsewhere, "potential: the structure was .*, is .*r_min=0.25"),
        (learned_prior, "potential, fixed: the prior.pair.sigma is missing"),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(
    truth: tuple[Array, float],
    two_rounds: tuple[Refinement, Path],
    other: Callable[[], NetworkPotential],
    what: str,
) -> None:
    fit = make(truth, potential=other())
    before = flat_parameters(fit.potential)
    with pytest.raises(CheckpointError, match=f"another fit: (.*; )?{what}"):
        fit.resume(two_rounds[1] / "fit.ckpt")
    assert torch.equal(flat_parameters(fit.potential), before)


def test_without_a_checkpoint_nothing_can_be_saved(
    truth: tuple[Array, float], tmp_path: Path
) -> None:
    fit = run(make(truth), 1)
    with pytest.raises(CheckpointError, match="with checkpoint=") as caught:
        fit.save(tmp_path / "fit.ckpt")
    assert caught.value.reason == "frames"
    assert not (tmp_path / "fit.ckpt").exists()


# Interrupts -------------------------------------------------------------------------------------


class Halting(Embedded):
    """Ctrl-C at the n-th call in the MD, in an evaluation of several frames, or in a gradient."""

    left: ClassVar[dict[str, int]] = {}

    def energies(self, positions: Tensor, boxes: Tensor | None) -> Tensor:
        alone = "the update" if self.w.requires_grad else "the MD"  # there it is a frozen copy
        self._count("an evaluation" if len(positions) > 1 else alone)
        return super().energies(positions, boxes)

    def _count(self, where: str) -> None:
        if where in self.left:
            self.left[where] -= 1
            if self.left[where] < 0:
                del self.left[where]
                signal.raise_signal(signal.SIGINT)


def halting() -> NetworkPotential:
    return NetworkPotential(Halting(), prior=argon(0.6).requires_grad_(False), name="halting")


@pytest.mark.parametrize("where, at", [("the MD", 70), ("an evaluation", 2), ("the update", 15)])
def test_ctrl_c_leaves_a_checkpoint_that_resumes(
    truth: tuple[Array, float], tmp_path: Path, where: str, at: int
) -> None:
    path = tmp_path / "fit.ckpt"
    fit = run(make(truth, potential=halting(), checkpoint=path), 1)
    Halting.left[where] = at
    with pytest.raises(KeyboardInterrupt):
        run(fit, 2)
    assert where not in Halting.left
    assert len(fit.history) == 1
    left = sorted(p.name for p in (tmp_path / "fit_frames").iterdir() if p.suffix == ".dcd")
    complete = ["state_0_round_0.dcd", "state_0_round_1.dcd"]
    assert left == (complete[:1] if where == "the MD" else complete)
    assert not list(tmp_path.rglob(".*"))
    resumed = run(make(truth, potential=halting(), checkpoint=path, seed=8).resume(path), 2)
    expected = run(make(truth, potential=halting(), checkpoint=tmp_path / "whole.ckpt"), 2)
    assert_same(everything(resumed), everything(expected))


def test_ctrl_c_in_an_update_is_no_end_in_the_same_process_either(
    truth: tuple[Array, float], tmp_path: Path
) -> None:
    path = tmp_path / "fit.ckpt"
    fit = run(make(truth, potential=halting(), checkpoint=path), 1)
    Halting.left["the update"] = 15
    with pytest.raises(KeyboardInterrupt):
        run(fit, 2)
    run(fit, 2)
    files = evaluated(fit.states[0].frames).files()
    assert len(set(files)) == len(files) == 3  # the frames of the interrupted round count
    assert np.isfinite(fit.summary()["misfit"])
    assert len(make(truth, potential=halting()).resume(path).states[0].frames.runs) == 3


def test_what_an_interrupted_evaluation_left_is_not_taken_for_that_of_other_frames(
    tmp_path: Path,
) -> None:
    """MD that is run again does not always come to the same frames."""
    path = tmp_path / "run.dcd"
    potential = halting()
    samples = other_fluid(potential).sample(400, 10, [], trajectory=path)
    part = replace(samples, learned=replace(evaluated(samples), batch=5))
    Halting.left["an evaluation"] = 4
    with pytest.raises(KeyboardInterrupt):
        part.run_energies()
    assert path.with_suffix(".energy.partial").exists()
    again = other_fluid(potential, seed=3).sample(400, 10, [], trajectory=path)
    found = again.run_energies()
    x, boxes = evaluated(again).runs[0][0].frames.read(np.arange(40))
    expected = potential.energies(torch.from_numpy(x), torch.from_numpy(boxes))
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12)
    with pytest.raises(FramesError, match="was overwritten"):
        samples.n_effective()


def test_frames_of_a_killed_round_go_and_the_users_stay(
    truth: tuple[Array, float], tmp_path: Path
) -> None:
    path = tmp_path / "fit.ckpt"
    user = tmp_path / "fit_frames/state_0_round_0.dcd"
    user.parent.mkdir()
    user.write_text("the user's")
    child = subprocess.Popen(["true"])
    child.wait()
    temporary = temporary_path(user.parent / "round_0").name.replace(
        str(os.getpid()), str(child.pid)
    )
    (user.parent / temporary).mkdir()
    (user.parent / temporary / "state_0_round_0.dcd").write_text("of a round that was killed")
    run(make(truth, checkpoint=path), 1)
    names = sorted(p.name for p in user.parent.iterdir())
    assert names == ["state_0_round_0.dcd", "state_0_round_0_again.dcd"]
    assert user.read_text() == "the user's"
    assert len(make(truth).resume(path).history) == 1


def test_without_progress_there_are_no_bars(
    truth: tuple[Array, float], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("openmm_diffsim.samples.evaluated._SHOWN_AFTER", 0.0)
    fit = run(make(truth), 1)
    assert capfd.readouterr().err == ""
    fit.run(2, 100, 10)
    assert "NetworkPotential" in capfd.readouterr().err


# What is for pairs only -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, message",
    [
        ("ibi", "iterative Boltzmann inversion needs a SplinePair.*, got NetworkPotential"),
        ("relative-entropy", "relative entropy is for a pair potential, got NetworkPotential"),
    ],
)
def test_a_method_for_pairs_refuses_a_network(
    truth: tuple[Array, float], method: str, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        make(truth, method)


def test_a_network_is_no_function_of_a_distance(truth: tuple[Array, float]) -> None:
    fit = make(truth)
    for ask in (lambda: fit.potential_table([0.3]), fit.first_contact, fit.pair_potential):
        with pytest.raises(TargetError, match="NetworkPotential is no function of a distance"):
            ask()
    assert run(fit, 1).last_step.covariance is None


# Rounds that are taken back ---------------------------------------------------------------------


class Scripted:
    """Multiplies the last layer by the next number of a list; then leaves it."""

    def __init__(self, *factors: float) -> None:
        self._left = list(factors)

    def propose(self, view: FitView) -> Step:
        start = flat_parameters(view.potential)
        change = np.zeros(len(start))
        if self._left:
            scale_last_layer(view.potential, self._left.pop(0))
            change = (flat_parameters(view.potential) - start).numpy()
            set_flat_parameters(view.potential, start)
        return Step(change)


@torch.no_grad()
def scale_last_layer(potential: Any, factor: float) -> None:
    potential.network.v.mul_(factor)


def test_a_round_that_explodes_is_taken_back(
    truth: tuple[Array, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fit.ckpt"
    fit = make(truth, Scripted(1e6), checkpoint=path)
    network: Any = fit.potential.network
    v = network.v.detach().clone()
    run(fit, 2)
    good, bad = fit.history
    assert "exploded" in bad.event and "round 2 rolled back" in capsys.readouterr().err
    assert bad.largest_change == 0.0
    assert (bad.misfit, bad.n_effective) == (good.misfit, good.n_effective)
    assert len(fit.states[0].frames.runs) == 1
    positions = fit.states[0].state_point.snapshot().getPositions(asNumpy=True)._value
    assert np.isfinite(positions).all()
    # run() ends within the reach of the frames; the checkpoint holds the half of the bad step
    again = make(truth, Scripted(1.002), checkpoint=path, seed=6).resume(path)
    network = again.potential.network
    torch.testing.assert_close(network.v, v + 0.5 * (1e6 - 1) * v)
    with torch.no_grad():
        network.v.copy_(v)  # a happy end
    run(again, 3)
    assert [bool(entry.event) for entry in again.history] == [False, True, False]
    assert again._progress.trust.factor == 0.75  # of what the method wants
    torch.testing.assert_close(network.v, (1 + 0.75 * 0.002) * v, rtol=1e-12, atol=0)


def test_an_update_that_is_no_number_is_refused_and_undone(truth: tuple[Array, float]) -> None:
    fit = make(truth, Scripted(float("nan")))
    start = flat_parameters(fit.potential)
    with pytest.raises(SamplingError, match="not finite") as caught:
        run(fit, 1)
    assert caught.value.reason == "update"
    assert torch.equal(flat_parameters(fit.potential), start)


# Runs that count no more ------------------------------------------------------------------------


def test_runs_without_weight_are_left_out_but_never_the_last() -> None:
    potential = embedded(1.0)
    point = other_fluid(potential)
    runs = []
    for factor in (1.0, 16.0, 0.0625):  # and back
        scale_last_layer(potential, factor)
        runs.append(point.sample(200, 10, [FIT_RDF], equilibration=100))
    samples = Samples.pool(runs)
    with torch.no_grad():
        shares = [float(part.sum()) for part in samples.weights().split(20)]
    assert shares[1] < 0.01 < min(shares[0], shares[2])
    part = samples.relevant(0.01)
    assert part.runs == (samples.runs[0], samples.runs[2])
    assert len(part) == 40 and len(evaluated(part).runs) == 2
    np.testing.assert_array_equal(
        part.records[FIT_RDF], np.concatenate([runs[k].records[FIT_RDF] for k in (0, 2)])
    )
    assert samples.relevant(0.0) is samples
    assert samples.relevant(1.1).runs == samples.runs[-1:]
    scale_last_layer(potential, 16.0)  # where the last run has no weight
    assert samples.relevant(0.01).runs == samples.runs[1:]
