"""Differentiable trajectory segments."""

from .fields import ContextField, TorchField
from .integrators import (
    Scheme,
    langevin,
    langevin_middle,
    leapfrog,
    nose_hoover,
    read_scheme,
    velocity_verlet,
)
from .recorder import SegmentRecorder
from .segment import SegmentRunner
from .total import Derivative, DynamicAverage, dynamic_average, jacobian_deviations

__all__ = [
    "ContextField",
    "Derivative",
    "DynamicAverage",
    "Scheme",
    "SegmentRecorder",
    "SegmentRunner",
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
