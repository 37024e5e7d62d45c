"""How the parameters follow from what was sampled: one class per method."""

from collections.abc import Callable

import torch

from .base import Method, Step
from .boltzmann import IterativeBoltzmannInversion, RelativeEntropy
from .gauss_newton import GaussNewton
from .optimizer import TorchOptimizer, reweighted_loss
from .options import GaussNewtonOptions

METHODS: dict[str, Callable[[], Method]] = {
    "gauss-newton": GaussNewton,
    "ibi": IterativeBoltzmannInversion,
    "relative-entropy": RelativeEntropy,
    "adam": lambda: TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.02)),
}

__all__ = [
    "METHODS",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Method",
    "RelativeEntropy",
    "Step",
    "TorchOptimizer",
    "reweighted_loss",
]
