"""Differentiable trajectory segments."""

from .fields import SystemField, TorchField
from .integrators import (
    Scheme,
    langevin,
    langevin_middle,
    leapfrog,
    nose_hoover,
    read_scheme,
    velocity_verlet,
)
from .options import SegmentOptions
from .recorder import SegmentRecorder
from .segment import SegmentRunner
from .total import Derivative, DynamicAverage, dynamic_average, jacobian_deviations

__all__ = [
    "Derivative",
    "DynamicAverage",
    "Scheme",
    "SegmentOptions",
    "SegmentRecorder",
    "SegmentRunner",
    "SystemField",
    "TorchField",
    "dynamic_average",
    "jacobian_deviations",
    "langevin",
    "langevin_middle",
    "leapfrog",
    "nose_hoover",
    "read_scheme",
    "velocity_verlet",
]
