"""How the parameters follow from what was sampled: one class per method."""

from collections.abc import Callable

import torch

from ...errors import TargetError
from .base import Method, Step, can, largest_step_of, unused_targets
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


def method_of(given: str | Method) -> Method:
    """The method of a name, or the one that was given.

    Raises
    ------
    TargetError
        If it is neither.
    """
    if isinstance(given, str):
        if given not in METHODS:
            raise TargetError(f"method: expected one of {sorted(METHODS)}, got {given!r}")
        return METHODS[given]()
    if not can(given, "propose"):
        raise TargetError(
            f"method: expected an object with propose(view), such as GaussNewton(), got {given!r}"
        )
    return given


__all__ = [
    "METHODS",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "Method",
    "RelativeEntropy",
    "Step",
    "TorchOptimizer",
    "can",
    "largest_step_of",
    "method_of",
    "reweighted_loss",
    "unused_targets",
]
