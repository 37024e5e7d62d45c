"""Refinement: targets, methods, the loop, checkpoints."""

from .gauss_newton import GaussNewtonOptions
from .initial import boltzmann_inversion
from .loop import Refinement, Round
from .methods import (
    GaussNewton,
    IterativeBoltzmannInversion,
    RelativeEntropy,
    TorchOptimizer,
)
from .targets import Target

__all__ = [
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Refinement",
    "RelativeEntropy",
    "Round",
    "Target",
    "TorchOptimizer",
    "boltzmann_inversion",
]
