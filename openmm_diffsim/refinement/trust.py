"""How far a step is followed, which rounds are believed, and how to go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SamplingError
from ..samples import Samples
from .methods import Step
from .state import FitView, State

_MOST_ROLLBACKS = 4  # in a row
_MOST_TRIES = 40  # at the length of a step


@dataclass
class Trust:
    """What the loop knows of how good its steps have been."""

    factor: float = 1.0
    """Of the largest step: halved by a roll-back, recovering by half as much again a round."""
    rollbacks: int = 0
    """In a row."""
    best_rms: float = np.inf
    """Of g(r), of all rounds."""

    def accept(self) -> None:
        """A round was believed."""
        self.rollbacks = 0
        self.factor = min(1.0, 1.5 * self.factor)

    def reject(self, problem: str) -> None:
        """A round was not.

        Raises
        ------
        SamplingError
            If it is one too many in a row.
        """
        self.rollbacks += 1
        self.factor *= 0.5
        if self.rollbacks >= _MOST_ROLLBACKS:
            raise SamplingError(
                f"{self.rollbacks} rounds in a row could not be trusted; the last: {problem}",
                reason="rollbacks",
            )

    def problem(
        self,
        states: Sequence[State],
        fresh: Sequence[Samples],
        parameters: Sequence[Tensor] | None = None,
    ) -> str:
        """Why a round cannot be trusted, or an empty string.

        ``parameters`` are those that each samples were made with, by default the present ones.
        """
        rms = _structure_rms(states, fresh, parameters or [None] * len(fresh))
        if rms is None:
            return ""
        best, self.best_rms = self.best_rms, min(self.best_rms, rms)
        for state, samples in zip(states, fresh, strict=True):
            moved = min(run.rms_displacement for run in samples.runs)
            if moved < 0.25 * state.nearest_distance() and rms > max(2 * best, best + 0.05):
                return (
                    f"the fluid froze: particles moved {moved:.3f} nm in the whole round, and the "
                    f"rms of g(r) went from {best:.3f} to {rms:.3f}"
                )
        if rms > max(3 * best, best + 0.15):
            return f"g(r) got far worse: its rms went from {best:.3f} to {rms:.3f}"
        return ""

    def follow(self, view: FitView, step: Step, largest: float) -> tuple[Tensor, float]:
        """The new parameters, and the size of the change that leads there.

        Too long a step (``largest``, kT) is shortened along its direction, which for a potential
        that is not linear in its parameters takes more than one try. Where only frames can tell
        how long a step is, its method has bounded it, and a roll-back shortens it; its size is the
        largest spread, over the frames, of the change of U/kT.

        Raises
        ------
        SamplingError
            If the step has another shape than the parameters, or it, or the potential after it,
            is not finite.
        """
        if not isinstance(step, Step):
            raise SamplingError(
                f"propose() returned a {type(step).__name__}, expected a Step", reason="update"
            )
        change = np.asarray(step.change, dtype=np.float64)
        if change.shape != tuple(view.parameters.shape):
            raise SamplingError(
                f"the update has a change of shape {change.shape}, expected that of the "
                f"parameters, {tuple(view.parameters.shape)}",
                reason="update",
            )
        if not np.all(np.isfinite(change)):
            raise SamplingError(
                "the update gave parameters, or a potential, that are not finite", reason="update"
            )
        is_bounded = view.step_size(0 * change) is not None
        if not (is_bounded and view.potential.energy_is_linear):
            change = self.factor * change
        if not is_bounded:
            after = view.moved(change)
            return after.parameters, _spread(view, after)
        limit = self.factor * largest
        for _ in range(_MOST_TRIES):
            size = view.step_size(change)
            assert size is not None
            if size <= limit * (1 + 1e-6):
                return view.moved(change).parameters, size
            change = change * (max(limit / size, 0.1) if np.isfinite(size) else 0.1)
        raise SamplingError(
            "the update gave parameters, or a potential, that are not finite", reason="update"
        )

    def state_dict(self) -> dict[str, Any]:
        """Its numbers, for a checkpoint."""
        return asdict(self)


def _structure_rms(
    states: Sequence[State], fresh: Sequence[Samples], parameters: Sequence[Tensor | None]
) -> float | None:
    """Of the g(r) of these frames alone, against all targets; None without one.

    Points of which the target says little (near r = 0 hardly a pair is counted) count little.
    """
    squares, weights = [], []
    for state, samples, theta in zip(states, fresh, parameters, strict=True):
        with torch.no_grad():
            view = samples.at() if theta is None else samples.at(theta)
        for target in state.targets:
            if target.observable.is_structure:
                own = view.average(target.observable)
                residual = target.response(own.numpy(force=True)) - target.values
                error = target.uncertainty
                squares.append(residual**2)
                weights.append(1 / (error**2 + np.median(error) ** 2))
    if not squares:
        return None
    return float(np.sqrt(np.average(np.concatenate(squares), weights=np.concatenate(weights))))


def _spread(before: FitView, after: FitView) -> float:
    pairs = zip(before.frames, after.frames, strict=True)
    return max(float(np.std(b.reduced_energies() - a.reduced_energies())) for a, b in pairs)
