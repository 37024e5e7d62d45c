"""How far the measured Jacobian of a dynamic observable may be off."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..averages import effective_blocks
from ..observables import SegmentObservable
from ..observables.segment import SegmentRecords
from ..samples import Samples
from ..units import beta

Array = NDArray[np.float64]


def jacobian_deviations(samples: Samples, observable: SegmentObservable) -> Array:
    """Rows D with Cov(J_vk, J_wl) = sum_b D_bvk D_bwl, [blocks, values, coefficients].

    J = <dA/dc along a segment> - beta Cov(A, S) is an average over segments; its error is the sum
    of the block influences, as in ``averages.block_covariance``. Where fewer than two blocks carry
    the weight there is nothing to take it from: the Jacobian is then taken for noise altogether.
    """
    part = samples.near(observable)
    with torch.no_grad():
        weights = part.weights().numpy()
        values = part.values(observable).numpy()
        records = torch.from_numpy(part.records[observable])
        slopes = SegmentRecords.unpack(records, observable.n_values).derivatives(
            observable.estimator
        )
    along = slopes.filled.numpy()  # [frames, values, coefficients]
    computed = weights * slopes.computed.numpy()
    computed /= computed.sum()
    sums = part.basis_sums.reshape(len(part), -1)
    products = -beta(part.temperature) * np.einsum(
        "fv,fk->fvk", values - weights @ values, sums - weights @ sums
    )
    path, ensemble = np.tensordot(computed, along, 1), np.tensordot(weights, products, 1)
    blocks = part.blocks_of(values)
    effective = effective_blocks(weights, blocks)
    if effective < 1.5:
        return (path + ensemble)[None]
    influence = np.zeros((int(blocks.max()) + 1, *path.shape))
    np.add.at(influence, blocks, computed[:, None, None] * (along - path))
    np.add.at(influence, blocks, weights[:, None, None] * (products - ensemble))
    return np.asarray(np.sqrt(effective / (effective - 1)) * influence)
