"""Where the parameters of a fit are, where they were last believed, and where they go on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..potentials import Potential, flat_parameters, set_flat_parameters

_MOST_HALVINGS = 10


@dataclass
class Position:
    """The parameters of a potential, on their way."""

    potential: Potential
    believed: Tensor | None = None
    """Those of the last round that was; None before the first."""
    _settled: tuple[Tensor, Tensor] | None = field(default=None, init=False)
    """Parameters after ``settle``, and before it."""

    def now(self) -> Tensor:
        """The present ones, flat."""
        return flat_parameters(self.potential)

    def move(self, theta: Tensor) -> None:
        """Go there."""
        set_flat_parameters(self.potential, theta)

    def believe(self, sampled: Tensor | None = None) -> None:
        """A round at the present ones was, or one at those that were ``sampled``."""
        self.believed = self.now() if sampled is None else sampled

    def go_back_half(self) -> None:
        """Half the way to those last believed."""
        assert self.believed is not None
        self.move(self.believed + 0.5 * (self.now() - self.believed))

    def settle(self, reached: Callable[[], bool]) -> None:
        """Go back toward those last believed, until the frames reach the present ones."""
        self.unsettle()
        before = self.now()
        for _ in range(_MOST_HALVINGS):
            if self.believed is None or reached():
                break
            self.go_back_half()
        self._settled = self.now(), before

    def unsettle(self) -> None:
        """Where a fit goes on from."""
        self.move(self.going_on_from())
        self._settled = None

    def going_on_from(self) -> Tensor:
        """The parameters before ``settle``; the present ones, where a user gave others since."""
        now = self.now()
        if self._settled is not None and torch.equal(now, self._settled[0]):
            return self._settled[1]
        return now
