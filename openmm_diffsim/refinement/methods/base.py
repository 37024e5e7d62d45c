"""What a method is: from a view of a fit to a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..state import FitView

Array = NDArray[np.float64]


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
    a method ``used_targets(view)``: the targets that it uses, or a TargetError.
    """

    def propose(self, view: FitView) -> Step:
        """The step from here.

        Raises
        ------
        TargetError
            If the method is not for such a potential or such targets.
        """
