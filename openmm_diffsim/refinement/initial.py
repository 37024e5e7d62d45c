"""First guesses of a potential, from the measured g(r) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..potentials import SplinePair
from ..units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]


def boltzmann_inversion(
    potential: SplinePair,
    r: ArrayLike,
    g: ArrayLike,
    temperature: float,
    pair: int = 0,
    least_g: float = 0.05,
) -> SplinePair:
    """Set one pair of types to the potential of mean force, w(r) = -R T ln g(r).

    Where g < ``least_g`` the noise of ln g takes over: from the last such point inwards w goes
    on as a parabola c + a (r_0 - r) + b (r_0 - r)^2 with the slope found just outside and b > 0,
    and that point becomes the core radius. w is shifted to zero at the cutoff.

    Parameters
    ----------
    r, g : arrays [points], nm; sorted
    temperature : float, K

    Raises
    ------
    TargetError
        If g never exceeds ``least_g`` below the cutoff.
    """
    r, g = np.asarray(r, dtype=np.float64), np.asarray(g, dtype=np.float64)
    low = np.nonzero((g >= least_g) & (r < potential.basis.cutoff))[0]
    if len(low) == 0:
        raise TargetError(f"g(r) is nowhere above {least_g} below the cutoff: cannot invert it")
    first = low[0]
    r_out, w_out = (
        r[first:],
        -MOLAR_GAS_CONSTANT * temperature * np.log(np.maximum(g[first:], least_g)),
    )
    slope = _wall_slope(r_out, w_out)
    inner = potential.basis.centers
    inner = inner[inner < r_out[0] - 0.25 * potential.basis.spacing]
    depth = r_out[0] - inner
    curvature = slope / max(0.1 * r_out[0], potential.basis.spacing)
    w_in = w_out[0] + slope * depth + 0.5 * curvature * depth**2
    potential.set_table(np.concatenate([inner, r_out]), np.concatenate([w_in, w_out]), pair)
    radius = potential.core_radius.clone()
    radius[pair] = r_out[0]
    potential.set_core(radius.numpy())
    return potential


def _wall_slope(r: Array, w: Array) -> float:
    """Steepness of the wall, kJ/mol/nm, over the first points that fall."""
    peak = int(np.argmin(w[: max(3, len(w) // 2)]))
    last = max(1, peak // 2)
    return float(max((w[0] - w[last]) / (r[last] - r[0]), 1.0))
