"""Has a fit converged? Every target by its own error, the step by its own, and the fluid moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from .comparison import Comparison
from .low_rank import LowRank
from .target import Target

Array = NDArray[np.float64]

_RIGHT = 0.95  # of right models have a smaller misfit than the limit, by all frames
_RIGHT_ALONE = 0.997  # and by the last round alone: three errors, of a single value
_STRICT = 1.0  # most misfit where it is not known whether the step is small
_MOST_NOISE = 0.5  # of the model over that of a single value
_MOST_NOISE_OF_CURVE = 1.0  # whose points are many: known as well as the target is
_MOST_STEP = 1.0  # standard errors, of each mode
_MOVED = 0.25  # of the distance of neighbours: a fluid goes further in a round, a solid never


@dataclass(frozen=True)
class TargetVerdict:
    """How far a target is from the model, in units of the combined error of both."""

    name: str
    misfit: float  # rms over its points; of a single value |z|
    limit: float  # that 19 of 20 right models stay below
    alone: float  # as misfit, of the frames of the last round alone
    alone_limit: float  # that 997 of 1000 right models stay below
    noise: float  # the model's error over the target's, median of its points
    noise_limit: float
    is_used: bool = True  # by the method

    @property
    def excess(self) -> float:
        """The misfit in units of its limit."""
        return self.misfit / self.limit


@dataclass(frozen=True)
class Verdict:
    """Of the last round that was believed, at the parameters that it was sampled with."""

    targets: tuple[TargetVerdict, ...]
    step: float | None
    """The proposed step, of that mode of the parameters' covariance that moves most, in its
    standard errors; None where the method knows of none: targets have to agree better then."""
    moved: float = float("inf")
    """How far particles moved in any round, over the distance of neighbours; of the state point
    where that is least; infinite where that is not known."""
    missed: tuple[str, ...] = ()
    """What ``agreement`` says of targets that are not reached within their full covariance."""

    @property
    def converged(self) -> bool:
        """Is there nothing against it?"""
        return not self.reasons()

    @property
    def worst(self) -> TargetVerdict:
        """The target that is off most."""
        return max(self.targets, key=lambda target: target.excess)

    def reasons(self) -> list[str]:
        """Why it has not converged, and what to do: the most important first."""
        found = [] if self.moved > _MOVED else [_stuck(self.moved)]
        for target in sorted(self.targets, key=lambda target: -target.excess):
            found += _off(target, min(_STRICT, target.limit) if self.step is None else target.limit)
        for target in sorted(self.targets, key=lambda target: -target.noise):
            found += _noisy(target)
        found += self.missed
        if self.step is not None and not self.step <= _MOST_STEP:
            found.append(
                "the potential still moves by {} of its standard errors along one mode, at most "
                "{} wanted: more rounds".format(*apart(self.step, _MOST_STEP))
            )
        return found

    def sentence(self) -> str:
        """For a terminal: the first reason, and how many more there are."""
        reasons = self.reasons()
        if not reasons:
            return "converged"
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"not converged: {reasons[0]}{more}"

    def as_data(self) -> dict[str, Any]:
        """For summary.json."""
        return {**asdict(self), "reasons": self.reasons()}

    @staticmethod
    def restore(state: dict[str, Any]) -> Verdict:
        """From its fields as plain data; TypeError where they are others."""
        names = {field.name for field in fields(Verdict)}
        if state.keys() != names:
            raise TypeError(f"a verdict has {sorted(names)}, got {sorted(state)}")
        targets = tuple(TargetVerdict(**t) for t in state["targets"])
        return Verdict(**{**state, "targets": targets, "missed": tuple(state["missed"])})


def judge(
    targets: Sequence[Target],
    pooled: Sequence[Comparison],
    alone: Sequence[Comparison],
    step: float | None,
    moved: float = float("inf"),
    unused: Sequence[Target] = (),
) -> Verdict:
    """Every target, by all frames, and by those of the last round, which nothing was fitted to.

    Parameters
    ----------
    targets : in the order of the fit
    pooled, alone : at the parameters that the last round was sampled with
    step, moved : as in ``Verdict``
    unused : those that the method does not use
    """
    here, fresh = _of_each(pooled), _of_each(alone)
    ignored = {id(target) for target in unused}
    found = [
        _judged(name, here[id(target)], fresh[id(target)], id(target) not in ignored)
        for name, target in zip(names_of(targets), targets, strict=True)
    ]
    return Verdict(tuple(found), step, moved)


def largest_mode(change: Array, covariance: Array | None) -> float | None:
    """How far a change goes along each mode of a covariance, in its standard errors; the largest.

        max_k |v_k . x| / sqrt(lambda_k),    x = change / error,    v, lambda of the correlations

    so that it is the same in any units of the parameters. None without a covariance.

    Parameters
    ----------
    change : array [parameters]
    covariance : array [parameters, parameters], or None
    """
    if covariance is None:
        return None
    moves = np.diag(covariance) > 0  # what is given, not learned, has no error
    if not moves.any():
        return 0.0
    change, covariance = change[moves], covariance[np.ix_(moves, moves)]
    error = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(error, error))
    known = values > len(values) * np.finfo(float).eps * values[-1]
    along = vectors[:, known].T @ (change / error)
    return float(np.max(np.abs(along) / np.sqrt(values[known])))


def names_of(targets: Sequence[Target]) -> list[str]:
    """What to call each target; where several are alike, with its number."""
    labels = [target.observable.label for target in targets]
    return [
        label if labels.count(label) == 1 else f"{label} of target {number}"
        for number, label in enumerate(labels, 1)
    ]


def _of_each(comparisons: Sequence[Comparison]) -> dict[int, Comparison]:
    return {id(part.targets[0]): part for c in comparisons for part in c.each()}


def _judged(name: str, pooled: Comparison, alone: Comparison, is_used: bool) -> TargetVerdict:
    is_curve = pooled.targets[0].curve is not None
    return TargetVerdict(
        name,
        pooled.misfit(),
        _limit(pooled, _RIGHT),
        alone.misfit(),
        _limit(alone, _RIGHT_ALONE),
        pooled.noise_ratio(),
        _MOST_NOISE_OF_CURVE if is_curve else _MOST_NOISE,
        is_used,
    )


def _limit(comparison: Comparison, share: float) -> float:
    """The misfit that this share of right models stays below.

    Its square is a mean of squares of n correlated deviations with correlations R, distributed
    about like chi^2 / nu of nu = n^2 / tr(R R) independent ones (Satterthwaite 1946,
    doi:10.2307/3002019): 1.96 of a single value at 0.95, little above 1 of many points.
    """
    n = independent_points(comparison.own_noise + comparison.target_noise)
    return float(np.sqrt(chi2.ppf(share, n) / n))


def independent_points(noise: LowRank) -> float:
    """n^2 / tr(R R), R the correlations: n where there are none, 1 of points that move as one."""
    correlations = noise.scaled(1 / np.sqrt(noise.diagonal()))
    return float(len(noise) ** 2 / correlations.trace_with(correlations))


def _stuck(moved: float) -> str:
    return (
        f"the particles moved by {moved:.2f} of the distance of neighbours at most in any round: a "
        "glass or a crystal, or rounds too short to see it flow, so averages are those of one "
        "configuration: begin from a liquid, or sample longer rounds"
    )


def _off(target: TargetVerdict, limit: float) -> list[str]:
    if target.misfit <= limit and target.alone <= target.alone_limit:
        return []
    what, size, most = f"{target.name} is off by", target.misfit, limit
    if target.misfit <= limit:
        what, size, most = f"{target.name} of the last round alone is off by", *_alone(target)
    to_do = (
        "more rounds, and where it comes no nearer, a freer potential or a larger uncertainty"
        if target.is_used
        else "the method does not use it: take the default method"
    )
    found, wanted = apart(size, most)
    return [f"{what} {found} combined errors, at most {wanted} wanted: {to_do}"]


def _alone(target: TargetVerdict) -> tuple[float, float]:
    return target.alone, target.alone_limit


def _noisy(target: TargetVerdict) -> list[str]:
    if target.noise <= target.noise_limit:
        return []
    more = (target.noise / target.noise_limit) ** 2
    times, _ = apart(more, 1.0)
    frames = f"about {times} times the frames" if more < 1000 else "many more frames"
    noise, wanted = apart(target.noise, target.noise_limit)
    return [
        f"the model's own error of {target.name} is {noise} of the target's, at most {wanted} "
        f"wanted: {frames}, or a larger uncertainty"
    ]


def apart(found: float, wanted: float) -> tuple[str, str]:
    """Two numbers that differ, to two digits or as many as it takes to see it."""
    texts = ((_written(found, n), _written(wanted, n)) for n in range(2, 17))
    return next((pair for pair in texts if pair[0] != pair[1]), (repr(found), repr(wanted)))


def _written(number: float, digits: int) -> str:
    """Without an exponent where it may be."""
    return f"{number:.{digits}g}" if number < 10**digits else f"{number:.0f}"
