"""Physical numbers that are learned, such as a sigma of each type: positive or bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import PotentialError, UnitError
from ..limits import Limit, checked_number, shown
from ..units import UNIT_NAMES, number_in_md_units, value_in_md_units

Array = NDArray[np.float64]

_SCALES = Limit(1e-9, 1e9, "a standard deviation, or a ratio where values are positive")
SCALE = 0.1
"""How far numbers of which nothing is known may be from where they start."""


class Values(nn.Module):
    """Named numbers v(theta) with parameters theta of their own, [values].

    v = theta; v = exp(theta) where ``positive``; v = a + (b - a) / (1 + exp(-theta)) within
    ``bounds`` a < b.

    Parameters
    ----------
    names : sequence of str
    start : array [values]
        What they are at first.
    positive : bool
    bounds : (float, float), or a mapping of names to such, optional
        Of all values, or of some; for these in place of ``positive``.
    learned : bool
        False: they stay as they are.
    scale : float
        How far they may be from ``start``, one standard deviation before anything is measured: a
        ratio where ``positive``, else in their own unit.
    kind : str, optional
        What kind of number they are, one of ``units.UNIT_NAMES``: then Quantities are taken.

    Raises
    ------
    PotentialError
        If a value at the start is not positive where it has to be, or out of bounds; if bounds
        are none.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Any,
        *,
        positive: bool = False,
        bounds: Any = None,
        learned: bool = True,
        scale: float = SCALE,
        kind: str | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.positive = positive
        self.kind = kind
        self.bounds = _bounds(self.names, bounds, kind)
        v = np.asarray(start, dtype=np.float64)
        _check(self.names, v, positive, self.bounds)
        checked_number("scale", scale, PotentialError, _SCALES)
        self.scale = v * scale if positive else np.full(len(v), scale)
        self.theta = nn.Parameter(self._inverse(torch.from_numpy(v)), requires_grad=learned)

    @property
    def is_learned(self) -> bool:
        """Do they change in a fit?"""
        # What ``call_at`` puts in the parameter's place may want no gradient.
        return self.theta.requires_grad or type(self.theta) is Tensor

    def __len__(self) -> int:
        return len(self.names)

    def forward(self) -> Tensor:
        """v, [values], with a graph to theta."""
        return self._at(self.theta)

    def _at(self, theta: Tensor) -> Tensor:
        free = theta.exp() if self.positive else 1.0 * theta
        if not self.bounds:
            return free
        has, low, width = self._limits()
        return torch.where(has, low + width * torch.sigmoid(theta), free)

    def numbers(self) -> Array:
        """v, [values]."""
        return np.asarray(self().numpy(force=True))

    def spread(self) -> Array:
        """How far theta may be from where it is before anything is measured, [values].

        One standard deviation: ``scale``, or as much of theta as changes v by that.
        """
        theta = self.theta.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(self._at(theta).sum(), theta)  # each v has its own theta
        return np.asarray(self.scale / slope.numpy())

    @property
    def kind_of_theta(self) -> str | None:
        """What kind of number theta is; None where it is another one than v, or not known."""
        return None if self.positive or self.bounds else self.kind

    def theta_at(self, numbers: Mapping[str, Any], what: str) -> Tensor:
        """theta, [values], where those of these names have these numbers, others as they are.

        ``what`` they are, "sigma", for messages.

        Raises
        ------
        PotentialError
            If one is no number, or out of bounds.
        """
        v = self.numbers().copy()
        for name, number in numbers.items():
            v[self.names.index(name)] = number_of(f"{what}[{name}]", number, self.kind)
        _check(self.names, v, self.positive, self.bounds, f" as {what}")
        return self._inverse(torch.from_numpy(v))

    def form(self) -> dict[str, Any]:
        """All but what is learned, as plain data."""
        fixed = {} if self.is_learned else {"fixed": self.numbers().tolist()}
        return {
            "names": list(self.names),
            "positive": self.positive,
            "bounds": {name: list(pair) for name, pair in self.bounds.items()},
            **fixed,
        }

    def _inverse(self, v: Tensor) -> Tensor:
        free = v.log() if self.positive else v.clone()
        has, low, width = self._limits()
        return torch.where(has, torch.logit((v - low) / width), free)

    def _limits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which values are bounded, from where, and how wide; 0 and 1 for the others."""
        has = torch.tensor([name in self.bounds for name in self.names])
        pairs = [self.bounds.get(name, (0.0, 1.0)) for name in self.names]
        low, high = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
        return has, low, high - low


def _bounds(names: tuple[str, ...], given: Any, kind: str | None) -> dict[str, tuple[float, float]]:
    """Those of each name that has some."""
    if given is None:
        return {}
    each = given if isinstance(given, Mapping) else dict.fromkeys(names, given)
    unknown = set(each) - set(names)
    if unknown:
        raise PotentialError(
            f"bounds: expected of {list(names)}, got {sorted(unknown)}", got=sorted(unknown)
        )
    return {name: _pair(name, pair, kind) for name, pair in each.items()}


def _pair(name: str, given: Any, kind: str | None) -> tuple[float, float]:
    try:
        pair: Any = given if kind is None else value_in_md_units(given, kind)
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError, UnitError) as error:
        raise PotentialError(
            f"bounds of {name!r}: expected two numbers, got {shown(given)}"
            + (f": {error}" if isinstance(error, UnitError) else ""),
            got=given,
        ) from error
    if not -np.inf < low < high < np.inf:
        raise PotentialError(
            f"bounds of {name!r}: expected two finite numbers, the lower one first, got {given!r}",
            got=given,
        )
    return low, high


def number_of(name: str, given: Any, kind: str | None) -> float:
    """A number, or a Quantity of that kind, in md units; PotentialError where it is none."""
    try:
        return float(given if kind is None else number_in_md_units(given, kind))
    except (TypeError, ValueError) as error:  # a UnitError is one
        raise PotentialError(
            f"{name}: expected a number{_in(kind)}, got {shown(given)}", got=given
        ) from error


def _in(kind: str | None) -> str:
    return f" in {UNIT_NAMES[kind]}, or a Quantity" if kind else ""


def _check(
    names: tuple[str, ...],
    v: Array,
    positive: bool,
    bounds: Mapping[str, tuple[float, float]],
    when: str = " at the start",
) -> None:
    if v.shape != (len(names),):
        raise PotentialError(f"expected {len(names)} values, one for each name, got {v.shape}")
    for name, value in zip(names, v, strict=True):
        least, most = bounds.get(name, (0.0 if positive else -np.inf, np.inf))
        if not least < value < most:
            raise PotentialError(
                f"{name or 'the value'}: is {value:g}{when}, expected more than {least:g} "
                f"and less than {most:g}; leave it out, or give other bounds=",
                got=float(value),
                expected=(least, most),
            )
