"""The path score: derivatives of averages over Langevin segments, from the noise.

A segment is fixed by its positions and the potential. Let the forces change by dF. The same
positions then come from another noise and other velocities: with q_t = dv1_t, the change of the
velocity after the first kick of step t (see ``integrators.Scheme``; kick2 = 0),

    d noise_t = -(h + scale) q_t,   dv_{t+1} = -h q_t,   q_{t+1} = -h q_t + kick1 dF_{t+1}/m,

h = drift1/drift2 (1 for LangevinMiddle, 0 for ``langevin``). The probability of the noise
changes by -noise . d noise / var(noise), so

    d<A> = <(A - <A>) score> + <sum_t dA/dv_t . dv_t>,
    score = sum_t (h + scale) noise_t . q_t / var(noise) + m v_0 . dv_0-part / R T.

The initial velocity is drawn too, so part of the first kick is taken by it,
dv_0 = -h/(1+h) kick1 dF_0/m, which leaves q_0 = kick1 dF_0/m / (1+h) and q without a jump. No
Hessian occurs, and a value that depends only on the first steps needs only their score. Girsanov's
theorem for a splitting; compare Kieninger and Keller, J. Chem. Phys. 154, 094102 (2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import SegmentError
from ..units import MOLAR_GAS_CONSTANT
from .integrators import Scheme

Array = NDArray[np.float64]


def check_has_score(scheme: Scheme) -> None:
    """Raises SegmentError for dynamics without noise."""
    if not scheme.is_noisy:
        raise SegmentError(
            f"the path score is that of the noise, and {scheme.name} has none: expected Langevin "
            "dynamics, or estimator='pathwise'",
            got=scheme.name,
        )


def score_weights(scheme: Scheme, noise: Array, v0: Array, steps: int, temperature: float) -> Array:
    """Weights w [steps, particles, 3] with score = sum_t w_t . dF_t/dc, of the first steps.

    Parameters
    ----------
    noise : array [>= steps, particles, 3], nm/ps
    v0 : array [particles, 3], nm/ps, drawn at ``temperature`` (K)
    """
    kick, h, scale = _constants(scheme)
    assert scheme.temperature is not None
    variance = MOLAR_GAS_CONSTANT * scheme.temperature * (1 - scale**2)  # times 1/m
    if steps == 0:
        return np.zeros((0, *v0.shape))
    w = _backward((h + scale) / variance * noise[:steps], h)
    w[0] = w[0] / (1 + h) + h / (1 + h) * v0 / (MOLAR_GAS_CONSTANT * temperature)
    return np.asarray(kick * w)


def explicit_weights(scheme: Scheme, by_velocity: Array, masses: Array) -> Array:
    """Weights w [steps, particles, 3] with sum_t dA/dv_t . dv_t = sum_t w_t . dF_t.

    ``by_velocity`` is dA/dv_t, [steps + 1, particles, 3].
    """
    kick, h, _ = _constants(scheme)
    if len(by_velocity) == 1:
        return np.zeros((0, *by_velocity.shape[1:]))
    w = _backward(-h * by_velocity[1:], h)
    w[0] = w[0] / (1 + h) - h / (1 + h) * by_velocity[0]
    inverse = np.divide(1, masses, out=np.zeros_like(masses), where=masses > 0)
    return np.asarray(kick * inverse[:, None] * w)


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
