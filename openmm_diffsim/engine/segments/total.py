"""Averages of dynamic observables, with their total derivative and its two parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import SegmentError
from ...observables import SegmentObservable
from ...observables.segment import PathDerivatives, SegmentRecords
from ...samples import Samples, View
from ...statistics.correlated import MOST_BLOCKS, Blocks, SumError, assign_blocks, error_of_sum
from ...units import beta

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Derivative:
    """d<A>/dtheta, flat over the parameters that require a gradient."""

    value: Array  # [n_values, parameters]
    error: SumError  # [n_values, parameters]

    @property
    def standard_error(self) -> Array:
        """Of each, [n_values, parameters]; see ``statistics.correlated``."""
        return self.error.standard_error

    def interval(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Both ends of the confidence interval, by Student's t."""
        return self.error.interval(self.value, confidence)


@dataclass(frozen=True)
class DynamicAverage:
    """<A> of segments that start from equilibrium, and

    d<A>/dtheta = <dA/dtheta along the segment> - beta Cov(A, dU/dtheta(x_0)).
    """

    value: Array  # [n_values]
    standard_error: Array  # [n_values]
    path: Derivative  # how segments move
    ensemble: Derivative  # how their starts are distributed
    total: Derivative
    pathwise_share: Array  # [n_values], of the adjoint in ``path``; the rest is the path score's
    growth: float  # 1/ps, of the adjoint of the last value, back in time: a Lyapunov exponent
    growth_error: float
    n_segments: int
    n_gradients: int  # of those: with a derivative
    n_effective: float  # entropy form, of the starting frames


def dynamic_average(observable: SegmentObservable, samples: Samples) -> DynamicAverage:
    """From the segments that ``samples`` recorded, at the potential's present parameters.

    Error bars are of each part and of their sum: the parts are correlated.

    Raises
    ------
    SegmentError
        If the observable was not recorded.
    OverlapError
        If the frames, or their dynamics, do not reach the present parameters.
    """
    if observable not in samples.records:
        raise SegmentError(str(samples.not_recorded(observable)))
    with torch.no_grad():
        part = samples.at().near(observable)
    estimate = part.estimate(observable)
    parts, data, slopes = _parts(part, observable)
    growth, growth_error = _mean_growth(data.growth.numpy(), parts.blocks)
    return DynamicAverage(
        value=estimate.value,
        standard_error=estimate.standard_error,
        path=parts.derivative(path=True),
        ensemble=parts.derivative(ensemble=True),
        total=parts.derivative(path=True, ensemble=True),
        pathwise_share=slopes.pathwise_share.numpy(),
        growth=growth,
        growth_error=growth_error,
        n_segments=len(part.samples),
        n_gradients=int(slopes.computed.sum()),
        n_effective=estimate.n_effective,
    )


def jacobian_deviations(view: View, observable: SegmentObservable) -> Array:
    """Rows D with Cov(J_vk, J_wl) = sum_b D_bvk D_bwl, [blocks, values, coefficients].

    J = d<A>/dc is the total derivative with respect to the coefficients. Where fewer than two
    blocks carry the weight there is nothing to take its noise from: it is then taken for noise
    altogether.
    """
    parts, *_ = _parts(view.near(observable), observable, by_coefficient=True)
    total = parts.derivative(path=True, ensemble=True)
    if not np.isfinite(total.standard_error).all():
        return total.value[None]
    centered = parts.blocks.centered(parts.influence(path=True, ensemble=True))
    size = np.linalg.norm(centered, axis=0)
    return np.asarray(centered * (total.error.spread / np.where(size > 0, size, 1.0)))


def _parts(
    part: View, observable: SegmentObservable, by_coefficient: bool = False
) -> tuple[_Parts, SegmentRecords, PathDerivatives]:
    samples = part.samples
    with torch.no_grad():
        weights = part.weights.numpy(force=True)
        values = part.values(observable).numpy()
        data = SegmentRecords.unpack(
            torch.from_numpy(samples.records[observable]), observable.n_values
        )
        slopes = data.derivatives(observable.estimator, samples.sampled_coefficients)
    features = samples.learned.linear(part.coefficients, virials=False).energies
    along = slopes.filled.numpy()
    if not by_coefficient:
        pull_back = partial(samples.potential.pull_back, temperature=samples.temperature)
        features = pull_back(features)
        along = pull_back(along.reshape(-1, along.shape[-1])).reshape(*along.shape[:-1], -1)
    computed = slopes.computed.numpy()
    # No block without a derivative, where every other frame or so has one.
    lengths, most = [run.n_frames for run in samples.runs], max(int(computed.sum()), 1)
    parts = _Parts.of(
        weights,
        weights * computed / (weights @ computed),
        values,
        -beta(samples.temperature) * features,
        along,
        assign_blocks(lengths, min(most, MOST_BLOCKS)),
    )
    return parts, data, slopes


def _mean_growth(growth: Array, blocks: Blocks) -> tuple[float, float]:
    """Mean and standard error of what was measured for some of the frames."""
    known = np.isfinite(growth)
    if not known.any():
        return float("nan"), float("nan")
    weights = known / known.sum()
    mean = float(growth[known].mean())
    influence = blocks.sums(weights * np.where(known, growth - mean, 0.0))
    return mean, float(error_of_sum(influence, blocks, weights).standard_error)


@dataclass(frozen=True)
class _Parts:
    """Both parts of the derivative, and the influence of every block on each."""

    blocks: Blocks
    weights: Array  # [frames], of those with a derivative along the segment
    ensemble: Array  # [values, parameters]
    path: Array  # the same
    ensemble_influence: Array  # [blocks, values, parameters]
    path_influence: Array  # the same

    @classmethod
    def of(
        cls, w: Array, path_w: Array, values: Array, slopes: Array, along: Array, blocks: Blocks
    ) -> _Parts:
        """From weights and path weights, normalised [frames], A [frames, values], -beta dU/dtheta
        at the start [frames, parameters], and dA/dtheta along the segment, of all three."""
        # About the mean, lest a covariance be the difference of large numbers.
        a, s = values - w @ values, slopes - w @ slopes
        products = _products(blocks, w[:, None] * a, s)
        ensemble = products.sum(axis=0)
        shares, path_shares = blocks.sums(w), blocks.sums(path_w)
        paths = blocks.sums(path_w[:, None, None] * along)
        path = paths.sum(axis=0)
        return cls(
            blocks,
            path_w,
            ensemble,
            path,
            products - shares[:, None, None] * ensemble,
            paths - path_shares[:, None, None] * path,
        )

    def derivative(self, path: bool = False, ensemble: bool = False) -> Derivative:
        """The parts that are asked for, and the error of their sum."""
        value = path * self.path + ensemble * self.ensemble
        influence = self.influence(path, ensemble)
        return Derivative(value, error_of_sum(influence, self.blocks, self.weights))

    def influence(self, path: bool = False, ensemble: bool = False) -> Array:
        """Of every block on the parts that are asked for, [blocks, values, parameters]."""
        return np.asarray(path * self.path_influence + ensemble * self.ensemble_influence)


def _products(blocks: Blocks, a: Array, s: Array) -> Array:
    """sum_n a_nv s_np over the frames of each block, [blocks, values, parameters]."""
    ends = np.flatnonzero(np.diff(blocks.of_frame)) + 1
    pairs = zip(np.split(a, ends), np.split(s, ends), strict=True)
    return np.array([first.T @ second for first, second in pairs])
