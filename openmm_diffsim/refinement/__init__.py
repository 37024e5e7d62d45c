"""Refinement: targets, methods, the loop, checkpoints."""

from .initial import boltzmann_inversion
from .loop import Refinement, Round
from .methods.gauss_newton import GaussNewtonOptions
from .methods.methods import (
    GaussNewton,
    IterativeBoltzmannInversion,
    RelativeEntropy,
    TorchOptimizer,
)
from .target import Target

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
