"""What can be tuned of Gauss-Newton."""

from __future__ import annotations

from dataclasses import dataclass

from ..comparison import Knowledge


@dataclass(frozen=True)
class GaussNewtonOptions(Knowledge):
    """What can be tuned; the defaults need no tuning."""

    roughness: float = 2e5  # q, (kT)^2 / (distance of nearest neighbours)^3
    network_steps: int = 5  # most steps of an update of a network
    stride: float = 0.03  # variance of the change of U/kT of a network in a round, per particle
