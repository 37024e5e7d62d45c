"""Averages of dynamic observables, with their total derivative and its two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..averages import block_standard_error
from ..errors import SegmentError
from ..observables import SegmentObservable
from ..observables.segment import SegmentRecords
from ..potentials import parameter_chain
from ..samples import Samples
from ..units import beta

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Derivative:
    """d<A>/dtheta, flat over the parameters that require a gradient."""

    value: Array  # [n_values, parameters]
    standard_error: Array  # [n_values, parameters]


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

    Error bars are those of block influences, each part with its own and the sum with that of the
    sum, whose parts are correlated.

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
    part = samples.near(observable)
    estimate = part.estimate(observable)
    with torch.no_grad():
        weights = part.weights().numpy()
        values = part.values(observable).numpy()
        records = torch.from_numpy(part.records[observable])
        data = SegmentRecords.unpack(records, observable.n_values)
        slopes = data.derivatives(observable.estimator)
    chain = parameter_chain(part.potential, part.temperature)
    blocks = part.blocks_of(values)

    along = slopes.filled.numpy() @ chain  # [frames, values, parameters]
    computed = weights * slopes.computed.numpy()
    computed /= computed.sum()
    path = np.einsum("f,fvp->vp", computed, along)
    energy_slopes = part.basis_sums.reshape(len(part), -1) @ chain
    energy_slopes = energy_slopes - weights @ energy_slopes
    products = np.einsum("fv,fp->fvp", values - estimate.value, energy_slopes)
    products *= -beta(part.temperature)
    ensemble = np.einsum("f,fvp->vp", weights, products)

    path_influence = computed[:, None, None] * (along - path)
    ensemble_influence = weights[:, None, None] * (products - ensemble)

    def with_error(value: Array, influence: Array) -> Derivative:
        flat = influence.reshape(len(influence), -1)
        return Derivative(value, block_standard_error(flat, weights, blocks).reshape(value.shape))

    growth = data.growth[torch.isfinite(data.growth)].numpy()
    return DynamicAverage(
        value=estimate.value,
        standard_error=estimate.standard_error,
        path=with_error(path, path_influence),
        ensemble=with_error(ensemble, ensemble_influence),
        total=with_error(path + ensemble, path_influence + ensemble_influence),
        pathwise_share=slopes.pathwise_share.numpy(),
        growth=float(growth.mean()) if len(growth) else float("nan"),
        growth_error=float(growth.std() / np.sqrt(len(growth))) if len(growth) else float("nan"),
        n_segments=len(part),
        n_gradients=int(slopes.computed.sum()),
        n_effective=estimate.n_effective,
    )
