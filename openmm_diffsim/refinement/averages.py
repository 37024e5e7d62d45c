"""Averages at a state point: means, Jacobian and noise, of the frames and of what else is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ..engine.segments import jacobian_deviations
from ..errors import ObservableError
from ..observables import Observable
from ..samples import View
from ..statistics.correlated import MOST_BLOCKS, Blocks, assign_blocks
from ..units import beta
from .modes import Modes, Seen, inefficiency
from .target import Target
from .theory import LiquidTheory

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST_STRETCHES = 10  # of frames, for a spread


@dataclass(frozen=True)
class Knowledge:
    """How much is taken to be known besides the frames; the defaults need no tuning."""

    prior_frames: float = 1500.0  # M_0: frames' worth of trust in theory, or independent points
    theory: bool = True  # False: liquid-state theory is not asked


@dataclass(frozen=True)
class Sight:
    """A state point as its frames see it, with what theory may say."""

    state_point: Any
    view: View
    theory: LiquidTheory | None = None


@dataclass(frozen=True)
class Averages:
    """Of all observables of one state point, stacked."""

    sight: Sight
    observables: list[Observable]
    mean: Array  # [values]
    jacobian: Array  # [values, coefficients]
    covariance: Array  # [values, values], of the mean; infinite where it is not known
    frame_covariance: Array  # [values, values], in one frame; zero of what is no value of a frame
    n_effective: float
    deviations: Array | None = None  # [blocks, values, coefficients], of the Jacobian
    growth: Array | None = None  # see LiquidStructure.growth, [wave numbers, coefficients]
    theory_weight: float = 0.0

    def slice_of(self, observable: Observable) -> slice:
        start = 0
        for other in self.observables:
            if other is observable:
                break
            start += other.n_values
        return slice(start, start + observable.n_values)


def averages_of(
    targets: Sequence[Target], sight: Sight, known: Knowledge, wants_jacobian: bool
) -> Averages:
    """Of all observables that targets have at a state point."""
    here = [o for t in targets for point, o in t.terms if point is sight.state_point]
    each = list(dict.fromkeys(here))
    static = [o for o in each if not o.is_dynamic]
    dynamic = [o for o in each if o.is_dynamic]
    parts = []
    if static:
        parts.append(_static(static, sight, known, wants_jacobian))
    if dynamic:
        parts.append(_dynamic(dynamic, sight, wants_jacobian))
    return parts[0] if len(parts) == 1 else _side_by_side(*parts)


@dataclass(frozen=True)
class _Deviations:
    """Of all values and features in each frame, at a fixed volume, and what the volume does.

    Theory speaks of a fixed volume. At constant pressure every covariance has a second
    part, Cov(A, B) = <Cov(A, B | V)> + Cov(A, V) Cov(V, B) / Var(V), which the frames know.
    """

    view: View
    observables: Sequence[Observable]
    weights: Array  # [frames]
    values: Array  # [frames, values]

    @classmethod
    def of(cls, view: View, observables: Sequence[Observable]) -> _Deviations:
        with torch.no_grad():
            values = np.concatenate([view.values(o).numpy() for o in observables], axis=1)
        return cls(view, observables, view.weights.numpy(force=True), values)

    @cached_property
    def volume(self) -> Array:
        """Its deviations over their standard deviation, [frames]; zero where it is constant."""
        samples = self.view.samples
        if samples.pressure is None or np.ptp(samples.volume) == 0:
            return np.zeros(len(self.weights))
        deviations = samples.volume - self.weights @ samples.volume
        return np.asarray(deviations / np.sqrt(self.weights @ deviations**2))

    @property
    def is_free(self) -> bool:
        """Does the volume fluctuate, with features that go along?"""
        return bool(self.volume.any()) and self.view.samples.potential.energy_is_linear

    @cached_property
    def along(self) -> Array:
        """What values do along with the volume, [values]."""
        return np.asarray((self.weights * self.volume) @ self.values)

    @cached_property
    def inner(self) -> Array:
        """Of the values, at a fixed volume, [frames, values]."""
        return self.values - self.weights @ self.values - np.outer(self.volume, self.along)

    @cached_property
    def features(self) -> Array:
        """Of the features, at a fixed volume, [frames, coefficients]."""
        along = (self.weights * self.volume) @ self._of_features
        return np.asarray(self._of_features - np.outer(self.volume, along))

    @cached_property
    def response_along(self) -> Array:
        """Of the Jacobian what comes with the volume, [values, coefficients]."""
        if not self.volume.any():
            return np.zeros((len(self.along), len(self.view.coefficients)))
        return np.outer(self.along, self._of_volume.sum(axis=0))

    @cached_property
    def slow(self) -> float:
        """Frames per independent volume."""
        series, blocks = self.volume[:, None], self.view.samples.blocks
        return float(inefficiency(series, self.weights, blocks, self.alone)[0])

    @cached_property
    def alone(self) -> Array:
        """Weights of each run by itself, [frames], which add up to 1 in each."""
        samples = self.view.samples
        energy = self.view.learned_energy.numpy(force=True) + samples.rest_energy
        change = beta(samples.temperature) * (energy - samples.run_energies())
        weights = [np.exp(part.min() - part) for part in samples.split(change)]
        return np.concatenate([w / w.sum() for w in weights])

    def noise_along(self) -> Array:
        """Its deviations in stretches, [stretches, values, coefficients].

        How features go with the volume, <v S>, is what is uncertain: a box is slow.
        """
        series = self._of_volume - np.outer(self.weights, self._of_volume.sum(axis=0))
        return np.einsum("v,bc->bvc", self.along, self._stretches(self.slow).sums(series))

    def noise_inside(self, slow: float) -> Array:
        """As ``noise_along``, of the Jacobian at a fixed volume, of so many ``slow`` frames."""
        place = self._stretches(slow).of_frame
        share = -beta(self.view.samples.temperature) * self.weights[:, None] * self.inner
        each = np.array(
            [share[place == b].T @ self.features[place == b] for b in range(place[-1] + 1)]
        )
        weight = np.bincount(place, self.weights)
        return np.asarray(each - weight[:, None, None] * each.sum(axis=0))

    def _stretches(self, slow: float) -> Blocks:
        most = min(round(len(self.weights) / slow), MOST_BLOCKS)
        return assign_blocks([len(self.weights)], max(most, _FEWEST_STRETCHES))

    @cached_property
    def _of_volume(self) -> Array:
        """-beta w v S of each frame, [frames, coefficients]."""
        share = -beta(self.view.samples.temperature) * self.weights * self.volume
        return np.asarray(share[:, None] * self._of_features)

    @cached_property
    def _of_features(self) -> Array:
        """Of the features, whatever the volume, [frames, coefficients]."""
        energies = self.view.samples.learned.linear(self.view.coefficients, virials=False).energies
        return np.asarray(energies - self.weights @ energies)


@dataclass(frozen=True)
class _Beforehand:
    """What is known of the averages besides the frames."""

    modes: Modes
    jacobian: Array | None = None
    """J_0, [values, coefficients], at a fixed volume, NaN where it is not known."""
    growth: Array | None = None


def _static(
    observables: list[Observable], sight: Sight, known: Knowledge, wants_jacobian: bool
) -> Averages:
    """Of what has a value in every frame."""
    view = sight.view
    mean, jacobian = _means(view, observables, wants_jacobian)
    frames = _Deviations.of(view, observables)
    beforehand = _beforehand(frames, sight, known, wants_jacobian)
    seen = Seen(beforehand.modes, frames.inner, frames.weights, view.samples.blocks, frames.alone)
    share, share_of_response = _shares(seen, beforehand, view, known)
    if beforehand.jacobian is not None:
        jacobian = _mixed(jacobian, frames, beforehand, seen, share_of_response)
    along = np.outer(frames.along, frames.along)
    frame_covariance = seen.frame_covariance(share) + frames.slow * along
    by_theory = beforehand.modes.known
    return Averages(
        sight,
        observables,
        mean,
        jacobian,
        frame_covariance / seen.n_frames,
        frame_covariance,
        view.n_effective,
        _jacobian_noise(frames, beforehand, seen) if wants_jacobian else None,
        growth=beforehand.growth,
        theory_weight=float(np.mean(1 - share[by_theory])) if by_theory.any() else 0.0,
    )


def _jacobian_noise(frames: _Deviations, beforehand: _Beforehand, seen: Seen) -> Array | None:
    """Deviations of the Jacobian of frames, [stretches, values, coefficients], or None.

    Of the answer of the volume; without theory, which has no noise, of that at a fixed one, too.
    """
    each = []
    if frames.is_free:
        each.append(frames.noise_along())
    if beforehand.jacobian is None and frames.view.samples.potential.energy_is_linear:
        each.append(frames.noise_inside(float(np.max(seen.inefficiency))))
    return np.concatenate(each) if each else None


def _shares(
    seen: Seen, beforehand: _Beforehand, view: View, known: Knowledge
) -> tuple[Array, Array]:
    """How much of each mode is left to the frames, [modes]: of covariances, of the Jacobian."""
    if beforehand.modes.known.any():
        expected = seen.share_by_evidence(known.prior_frames)
        return np.where(beforehand.modes.known, expected, 1.0), expected
    is_linear = view.samples.potential.energy_is_linear
    share = seen.share(0.0 if is_linear else known.prior_frames)
    return share, share


def _mixed(
    jacobian: Array, frames: _Deviations, beforehand: _Beforehand, seen: Seen, share: Array
) -> Array:
    """The Jacobian of frames and what is known beforehand, each at its volume, [values, n]."""
    assert beforehand.jacobian is not None
    of_volume = frames.response_along
    own, prior = jacobian - of_volume, beforehand.jacobian
    unknown = np.isnan(prior)
    mixed = seen.jacobian(own, np.where(unknown, own, prior), share)
    return np.where(unknown, jacobian, mixed + of_volume)


def _beforehand(
    frames: _Deviations, sight: Sight, known: Knowledge, wants_jacobian: bool
) -> _Beforehand:
    """Of theory where it has a say; else of the values alone."""
    covariance = (frames.inner * frames.weights[:, None]).T @ frames.inner
    if known.theory and sight.theory is not None:
        return _by_theory(frames, sight.theory, covariance, wants_jacobian)
    is_linear = frames.view.samples.potential.energy_is_linear
    if not is_linear:  # fewer frames than directions: points that fluctuate by themselves
        covariance = np.diag(np.diag(covariance))
    unit = np.full(len(covariance), np.nan)
    return _Beforehand(Modes.of(covariance, unit, [o.n_values for o in frames.observables]))


def _by_theory(
    frames: _Deviations, theory: LiquidTheory, covariance: Array, wants_jacobian: bool
) -> _Beforehand:
    view, observables = frames.view, frames.observables
    structure = theory.structure(view)
    c = view.coefficients.numpy(force=True)
    prior, counting = theory.covariance(structure, observables)
    rows = np.isfinite(counting)
    reference = np.where(np.outer(rows, rows), prior, covariance)
    modes = Modes.of(reference, counting, [o.n_values for o in observables])
    if not wants_jacobian:
        return _Beforehand(modes)
    answer, answered = theory.jacobian(structure, observables, c)
    answer[np.ix_(~answered, theory.columns)] = np.nan
    answer[:, ~theory.columns] = np.nan
    growth = np.zeros((len(structure.structure_factor), len(c)))
    growth[:, theory.columns] = structure.growth()
    return _Beforehand(modes, answer, growth)


def _dynamic(observables: list[Observable], sight: Sight, wants_jacobian: bool) -> Averages:
    """Of what is measured on trajectory segments: just as the segments have it."""
    view = sight.view
    mean, jacobian = _means(view, observables, wants_jacobian)
    covariance = block_diag(*(view.estimate(o, check=False).covariance for o in observables))
    deviations = None
    if wants_jacobian:  # each observable has its own blocks: zero in the values of the others
        starts = np.cumsum([0, *(o.n_values for o in observables)])
        deviations = np.concatenate(
            [
                _padded(jacobian_deviations(view, o), start, len(mean))  # type: ignore[arg-type]
                for o, start in zip(observables, starts, strict=False)
            ]
        )
    none = np.zeros_like(covariance)
    n_effective = view.n_effective
    return Averages(sight, observables, mean, jacobian, covariance, none, n_effective, deviations)


def _side_by_side(first: Averages, second: Averages) -> Averages:
    """Both, with noise that is independent."""
    n, m = len(first.mean), len(second.mean)
    each = [(first.deviations, 0), (second.deviations, n)]
    known = [_padded(own, start, n + m) for own, start in each if own is not None]
    return Averages(
        first.sight,
        [*first.observables, *second.observables],
        np.concatenate([first.mean, second.mean]),
        np.concatenate([first.jacobian, second.jacobian]),
        block_diag(first.covariance, second.covariance),
        block_diag(first.frame_covariance, second.frame_covariance),
        min(first.n_effective, second.n_effective),
        np.concatenate(known) if known else None,
        first.growth,
        first.theory_weight,
    )


def _padded(deviations: Array, start: int, n_values: int) -> Array:
    """[blocks, n_values, coefficients], zero in all other values."""
    after = n_values - start - deviations.shape[1]
    return np.pad(deviations, ((0, 0), (start, after), (0, 0)))


def _means(
    view: View, observables: Sequence[Observable], wants_jacobian: bool
) -> tuple[Array, Array]:
    """Averages [values] and their Jacobian [values, coefficients], stacked.

    Raises
    ------
    ObservableError
        If an observable has not as many values as it says.
    """
    each = [view.average(o).numpy(force=True) for o in observables]
    for observable, mean in zip(observables, each, strict=True):
        if len(mean) != observable.n_values:
            raise ObservableError(
                f"{type(observable).__name__}: expected n_values = {observable.n_values} from "
                f"values(), got {len(mean)}",
                got=len(mean),
                expected=observable.n_values,
            )
    means = np.concatenate(each)
    if not wants_jacobian:
        return means, np.zeros((len(means), 0))
    return means, np.concatenate([view.jacobian(o) for o in observables])
