"""What a method is: from a view of a fit to a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...potentials import Potential
from ..state import FitView
from ..target import Target

Array = NDArray[np.float64]

_LARGEST_STEP = 1.0  # kT, of a method that does not say how far it can see


@dataclass(frozen=True)
class Step:
    """A proposed change of the parameters; the loop decides how far it is followed."""

    change: Array  # [parameters]
    covariance: Array | None = None
    """Of the parameters after it, [parameters, parameters]; None if it is not estimated."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the method wants to find again in ``view.memory``; a checkpoint keeps arrays."""


class Method(Protocol):
    """Says where the parameters should go next.

    It is pure: it changes neither the potential nor itself, and what it has to remember goes into
    the step and comes back in the next view. Its public attributes are its options.

    One that is not for every potential, or does not use every target, may say so before any MD, in
    a method ``used_targets(view)``: the targets that it uses, or a TargetError. One that bounds its
    steps itself may say how far the loop follows them at most, kT, in a method
    ``largest_step(potential)``; else that is one.
    """

    def propose(self, view: FitView) -> Step:
        """The step from here.

        Raises
        ------
        TargetError
            If the method is not for such a potential or such targets.
        """


def unused_targets(method: Any, view: FitView) -> list[Target]:
    """Targets that a method does not use: none where it does not say which it uses."""
    if not can(method, "used_targets"):
        return []
    used = {id(target) for target in method.used_targets(view)}
    return [target for target in view.targets if id(target) not in used]


def largest_step_of(method: Any, potential: Potential) -> float:
    """How far the loop follows a step of a method at most, kT, unless a user says otherwise."""
    if not can(method, "largest_step"):
        return _LARGEST_STEP
    return float(method.largest_step(potential))


def can(thing: Any, name: str) -> bool:
    """Is it an instance, not a class, that has a method of this name?"""
    return not isinstance(thing, type) and callable(getattr(thing, name, None))
