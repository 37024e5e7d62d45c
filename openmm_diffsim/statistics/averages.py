"""Error bars of weighted averages over correlated frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An average, with what is needed to judge it."""

    value: Array  # [values]
    standard_error: Array  # [values]
    covariance: Array  # [values, values], of the average
    n_effective: float  # entropy form
    n_blocks: int  # what the error bar rests on


def statistical_inefficiency(series: Array) -> float:
    """g = 1 + 2 tau: frames per independent one, from pymbar's estimator.

    A constant series gives 1.
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 4 or np.ptp(series) <= 1e-12 * max(1.0, float(np.abs(series).max())):
        return 1.0
    return float(max(1.0, _timeseries().statistical_inefficiency(series)))


def detect_equilibration(series: Array) -> int:
    """First frame after the initial transient (Chodera, JCTC 12, 1799 (2016); pymbar).

    Never beyond the middle: a run that needs longer has not equilibrated, see ``drift``.
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 10 or np.ptp(series) <= 1e-12 * max(1.0, float(np.abs(series).max())):
        return 0
    stride = max(1, len(series) // 200)
    start, _, _ = _timeseries().detect_equilibration(series, fast=True, nskip=stride)
    return min(int(start), len(series) // 2)


def drift(series: Array) -> float:
    """Difference between the means of both halves, in its standard errors.

    Each half's error counts its own correlations. White noise exceeds 3.5 once in 2000 series; a
    straight line gives about 4.2.
    """
    halves = np.array_split(np.asarray(series, dtype=np.float64), 2)
    if min(map(len, halves)) < 5:
        return 0.0
    inefficiency = max(map(statistical_inefficiency, halves))
    error = np.sqrt(sum(half.var(ddof=1) / len(half) for half in halves) * inefficiency)
    difference = abs(halves[0].mean() - halves[1].mean())
    return float(difference / error) if error > 0 else 0.0


def assign_blocks(
    lengths: Sequence[int], inefficiency: float, most_per_run: int = 50
) -> NDArray[np.int64]:
    """Block of each frame: contiguous stretches of one run, long against the correlations.

    Parameters
    ----------
    lengths : frames of each run, in order; no block crosses from one run to the next
    inefficiency : frames per independent frame; a block holds at least 5 of those where the run
        is long enough for four such blocks
    most_per_run : int
        More blocks than this add nothing.

    Returns
    -------
    int array [frames]
    """
    blocks, first = [], 0
    for length in lengths:
        wanted = length // max(1.0, np.ceil(5 * inefficiency))
        n = int(np.clip(wanted, min(4, length), most_per_run))
        blocks.append(first + (np.arange(length) * n) // max(length, 1))
        first += n
    return np.concatenate(blocks).astype(np.int64) if blocks else np.zeros(0, dtype=np.int64)


def block_covariance(values: Array, weights: Array, blocks: NDArray[np.int64]) -> Array:
    """Covariance of the weighted average of ``values``, shape [values, values].

    The weighted average is a ratio of sums over blocks; to first order its error is the sum of
    the independent block influences I_b = sum_{n in b} w_n (A_n - <A>), so
    Cov = B/(B-1) sum_b I_b I_b^T. Blocks without weight count for nothing: B is
    1 / sum_b W_b^2 with W_b the weight of block b.

    Parameters
    ----------
    values : array [frames, values]
    weights : array [frames], normalised
    blocks : int array [frames], from ``assign_blocks``

    Returns
    -------
    array [values, values]; infinite variances on the diagonal where fewer than two blocks carry
    the weight.
    """
    n_blocks = int(blocks.max()) + 1
    deviations = weights[:, None] * (values - weights @ values)
    influence = np.zeros((n_blocks, values.shape[1]))
    np.add.at(influence, blocks, deviations)
    effective = effective_blocks(weights, blocks)
    if effective < 1.5:
        return np.diag(np.full(values.shape[1], np.inf))
    return np.asarray(effective / (effective - 1) * influence.T @ influence)


def effective_blocks(weights: Array, blocks: NDArray[np.int64]) -> float:
    """1 / sum_b W_b^2: number of blocks that carry the weight."""
    return float(1.0 / np.sum(np.bincount(blocks, weights) ** 2))


def jackknife_standard_error(leave_one_out: Array) -> Array:
    """Standard error from delete-one-block values, shape [blocks, values] -> [values]."""
    n = len(leave_one_out)
    centered = leave_one_out - leave_one_out.mean(axis=0)
    return np.asarray(np.sqrt((n - 1) / n * np.sum(centered**2, axis=0)))


def _timeseries() -> Any:
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar import timeseries

    return timeseries
