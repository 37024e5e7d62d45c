"""Averages of correlated frames, and how long a run is against its correlations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .correlated import Blocks, covariance_of_sum, error_of_sum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An average, with what is needed to judge it."""

    value: Array  # [values]
    standard_error: Array  # [values]
    covariance: Array  # [values, values], of the average
    n_effective: float  # entropy form
    n_blocks: int  # independent ones, behind the error of the slowest value

    @classmethod
    def of(
        cls, value: Array, influence: Array, weights: Array, blocks: Blocks, n_effective: float
    ) -> Estimate:
        """From the influence of every frame on each value, [frames, values].

        ``weights`` are those of the frames, [frames], normalised.
        """
        error = error_of_sum(blocks.sums(influence), blocks, weights)
        return cls(
            value=value,
            standard_error=error.standard_error,
            covariance=covariance_of_sum(influence, blocks, error),
            n_effective=n_effective,
            n_blocks=1 + round(max(0.0, float(error.freedom.min(initial=len(blocks))))),
        )


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


def _timeseries() -> Any:
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar import timeseries

    return timeseries
