"""Averages of dynamic observables, with their total derivative and its two parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t

from ...errors import SegmentError
from ...observables import SegmentObservable
from ...observables.segment import PathDerivatives, SegmentRecords
from ...samples import Samples, View
from ...statistics.averages import effective_blocks, jackknife_standard_error
from ...units import beta

Array = NDArray[np.float64]

_FEWEST_BLOCKS = 1.5  # effective ones, for an error bar


@dataclass(frozen=True)
class Derivative:
    """d<A>/dtheta, flat over the parameters that require a gradient."""

    value: Array  # [n_values, parameters]
    standard_error: Array  # [n_values, parameters]
    n_blocks: float  # what the error bar rests on

    def interval(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Both ends of the confidence interval, by Student's t for so many blocks."""
        wide = t.ppf(0.5 + confidence / 2, max(self.n_blocks - 1, 1)) * self.standard_error
        return self.value - wide, self.value + wide


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

    Error bars are jackknives over blocks, of each part and of their sum: the parts are correlated.

    Raises
    ------
    SegmentError
        If the observable was not recorded.
    OverlapError
        If the frames, or their dynamics, do not reach the present parameters.
    """
    if observable not in samples.records:
        raise SegmentError(
            f"{type(observable).__name__} was not recorded: pass it to sample(record=[...])"
        )
    with torch.no_grad():
        part = samples.at().near(observable)
    estimate = part.estimate(observable)
    sums, data, slopes = _block_sums(part, observable)
    growth, growth_error = _mean_growth(data.growth.numpy(), part.samples.blocks)
    return DynamicAverage(
        value=estimate.value,
        standard_error=estimate.standard_error,
        path=sums.derivative(path=True),
        ensemble=sums.derivative(ensemble=True),
        total=sums.derivative(path=True, ensemble=True),
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
    sums, *_ = _block_sums(view.near(observable), observable, by_coefficient=True)
    deviations = sums.deviations(path=True, ensemble=True)
    if sums.n_blocks < _FEWEST_BLOCKS or not np.isfinite(deviations).all():
        return sums.derivative(path=True, ensemble=True).value[None]
    return deviations


def _block_sums(
    part: View, observable: SegmentObservable, by_coefficient: bool = False
) -> tuple[_BlockSums, SegmentRecords, PathDerivatives]:
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
    sums = _BlockSums(
        weights,
        weights * slopes.computed.numpy(),
        values,
        features,
        along,
        -beta(samples.temperature),
        samples.blocks_of(values),
    )
    return sums, data, slopes


def _mean_growth(growth: Array, blocks: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard error of what was measured for some of the frames."""
    known = np.isfinite(growth)
    if not known.any():
        return float("nan"), float("nan")
    _, blocks = np.unique(blocks[known], return_inverse=True)
    sums, sizes = np.bincount(blocks, growth[known]), np.bincount(blocks)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return mean, float("inf")
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    return mean, float(jackknife_standard_error(left_out[:, None])[0])


class _BlockSums:
    """Both parts of the derivative, of all blocks and of all but one.

    Parameters
    ----------
    w, path_w : [frames], weights of all frames, and of those with a derivative along the segment
    values : [frames, values], A
    energy_slopes : [frames, parameters], dU/dtheta at the start
    along : [frames, values, parameters], dA/dtheta along the segment
    factor : -beta
    blocks : int [frames]
    """

    def __init__(
        self,
        w: Array,
        path_w: Array,
        values: Array,
        energy_slopes: Array,
        along: Array,
        factor: float,
        blocks: NDArray[np.int64],
    ) -> None:
        self.factor = factor
        self.n_blocks = effective_blocks(w, blocks)
        belongs = np.eye(int(blocks.max()) + 1)[:, blocks]  # [blocks, frames]
        # About the mean, lest a covariance be the difference of large numbers.
        a, s = values - w @ values, energy_slopes - w @ energy_slopes
        self.w, self.path_w = belongs @ w, belongs @ path_w
        self.a, self.s = (belongs * w) @ a, (belongs * w) @ s
        self.products = np.einsum("bf,fv,fp->bvp", belongs * w, a, s)
        self.along = np.einsum("bf,fvp->bvp", belongs * path_w, along)

    def derivative(self, path: bool = False, ensemble: bool = False) -> Derivative:
        """The parts that are asked for, and the jackknife over blocks of their sum."""
        (value,) = self._estimates(np.ones((1, len(self.w))), path, ensemble)
        error = np.sqrt(np.sum(self.deviations(path, ensemble) ** 2, axis=0))
        # Not finite: one block has all derivatives along segments.
        error = np.where((self.n_blocks >= _FEWEST_BLOCKS) & np.isfinite(error), error, np.inf)
        return Derivative(value, error, self.n_blocks)

    def deviations(self, path: bool = False, ensemble: bool = False) -> Array:
        """Of the estimates without one block each, scaled so that their squares add up to the
        variance, [blocks, values, parameters]."""
        n = len(self.w)
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = self._estimates(1 - np.eye(n), path, ensemble)
        return np.asarray(np.sqrt((n - 1) / n) * (left_out - left_out.mean(axis=0)))

    def _estimates(self, keep: Array, path: bool, ensemble: bool) -> Array:
        """For each row of ``keep`` [sets, blocks], [sets, values, parameters]."""
        found = np.zeros((len(keep), *self.products.shape[1:]))
        if ensemble:
            w = (keep @ self.w)[:, None, None]
            products = np.einsum("nb,bvp->nvp", keep, self.products) / w
            means = (keep @ self.a)[:, :, None] / w, (keep @ self.s)[:, None, :] / w
            found += self.factor * (products - means[0] * means[1])
        if path:
            w = (keep @ self.path_w)[:, None, None]
            found += np.einsum("nb,bvp->nvp", keep, self.along) / w
        return found
