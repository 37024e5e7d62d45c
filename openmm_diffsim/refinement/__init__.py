"""Refinement: targets, methods, the loop, checkpoints."""

from .bootstrap import Bootstrap
from .comparison import Comparison
from .errors import ParameterTable
from .initial import boltzmann_inversion
from .loop import Refinement
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
    "Bootstrap",
    "Comparison",
    "FitView",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Method",
    "ParameterTable",
    "Refinement",
    "RelativeEntropy",
    "Round",
    "Step",
    "Target",
    "TorchOptimizer",
    "boltzmann_inversion",
    "reweighted_loss",
]
