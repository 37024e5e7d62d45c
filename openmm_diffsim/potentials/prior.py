"""What is known of parameters before anything is measured: a Gaussian about the value of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import PotentialError
from ..limits import shown
from ..units import UNIT_NAMES, value_in_md_units
from .parameters import learned_parameters, split

if TYPE_CHECKING:
    from .base import Potential

Array = NDArray[np.float64]
Known = dict[int, tuple[Tensor, Tensor]]  # by the id of a parameter: mean, standard deviation


@dataclass(frozen=True)
class ParameterPrior:
    """Of theta, flat: (theta - mean) / standard_deviation is normal, each by itself.

    It adds sum_k ((theta_k - mean_k) / standard_deviation_k)^2 to what a fit makes small.
    """

    mean: Array  # theta_0, [parameters]
    standard_deviation: Array  # [parameters]; infinite where nothing is known

    @property
    def precision(self) -> Array:
        """1 / standard_deviation^2, [parameters]."""
        return np.asarray(1 / self.standard_deviation**2)

    def slope(self, theta: Array) -> Array:
        """precision (theta - mean), [parameters]."""
        return np.asarray(self.precision * (theta - self.mean))

    def rows(self, theta: Array) -> tuple[Array, Array]:
        """R [known, parameters] and e [known]: |R x + e|^2 is the prior's share after a step x."""
        known = np.isfinite(self.standard_deviation)
        e = ((theta - self.mean) / self.standard_deviation)[known]
        return np.diag(1 / self.standard_deviation)[known], e


def prior_of(potential: Potential) -> ParameterPrior | None:
    """What a potential, its terms and its user say of all its learned parameters; None if nothing.

    A user's word (``set_prior``) comes before that of the kind (``parameter_prior``), and what is
    said of a whole before what its parts say.

    Raises
    ------
    PotentialError
        If ``parameter_prior`` gives other numbers than there are parameters, or such as cannot be.
    """
    found = _flat(potential, _known(potential))
    return None if found is None else ParameterPrior(*found)


def prior_of_parts(potential: Potential) -> tuple[Array, Array] | None:
    """What the potentials that one is made of say, as ``Potential.parameter_prior`` gives it."""
    known: Known = {}
    for part in _parts(potential):
        known |= _known(part)
    return _flat(potential, known)


def _flat(potential: Potential, known: Known) -> tuple[Array, Array] | None:
    """Mean and standard deviation of all learned parameters; None where none is known."""
    parameters = learned_parameters(potential)
    if not any(id(p) in known for p in parameters):
        return None
    nothing = [(p.detach(), torch.full_like(p, torch.inf)) for p in parameters]
    found = [known.get(id(p), none) for p, none in zip(parameters, nothing, strict=True)]
    mean, spread = (
        torch.cat([value.reshape(-1).double().cpu() for value in column])
        for column in zip(*found, strict=True)
    )
    return mean.numpy(force=True), spread.numpy(force=True)


def checked_prior(potential: Potential, prior: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """By the name of a parameter of a potential: its present value, and a standard deviation.

    Raises
    ------
    PotentialError
        If there is no parameter of that name, or no standard deviation that fits it.
    """
    parameters = potential.by_name()
    if not isinstance(prior, Mapping) or not prior.keys() <= parameters.keys():
        raise PotentialError(
            f"prior of {potential.name}: got {shown(prior)}, expected a standard deviation for "
            f"some of its parameters by name, which are {', '.join(parameters) or 'none'}, as "
            f"{{{next(iter(parameters), 'sigma')!r}: 0.1}}",
            got=prior,
        )
    return {
        name: _scaled(name, parameters[name], value, potential.kind_of(name))
        for name, value in prior.items()
    }


def _scaled(
    name: str, parameter: nn.Parameter, value: Any, kind: str | None
) -> tuple[Tensor, Tensor]:
    shape = tuple(parameter.shape)
    try:
        plain = value if kind is None else value_in_md_units(value, kind)
        spread = np.broadcast_to(np.asarray(plain, dtype=np.float64), shape).copy()
    except (TypeError, ValueError):  # a UnitError is one
        spread = np.array(np.nan)
    if not (spread > 0).all():
        raise PotentialError(
            f"prior of {name}: got {shown(value)}, expected a positive standard deviation, or "
            f"those of shape {shape}, {_in_its_unit(kind)}; infinity where nothing is known",
            got=value,
            expected=shape,
        )
    return parameter.detach().clone(), torch.from_numpy(spread).to(parameter)


def _in_its_unit(kind: str | None) -> str:
    if kind is None:
        return "as plain numbers, of the parameter itself: a ratio, if that is a logarithm"
    return f"in {UNIT_NAMES[kind] or 'no unit'}, or a Quantity"


def _known(potential: Potential) -> Known:
    known: Known = {}
    for part in _parts(potential):
        known |= _known(part)
    own = potential.parameter_prior()
    if own is not None:
        known |= _by_parameter(potential, own)
    names = potential.by_name()
    return known | {id(names[name]): values for name, values in potential.own_prior.items()}


def _by_parameter(potential: Potential, prior: tuple[Any, Any]) -> Known:
    mean, spread = (torch.as_tensor(np.asarray(part, dtype=np.float64)) for part in prior)
    if not (bool(torch.isfinite(mean).all()) and bool((spread > 0).all())):
        raise PotentialError(
            f"{type(potential).__name__}.parameter_prior(): expected finite means and positive "
            f"standard deviations, got {mean.tolist()} and {spread.tolist()}"
        )
    pairs = zip(split(potential, mean), split(potential, spread), strict=True)
    return dict(zip(map(id, learned_parameters(potential)), pairs, strict=True))


def _parts(module: nn.Module) -> Iterator[Potential]:
    """The potentials that one is made of."""
    for child in module.children():
        if hasattr(child, "parameter_prior"):
            yield child  # type: ignore[misc]
        else:
            yield from _parts(child)
