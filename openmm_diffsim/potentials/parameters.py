"""The parameters of a potential as one vector, and the potential at any such vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PotentialError
from ..limits import shown
from ..units import value_in_md_units


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


def with_numbers(potential: Any, numbers: Mapping[str, Any]) -> Tensor:
    """theta where the learned parameters of these names, of ``by_name``, have these numbers.

    Raises
    ------
    PotentialError
        If there is no learned parameter of a name, or the numbers do not fit it or are not finite.
    """
    check_mapping(numbers)
    learned = {id(p) for p in learned_parameters(potential)}
    own = {name: p for name, p in potential.by_name().items() if id(p) in learned}
    found = {id(p): p.detach().double().cpu() for p in own.values()}
    try:
        if not numbers.keys() <= own.keys():
            raise ValueError("names")
        for name, number in numbers.items():
            found[id(own[name])] = _like(own[name], number, potential.kind_of(name))
    except (TypeError, ValueError, RuntimeError) as error:
        raise PotentialError(
            f"parameters: got {shown(numbers)}, expected numbers for some of "
            f"{', '.join(f'{name} {list(p.shape)}' for name, p in own.items()) or 'none'}",
            got=numbers,
        ) from error
    parts = [found[id(p)].reshape(-1) for p in learned_parameters(potential)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def check_mapping(numbers: Any) -> None:
    """PotentialError where numbers by names are none."""
    if not isinstance(numbers, Mapping):
        raise PotentialError(
            f"parameters: got {shown(numbers)}, expected numbers by name", got=numbers
        )


def _like(parameter: Tensor, number: Any, kind: str | None) -> Tensor:
    has_unit = kind is not None and not isinstance(number, Tensor)
    plain = value_in_md_units(number, kind) if has_unit else number  # type: ignore[arg-type]
    given = torch.as_tensor(plain, dtype=torch.float64).detach().cpu().expand(parameter.shape)
    if not bool(torch.isfinite(given).all()):
        raise ValueError("not finite")
    return given


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
