"""Error bars cover what they should: repeated on series whose averages are known exactly."""

from __future__ import annotations

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
    assign_blocks,
    block_covariance,
    detect_equilibration,
    effective_blocks,
    jackknife_standard_error,
    statistical_inefficiency,
)
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


def test_error_bar_knows_of_an_observable_slower_than_the_energy() -> None:
    hits = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        slow = autoregressive(rng, 4000, 0.95)
        samples = slope_samples(autoregressive(rng, 4000, 0.5), 0.0, 0.0)
        samples = replace(samples, records={RECORDED: np.stack([0.1 * slow, slow], axis=1)})
        estimate = samples.estimate(RECORDED)
        hits.append(abs(estimate.value[1]) < 1.96 * estimate.standard_error[1])
    # 0.95 +- 0.013 are expected; with the blocks of the energy it is 0.8.
    assert 0.90 < np.mean(hits) < 0.99


def test_error_bar_that_ignores_correlations_does_not_cover() -> None:
    """The test above could fail: each frame its own block is too sure of itself."""
    hits = []
    for seed in range(200):
        x = autoregressive(np.random.default_rng(seed), 2000, 0.8)
        weights = np.full(len(x), 1 / len(x))
        variance = block_covariance(x[:, None], weights, np.arange(len(x)))[0, 0]
        hits.append(abs(x.mean()) < 1.96 * variance**0.5)
    assert np.mean(hits) < 0.7


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_two_standard_errors_hold_the_gradient_in_nine_of_ten_repeats(phi: float) -> None:
    repeats, deviations = 200, []
    for seed in range(repeats):
        x = autoregressive(np.random.default_rng(seed), 2000, phi) - 1.0
        samples = slope_samples(x, 1.0, 1.1)
        gradient, error = samples.gradient(lambda s: (s.average(RECORDED)[0] + 3.0) ** 2)
        # L = (3 - c)^2: dL/dc = -2 (3 - c)
        deviations.append((gradient[1] + 2 * 1.9) / error[1])
    covered = float(np.mean(np.abs(deviations) < 1.96))
    # 600 repeats gave 0.935 and 0.918: blocks of five correlation times make the error bar up to a
    # tenth too small. Of 200 repeats 0.92 +- 0.019 are expected: 0.87 is 2.6 standard errors off.
    assert 0.87 < covered < 0.99, f"covered {covered}"


# Block covariance -------------------------------------------------------------------------------


def test_independent_frames_have_the_variance_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3)) @ [[1, 2, 0], [0, 1, 1], [0, 0, 3]]
    weights = np.full(50, 1 / 50)
    covariance = block_covariance(values, weights, np.arange(50))
    np.testing.assert_allclose(covariance, np.cov(values.T) / 50, rtol=1e-12)


def test_equal_blocks_have_the_variance_of_their_means() -> None:
    values = np.random.default_rng(2).normal(size=(60, 2))
    blocks = np.repeat(np.arange(6), 10)
    means = values.reshape(6, 10, 2).mean(axis=1)
    covariance = block_covariance(values, np.full(60, 1 / 60), blocks)
    np.testing.assert_allclose(covariance, np.cov(means.T) / 6, rtol=1e-12)
    leave_one_out = (means.sum(axis=0) - means) / 5
    error = jackknife_standard_error(leave_one_out)
    np.testing.assert_allclose(error**2, np.diag(covariance), rtol=1e-12)


def test_blocks_without_weight_count_for_nothing() -> None:
    values = np.random.default_rng(3).normal(size=(60, 1))
    blocks = np.repeat(np.arange(6), 10)
    weights = np.where(blocks < 4, 1 / 40, 0.0)
    expected = block_covariance(values[:40], weights[:40], blocks[:40])
    np.testing.assert_allclose(block_covariance(values, weights, blocks), expected, rtol=1e-12)
    assert effective_blocks(weights, blocks) == pytest.approx(4)


def test_a_single_block_has_no_error_bar() -> None:
    values = np.random.default_rng(4).normal(size=(20, 2))
    blocks = np.repeat([0, 1], 10)
    weights = np.where(blocks == 0, 0.0999, 0.0001)
    covariance = block_covariance(values, weights, blocks)
    assert np.all(np.isinf(np.diag(covariance)))
    assert np.all(covariance[~np.eye(2, dtype=bool)] == 0)


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
def test_blocks_are_stretches_of_one_run_and_long_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [int(n) for n in rng.integers(1, 600, rng.integers(1, 5))]
    inefficiency = float(rng.uniform(1, 30))
    blocks = assign_blocks(lengths, inefficiency)
    assert len(blocks) == sum(lengths)
    assert set(np.diff(blocks)) <= {0, 1}, "stretches, numbered in order"
    assert blocks[0] == 0
    first = 0
    for run, n in enumerate(lengths):
        own = blocks[first : first + n]
        others = np.concatenate([blocks[:first], blocks[first + n :]])
        assert not set(own) & set(others), f"run {run} shares a block"
        sizes = np.unique(own, return_counts=True)[1]
        assert min(4, n) <= len(sizes) <= 50
        assert sizes.max() - sizes.min() <= 1
        if len(sizes) > 4:
            assert sizes.min() >= 5 * inefficiency - 1
        first += n


def test_number_of_blocks_is_limited_and_frames_may_lack() -> None:
    assert assign_blocks([10_000], 1.0).max() == 49
    assert assign_blocks([10_000], 1.0, most_per_run=20).max() == 19
    assert assign_blocks([3], 100.0).tolist() == [0, 1, 2]
    assert assign_blocks([], 1.0).tolist() == []


def test_leaving_a_block_out_keeps_the_relative_weights_of_the_others() -> None:
    x = autoregressive(np.random.default_rng(0), 300, 0.0)
    first = slope_samples(x[:200] - 1.0, 1.0, 1.3)
    second = replace(slope_samples(x[200:] - 2.0, 2.0, 1.3), potential=first.potential)
    samples = first + second  # the weights are those of a mixture of two states
    part = samples.without(samples.blocks == 0)
    whole = samples.weights()[torch.from_numpy(samples.blocks != 0)]
    assert part.weights().sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(part.weights(), whole / whole.sum())
