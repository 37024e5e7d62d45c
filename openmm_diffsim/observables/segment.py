"""What is measured on a short trajectory segment: time correlation functions and the like."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ObservableError
from ..units import number_in_md_units
from .arguments import at_least
from .base import Array, Conditions, IntArray, Observable, Particles, Recorder
from .site import Section, Site

ESTIMATORS = ("auto", "pathwise", "score", "combined")


@dataclass(frozen=True)
class Segment:
    """A stretch of trajectory, as tensors with a graph.

    Positions are never wrapped into the box, so a difference of two times is a displacement.
    Several segments at once have a leading dimension [segments, steps + 1, particles, 3].
    """

    positions: Tensor  # [times, particles, 3], nm
    velocities: Tensor  # [times, particles, 3], nm/ps
    times: Array  # [times], ps; the first is 0
    masses: Array  # [particles], amu
    box: Array | None  # [3, 3], nm, reduced form; None without one
    diagnostics: dict[str, Any] = field(default_factory=dict, compare=False)

    def growth(self) -> Array:
        """Norm of the adjoint at each time, [times], of the last ``backward``; NaN before it.

        |(dL/dx dt, dL/dv) / sqrt(m)|, which grows toward the start of a chaotic segment.
        """
        n_times = len(self.times)
        return self.diagnostics.get("growth", np.full(n_times, np.nan))[:n_times]

    def first(self, steps: int) -> Segment:
        """The first ``steps`` steps of it, steps + 1 times.

        Raises
        ------
        ObservableError
            If the segment is shorter.
        """
        n_times = min(self.positions.shape[-3], self.velocities.shape[-3], len(self.times))
        if n_times <= steps:
            raise ObservableError(
                f"a segment of {n_times - 1} steps is too short, expected at least {steps}: run "
                "the segment with that many, every step of it",
                got=n_times - 1,
                expected=steps,
            )
        return replace(
            self,
            positions=self.positions[..., : steps + 1, :, :],
            velocities=self.velocities[..., : steps + 1, :, :],
            times=self.times[: steps + 1],
        )


class SegmentObservable(Observable):
    """A quantity with a value for every trajectory segment that starts from equilibrium.

    Its average depends on the potential in two ways,

        d<A> = <dA along the segment> - beta Cov(A, dU(x_0)),

    by how a segment moves and by where segments start. ``record=[observable]`` runs a segment from
    every recorded frame, with velocities from the Maxwell-Boltzmann distribution, and keeps its
    value and its derivative with respect to the coefficients; ``samples.average(observable)`` then
    has both terms in its graph.

    To add one: give ``n_values`` and ``measure``, and ``reach`` where values depend on the first
    part of a segment only.

    Parameters
    ----------
    steps : int
        Length of the segment.
    integrator : optional
        An ``openmm.Integrator`` or what ``openmm_diffsim.segments`` makes. Default: that of the
        Simulation.
    estimator : "auto", "pathwise", "score" or "combined"
        How the derivative along the segment is taken: through the discrete adjoint of the
        integrator; from the noise of Langevin dynamics and dF/dc; or the mean of both, weighted by
        their inverse measured variances. "auto" takes, for each value, what varies least.
    gradient_every : int
        Segments from one adjoint to the next; those between give the value alone.
    seed : int
        Of velocities and noise. They also depend on the starting frame, and on nothing else.
    truncation : int, optional
        Steps after which the adjoint is dropped: leaves out how a force acts on what comes later.
    clipping : float, optional
        Most that the adjoint may grow, from then on it is scaled: keeps its direction, and biases
        the derivative toward zero.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    def __init__(
        self,
        steps: int,
        *,
        integrator: Any = None,
        estimator: str = "auto",
        gradient_every: int = 1,
        seed: int = 1,
        truncation: int | None = None,
        clipping: float | None = None,
    ) -> None:
        self.steps = at_least(1, "steps", steps)
        self.integrator = integrator
        if estimator not in ESTIMATORS:
            raise ObservableError(
                f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}"
            )
        self.estimator = estimator
        self.gradient_every = at_least(1, "gradient_every", gradient_every)
        self.seed = at_least(0, "seed", seed)
        self.truncation = None if truncation is None else at_least(1, "truncation", truncation)
        if clipping is not None and not clipping >= 1:
            raise ObservableError(f"clipping: expected a number >= 1, got {clipping}")
        self.clipping = clipping

    def segment_timestep(self, timestep: float) -> float:
        """Of its own integrator, ps, or else that of the Simulation."""
        if self.integrator is None:
            return timestep
        if hasattr(self.integrator, "getStepSize"):
            return number_in_md_units(self.integrator.getStepSize(), "time")
        return float(self.integrator.timestep)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """What all have that are measured on trajectory segments."""
        return {
            "atoms": section.text("atoms", None),
            "integrator": section.choice("integrator", ("simulation", "nve"), "simulation"),
            "segments_every": section.integer("segments_every", 5),
        }

    @staticmethod
    def options(settings: dict[str, Any], site: Site) -> dict[str, Any]:
        """The arguments that ``settings`` of all segments stand for."""
        return {
            "atoms": site.select(settings["atoms"]),
            "integrator": site.integrator(settings["integrator"]),
            "gradient_every": settings["segments_every"],
        }

    def measure(self, segment: Segment) -> Tensor:
        """The values of a segment, shape [..., n_values], with a graph to its tensors."""
        raise NotImplementedError

    def reach(self) -> IntArray:
        """Last step that each value depends on, int [n_values]."""
        return np.full(self.n_values, self.steps, dtype=np.int64)

    def recorder(self, particles: Particles) -> Recorder:
        """None by itself: running a segment takes a Context, see ``segments.SegmentRecorder``."""
        raise ObservableError(
            f"{type(self).__name__} runs trajectory segments and needs a Simulation to record it"
        )

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Value in each frame, [frames, n_values]; to first order in how far the potential is
        from the one that the segment ran with, so its gradient is that along the segment."""
        data = SegmentRecords.unpack(records, self.n_values)
        sampled = conditions.sampled_coefficients()
        moved = (conditions.coefficients - sampled).flatten(1)
        slopes = data.derivatives(self.estimator, sampled).filled
        return data.values + torch.einsum("fvk,fk->fv", slopes, moved)


@dataclass(frozen=True)
class PathDerivatives:
    """dA/dc along each segment."""

    filled: Tensor  # [frames, n_values, coefficients]; the mean where it was not computed
    computed: Tensor  # bool [frames]
    pathwise_share: Tensor  # [n_values], of the adjoint in the estimate; the rest is the score's


@dataclass(frozen=True)
class SegmentRecords:
    """What is kept of the segments of all frames; NaN stands for what was not computed.

    The derivative from the score is (A - <A>) score + explicit, see ``segments.score``.
    """

    values: Tensor  # [frames, n_values]
    pathwise: Tensor  # [frames, n_values, coefficients]
    score: Tensor  # [frames, n_values, coefficients]
    explicit: Tensor  # [frames, n_values, coefficients]
    growth: Tensor  # [frames], 1/ps

    @staticmethod
    def pack(values: Array, pathwise: Array, score: Array, explicit: Array, growth: float) -> Array:
        """One frame's record, [n_recorded], of arrays [n_values] and [n_values, coefficients]."""
        parts = [values, pathwise.ravel(), score.ravel(), explicit.ravel(), np.array([growth])]
        return np.concatenate(parts)

    @staticmethod
    def unpack(records: Tensor, n_values: int) -> SegmentRecords:
        """From records [frames, n_recorded]."""
        size = (records.shape[1] - n_values - 1) // 3
        parts = records[:, n_values:-1].reshape(-1, 3, n_values, size // n_values)
        return SegmentRecords(
            records[:, :n_values], parts[:, 0], parts[:, 1], parts[:, 2], records[:, -1]
        )

    def derivatives(self, estimator: str, coefficients: Tensor) -> PathDerivatives:
        """dA/dc along each segment by one of the ``ESTIMATORS``.

        Variances are those of the derivative with respect to the strength of the whole potential,
        c . dA/dc with the ``coefficients`` [frames, ...] that the segments ran with: single
        coefficients say more of narrow knots than of any parameter.

        Raises
        ------
        ObservableError
            If it was computed for none.
        """
        by_score = (self.values - self.values.mean(0))[:, :, None] * self.score + self.explicit
        share = self._pathwise_share(estimator, by_score, coefficients.flatten(1))[:, None]
        # Zero times NaN is NaN: what has no share may not have been computed.
        slopes = torch.where(share > 0, share * self.pathwise, 0.0)
        slopes = slopes + torch.where(share < 1, (1 - share) * by_score, 0.0)
        computed = torch.isfinite(slopes).all(dim=2).all(dim=1)
        if not bool(computed.any()):
            raise ObservableError(
                f"none of {len(slopes)} frames has a derivative along its segment, expected one at "
                "least: take a smaller gradient_every, or more frames"
            )
        mean = slopes[computed].mean(dim=0)
        filled = torch.where(computed[:, None, None], slopes, mean)
        return PathDerivatives(filled, computed, share[:, 0])

    def _pathwise_share(self, estimator: str, by_score: Tensor, c: Tensor) -> Tensor:
        n_values = self.values.shape[1]
        has_pathwise, has_score = (
            bool(torch.isfinite(part).any()) for part in (self.pathwise, self.score)
        )
        if not has_score or estimator == "pathwise":
            return torch.ones(n_values, dtype=torch.float64)
        if not has_pathwise or estimator == "score":
            return torch.zeros(n_values, dtype=torch.float64)
        pathwise, score = (_variance(part, c) for part in (self.pathwise, by_score))
        if estimator == "auto":
            return (pathwise <= score).to(torch.float64)
        total = pathwise + score
        return torch.where(total > 0, score / torch.where(total > 0, total, 1.0), 1.0)


def _variance(slopes: Tensor, c: Tensor) -> Tensor:
    """Of c . slopes, in the frames where it was computed, [n_values]."""
    along = torch.einsum("fvk,fk->fv", slopes, c)
    return along[torch.isfinite(along).all(dim=1)].var(dim=0, correction=0)


def pick(values: Tensor, atoms: IntArray | None) -> Tensor:
    """The chosen particles of [..., particles, 3], in double precision.

    Raises
    ------
    ObservableError
        If an index is beyond the last particle.
    """
    n = values.shape[-2]
    if atoms is None:
        return values.double()
    if atoms.max() >= n:
        raise ObservableError(
            f"atoms must be indices 0 .. {n - 1}, got {atoms.max()}",
            limit=n - 1,
            got=int(atoms.max()),
        )
    return values.double()[..., atoms, :]
