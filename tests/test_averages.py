"""Error bars cover what they should: repeated on series whose averages are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from systems import FreePair
from torch import Tensor

from openmm_diffsim import Observable, Samples
from openmm_diffsim.observables import Conditions
from openmm_diffsim.potentials import SplineBasis
from openmm_diffsim.samples import Features, Run
from openmm_diffsim.statistics.averages import (
    Estimate,
    detect_equilibration,
    statistical_inefficiency,
)
from openmm_diffsim.statistics.correlated import assign_blocks, error_of_sum, student_factor
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

BASIS = SplineBasis(0.2, 0.7, 6)


class Recorded(Observable):
    """What was recorded is the value."""

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return records


RECORDED = Recorded()


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> Array:
    """A stationary series of unit variance with correlations phi^|lag|: g = (1+phi)/(1-phi)."""
    noise = rng.normal(size=n) * np.sqrt(1 - phi**2)
    noise[0] = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))


def slope_samples(x: Array, sampled: float, now: float) -> Samples:
    """Frames of a Gaussian x under the energy kT c x, sampled with c = ``sampled``.

    p(x) = exp(-(x + c)^2 / 2), so <x> = -c and d<x>/dc = -1 exactly, whatever c.
    """
    sums = np.zeros((len(x), BASIS.n_coefficients))
    sums[:, 1] = x
    coefficients = np.zeros(sums.shape[1])
    coefficients[1] = sampled
    potential = FreePair(BASIS)
    potential.c.data[0, 1] = now
    return Samples(
        potential=potential,
        runs=(Run(coefficients, 1 / MOLAR_GAS_CONSTANT, None, len(x), every=1),),
        learned=Features(sums, np.zeros_like(sums)),
        volume=np.full(len(x), np.nan),
        rest_energy=np.zeros(len(x)),
        records={RECORDED: x[:, None]},
        temperature=1 / MOLAR_GAS_CONSTANT,
    )


# Coverage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("now", [1.0, 1.4], ids=["as sampled", "reweighted"])
def test_two_standard_errors_hold_the_average_in_95_of_100_repeats(phi: float, now: float) -> None:
    repeats, deviations = 400, []
    for seed in range(repeats):
        x = autoregressive(np.random.default_rng(seed), 4000, phi) - 1.0
        estimate = slope_samples(x, 1.0, now).estimate(RECORDED)
        deviations.append((estimate.value[0] + now) / estimate.standard_error[0])
    covered = float(np.mean(np.abs(deviations) < 1.96))
    # Of 400 repeats 0.95 +- 0.011 are expected: 0.90 and 0.99 are 4.6 and 3.7 standard errors off.
    assert 0.90 < covered < 0.99, f"covered {covered}"
    # Their mean is 0 +- 1/sqrt(400); the reweighted average has a bias of 1/n besides.
    assert abs(np.mean(deviations)) < 4 / repeats**0.5


def gaussian_samples(series: Array, sampled: Sequence[float], now: float) -> Samples:
    """Frames of two Gaussians x and y, [2, frames], under kT c (x + y), with a c of each run.

    As ``slope_samples``, with a second Gaussian: <x> = <y> = -c and d<x>/dc = -1. Recorded is x.
    """
    first = slope_samples(series[0], sampled[0], now)
    sums = np.zeros_like(first.features)
    sums[:, 1] = series.sum(axis=0)
    n = len(sums) // len(sampled)
    each = [np.eye(sums.shape[1])[1] * c for c in sampled]
    runs = tuple(replace(first.runs[0], coefficients=c, n_frames=n) for c in each)
    return replace(first, runs=runs, learned=Features(sums, np.zeros_like(sums)))


SPEEDS = {"fast x, slow y": (0.5, 0.9), "slow x, fast y": (0.9, 0.5), "both fast": (0.0, 0.3)}
RUNS = {"as sampled": [1.0], "reweighted": [0.8], "four runs": [0.6, 0.8, 1.0, 1.1]}


@pytest.mark.parametrize("runs", RUNS)
def test_two_standard_errors_cover_whatever_is_slow(runs: str) -> None:
    """<x> and d<x>/dc, from 1000 frames in one run or in four, with a slow y beside it or before.

    The energy is x + y. Of 120 repeats 95 +- 2 % are expected: 89 % is three standard errors off.
    Blocks of five times the energy's correlation gave 78 to 94 %. ``benchmarks/coverage.py`` has
    more repeats of more cases.
    """
    found = []
    for seed in range(40):
        for speeds in SPEEDS.values():
            rng = np.random.default_rng(seed)
            n = 1000 // len(RUNS[runs])
            parts = [[autoregressive(rng, n, phi) - c for phi in speeds] for c in RUNS[runs]]
            samples = gaussian_samples(np.concatenate(parts, axis=1), RUNS[runs], 1.0)
            estimate = samples.estimate(RECORDED)
            slope, of_slope = samples.gradient(lambda s: s.average(RECORDED)[0])
            off = np.array([estimate.value[0] + 1.0, slope[1] + 1.0])
            found.append(off / [estimate.standard_error[0], of_slope[1]])
    covered = np.mean(np.abs(found) < 2, axis=0)
    assert np.all((covered > 0.89) & (covered < 0.995)), covered


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_the_claim_is_no_larger_than_it_has_to_be(phi: float) -> None:
    """From 4000 frames: within 15 % of what repeats spread by."""
    values, errors = [], []
    for seed in range(200):
        x = autoregressive(np.random.default_rng(seed), 4000, phi)
        estimate = slope_samples(x, 0.0, 0.0).estimate(RECORDED)
        values.append(estimate.value[0])
        errors.append(estimate.standard_error[0])
    assert 0.9 < np.median(errors) / np.std(values) < 1.2


@pytest.mark.parametrize("n", [40, 100])
def test_short_runs_have_students_error_bars(n: int) -> None:
    """Of ten independent blocks or fewer: as many repeats are covered."""
    phi = 0.6  # four frames for one
    hits = []
    for seed in range(400):
        x = autoregressive(np.random.default_rng(seed), n, phi)
        estimate = slope_samples(x, 0.0, 0.0).estimate(RECORDED)
        hits.append(abs(estimate.value[0]) < 2 * estimate.standard_error[0])
    # 0.95 +- 0.011; 400 repeats
    assert 0.915 < np.mean(hits) < 0.985


def test_error_bar_that_ignores_correlations_does_not_cover() -> None:
    """The tests above could fail: independent frames are too sure of themselves."""
    hits = []
    for seed in range(200):
        x = autoregressive(np.random.default_rng(seed), 2000, 0.8)
        hits.append(abs(x.mean()) < 2 * x.std() / len(x) ** 0.5)
    assert np.mean(hits) < 0.7


# Covariance of averages ---------------------------------------------------------------------------


def estimate_of(values: Array, lengths: Sequence[int] | None = None) -> Estimate:
    """Of the plain mean of a series [frames, values]."""
    n, mean = len(values), values.mean(axis=0)
    blocks = assign_blocks(lengths or [n])
    return Estimate.of(mean, (values - mean) / n, np.full(n, 1 / n), blocks, float(n))


def test_independent_frames_have_the_variance_of_a_mean() -> None:
    mixing = np.array([[1.0, 2, 0], [0, 1, 1], [0, 0, 3]])
    exact = mixing.T @ mixing / 5000
    found = [
        estimate_of(np.random.default_rng(k).normal(size=(5000, 3)) @ mixing).covariance
        for k in range(20)
    ]
    size = np.sqrt(np.diag(exact))
    ratio = np.median(found, axis=0) / (size[:, None] * size)
    # each variance to about 20 %, their median to 6 %, and it is up to a tenth too large
    np.testing.assert_allclose(ratio, exact / (size[:, None] * size), atol=0.3)


def test_covariance_is_positive_and_each_value_has_its_own_correlation() -> None:
    """Sixty values, half of them ten times slower, from 600 frames: no direction is free."""
    rng = np.random.default_rng(3)
    values = np.stack([autoregressive(rng, 600, phi) for phi in [0.0, 0.82] * 30], axis=1)
    estimate = estimate_of(values)
    assert np.linalg.eigvalsh(estimate.covariance).min() > 1e-6
    ratio = np.median(np.diag(estimate.covariance).reshape(30, 2), axis=0)
    assert 5 < ratio[1] / ratio[0] < 20


def test_covariance_knows_of_a_slow_mode_that_single_values_hide() -> None:
    """Forty values with a slow part in common, a tenth of their variance: their sum is slow."""
    deviations = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        slow = autoregressive(rng, 2000, 0.95)
        values = rng.normal(size=(2000, 40)) + 0.33 * slow[:, None]
        estimate = estimate_of(values)
        deviations.append(estimate.value.sum() / estimate.covariance.sum() ** 0.5)
    # 0.95 +- 0.022; with the correlations of single frames it is 0.77
    assert np.mean(np.abs(deviations) < 2) > 0.88


def test_what_never_varies_is_known_exactly() -> None:
    values = np.stack([np.ones(300), np.random.default_rng(1).normal(size=300)], axis=1)
    estimate = estimate_of(values)
    assert estimate.standard_error[0] < 1e-12 < estimate.standard_error[1]


def test_a_single_block_has_no_error_bar() -> None:
    weights = np.where(np.arange(20) == 3, 0.999, 0.001 / 19)
    values = np.random.default_rng(4).normal(size=(20, 2))
    influence = weights[:, None] * (values - weights @ values)
    estimate = Estimate.of(weights @ values, influence, weights, assign_blocks([20]), 1.0)
    assert np.all(np.isinf(np.diag(estimate.covariance)))
    assert np.all(estimate.covariance[~np.eye(2, dtype=bool)] == 0)


def test_interval_is_students() -> None:
    error = error_of_sum(
        np.random.default_rng(5).normal(size=(8, 1)), assign_blocks([8]), np.full(8, 1 / 8)
    )
    low, high = error.interval(np.zeros(1), 0.95)
    np.testing.assert_allclose(high, 1.96 * error.standard_error, rtol=1e-4)
    assert error.interval(np.zeros(1), 0.5)[1] < high == -low
    assert student_factor(np.array([1e9])) == pytest.approx(1.0)


# Correlation times ------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9])
def test_statistical_inefficiency_is_that_of_the_autoregression(phi: float) -> None:
    exact = (1 + phi) / (1 - phi)
    found = [
        statistical_inefficiency(autoregressive(np.random.default_rng(seed), 20_000, phi))
        for seed in range(20)
    ]
    error = np.std(found, ddof=1) / len(found) ** 0.5
    # The estimator is biased upwards by about one standard error of 20 repeats.
    assert abs(np.mean(found) - exact) < 5 * error
    assert error < 0.05 * exact


@pytest.mark.parametrize("series", [np.ones(100), np.full(100, -1e6), np.arange(3.0)])
def test_constant_or_very_short_series_is_taken_as_uncorrelated(series: Array) -> None:
    assert statistical_inefficiency(series) == 1.0
    assert detect_equilibration(series) == 0


@pytest.mark.parametrize("seed", range(5))
def test_decaying_transient_is_cut_off(seed: int) -> None:
    noise = autoregressive(np.random.default_rng(seed), 1000, 0.5)
    # 10 exp(-t/30) falls below the noise at t = 69, and below a tenth of it at t = 138.
    start = detect_equilibration(noise + 10 * np.exp(-np.arange(1000) / 30))
    assert 30 <= start <= 250


def test_stationary_series_is_left_nearly_whole() -> None:
    starts = [
        detect_equilibration(autoregressive(np.random.default_rng(seed), 1000, 0.5))
        for seed in range(10)
    ]
    assert np.median(starts) < 100


# Blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_stretches_of_one_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [int(n) for n in rng.integers(1, 600, rng.integers(1, 5))]
    blocks = assign_blocks(lengths)
    assert len(blocks.of_frame) == sum(lengths)
    assert set(np.diff(blocks.of_frame)) <= {0, 1}, "stretches, numbered in order"
    assert blocks.of_frame[0] == 0 and blocks.of_frame[-1] == len(blocks) - 1
    assert np.array_equal(blocks.run[blocks.of_frame], np.repeat(np.arange(len(lengths)), lengths))
    for k, n in enumerate(lengths):
        own = blocks.of_frame[np.repeat(np.arange(len(lengths)), lengths) == k]
        sizes = np.unique(own, return_counts=True)[1]
        assert min(20, n) <= len(sizes) <= 100
        assert sizes.max() - sizes.min() <= 1


def test_number_of_blocks_is_limited_and_frames_may_lack() -> None:
    assert len(assign_blocks([10_000])) == 100
    assert len(assign_blocks([10_000], most=7)) == 7
    assert np.bincount(assign_blocks([10_000, 10, 90]).run).tolist() == [99, 10, 20]
    assert assign_blocks([3]).of_frame.tolist() == [0, 1, 2]
    assert assign_blocks([]).of_frame.tolist() == []


def test_leaving_a_block_out_keeps_the_relative_weights_of_the_others() -> None:
    x = autoregressive(np.random.default_rng(0), 300, 0.0)
    first = slope_samples(x[:200] - 1.0, 1.0, 1.3)
    second = replace(slope_samples(x[200:] - 2.0, 2.0, 1.3), potential=first.potential)
    samples = first + second  # the weights are those of a mixture of two states
    first_block = samples.blocks.of_frame == 0
    part = samples.without(first_block)
    whole = samples.weights()[torch.from_numpy(~first_block)]
    assert part.weights().sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(part.weights(), whole / whole.sum())
