"""Frames as they were recorded, in one or several runs, and what follows from how they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ObservableError, StatePointError
from ..observables import Observable
from ..potentials import Potential
from ..statistics.correlated import Blocks, assign_blocks
from ..statistics.weights import free_energy_influence, log_mixture
from ..units import BAR, beta
from .features import LearnedEnergy

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Self = TypeVar("Self", bound="Recorded")

_SAME = 1e-9  # relative: two volumes, as they are rounded


@dataclass(frozen=True)
class Run:
    """One stretch of MD with one potential at one temperature (and pressure)."""

    coefficients: Array  # the potential's, [coefficients], that the MD ran with
    temperature: float  # K
    pressure: float | None  # bar; None at constant volume
    n_frames: int
    every: int  # steps between frames
    rms_displacement: float = float("nan")  # nm, first frame to last, less that of the whole
    rest: tuple[tuple[str, str], ...] = ()  # name and checksum of each other force; empty: unknown


def check_same_forces(before: Run, now: Run) -> None:
    """StatePointError where forces besides the learned ones were others in an earlier run.

    What they add to the energy of a frame is known as they were then, and only cancels, or follows
    the temperature, where they still are.
    """
    changed = sorted({name for name, _ in set(before.rest) ^ set(now.rest)})
    if before.rest and now.rest and changed:
        raise StatePointError(
            f"{' and '.join(changed)} changed since the earlier frames were sampled (by "
            "updateParametersInContext, a global parameter, or in the System): frames of two "
            "energies cannot be pooled; set it back, or sample and fit anew",
            got=changed,
        )


@dataclass(frozen=True)
class Recorded:
    """Frames recorded from one system; see ``Samples``."""

    potential: Potential
    runs: tuple[Run, ...]
    learned: LearnedEnergy
    volume: Array  # [frames], nm^3; NaN without a box
    rest_energy: Array  # [frames], kJ/mol, of all forces but the learned ones
    records: Mapping[Observable, Array]  # [frames, n_recorded] each
    temperature: float  # K, of the averages
    pressure: float | None = None  # bar, of the averages
    floor: float = 20.0  # least n_effective that an average is trusted with

    def __len__(self) -> int:
        return len(self.learned)

    def not_recorded(self, observable: Observable) -> ObservableError:
        """What to say of an observable that is not among the records, which go by the object."""
        name = type(observable).__name__
        if any(type(known) is type(observable) for known in self.records):
            return ObservableError(
                f"{name} was not recorded as this object, another {name} was: keep the one passed "
                "to sample(record=[...]) and pass the same object here"
            )
        return ObservableError(f"{name} was not recorded: pass it to sample(record=[...])")

    def check_volume(self, observable: Observable) -> None:
        """ObservableError where what needs a constant pressure has frames of one volume."""
        if self.pressure is None or not observable.needs_pressure or len(self) < 2:
            return
        if np.ptp(self.volume) <= _SAME * self.volume[0]:
            raise ObservableError(
                f"{observable.label}: expected a volume that fluctuates, at {self.pressure:g} bar, "
                f"got {self.volume[0]:.6g} nm^3 in all {len(self)} frames: they were sampled at "
                "constant volume; add a barostat to the System, such as "
                "openmm.MonteCarloBarostat, or run until it has moved the box"
            )

    @property
    def least_effective(self) -> float:
        """Least n_effective of an average: ``floor``, or half the frames where there are fewer."""
        return min(self.floor, 0.5 * len(self))

    def select(self: Self, keep: Mask) -> Self:
        """Those frames alone; the runs stay as they are."""
        return replace(
            self,
            learned=self.learned.select(keep),
            volume=self.volume[keep],
            rest_energy=self.rest_energy[keep],
            records={o: a[keep] for o, a in self.records.items()},
        )

    def of_runs(self: Self, chosen: Mask) -> Self:
        """The frames of those runs alone."""
        if chosen.all():
            return self
        part = self.select(np.repeat(chosen, [run.n_frames for run in self.runs]))
        runs = tuple(run for run, keep in zip(self.runs, chosen, strict=True) if keep)
        return replace(part, runs=runs)

    def each_run(self: Self) -> list[Self]:
        """Run by run."""
        return [self.of_runs(np.arange(len(self.runs)) == k) for k in range(len(self.runs))]

    def split(self, array: Array) -> list[Array]:
        """An array over frames, run by run."""
        return np.split(array, np.cumsum([run.n_frames for run in self.runs])[:-1])

    def without(self: Self, frames: Mask) -> Self:
        """Fewer frames with the same mixture weights: one leave-one-out sample."""
        kept = [int(part.sum()) for part in self.split((~frames).astype(np.float64))]
        runs = tuple(replace(run, n_frames=n) for run, n in zip(self.runs, kept, strict=True) if n)
        return replace(self.select(~frames), runs=runs).with_mixture(self.log_mixture[~frames])

    def with_mixture(self: Self, log_mixture: Tensor) -> Self:
        """With mixture weights that are known."""
        self.__dict__["log_mixture"] = log_mixture
        return self

    def run_energies(self) -> Array:
        """Potential energy of each frame in the run that it came from, kJ/mol, shape [frames]."""
        learned = [
            part.learned.energy(torch.from_numpy(part.runs[0].coefficients)).numpy()
            for part in self.each_run()
        ]
        return np.concatenate(learned) + self.rest_energy

    @cached_property
    def blocks(self) -> Blocks:
        """Stretches of the runs, of which error bars are made; see ``statistics.correlated``."""
        return assign_blocks([run.n_frames for run in self.runs])

    def reduced_potential(self, learned: Tensor) -> Tensor:
        """beta (U + p V), [frames], where the learned energy is ``learned`` [frames], kJ/mol."""
        return self._reduced(learned, self.temperature, self.pressure)

    def _reduced(self, learned: Tensor, temperature: float, pressure: float | None) -> Tensor:
        energy = learned + self._rest
        if pressure is not None:
            energy = energy + (pressure / BAR) * self.volumes
        return beta(temperature) * energy

    @cached_property
    def log_mixture(self) -> Tensor:
        """Logarithm of the density of frames in the mixture of all runs, [frames]."""
        return torch.from_numpy(self._mixture[0])

    @property
    def run_shares(self) -> Array:
        """d(log_mixture)/df_k, of the free energy of each run, [runs, frames]."""
        return self._mixture[1]

    @cached_property
    def free_energy_influence(self) -> Array:
        """Of each frame on the free energy of each run, [runs, frames]."""
        return free_energy_influence(self.run_shares, self._n_k)

    @cached_property
    def _mixture(self) -> tuple[Array, Array]:
        u_kn = [
            self._reduced(
                self.learned.energy(torch.from_numpy(run.coefficients)),
                run.temperature,
                run.pressure,
            ).numpy()
            for run in self.runs
        ]
        return log_mixture(np.array(u_kn), self._n_k)

    @property
    def _n_k(self) -> IntArray:
        return np.array([run.n_frames for run in self.runs], dtype=np.int64)

    @cached_property
    def _rest(self) -> Tensor:
        """Rest energies, or zeros where one temperature makes them cancel."""
        temperatures = {run.temperature for run in self.runs} | {self.temperature}
        return torch.from_numpy(self.rest_energy) * float(len(temperatures) > 1)

    @cached_property
    def volumes(self) -> Tensor:
        """Of each frame, nm^3, [frames]."""
        return torch.from_numpy(self.volume)

    @cached_property
    def sampled_coefficients(self) -> Tensor:
        """What each frame was sampled with, [frames, coefficients]."""
        each = torch.from_numpy(np.array([run.coefficients for run in self.runs]))
        return each.repeat_interleave(torch.tensor([run.n_frames for run in self.runs]), dim=0)
