"""What can be asked of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from ...errors import SegmentError
from .fields import Field


@dataclass(frozen=True, eq=False)
class SegmentOptions:
    """How a segment is run: what acts in it, and what is kept of it and of its adjoint.

    Parameters
    ----------
    integrator : openmm.Integrator or Scheme, optional
        Default: that of the Simulation. See ``openmm_diffsim.segments``. Neither a barostat, an
        AndersenThermostat nor a CMMotionRemover acts within a segment.
    seed : int, or several
        Of the noise, and of velocities that are drawn.
    noise : Tensor [..., steps, particles, 3], optional
        nm/ps, what Langevin dynamics adds to the velocities in each step (to those of any other
        integrator nothing is added by default). Gradients reach it.
    protocol : mapping of str to Tensor [steps + 1], optional
        Values of the Context's global parameters at each time. Gradients reach them.
    field : callable, optional
        More forces, such as ``segments.TorchField``.
    box : array [3, 3], optional
        nm. Default: the Simulation's.
    every : int
        Keep only every so many steps. What lies between is integrated again for the gradient:
        about half as much time again, and ``every`` times less memory.
    truncation : int, optional
        Steps after which the adjoint is dropped: the gradient then leaves out how a force acts on
        what comes later than that.
    clipping : float, optional
        Most that the norm of the adjoint may grow: the gradient is then biased toward zero.

    Raises
    ------
    SegmentError
        If one of the last three is out of range, ``every`` goes with another of them, or what
        should be a whole number is none.
    """

    integrator: Any = None
    seed: int | tuple[int, ...] = 1
    noise: Any = None
    protocol: Mapping[str, Any] | None = None
    field: Field | None = None
    box: Any = None
    every: int = 1
    truncation: int | None = None
    clipping: float | None = None

    def __post_init__(self) -> None:
        whole = {"every": [self.every], "truncation": [self.truncation or 0], "seed": self.seeds}
        for name, values in whole.items():
            if not all(isinstance(value, Integral) for value in values):
                got = getattr(self, name)
                raise SegmentError(f"{name}: expected a whole number, got {got!r}", got=got)
        if self.truncation is not None and self.truncation < 1:
            raise SegmentError(
                f"truncation: expected at least one step, got {self.truncation}",
                got=self.truncation,
            )
        if self.clipping is not None and not self.clipping >= 1:
            raise SegmentError(
                f"clipping: expected a number >= 1, got {self.clipping}", got=self.clipping
            )
        if self.every > 1 and (self.truncation is not None or self.clipping is not None):
            raise SegmentError(
                f"truncation and clipping follow the adjoint at every step: expected every = 1 "
                f"with them, got {self.every}",
                got=self.every,
            )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed as a tuple."""
        return tuple(self.seed) if isinstance(self.seed, Sequence) else (self.seed,)

    def check(self, steps: int) -> None:
        """SegmentError where a segment of so many steps cannot be kept like this."""
        if steps < 1 or self.every < 1 or steps % self.every:
            raise SegmentError(
                "expected steps >= 1, and every a divisor of it, got "
                f"steps = {steps} and every = {self.every}"
            )
