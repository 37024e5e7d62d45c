"""Whether a fit reaches each target within its errors, and what the nuisances turned out to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from .averages import Knowledge
from .comparison import Comparison
from .convergence import names_of
from .low_rank import LowRank
from .nuisance import Nuisance
from .state import FitView
from .target import Target

Array = NDArray[np.float64]

_UNLIKELY = 0.0027  # three standard errors of a normal distribution
_PRIORS = 2.0  # standard deviations of a nuisance: further off is told
_TO_DO = {
    "shift": "correct the axis by it and fit again",
    "broadening": "give it as resolution and fit again",
    "scale": "correct the scale by it, or give a larger uncertainty of it",
}
_LEAST_FREE = 0.5  # share of the points that is left to chance however many parameters there are


@dataclass(frozen=True)
class Estimate:
    """What a nuisance turned out to be."""

    name: str
    value: float
    """Scale: a factor, about 1. Offset, systematic error: what was added to the values, of a
    systematic error the rms with its sign. Background: rms over the points. Broadening: the
    variance, and shift: the distance, in the unit of the axis."""
    error: float
    """Standard error of it."""
    prior: float
    """Standard error before the fit."""
    reach: float | None = None
    """How far it may be off while the model follows it linearly; None: any distance."""

    @property
    def is_found(self) -> bool:
        """Is it more than two standard errors off its prior mean?"""
        return abs(self._off) > 2 * self.error

    @property
    def is_beyond(self) -> bool:
        """Is it found where its prior did not expect it, or its linear form does not hold?"""
        return self.is_found and bool(self.remark)

    @property
    def remark(self) -> str:
        """What is wrong with a value so far off; empty where it may be."""
        if self.name == "broadening" and self._off < -2 * self.error:
            return (
                "a broadening below zero: the resolution was stated too broad; give a smaller one"
            )
        to_do = _TO_DO.get(self.name, "give it a larger standard error, or correct the values")
        if abs(self._off) > _PRIORS * self.prior:
            return f"its {self.name} is further off than was thought possible: {to_do}"
        if self.reach is not None and abs(self._off) > self.reach:
            return f"its {self.name} is too large to be followed linearly: {to_do}"
        return ""

    @property
    def _off(self) -> float:
        return self.value - (self.name == "scale")


@dataclass(frozen=True)
class Agreement:
    """One target beside the model."""

    target: Target
    chi_squared: float
    """r^T C^-1 r of the residual r, C the covariance of target, nuisances and averages."""
    expected: float
    """Its expectation where all errors are what they are said to be."""
    p_value: float
    """Probability of more than ``chi_squared``."""
    nuisances: tuple[Estimate, ...]
    name: str = ""
    """What to call the target, where several are alike; else its observable's label."""

    @property
    def is_reached(self) -> bool:
        """Is it within the errors, to three standard errors?"""
        return self.p_value > _UNLIKELY

    @property
    def is_sound(self) -> bool:
        """Is it reached, with nothing further off than was thought possible?"""
        return self.is_reached and not self._remarks

    @property
    def _remarks(self) -> list[str]:
        return [
            f"{each.remark} ({each.name} {each.value:.3g} +/- {each.error:.1g}, expected within "
            f"{each.prior:.2g})"
            for each in self.nuisances
            if each.is_beyond
        ]

    def __str__(self) -> str:
        name = self.name or self.target.observable.label
        found = f"{name} is reached within its errors"
        if not self.is_reached:
            found = (
                f"{name} is not reached within its errors: chi^2 "
                f"{self.chi_squared:.1f}, expected {self.expected:.1f}; its errors are larger than "
                "said, it was measured in another way (resolution, scale, ...), or the model cannot"
            )
        return "; ".join([found, *self._remarks])


@dataclass(frozen=True)
class Sensitivity:
    """How predictions follow what was fitted."""

    slopes: Array
    """d(prediction)/d(parameters), [points, parameters]."""
    covariance: Array
    """Of the parameters, [parameters, parameters]."""


def agreement(view: FitView, knowledge: Knowledge, covariance: Array | None) -> list[Agreement]:
    """Each target beside the model, in the order of the comparisons.

    ``covariance`` [parameters, parameters] is that of the fit, None where it is not known.
    """
    is_known = covariance is not None and view.potential.energy_is_linear
    comparisons = view.compare(knowledge, jacobian=is_known)
    found: list[Agreement] = []
    for comparison, (_, members) in zip(comparisons, view.groups, strict=True):
        sensitivity = None
        if is_known and covariance is not None:
            chain = np.concatenate([view.chain(k) for k in members])
            sensitivity = Sensitivity(comparison.jacobian @ chain, covariance)
        found += compared(comparison, sensitivity)
    names = {id(t): name for t, name in zip(view.targets, names_of(view.targets), strict=True)}
    return [replace(each, name=names[id(each.target)]) for each in found]


def compared(comparison: Comparison, sensitivity: Sensitivity | None = None) -> list[Agreement]:
    """Each target of a comparison beside the model.

    With residual r, total covariance C and sensitivity S, what a fit of covariance H^-1 leaves has
    the covariance C - S H^-1 S^T: chi^2 = r^T C^-1 r is a sum of squares with the mean tr Q and the
    variance 2 tr Q^2, Q = 1 - C^-1 S H^-1 S^T; taken is the chi^2 distribution that has both.
    Without a sensitivity Q = 1: fewer targets are then found to be missed.
    """
    each = comparison.nuisances or [[] for _ in comparison.targets]
    estimates = _estimates(comparison, sensitivity)
    noise = comparison.noise
    found = []
    for (target, here), nuisances in zip(comparison.places(), each, strict=True):
        inverse = noise.at(here).inverse()
        residual = comparison.residual[here]
        chi_squared = float(residual @ (inverse @ residual))
        mean, variance = _moments(inverse, here, sensitivity)
        freedom = 2 * mean**2 / variance
        p_value = float(chi2.sf(chi_squared * freedom / mean, freedom))
        own = tuple(next(estimates) for _ in nuisances)
        found.append(Agreement(target, chi_squared, mean, p_value, own))
    return found


def _moments(inverse: LowRank, here: slice, sensitivity: Sensitivity | None) -> tuple[float, float]:
    """tr Q and 2 tr Q^2.

    Q has eigenvalues from 0 to 1. The covariance of a fit that had theory's Jacobian too may say
    otherwise, and is not followed beyond.
    """
    n = len(inverse)
    if sensitivity is None:
        return float(n), 2.0 * n
    slopes = sensitivity.slopes[here]
    used = sensitivity.covariance @ (slopes.T @ (inverse @ slopes))
    first, second = float(np.trace(used)), float(np.sum(used * used.T))
    squares = n - 2 * first + second
    least = _LEAST_FREE * n
    return min(max(n - first, least), n), 2 * min(max(squares, least), n)


def _estimates(comparison: Comparison, sensitivity: Sensitivity | None) -> Iterator[Estimate]:
    """Of all nuisances in their order, z = -P^T C^-1 r with the covariance of what is left open."""
    modes = comparison.modes
    weighted = comparison.precision @ modes
    mean = -weighted.T @ comparison.residual
    covariance = np.eye(modes.shape[1]) - modes.T @ weighted
    if sensitivity is not None:
        along = weighted.T @ sensitivity.slopes
        covariance = covariance + along @ sensitivity.covariance @ along.T
    start = 0
    for nuisance in (u for us in comparison.nuisances for u in us):
        here = slice(start, start + nuisance.modes.shape[1])
        yield _estimate(nuisance, mean[here], covariance[here, here])
        start = here.stop


def _estimate(nuisance: Nuisance, mean: Array, covariance: Array) -> Estimate:
    spread = nuisance.spread
    if len(mean) == 1:
        about = 1.0 if nuisance.name == "scale" else 0.0
        error = float(np.sqrt(max(covariance[0, 0], 0.0)))
        value = about + spread * float(mean[0])
        reach = nuisance.reach if np.isfinite(nuisance.reach) else None
        return Estimate(nuisance.name, value, spread * error, spread, reach)
    added = nuisance.modes @ mean
    variance = np.einsum("pk,kl,pl->p", nuisance.modes, covariance, nuisance.modes)
    rms = float(np.sqrt(np.mean(added**2)))
    return Estimate(nuisance.name, rms, float(np.sqrt(max(np.mean(variance), 0.0))), spread)
