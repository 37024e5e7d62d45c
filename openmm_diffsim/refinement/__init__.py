"""Refinement: targets, methods, the loop, checkpoints."""

from .agreement import Agreement
from .bootstrap import Bootstrap
from .comparison import Comparison
from .convergence import TargetVerdict, Verdict
from .errors import ParameterTable
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
from .offline import Reach
from .prediction import Prediction, predict
from .progress import Round
from .state import FitView
from .target import Target

__all__ = [
    "Agreement",
    "Bootstrap",
    "Comparison",
    "FitView",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Measurement",
    "Method",
    "ParameterTable",
    "Prediction",
    "Reach",
    "Refinement",
    "RelativeEntropy",
    "Round",
    "Step",
    "Target",
    "TargetVerdict",
    "TorchOptimizer",
    "Verdict",
    "boltzmann_inversion",
    "predict",
    "reweighted_loss",
]
