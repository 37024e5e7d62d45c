"""Runs a segment from every recorded frame, and keeps what averages and gradients need."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import SegmentError
from ...observables import Frame, Segment, SegmentObservable
from ...observables.segment import SegmentRecords
from ...statistics.kernels import PairHistogram
from .fields import SystemField
from .options import SegmentOptions
from .score import check_has_score, explicit_weights, score_weights
from .segment import SegmentRunner
from .stepping import Noise

Array = NDArray[np.float64]


class SegmentRecorder:
    """A Recorder for a SegmentObservable.

    Velocities and noise depend on the observable's seed and the positions of the frame alone, so a
    run that is resumed gives the same segments.
    """

    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, observable: SegmentObservable, runner: SegmentRunner) -> None:
        self.observable = observable
        self.runner = runner
        self.scheme = runner.scheme(observable.integrator)
        if observable.estimator == "score":
            check_has_score(self.scheme)
        self.takes_score = self.scheme.is_noisy and observable.estimator != "pathwise"
        self.takes_adjoint = observable.estimator != "score"
        self._frames = 0

    @torch.enable_grad()
    def record(self, frame: Frame, counts: Sequence[NDArray[np.int64]]) -> Array:
        """Values, and every ``gradient_every`` frames derivatives, of one segment."""
        observable, runner = self.observable, self.runner
        seed = (observable.seed, zlib.crc32(np.ascontiguousarray(frame.positions).tobytes()))
        takes_gradient = self._frames % observable.gradient_every == 0
        self._frames += 1
        c = runner.potential.coefficients(runner.temperature).detach()
        c.requires_grad_(takes_gradient and self.takes_adjoint)
        options = SegmentOptions(
            integrator=self.scheme,
            seed=seed,
            box=frame.box,
            truncation=observable.truncation,
            clipping=observable.clipping,
        )
        segment = runner.run(observable.steps, frame.positions, None, options, c)
        values = self._measure(segment)
        unknown = np.full((len(values), c.numel()), np.nan)
        pathwise, score, explicit, growth = unknown, unknown, unknown, float("nan")
        if takes_gradient and self.takes_adjoint:
            pathwise = np.array([self._adjoint(value, c) for value in values])
            growth = _exponent(segment)
        if takes_gradient and self.takes_score:
            noise = Noise(self.scheme.noise_scale(runner.masses), (*seed, 1))
            score, explicit = self._score(segment, noise, runner.field(frame.box, c.detach()))
        return SegmentRecords.pack(values.numpy(force=True), pathwise, score, explicit, growth)

    def _measure(self, segment: Segment) -> Tensor:
        values = self.observable.measure(segment)
        expected = (self.observable.n_values,)
        if tuple(values.shape) != expected:
            raise SegmentError(
                f"{type(self.observable).__name__}: expected values of shape {expected} from "
                f"measure(), got {tuple(values.shape)}",
                got=tuple(values.shape),
            )
        return values

    def _adjoint(self, value: Tensor, c: Tensor) -> Array:
        (slope,) = torch.autograd.grad(value, c, retain_graph=True, allow_unused=True)
        return np.zeros(c.numel()) if slope is None else slope.numpy().ravel()

    def _score(self, segment: Segment, noise: Noise, field: SystemField) -> tuple[Array, Array]:
        """Score and explicit part of each value, [n_values, coefficients] each."""
        all_noise = noise.steps(0, self.observable.steps)
        assert all_noise is not None
        x = segment.positions.numpy(force=True)

        def products(weights: Array) -> Array:
            if not weights.any():
                return np.zeros(field.coefficients.numel())
            return field.parameter_product(x[: len(weights)], weights)

        by_steps: dict[int, Array] = {}
        scores, explicits = [], []
        slopes = self._by_velocity(segment)
        for steps, slope in zip(self.observable.reach().tolist(), slopes, strict=True):
            if steps not in by_steps:
                by_steps[steps] = products(score_weights(self.scheme, all_noise[:steps]))
            weights = explicit_weights(self.scheme, slope[: steps + 1], self.runner.masses)
            scores.append(by_steps[steps])
            explicits.append(products(weights))
        return np.array(scores), np.array(explicits)

    def _by_velocity(self, segment: Segment) -> list[Array]:
        """dA/dv of each value at fixed positions, [steps + 1, particles, 3]."""
        v = segment.velocities.detach().requires_grad_(True)
        values = self._measure(replace(segment, positions=segment.positions.detach(), velocities=v))
        if not values.requires_grad:
            return [np.zeros(v.shape) for _ in values]
        slopes = [torch.autograd.grad(value, v, retain_graph=True)[0] for value in values]
        return [slope.numpy() for slope in slopes]


def _exponent(segment: Segment) -> float:
    """Growth of the adjoint of the last value, 1/ps: slope of its logarithm back in time."""
    norm = segment.growth()
    seen = np.flatnonzero(norm > 0)
    if len(seen) < 3:
        return float("nan")
    first, last = seen[0], seen[-1]
    return float(np.log(norm[first] / norm[last]) / (segment.times[last] - segment.times[first]))
