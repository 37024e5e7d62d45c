"""The path score: derivatives of averages over Langevin segments, from the noise.

A segment is fixed by its positions and the potential. Let the forces change by dF. The same
positions then come from another noise and other velocities: with q_t = dv1_t, the change of the
velocity after the first kick of step t (see ``integrators.Scheme``; kick2 = 0),

    d noise_t = -(h + scale) q_t,   dv_{t+1} = -h q_t,   q_{t+1} = -h q_t + kick1 dF_{t+1}/m,

h = drift1/drift2 (1 for LangevinMiddle, 0 for ``langevin``). A velocity that is drawn lags
behind, v_0 = drawn - lag F_0/m, so dv_0 = -lag dF_0/m and q_0 = (kick1 - lag) dF_0/m. The
probability of the noise changes by -noise . d noise / var(noise), so

    d<A> = <(A - <A>) score> + <sum_t dA/dv_t . dv_t>,
    score = sum_t (h + scale) noise_t . q_t / var(noise).

No Hessian occurs, and a value that depends only on the first steps needs only their score. This is
Girsanov's theorem for a splitting, exact in expectation; compare Kieninger and Keller, J. Chem.
Phys. 154, 094102 (2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import SegmentError
from ...units import MOLAR_GAS_CONSTANT
from .integrators import Scheme, inverse_masses

Array = NDArray[np.float64]


def check_has_score(scheme: Scheme) -> None:
    """Raises SegmentError for dynamics without noise."""
    if not scheme.is_noisy:
        raise SegmentError(
            f"the path score is that of the noise, and {scheme.name} has none: expected Langevin "
            "dynamics, or estimator='pathwise'",
            got=scheme.name,
        )


def score_weights(scheme: Scheme, noise: Array) -> Array:
    """Weights w with score = sum_t w_t . dF_t/dc, of noise in nm/ps, both [steps, particles, 3]."""
    if len(noise) == 0:
        return np.zeros_like(noise)
    kick1, h, scale = _constants(scheme)
    assert scheme.temperature is not None
    variance = MOLAR_GAS_CONSTANT * scheme.temperature * (1 - scale**2)  # times 1/m
    w = kick1 * _backward((h + scale) / variance * noise, h)
    w[0] *= 1 - scheme.lag / kick1
    return w


def explicit_weights(scheme: Scheme, by_velocity: Array, masses: Array) -> Array:
    """Weights w [steps, particles, 3] with sum_t dA/dv_t . dv_t = sum_t w_t . dF_t.

    ``by_velocity`` is dA/dv_t, [steps + 1, particles, 3]. With no step, one weight is left.
    """
    kick1, h, _ = _constants(scheme)
    w = np.zeros((max(len(by_velocity) - 1, 1), *by_velocity.shape[1:]))
    if len(by_velocity) > 1:
        w = kick1 * _backward(-h * by_velocity[1:], h)
        w[0] *= 1 - scheme.lag / kick1
    w[0] -= scheme.lag * by_velocity[0]
    return np.asarray(inverse_masses(masses) * w)


def _constants(scheme: Scheme) -> tuple[float, float, float]:
    kick1, drift1, scale, drift2, kick2 = scheme.splitting
    assert kick2 == 0
    return kick1, drift1 / drift2, scale


def _backward(source: Array, h: float) -> Array:
    """y_t = source_t - h y_{t+1}: how the force at t acts through all q that follow."""
    y = np.array(source)
    for t in reversed(range(len(y) - 1)):
        y[t] -= h * y[t + 1]
    return y
