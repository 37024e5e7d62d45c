"""The parameters of a potential as one vector, and the potential at any such vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PotentialError


def learned_parameters(potential: nn.Module) -> list[nn.Parameter]:
    """Those that require a gradient, in the order of the vector."""
    # What ``call_at`` puts in their place is no Parameter, and may want no gradient.
    return [p for p in potential.parameters() if p.requires_grad or type(p) is Tensor]


def parameter_vector(potential: nn.Module) -> Tensor:
    """theta, flat over the parameters that require a gradient, in double precision, on the CPU.

    It has a graph to them, wherever they are.
    """
    parts = [p.reshape(-1).double().cpu() for p in learned_parameters(potential)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def flat_parameters(potential: nn.Module) -> Tensor:
    """A copy of theta."""
    return parameter_vector(potential).detach().clone()


@torch.no_grad()
def set_flat_parameters(potential: nn.Module, theta: Tensor) -> None:
    """Set theta."""
    for p, value in zip(learned_parameters(potential), split(potential, theta), strict=True):
        p.copy_(value)


def split(potential: nn.Module, theta: Tensor) -> list[Tensor]:
    """theta as tensors like the learned parameters, with a graph to it.

    Raises
    ------
    PotentialError
        If it is no Tensor of as many numbers.
    """
    parameters = learned_parameters(potential)
    expected = (sum(p.numel() for p in parameters),)
    if not isinstance(theta, Tensor) or tuple(theta.shape) != expected:
        got = tuple(theta.shape) if isinstance(theta, Tensor) else type(theta).__name__
        raise PotentialError(
            f"parameters of {type(potential).__name__}: expected a Tensor of shape {expected}, got "
            f"{got}",
            got=got,
            expected=expected,
        )
    parts = torch.split(theta, [p.numel() for p in parameters]) if parameters else ()
    return [part.reshape(p.shape).to(p) for part, p in zip(parts, parameters, strict=True)]


def call_at(potential: nn.Module, theta: Tensor, method: str, *arguments: Any) -> Any:
    """``potential.method(*arguments)`` at other parameters, with a graph to ``theta``.

    A function of theta: the potential's own parameters are neither read nor changed.
    """
    names = [name for name, p in potential.named_parameters() if p.requires_grad]
    tensors = zip(names, split(potential, theta), strict=True)
    at_theta = {f"module.{name}": tensor for name, tensor in tensors}
    return torch.func.functional_call(_Method(potential, method), at_theta, arguments)


class _Method(nn.Module):
    """A method of a module as a module, which is what torch can call with other parameters."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.module, self.method)(*arguments)
