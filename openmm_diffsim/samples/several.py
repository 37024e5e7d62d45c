"""What frames of several state points say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import ObservableError
from ..limits import shown
from ..observables import Observable, check_observable, linearized
from ..statistics.averages import Estimate
from .samples import Samples


def estimate(observable: Observable, samples: Samples | Sequence[Samples]) -> Estimate:
    """f(<A>, <B>, ...) of averages at several state points, with its standard error.

        heat = diffsim.estimate(HeatOfVaporization(), [liquid_samples, gas_samples])

    At the present parameters. Frames of different state points are independent,

        Cov f = sum_s L_s Cov_s L_s^T,

    with the derivatives L_s of f by the averages at s, and the covariance Cov_s of these, whose
    frames are the same.

    Parameters
    ----------
    observable : Observable
        Such as a FunctionOfAverages.
    samples : Samples, or sequence of Samples
        Of each state point, in the order that the observable takes them in; with what is recorded
        of it, ``observable.observables`` of a FunctionOfAverages.

    Raises
    ------
    ObservableError
        If something is no Samples, was not recorded, or there are too many or too few.
    OverlapError
        If too few frames are effective.
    """
    check_observable(observable)
    given = [samples] if isinstance(samples, Samples) else samples
    if not isinstance(given, Sequence) or not all(isinstance(s, Samples) for s in given):
        raise ObservableError(
            f"samples: got {shown(samples)}, expected Samples, or a list of them, one of each "
            "state point",
            got=samples,
        )
    terms = observable.terms(given)
    order = [next(k for k, s in enumerate(given) if s is point) for point, _ in terms]
    with torch.no_grad():
        views = [point.at() for point in given]
        of_points = [
            view.together([o for (_, o), k in zip(terms, order, strict=True) if k == own])
            for own, view in enumerate(views)
        ]
    return _combined(observable, order, of_points)


def _combined(
    observable: Observable, order: Sequence[int], of_points: Sequence[tuple[list[int], Estimate]]
) -> Estimate:
    """From the point of each term, and of each point the sizes of its terms and all of them."""
    parts = [iter(np.split(e.value, np.cumsum(sizes)[:-1])) for sizes, e in of_points]
    value, slopes = linearized(observable, [torch.from_numpy(next(parts[k])) for k in order])
    covariance = np.zeros((len(value), len(value)))
    for own, (_, found) in enumerate(of_points):
        columns = [slope for slope, k in zip(slopes, order, strict=True) if k == own]
        slope = np.concatenate(columns, axis=1)
        covariance += slope @ found.covariance @ slope.T
    return Estimate(
        value=value,
        standard_error=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        n_effective=min(found.n_effective for _, found in of_points),
        n_blocks=min(found.n_blocks for _, found in of_points),
    )
