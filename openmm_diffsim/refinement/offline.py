"""A fit from frames that are there already, without any MD: as far as they reach.

Steps of the method follow each other on the same frames, reweighted. Where a step leaves too few
of them effective, as much of it is taken as they bear; where nothing more can be, the optimum lies
beyond what the frames say, and new ones are needed where the fit has come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SamplingError, TargetError
from ..limits import shown
from ..potentials import Potential, flat_parameters
from ..potentials.parameters import split
from .averages import Knowledge
from .convergence import largest_mode
from .methods import Method, Step
from .state import FitView, compared, misfit_of
from .trust import Trust

Array = NDArray[np.float64]

ENOUGH_FRAMES = 50.0  # effective ones, to go on without new MD (or half of a run, if shorter)

_FEWEST = 10  # frames of a state point, whose average has an error bar
_FARTHEST = 10.0  # prior standard deviations, from the present parameters
_MOST_STEPS = 40
_SMALL = 0.05  # standard errors, of what a step moves most
_WORTHWHILE = 0.999  # of the misfit, where no standard error is known: a step that gains less
_HALVINGS = 7  # of a step that the frames do not reach


@dataclass(frozen=True)
class Reach:
    """How far the frames of a fit have led.

    Attributes
    ----------
    n_effective, n_frames : tuples, one for each state point
        At the parameters that the fit has come to.
    share : float
        Of the way from where the fit began to the optimum, by the linear model at the end: 1 there.
    is_beyond : bool
        Does the optimum lie beyond what the frames reach?
    """

    n_effective: tuple[float, ...]
    n_frames: tuple[int, ...]
    share: float
    is_beyond: bool

    def sentence(self) -> str:
        """For a terminal: how far, and what to do."""
        each = zip(self.n_effective, self.n_frames, strict=True)
        effective = " and ".join(f"{n:.0f} of {total}" for n, total in each)
        if self.is_beyond:
            return (
                f"the optimum lies beyond what the frames reach: about {self.share:.0%} of the way "
                f"to it, {effective} frames are effective; sample there, by run() or with the "
                "present parameters elsewhere, and read these frames too"
            )
        return f"the frames reach the optimum, where {effective} of them are effective"


def follow_frames(
    view: FitView,
    method: Method,
    knowledge: Knowledge,
    trust: Trust,
    largest: float,
    began: Sequence[float],
) -> tuple[FitView, Step, Reach]:
    """Where the frames of a view lead, the step that the method would take from there, and how far.

    ``began``, [parameters], is where the way began, perhaps in an earlier call.

    Raises
    ------
    SamplingError
        If they are fewer than ten at a state point, or do not reach the parameters that the view
        has.
    """
    fewest = min(len(frames.samples) for frames in view.frames)
    if fewest < _FEWEST:
        raise SamplingError(
            f"a fit of stored frames: got {fewest} frames of a state point, expected at least "
            f"{_FEWEST}, and for error bars that hold {ENOUGH_FRAMES:g} that are independent; read "
            "more of them",
            reason="empty",
            got=fewest,
            expected=_FEWEST,
        )
    enough = enough_of(view)
    if not view.reaches(enough):
        raise SamplingError(
            f"the frames do not reach the present parameters: {_counted(view)} are effective; "
            "begin from those that they were sampled with, or read frames that were sampled nearer",
            reason="reach",
        )
    step, is_beyond = method.propose(view), False
    for _ in range(_MOST_STEPS):
        theta, _size = trust.follow(view, step, largest)
        after, is_beyond = _as_far_as(view, theta, enough)
        after = replace(after, memory=step.memory)
        following = method.propose(after)
        was_last = _is_last(view, after, following, knowledge)
        view, step = after, following
        if is_beyond or was_last:
            break
    return view, step, _reach(np.asarray(began), view, step, is_beyond)


def enough_of(view: FitView) -> list[float]:
    """n_effective of each state point that averages are worth having with."""
    pools = [frames.samples for frames in view.frames]
    return [max(min(ENOUGH_FRAMES, 0.5 * len(s)), s.least_effective) for s in pools]


def sampled_with(potential: Potential, parameters: Any) -> Tensor:
    """theta, flat, from a Tensor, numbers by name, or None for the present ones.

    Raises
    ------
    PotentialError
        If there is no parameter of a name, or the numbers do not fit.
    TargetError
        If they are absurd, as a physical one in place of its logarithm.
    """
    theta = flat_parameters(potential)
    if parameters is None:
        return theta
    if not isinstance(parameters, Mapping):
        theta = torch.as_tensor(parameters).detach().double()
        split(potential, theta)
        return theta
    given = potential.parameters_of(parameters)
    _check_far(potential, theta, given, parameters)
    return given


def _check_far(potential: Potential, now: Tensor, given: Tensor, parameters: Any) -> None:
    """TargetError for numbers that no potential of this kind has, such as a sigma for its log."""
    known = potential.parameter_prior()
    if known is None:
        return
    off = np.abs((given - now).numpy()) / known[1]
    if off.max(initial=0.0) > _FARTHEST:
        k = int(np.argmax(off))
        raise TargetError(
            f"parameters: got {shown(parameters)}, {off[k]:.2g} standard deviations of what "
            f"{type(potential).__name__} is before a fit from the present {now[k]:.4g}, expected "
            f"at most {_FARTHEST:g}: these are the parameters of by_name() themselves, the "
            "logarithm of a sigma, say; by the names of numbers() they are physical, as in "
            '{"lennard_jones.sigma[O]": 0.33}; or give a Tensor of all, as it was then',
            got=parameters,
        )


def _as_far_as(view: FitView, theta: Tensor, enough: Sequence[float]) -> tuple[FitView, bool]:
    """As much of the way to theta as the frames reach, and whether that is next to nothing."""
    change = theta - view.parameters
    for halving in range(_HALVINGS):
        after = view.at(view.parameters + 0.5**halving * change)
        if after.reaches(enough):
            return after, False
    return view, True


def _is_last(before: FitView, after: FitView, following: Step, knowledge: Knowledge) -> bool:
    """Does the step that follows move nothing, or, where no error is known, did the last one?"""
    if following.covariance is not None:
        size = largest_mode(following.change, following.covariance)
        return size is not None and size < _SMALL
    then, now = (misfit_of(compared(view, knowledge)) for view in (before, after))
    return now > _WORTHWHILE * then


def _reach(began: Array, end: FitView, step: Step, is_beyond: bool) -> Reach:
    done = end.parameters.numpy(force=True) - began
    gone, left = (_size(change, step) for change in (done, np.asarray(step.change)))
    share = gone / (gone + left) if is_beyond and gone + left > 0 else 1.0 - float(is_beyond)
    frames = end.frames
    return Reach(
        tuple(view.n_effective for view in frames),
        tuple(len(view.samples) for view in frames),
        share,
        is_beyond,
    )


def _size(change: Array, step: Step) -> float:
    size = largest_mode(change, step.covariance)
    return float(np.linalg.norm(change)) if size is None else size


def _counted(view: FitView) -> str:
    return " and ".join(f"{f.n_effective:.1f} of {len(f.samples)}" for f in view.frames)
