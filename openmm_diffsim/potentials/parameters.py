"""The parameters of a potential as one vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def learned_parameters(potential: nn.Module) -> list[nn.Parameter]:
    """Those that require a gradient, in the order of the vector."""
    return [p for p in potential.parameters() if p.requires_grad]


def parameter_vector(potential: nn.Module) -> Tensor:
    """theta, flat over the parameters that require a gradient, in double precision, on the CPU.

    It has a graph to them, wherever they are.
    """
    parts = [p.reshape(-1).double().cpu() for p in learned_parameters(potential)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def flat_parameters(potential: nn.Module) -> Tensor:
    """A copy of theta."""
    return parameter_vector(potential).detach().clone()


def set_flat_parameters(potential: nn.Module, theta: Tensor) -> None:
    """Set theta."""
    start = 0
    with torch.no_grad():
        for p in learned_parameters(potential):
            p.copy_(theta[start : start + p.numel()].reshape(p.shape))
            start += p.numel()


@contextmanager
def parameters_at(potential: nn.Module, theta: Tensor) -> Iterator[None]:
    """Let the potential have these parameters; afterwards it has those that it had before.

    Graphs that hold on to the parameters stay valid.
    """
    before = flat_parameters(potential)
    if torch.equal(before, theta):
        yield
        return
    _write(potential, theta)
    try:
        yield
    finally:
        _write(potential, before)


def _write(potential: nn.Module, theta: Tensor) -> None:
    start = 0
    for p in learned_parameters(potential):
        p.data.copy_(theta[start : start + p.numel()].reshape(p.shape))
        start += p.numel()
