"""Refinement: targets, methods, the loop, checkpoints."""

from .agreement import Agreement
from .comparison import Comparison
from .convergence import TargetVerdict, Verdict
from .initial import boltzmann_inversion
from .loop import Refinement
from .measurement import Measurement
from .methods import (
    GaussNewton,
    GaussNewtonOptions,
    IterativeBoltzmannInversion,
    Method,
    RelativeEntropy,
    Step,
    TorchOptimizer,
    reweighted_loss,
)
from .progress import Round
from .state import FitView
from .target import Target

__all__ = [
    "Agreement",
    "Comparison",
    "FitView",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Measurement",
    "Method",
    "Refinement",
    "RelativeEntropy",
    "Round",
    "Step",
    "Target",
    "TargetVerdict",
    "TorchOptimizer",
    "Verdict",
    "boltzmann_inversion",
    "reweighted_loss",
]
