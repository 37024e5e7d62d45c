"""How the parameters follow from what was sampled: one class per method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import TargetError
from .base import Method, Step, can, largest_step_of, unused_targets
from .boltzmann import IterativeBoltzmannInversion, RelativeEntropy
from .gauss_newton import GaussNewton
from .optimizer import TorchOptimizer, reweighted_loss
from .options import GaussNewtonOptions


@dataclass(frozen=True)
class NamedMethod:
    """A method by its name: calling it with some of its options makes one."""

    make: Callable[..., Method]
    options: Mapping[str, float | int] = field(default_factory=dict)
    """Their defaults by name, but those of ``GaussNewtonOptions``."""

    def __call__(self, **options: Any) -> Method:
        return self.make(**options)


def _adam(learning_rate: float = 0.02, **options: Any) -> Method:
    return TorchOptimizer(lambda p: torch.optim.Adam(p, lr=learning_rate), **options)


METHODS: dict[str, NamedMethod] = {
    "gauss-newton": NamedMethod(GaussNewton),
    "ibi": NamedMethod(IterativeBoltzmannInversion, {"damping": 1.0, "least_g": 0.05}),
    "relative-entropy": NamedMethod(RelativeEntropy, {"roughness": 200.0}),
    "adam": NamedMethod(_adam, {"learning_rate": 0.02, "steps": 20, "least_overlap": 0.5}),
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
    "NamedMethod",
    "RelativeEntropy",
    "Step",
    "TorchOptimizer",
    "can",
    "largest_step_of",
    "method_of",
    "reweighted_loss",
    "unused_targets",
]
