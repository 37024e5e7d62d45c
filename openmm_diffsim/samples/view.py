"""Recorded frames as they are seen at one set of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ObservableError, OverlapError, StatePointError
from ..observables import Conditions, Observable, linearized
from ..statistics.averages import Estimate
from ..statistics.weights import n_effective, softmax_weights
from ..units import beta
from .recorded import Recorded

Array = NDArray[np.float64]

# Of the largest value: how far dynamics is followed to first order in the potential.
_FIRST_ORDER, _MOST_CHANGE = 0.1, 0.5


@dataclass(frozen=True, eq=False)
class View:
    """Samples at given coefficients of the potential: weights once, then averages and gradients.

    ``samples.at(parameters)`` makes one. Everything has a graph to whatever the coefficients have
    one to; what was computed once is kept, so a view costs its weights a single time. Averages of
    one view share that graph: ``backward`` of their sum, or with ``retain_graph=True``.

    Parameters
    ----------
    samples : Recorded
    coefficients : Tensor [coefficients]
    """

    samples: Recorded
    coefficients: Tensor
    _parts: dict[bytes, View] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def learned_energy(self) -> Tensor:
        """Of each frame, kJ/mol, [frames]."""
        with self._recorded_for_gradients():
            return self.samples.learned.energy(self.coefficients)

    @cached_property
    def weights(self) -> Tensor:
        """Of each frame, [frames], normalised: MBAR mixture weights."""
        with self._recorded_for_gradients():
            u_n = self.samples.reduced_potential(self.learned_energy)
            return softmax_weights(u_n, self.samples.log_mixture)

    @cached_property
    def n_effective(self) -> float:
        """Effective number of frames, entropy form exp(-sum w ln w)."""
        return n_effective(self.weights)

    def reduced_energies(self) -> Array:
        """The learned energy of each frame over kT, [frames]."""
        return beta(self.samples.temperature) * self.learned_energy.numpy(force=True)

    def values(self, observable: Observable) -> Tensor:
        """A_n, the observable in each frame, shape [frames, values]."""
        return self._values(observable, self.coefficients)

    def average(self, observable: Observable) -> Tensor:
        """<A> = sum_n w_n A_n, shape [values]; of a FunctionOfAverages, f(<A>, <B>, ...).

        Its gradient is the covariance formula d<A> = <dA> - beta Cov(A, dU), exact for the
        frames at hand.

        Raises
        ------
        OverlapError
            If n_effective is below ``floor`` (or half the frames, where there are fewer).
        """
        if observable in self.samples.records:
            part = self.near(observable)
            part.check_overlap()
            return part.weights @ part.values(observable)
        return observable.combine(*(self.average(o) for o in self._terms(observable)))

    def estimate(self, observable: Observable, check: bool = True) -> Estimate:
        """<A> with its standard error and covariance; correlated frames are accounted for.

        Of a FunctionOfAverages, f(<A>, <B>, ...) with the error of its own influences, so that
        what is common to <A> and <B> counts: those of the averages times df/d<A>, df/d<B>.

        ``check=False`` leaves the overlap to the caller.

        Raises
        ------
        OverlapError
            As ``average``.
        """
        part, mean, influence = self._influence(observable, check)
        w = part.weights.numpy(force=True)
        return Estimate.of(mean, influence, w, part.samples.blocks, part.n_effective)

    def together(self, observables: Sequence[Observable]) -> tuple[list[int], Estimate]:
        """Averages of several, one after the other, with what is common to their errors.

        Returns
        -------
        how many values each has, and all of them
        """
        part, means, influences = self._influences(observables, "averages")
        w = part.weights.numpy(force=True)
        joint = np.concatenate(means), np.concatenate(influences, axis=1)
        found = Estimate.of(*joint, w, part.samples.blocks, part.n_effective)
        return [len(mean) for mean in means], found

    def _influence(self, observable: Observable, check: bool) -> tuple[View, Array, Array]:
        """The runs that an average rests on, it, [values], and that of each frame on it."""
        if observable not in self.samples.records:
            return self._influence_on_function(observable, check)
        part = self.near(observable)
        if check:
            part.check_overlap()
        with torch.no_grad():
            values = part.values(observable).numpy()
        w = part.weights.numpy(force=True)
        mean = w @ values
        return part, mean, part.with_free_energies(w[:, None] * (values - mean))

    def _influence_on_function(
        self, observable: Observable, check: bool
    ) -> tuple[View, Array, Array]:
        terms = self._terms(observable)
        part, means, influences = self._influences(terms, observable.label, check)
        value, slopes = linearized(observable, [torch.from_numpy(mean) for mean in means])
        pairs = zip(influences, slopes, strict=True)
        return part, value, np.sum([i @ slope.T for i, slope in pairs], axis=0)

    def _influences(
        self, observables: Sequence[Observable], label: str, check: bool = True
    ) -> tuple[View, list[Array], list[Array]]:
        """``_influence`` on each of several averages, which rest on the same runs."""
        parts, means, influences = zip(
            *(self._influence(o, check) for o in observables), strict=True
        )
        if any(part is not parts[0] for part in parts):
            raise ObservableError(
                f"{label}: its averages rest on different runs here, as segments reach less far "
                "than frames; expected samples of one run, sample again"
            )
        return parts[0], list(means), list(influences)

    def _terms(self, observable: Observable) -> list[Observable]:
        """Of what combines averages, these; ObservableError where it was simply not recorded."""
        terms = [o for _, o in observable.terms([self.samples])]
        if observable in terms:
            raise self.samples.not_recorded(observable)
        return terms

    def with_free_energies(self, influence: Array) -> Array:
        """Influences on averages, [frames, values], at weights that depend on all runs.

        In the weights stand the free energies of the runs, which are estimated too.
        """
        if len(self.samples.runs) == 1:
            return influence
        slopes = -self.samples.run_shares @ influence  # [runs, values]
        return np.asarray(influence + self.samples.free_energy_influence.T @ slopes)

    def jacobian(self, observable: Observable) -> Array:
        """d<A>/dc = <dA/dc> - beta Cov(A, dU/dc), [values, coefficients]."""
        if observable not in self.samples.records:
            terms = self._terms(observable)
            averages = [self.average(o).detach() for o in terms]
            _, slopes = linearized(observable, averages)
            pairs = zip(slopes, terms, strict=True)
            return np.asarray(sum(slope @ self.jacobian(o) for slope, o in pairs))
        part = self.near(observable)
        part.check_overlap()
        weights = part.weights.detach()
        c = self.coefficients.detach().clone().requires_grad_(True)
        values = part._values(observable, c)
        w, a = weights.numpy(), values.numpy(force=True)
        rows = -beta(part.samples.temperature) * (w[:, None] * (a - w @ a)).T
        return part.samples.learned.response("energy", c, rows) + explicit(weights @ values, c)

    def near(self, observable: Observable) -> View:
        """The runs that an average of ``observable`` may rest on: all, but for a segment's.

        How a segment moves is known to first order in the potential. Runs from which the present
        potential is so far that this changes a value by more than a tenth of the largest are left
        out.

        Raises
        ------
        OverlapError
            If the nearest run is further away than five times that.
        StatePointError
            If the segments ran at another temperature: that of their velocities and their noise.
        """
        if not observable.is_dynamic or observable not in self.samples.records:
            return self
        name = type(observable).__name__
        others = {run.temperature for run in self.samples.runs} - {self.samples.temperature}
        if others:
            raise StatePointError(
                f"{name}: segments at {min(others):g} K cannot be reweighted to "
                f"{self.samples.temperature:g} K, which their velocities and noise would have to "
                "have; sample there"
            )
        changes = np.array(
            [self._first_order_change(run, observable) for run in self.samples.each_run()]
        )
        if changes.min() > _MOST_CHANGE:
            raise OverlapError(
                f"{name}: the parameters have moved so far from those sampled that, to first "
                f"order, a segment's value changes by {changes.min():.2f} of the largest, expected "
                f"at most {_MOST_CHANGE}; sample again",
                n_frames=len(self.samples),
            )
        return self._of_runs(changes <= max(_FIRST_ORDER, changes.min()))

    def check_overlap(self) -> None:
        """Raises OverlapError if too few frames are effective for an average."""
        floor = self.samples.least_effective
        if not self.n_effective >= floor:
            raise OverlapError(
                f"only {self.n_effective:.1f} of {len(self.samples)} frames are effective, "
                f"expected at least {floor:g}: the parameters have moved too far from those "
                "sampled; sample again",
                n_effective=self.n_effective,
                n_frames=len(self.samples),
                floor=floor,
            )

    def _recorded_for_gradients(self) -> torch.set_grad_enabled:
        """What is kept has its graph even where it is first asked for under ``no_grad``."""
        return torch.set_grad_enabled(self.coefficients.requires_grad)

    def _of_runs(self, chosen: NDArray[np.bool_]) -> View:
        if chosen.all():
            return self
        key = chosen.tobytes()
        if key not in self._parts:
            self._parts[key] = View(self.samples.of_runs(chosen), self.coefficients)
        return self._parts[key]

    def _values(self, observable: Observable, coefficients: Tensor) -> Tensor:
        samples = self.samples
        if observable not in samples.records:
            raise samples.not_recorded(observable)
        samples.check_volume(observable)
        conditions = Conditions(
            coefficients=coefficients,
            temperature=samples.temperature,
            learned_virial=samples.learned.virial,
            volume=samples.volumes,
            sampled_coefficients=lambda: samples.sampled_coefficients,
            learned_energy=samples.learned.energy,
            rest_energy=torch.from_numpy(samples.rest_energy),
            weights=lambda: self.weights,
            pressure=samples.pressure,
            free_charges=samples.potential.free_charges,
        )
        found = observable.values(torch.from_numpy(samples.records[observable]), conditions)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(samples):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ObservableError(
                f"{type(observable).__name__}.values(): expected a Tensor [frames, n_values] of "
                f"{len(samples)} frames, got {got}",
                got=got,
                expected=len(samples),
            )
        return found

    @torch.no_grad()
    def _first_order_change(self, run: Recorded, observable: Observable) -> float:
        mean = View(run, self.coefficients).values(observable).mean(dim=0)
        as_sampled = torch.from_numpy(run.runs[0].coefficients)
        plain = View(run, as_sampled).values(observable).mean(dim=0)
        size = float(plain.abs().max())
        return float((mean - plain).abs().max()) / size if size > 0 else 0.0


def explicit(means: Tensor, c: Tensor) -> Array:
    """d(means)/dc at fixed weights, [values, coefficients]; zero where there is no graph."""
    rows = np.zeros((len(means), len(c)))
    if means.requires_grad:
        for row, mean in zip(rows, means, strict=True):
            (slope,) = torch.autograd.grad(mean, c, retain_graph=True, allow_unused=True)
            if slope is not None:
                row[:] = slope.numpy()
    return rows
