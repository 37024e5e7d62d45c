"""Physical numbers that are learned, such as a sigma of each type: positive or bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import PotentialError

Array = NDArray[np.float64]


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
    bounds : (float, float), optional
        In place of ``positive``.
    learned : bool
        False: they stay as they are.
    scale : float
        How far they may be from ``start``, one standard deviation before anything is measured: a
        ratio where ``positive``, else in their own unit.

    Raises
    ------
    PotentialError
        If a value at the start is not positive where it has to be, or out of bounds.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Any,
        *,
        positive: bool = False,
        bounds: tuple[float, float] | None = None,
        learned: bool = True,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.bounds = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        self.positive = positive and bounds is None
        v = np.asarray(start, dtype=np.float64)
        _check(self.names, v, self.least, self.most)
        self.scale = v * scale if positive else np.full(len(v), scale)
        theta = self._inverse(torch.from_numpy(v))
        self.theta = nn.Parameter(theta, requires_grad=learned)

    @property
    def least(self) -> float:
        """All are above that."""
        return self.bounds[0] if self.bounds else 0.0 if self.positive else -np.inf

    @property
    def most(self) -> float:
        """All are below that."""
        return self.bounds[1] if self.bounds else np.inf

    def __len__(self) -> int:
        return len(self.names)

    def forward(self) -> Tensor:
        """v, [values], with a graph to theta."""
        if self.bounds:
            low, high = self.bounds
            return low + (high - low) * torch.sigmoid(self.theta)
        return self.theta.exp() if self.positive else 1.0 * self.theta

    def numbers(self) -> Array:
        """v, [values]."""
        return np.asarray(self().numpy(force=True))

    def form(self) -> dict[str, Any]:
        """All but what is learned, as plain data."""
        fixed = {} if self.theta.requires_grad else {"fixed": self.numbers().tolist()}
        return {
            "names": list(self.names),
            "positive": self.positive,
            "bounds": self.bounds and list(self.bounds),
            **fixed,
        }

    def _inverse(self, v: Tensor) -> Tensor:
        if self.bounds:
            low, high = self.bounds
            return torch.logit((v - low) / (high - low))
        return v.log() if self.positive else v.clone()


def _check(names: tuple[str, ...], v: Array, least: float, most: float) -> None:
    if v.shape != (len(names),):
        raise PotentialError(f"expected {len(names)} values, one for each name, got {v.shape}")
    for name, value in zip(names, v, strict=True):
        if not least < value < most:
            raise PotentialError(
                f"{name}: is {value:g} at the start, expected more than {least:g} and less than "
                f"{most:g}; leave it out, or give other bounds=",
                got=float(value),
                expected=(least, most),
            )
