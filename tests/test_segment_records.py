"""What is kept of segments, the estimates of their derivatives, and averages over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oscillators import oscillators
from segment_systems import BOX, KELVIN, SCHEMES, N, fluid, spline
from systems import FreePair, lattice
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import VACF, Samples, Segment, SegmentFunction
from openmm_diffsim.engine.segments import SegmentRecorder, SegmentRunner, dynamic_average
from openmm_diffsim.errors import ObservableError, OverlapError, SegmentError, StatePointError
from openmm_diffsim.observables import Frame
from openmm_diffsim.observables.segment import SegmentRecords
from openmm_diffsim.potentials import SplineBasis
from openmm_diffsim.samples import Run
from openmm_diffsim.samples.features import Features

Array = NDArray[np.float64]

VALUES, SIZE = 2, 3  # per frame: values, and coefficients
STRENGTH = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64).expand(50, SIZE)  # of the potential


# Records ------------------------------------------------------------------------------------------


def records(
    values: Array, pathwise: Array, score: Array, explicit: Array, growth: float = 1.0
) -> SegmentRecords:
    """Packed frame by frame and unpacked; arrays [frames, values(, coefficients)]."""
    rows = zip(values, pathwise, score, explicit, strict=True)
    packed = np.array([SegmentRecords.pack(*row, growth) for row in rows])
    return SegmentRecords.unpack(torch.from_numpy(packed), values.shape[1])


def random_records(seed: int = 1, frames: int = 50, **spreads: float) -> dict[str, Array]:
    """Arrays of a SegmentRecords; slopes have the given spreads in the two values, or one."""
    rng = np.random.default_rng(seed)
    arrays = {"values": rng.normal(size=(frames, VALUES))}
    for name in ("pathwise", "score", "explicit"):
        spread = np.broadcast_to(spreads.get(name, 1.0), (VALUES,))[:, None]
        arrays[name] = 2.0 + spread * rng.normal(size=(frames, VALUES, SIZE))
    return arrays


def by_score(arrays: dict[str, Array]) -> Array:
    """(A - <A>) score + explicit, [frames, values, coefficients]."""
    deviations = arrays["values"] - arrays["values"].mean(axis=0)
    return deviations[:, :, None] * arrays["score"] + arrays["explicit"]


def variances(slopes: Array) -> Array:
    """Over frames, of the derivative along the coefficients, [values]."""
    return (slopes @ STRENGTH[0].numpy()).var(axis=0)


def test_what_is_packed_is_unpacked() -> None:
    arrays = random_records()
    data = records(**arrays, growth=0.5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(data, name), array, err_msg=name)
    np.testing.assert_array_equal(data.growth, 0.5)


@pytest.mark.parametrize("estimator", ["pathwise", "score"])
def test_one_estimator_alone(estimator: str) -> None:
    arrays = random_records()
    found = records(**arrays).derivatives(estimator, STRENGTH)
    expected = arrays["pathwise"] if estimator == "pathwise" else by_score(arrays)
    np.testing.assert_allclose(found.filled, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.pathwise_share, float(estimator == "pathwise"))
    assert bool(found.computed.all())


def test_combined_weighs_by_inverse_variances() -> None:
    arrays = random_records(pathwise=np.array([0.5, 5.0]))
    other = by_score(arrays)
    found = records(**arrays).derivatives("combined", STRENGTH)
    inverse = 1 / variances(arrays["pathwise"]), 1 / variances(other)
    share = inverse[0] / (inverse[0] + inverse[1])
    assert share[0] > 0.7 and share[1] < 0.3
    np.testing.assert_allclose(found.pathwise_share, share, rtol=1e-12)
    expected = share[:, None] * arrays["pathwise"] + (1 - share[:, None]) * other
    np.testing.assert_allclose(found.filled, expected, rtol=1e-12)


def test_auto_takes_what_varies_least() -> None:
    """For each value by itself."""
    arrays = random_records(pathwise=np.array([0.5, 5.0]))
    found = records(**arrays).derivatives("auto", STRENGTH)
    np.testing.assert_array_equal(found.pathwise_share, [1.0, 0.0])
    np.testing.assert_array_equal(found.filled[:, 0], arrays["pathwise"][:, 0])
    np.testing.assert_allclose(found.filled[:, 1], by_score(arrays)[:, 1], rtol=1e-12)


@pytest.mark.parametrize("estimator", ["combined", "auto"])
def test_without_any_variance_the_adjoint_is_taken(estimator: str) -> None:
    """As where a value does not depend on the forces."""
    arrays = random_records(pathwise=0.0, score=0.0, explicit=0.0)
    arrays["score"][:], arrays["explicit"][:] = 0.0, 1.0
    found = records(**arrays).derivatives(estimator, STRENGTH)
    np.testing.assert_array_equal(found.pathwise_share, 1.0)


@pytest.mark.parametrize("estimator", ["auto", "combined", "pathwise", "score"])
def test_what_was_not_computed_is_filled_with_the_mean(estimator: str) -> None:
    """Every third frame has derivatives: the others get their mean, and no share of their own."""
    arrays = random_records(pathwise=np.array([0.5, 5.0]))
    has = np.arange(50) % 3 == 0
    whole = dict(arrays)
    for name in ("pathwise", "score", "explicit"):
        arrays[name] = np.where(has[:, None, None], arrays[name], np.nan)
    found = records(**arrays).derivatives(estimator, STRENGTH)
    np.testing.assert_array_equal(found.computed, has)
    slopes = {"pathwise": whole["pathwise"][has], "score": by_score(whole)[has]}
    v = {name: variances(s) for name, s in slopes.items()}
    share = {
        "pathwise": np.ones(2),
        "score": np.zeros(2),
        "auto": (v["pathwise"] <= v["score"]).astype(float),
        "combined": v["score"] / (v["pathwise"] + v["score"]),
    }[estimator][:, None]
    expected = share * slopes["pathwise"] + (1 - share) * slopes["score"]
    np.testing.assert_allclose(found.filled[has], expected, rtol=1e-12)
    mean = np.broadcast_to(expected.mean(axis=0), (int((~has).sum()), VALUES, SIZE))
    np.testing.assert_allclose(found.filled[~has], mean, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["auto", "combined", "pathwise", "score"])
@pytest.mark.parametrize("missing", ["pathwise", "score"])
def test_where_there_is_one_it_is_taken(missing: str, estimator: str) -> None:
    arrays = random_records()
    expected = by_score(arrays) if missing == "pathwise" else arrays["pathwise"]
    for name in ("pathwise",) if missing == "pathwise" else ("score", "explicit"):
        arrays[name] = np.full_like(arrays[name], np.nan)
    data = records(**arrays)
    if estimator == missing and missing == "pathwise":
        with pytest.raises(ObservableError, match="none of 50 frames has a derivative"):
            data.derivatives(estimator, STRENGTH)
        return
    np.testing.assert_allclose(data.derivatives(estimator, STRENGTH).filled, expected, rtol=1e-12)


# Which runs an average rests on -------------------------------------------------------------------


class Recorded(SegmentFunction):
    """Of records that a test makes up."""

    def __init__(self) -> None:
        super().__init__(lambda segment: segment.positions[0, 0, :1], 1, 1)


def made_up(changes: list[float], frames: int = 30) -> tuple[Samples, Recorded]:
    """Runs in which the value 1 would change by so much, to first order, up to the present."""
    potential = FreePair(SplineBasis(0.2, 0.7, 6), seed=1)
    observable = Recorded()
    present = potential.coefficients().detach().numpy()
    slope = np.zeros((1, present.size))
    slope[0, 2] = 0.5
    parts = []
    for k, change in enumerate(changes):
        rng = np.random.default_rng(k)
        c = present.copy()
        c[2] -= change / 0.5
        row = SegmentRecords.pack(np.ones(1), slope, slope * np.nan, slope * np.nan, 0.0)
        parts.append(
            Samples(
                potential, (Run(c, KELVIN, None, frames, 10),),
                Features(
                    1e-3 * rng.normal(size=(frames, *present.shape)),
                    np.zeros((frames, *present.shape)),
                ),
                np.full(frames, 2.0), np.zeros(frames),
                {observable: np.tile(row, (frames, 1))}, KELVIN,
            )
        )  # fmt: skip
    return Samples.pool(parts), observable


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([0.0], [0.0]),
        ([0.05, -0.09, 0.3, 0.09], [0.05, -0.09, 0.09]),
        ([0.2, -0.3, 0.25], [0.2]),
        ([0.45, 0.7], [0.45]),
    ],
)
def test_near_leaves_out_what_is_far(changes: list[float], kept: list[float]) -> None:
    """Up to a tenth of the value, or else the nearest run; the value is moved to first order."""
    samples, observable = made_up(changes)
    near = samples.at().near(observable)
    assert [run.coefficients[2] for run in near.samples.runs] == [
        run.coefficients[2] for run, c in zip(samples.runs, changes, strict=True) if c in kept
    ]
    assert len(near.samples) == 30 * len(kept)
    expected = 1 + np.repeat(kept, 30)
    np.testing.assert_allclose(near.values(observable).detach()[:, 0], expected, rtol=1e-12)
    average = float(samples.average(observable).detach())
    assert average == pytest.approx(float(near.weights.detach().numpy() @ expected), rel=1e-12)


def test_too_far_is_refused() -> None:
    samples, observable = made_up([0.7, -0.6])
    view = samples.at()
    for call in (view.near, samples.average, samples.estimate, view.jacobian):
        with pytest.raises(OverlapError, match=r"changes by 0\.60 of the largest, .* at most 0\.5"):
            call(observable)


# Recorders ----------------------------------------------------------------------------------------

LAGS = [0, 2, 6]


def recorder(observable: diffsim.SegmentObservable) -> SegmentRecorder:
    liquid = fluid()
    return SegmentRecorder(
        observable, SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    )


def frame(seed: int) -> Frame:
    return Frame(lattice(N, BOX, 0.02, seed), BOX, float(np.prod(np.diag(BOX))), 0.0)


def record(
    observable: diffsim.SegmentObservable, seeds: list[int], n_values: int = len(LAGS)
) -> SegmentRecords:
    """Of the frames with these seeds, one after the other."""
    made = recorder(observable)
    rows = np.array([made.record(frame(seed), []) for seed in seeds])
    return SegmentRecords.unpack(torch.from_numpy(rows), n_values)


def test_gradient_every() -> None:
    """Derivatives of every third frame, values of all: the same as if all had them."""
    some = record(VACF(LAGS, gradient_every=3, seed=2), [1, 2, 3, 4, 5])
    every = record(VACF(LAGS, seed=2), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(some.values, every.values)
    has = np.array([True, False, False, True, False])
    for name in ("pathwise", "score", "explicit", "growth"):
        a, b = getattr(some, name), getattr(every, name)
        np.testing.assert_array_equal(a[has], b[has], err_msg=name)
        assert bool(torch.isnan(a[~has]).all()) and bool(torch.isfinite(b).all()), name


@pytest.mark.parametrize(
    ("name", "estimator", "has_pathwise", "has_score"),
    [
        ("LangevinMiddle", "auto", True, True),
        ("LangevinMiddle", "combined", True, True),
        ("LangevinMiddle", "pathwise", True, False),
        ("Langevin", "score", False, True),
        ("velocity Verlet", "auto", True, False),
        ("Nose-Hoover", "combined", True, False),
    ],
)
def test_what_an_estimator_records(
    name: str, estimator: str, has_pathwise: bool, has_score: bool
) -> None:
    data = record(VACF(LAGS, integrator=SCHEMES[name], estimator=estimator), [1, 2])
    assert bool(torch.isfinite(data.pathwise).all()) == has_pathwise
    assert bool(torch.isfinite(data.growth).all()) == has_pathwise
    assert bool(torch.isfinite(data.score).all()) == has_score
    assert bool(torch.isfinite(data.explicit).all()) == has_score


@pytest.mark.parametrize("name", ["velocity Verlet", "Nose-Hoover"])
def test_no_score_without_noise(name: str) -> None:
    with pytest.raises(SegmentError, match="has none"):
        recorder(VACF(LAGS, integrator=SCHEMES[name], estimator="score"))


def test_segments_depend_on_the_frame_and_the_seed_alone() -> None:
    """Not on what was recorded before."""
    data = record(VACF(LAGS, seed=2), [1, 2, 1])
    again = record(VACF(LAGS, seed=2), [2])
    other = record(VACF(LAGS, seed=3), [2])
    for name in ("values", "pathwise", "score", "explicit", "growth"):
        rows = getattr(data, name)
        np.testing.assert_array_equal(rows[0], rows[2], err_msg=name)
        np.testing.assert_array_equal(rows[1], getattr(again, name)[0], err_msg=name)
        assert not torch.equal(rows[1], getattr(other, name)[0])
        assert not torch.equal(rows[1], rows[0])


def test_recorded_derivative_is_that_of_a_segment() -> None:
    """By differences of the recorded values in a coefficient, to 1e-6 of the largest.

    A recorder needs a graph, and makes one where its caller has none.
    """
    potential = spline()
    liquid = fluid(potential=potential)
    runner = SegmentRunner(potential, liquid.simulation.context, KELVIN)
    made = SegmentRecorder(VACF(LAGS, estimator="pathwise"), runner)

    def recorded() -> SegmentRecords:
        row = torch.from_numpy(made.record(frame(1), []))
        return SegmentRecords.unpack(row[None], len(LAGS))

    found = recorded().pathwise[0].numpy()
    for k in (2, 5):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                potential.values[0, k] += sign * 1e-4
                sides.append(recorded().values[0].numpy())
                potential.values[0, k] -= sign * 1e-4
        difference = (sides[0] - sides[1]) / 2e-4
        np.testing.assert_allclose(found[:, k], difference, rtol=0, atol=1e-6 * np.abs(found).max())


def test_a_value_that_depends_on_no_force() -> None:
    """Has no slope and no growth."""
    start = SegmentFunction(lambda s: s.positions[0, 0, 0], 3, estimator="pathwise")
    data = record(start, [1], 1)
    np.testing.assert_array_equal(data.pathwise, 0.0)
    assert bool(torch.isnan(data.growth).all())


def test_measure_of_another_shape_is_refused() -> None:
    class Wrong(diffsim.SegmentObservable):
        n_values = 2

        def measure(self, segment: Segment) -> Tensor:
            return segment.positions[-1, 0]

    with pytest.raises(SegmentError, match=r"Wrong: expected values of shape \(2,\) .* got \(3,\)"):
        recorder(Wrong(2)).record(frame(1), [])


# Averages -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled() -> tuple[diffsim.StatePoint, Samples, dict[str, VACF]]:
    """A small fluid, and its velocity autocorrelation by all estimators."""
    options: dict[str, dict[str, Any]] = {
        estimator: {"estimator": estimator}
        for estimator in ("auto", "pathwise", "score", "combined")
    }
    options["some"] = {"gradient_every": 3}
    observables = {name: VACF(LAGS, **more) for name, more in options.items()}
    liquid = fluid(resting=False)
    samples = liquid.sample(1200, 10, list(observables.values()), equilibration=100)
    return liquid, samples, observables


@pytest.mark.parametrize("name", ["auto", "pathwise", "score", "combined", "some"])
def test_gradient_of_the_average_is_the_total_derivative(
    sampled: tuple[diffsim.StatePoint, Samples, dict[str, VACF]], name: str
) -> None:
    """To rounding: both terms are in the graph of ``average``, and of the jacobian."""
    liquid, samples, observables = sampled
    vacf = observables[name]
    parameters = list(liquid.potential.parameters())
    average = samples.average(vacf)
    rows = [
        torch.cat([g.ravel() for g in torch.autograd.grad(a, parameters, retain_graph=True)])
        for a in average
    ]
    dynamic = liquid.dynamic_average(vacf, samples)
    np.testing.assert_allclose(dynamic.value, average.detach(), rtol=1e-12)
    atol = 1e-10 * np.abs(dynamic.total.value).max()
    np.testing.assert_allclose(torch.stack(rows), dynamic.total.value, rtol=0, atol=atol)
    parts = dynamic.path.value + dynamic.ensemble.value
    np.testing.assert_allclose(dynamic.total.value, parts, rtol=0, atol=atol)
    by_coefficients = samples.at().jacobian(vacf)
    by_parameters = liquid.potential.pull_back(by_coefficients, temperature=samples.temperature)
    np.testing.assert_allclose(by_parameters, dynamic.total.value, rtol=0, atol=atol)
    assert dynamic.n_segments == 120
    assert dynamic.n_gradients == (40 if name == "some" else 120)
    assert np.all(dynamic.total.standard_error > 0)
    assert np.abs(dynamic.path.value[1:]).min() > 0


def test_gradient_of_a_loss_with_its_error(
    sampled: tuple[diffsim.StatePoint, Samples, dict[str, VACF]],
) -> None:
    """The jackknife of ``Samples.gradient`` takes segments like all else.

    Of a single average it is the error of the total derivative, but for the choice of blocks.
    """
    _, samples, observables = sampled
    vacf = observables["auto"]
    gradient, error = samples.gradient(lambda s: s.average(vacf)[1])
    total = dynamic_average(vacf, samples).total
    np.testing.assert_allclose(gradient, total.value[1], rtol=1e-9)
    assert np.all((error > 0.3 * total.standard_error[1]) & (error < 3 * total.standard_error[1]))


def test_an_average_follows_the_parameters(
    sampled: tuple[diffsim.StatePoint, Samples, dict[str, VACF]],
) -> None:
    """Its differences are its gradient, where weights and values move with the parameters."""
    liquid, samples, observables = sampled
    epsilon = liquid.potential.epsilon
    vacf = observables["auto"]
    (gradient,) = torch.autograd.grad(samples.average(vacf)[2], epsilon)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            epsilon.add_(sign * 1e-4)
            sides.append(float(samples.average(vacf)[2]))
            epsilon.sub_(sign * 1e-4)
    assert (sides[0] - sides[1]) / 2e-4 == pytest.approx(float(gradient), rel=1e-5)


def test_what_was_not_recorded(
    sampled: tuple[diffsim.StatePoint, Samples, dict[str, VACF]],
) -> None:
    liquid, samples, _ = sampled
    with pytest.raises(SegmentError, match="VACF was not recorded"):
        liquid.dynamic_average(VACF(3), samples)


def test_segments_cannot_be_reweighted_to_another_temperature() -> None:
    """Their velocities and noise are those of their own."""
    system = oscillators(2)
    vacf = VACF(2, atoms=system.atoms)
    samples = system.sample([vacf], 8, seed=1)
    with pytest.raises(StatePointError, match=r"VACF: segments at 300 K cannot .* 310 K"):
        samples.reweight(310.0).average(vacf)
