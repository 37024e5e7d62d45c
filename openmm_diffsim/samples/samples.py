"""What was recorded per frame, from which states, and averages over it with gradients."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import OverlapError, StatePointError
from ..io import atomic_write_bytes
from ..observables import Conditions, Observable, SegmentObservable
from ..potentials import NetworkPotential, Potential, learned_parameters
from ..statistics.averages import (
    Estimate,
    assign_blocks,
    block_covariance,
    effective_blocks,
    jackknife_standard_error,
    statistical_inefficiency,
)
from ..statistics.weights import log_mixture, n_effective, softmax_weights
from ..units import BAR, beta, number_in_md_units
from .features import BasisSums, EvaluatedFrames, LearnedEnergy

Array = NDArray[np.float64]

# Of the largest value: how far dynamics is followed to first order in the potential.
_FIRST_ORDER, _MOST_CHANGE = 0.1, 0.5


@dataclass(frozen=True)
class Run:
    """One stretch of MD with one potential at one temperature (and pressure)."""

    coefficients: Array  # the potential's, [pairs of types, coefficients], that the MD ran with
    temperature: float  # K
    pressure: float | None  # bar; None at constant volume
    n_frames: int
    every: int  # steps between frames
    rms_displacement: float = float("nan")  # nm, first frame to last, less that of the whole


@dataclass(frozen=True)
class Samples:
    """Frames recorded from one system, in one or several runs.

    U(x) = U_learned(x; c) + U_rest(x): what ``learned`` knows gives the energy of a frame for any
    parameters, and so its weight in any state. For a pair potential that is a dot product with
    the basis sums, U_learned = c . S(x); a network is evaluated anew.

    ``average`` and everything else refers to the present parameters of ``potential``, at
    ``temperature`` and ``pressure``, whatever the frames were sampled with; n_effective says how
    well that works.
    """

    potential: Potential
    runs: tuple[Run, ...]
    learned: LearnedEnergy
    volume: Array  # [frames], nm^3; NaN without a box
    rest_energy: Array  # [frames], kJ/mol, of all forces but the learned one
    records: Mapping[Observable, Array]  # [frames, n_recorded] each
    temperature: float  # K, of the averages
    pressure: float | None = None  # bar, of the averages
    floor: float = 20.0  # least n_effective that an average is trusted with

    def __len__(self) -> int:
        return len(self.learned)

    def __add__(self, other: Samples) -> Samples:
        return Samples.pool([self, other])

    @staticmethod
    def pool(parts: Sequence[Samples]) -> Samples:
        """All frames together, to be weighted by the mixture of all their states (MBAR).

        Averages of the result are at the temperature and pressure of the *last* part. Only
        observables that all parts recorded are kept.

        Raises
        ------
        StatePointError
            If the parts come from different potentials, or from NPT and NVT.
        """
        last = parts[-1]
        for part in parts:
            if part.potential is not last.potential:
                raise StatePointError("samples of different potentials cannot be pooled")
            if (part.pressure is None) != (last.pressure is None):
                raise StatePointError("samples at constant volume and at constant pressure differ")
        common = [o for o in last.records if all(o in part.records for part in parts)]
        return replace(
            last,
            runs=tuple(run for part in parts for run in part.runs),
            learned=parts[0].learned.pooled([part.learned for part in parts[1:]]),
            volume=np.concatenate([part.volume for part in parts]),
            rest_energy=np.concatenate([part.rest_energy for part in parts]),
            records={o: np.concatenate([part.records[o] for part in parts]) for o in common},
        )

    def after(self, first: int) -> Samples:
        """Without the first frames of a single run: what is left after equilibration."""
        if len(self.runs) != 1:
            raise StatePointError("after() is for a single run; cut the parts before pooling them")
        part = self._select(np.arange(len(self)) >= first)
        return replace(part, runs=(replace(self.runs[0], n_frames=len(part)),))

    def last_run(self) -> Samples:
        """The frames of the last run only."""
        first = len(self) - self.runs[-1].n_frames
        part = self._select(np.arange(len(self)) >= first)
        return replace(part, runs=self.runs[-1:])

    def relevant(self, least_share: float) -> Samples:
        """Without runs whose share of the weight, at the present parameters, is less than that.

        The last run stays.
        """
        weights = self.weights().detach().numpy()
        shares = np.array([part.sum() for part in self._split(weights)])
        chosen = shares >= least_share
        chosen[-1] = True
        return self._of_runs(chosen)

    def reduced_energies(self) -> Array:
        """The learned energy of each frame at the present parameters over kT, [frames]."""
        with torch.no_grad():
            return beta(self.temperature) * self.learned.energy(self.coefficients()).numpy()

    def save(self, path: str | Path) -> None:
        """Keep everything in a file (.npz), for ``load``.

        The frames of a network stay in the trajectory that ``sample`` was given. It may move
        together with the file.

        Raises
        ------
        StatePointError
            If they are in a temporary file.
        """
        stream = io.BytesIO()
        arrays = self.arrays(list(self.records), Path(path).parent)
        np.savez(stream, allow_pickle=False, **arrays)
        atomic_write_bytes(path, stream.getvalue())

    @classmethod
    def load(
        cls, path: str | Path, potential: Potential, observables: Sequence[Observable]
    ) -> Samples:
        """What ``save`` kept, for a potential of the same form, with what was recorded, in order.

        Raises
        ------
        StatePointError
            If the file holds another number of records, or was made with another form of
            potential.
        FramesError
            If the trajectory of a network is gone, or holds other frames.
        """
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        kept = sum(name.startswith("record/") for name in arrays)
        if kept != len(observables):
            raise StatePointError(
                f"{path} holds records of {kept} observables, got {len(observables)}"
            )
        return cls.from_arrays(potential, observables, arrays, Path(path).parent)

    def arrays(self, observables: Sequence[Observable], folder: Path) -> dict[str, NDArray[Any]]:
        """All that these samples are, and the records of these observables, as arrays.

        ``folder`` is that of the file they go to.
        """
        runs = [
            [r.temperature, _or_nan(r.pressure), r.n_frames, r.every, r.rms_displacement]
            for r in self.runs
        ]
        return {
            "settings": np.array([self.temperature, _or_nan(self.pressure), self.floor]),
            "runs": np.array(runs),
            "coefficients": np.array([run.coefficients for run in self.runs]),
            "volume": self.volume,
            "rest_energy": self.rest_energy,
            **{f"record/{i}": self.records[o] for i, o in enumerate(observables)},
            **{f"learned/{name}": array for name, array in self.learned.arrays(folder).items()},
        }

    @classmethod
    def from_arrays(
        cls,
        potential: Potential,
        observables: Sequence[Observable],
        arrays: Mapping[str, NDArray[Any]],
        folder: Path,
    ) -> Samples:
        """From what ``arrays`` gave, in a file in ``folder``.

        Raises
        ------
        StatePointError
            If they are of another form of potential.
        FramesError
            If the trajectory of a network is gone, or holds other frames.
        """
        present = potential.coefficients(float(arrays["settings"][0]))
        if arrays["coefficients"].shape[1:] != present.shape:
            raise StatePointError(
                f"these samples were made with coefficients of shape "
                f"{arrays['coefficients'].shape[1:]}, {type(potential).__name__} has "
                f"{tuple(present.shape)}"
            )
        prefix = "learned/"
        learned = {k[len(prefix) :]: a for k, a in arrays.items() if k.startswith(prefix)}
        temperature, pressure, floor = arrays["settings"].tolist()
        runs = zip(arrays["coefficients"], arrays["runs"].tolist(), strict=True)
        return cls(
            potential=potential,
            runs=tuple(
                Run(c, t, None if np.isnan(p) else p, int(n), int(every), moved)
                for c, (t, p, n, every, moved) in runs
            ),
            learned=(
                EvaluatedFrames.from_arrays(potential, learned, folder)
                if isinstance(potential, NetworkPotential)
                else BasisSums.from_arrays(learned)
            ),
            volume=arrays["volume"],
            rest_energy=arrays["rest_energy"],
            records={o: arrays[f"record/{i}"] for i, o in enumerate(observables)},
            temperature=temperature,
            pressure=None if np.isnan(pressure) else pressure,
            floor=floor,
        )

    def reweight(self, temperature: Any, pressure: Any = None) -> Samples:
        """The same frames, to be averaged at another temperature (K) and pressure (bar)."""
        if (pressure is None) != (self.pressure is None):
            raise StatePointError("reweight() cannot turn constant volume into constant pressure")
        return replace(
            self,
            temperature=number_in_md_units(temperature, "temperature"),
            pressure=None if pressure is None else number_in_md_units(pressure, "pressure"),
        )

    @property
    def basis_sums(self) -> Array:
        """S = dU/dc of a pair potential, [frames, pairs of types, coefficients].

        Raises
        ------
        StatePointError
            If the potential is a network, whose energy is linear in nothing.
        """
        return self._sums().basis

    @property
    def virial_sums(self) -> Array:
        """dW/dc of a pair potential, [frames, pairs of types, coefficients]; see ``basis_sums``."""
        return self._sums().virials

    def _sums(self) -> BasisSums:
        if not isinstance(self.learned, BasisSums):
            raise StatePointError(
                f"{type(self.potential).__name__} has no basis sums: its energy is not linear in "
                "coefficients; take a pair potential"
            )
        return self.learned

    def coefficients(self) -> Tensor:
        """Present coefficients of the potential at this temperature, with their graph."""
        return self.potential.coefficients(self.temperature)

    def weights(self, coefficients: Tensor | None = None) -> Tensor:
        """Weight of each frame, shape [frames], with a graph to the coefficients."""
        c = self.coefficients() if coefficients is None else coefficients
        return softmax_weights(self._reduced_potential(c), self._log_mixture)

    def n_effective(self) -> float:
        """Effective number of frames, entropy form exp(-sum w ln w)."""
        with torch.no_grad():
            return n_effective(self.weights())

    def average(self, observable: Observable, coefficients: Tensor | None = None) -> Tensor:
        """<A> = sum_n w_n A_n, shape [values], with a graph to the potential's parameters.

        Its gradient is the covariance formula d<A> = <dA> - beta Cov(A, dU), exact for the
        frames at hand.

        Raises
        ------
        OverlapError
            If n_effective is below ``floor`` (or half the frames, where there are fewer).
        """
        return self.averages([observable], coefficients)[0]

    def averages(
        self, observables: Sequence[Observable], coefficients: Tensor | None = None
    ) -> list[Tensor]:
        """As ``average``, of several observables.

        A loss of them all takes no more time with a network than a loss of one: each frame is
        differentiated once.
        """
        c = self.coefficients() if coefficients is None else coefficients
        parts = [self.near(observable) for observable in observables]
        weights: dict[int, Tensor] = {}
        for part in parts:
            if id(part) not in weights:
                weights[id(part)] = part.weights(c)
                part._check_overlap(weights[id(part)])
        pairs = zip(parts, observables, strict=True)
        return [weights[id(part)] @ part.values(observable, c) for part, observable in pairs]

    def estimate(self, observable: Observable, check: bool = True) -> Estimate:
        """<A> with its standard error and covariance; correlated frames are accounted for.

        ``check=False`` leaves the overlap to the caller.

        Raises
        ------
        OverlapError
            As ``average``.
        """
        part = self.near(observable)
        with torch.no_grad():
            weights = part.weights()
            if check:
                part._check_overlap(weights)
            values = part.values(observable).numpy()
        w = weights.numpy()
        blocks = part.blocks_of(values)
        covariance = block_covariance(values, w, blocks)
        return Estimate(
            value=w @ values,
            standard_error=np.sqrt(np.diag(covariance)),
            covariance=covariance,
            n_effective=n_effective(weights),
            n_blocks=round(effective_blocks(w, blocks)),
        )

    def jacobian(self, observable: Observable) -> Tensor:
        """d<A>/dc = <dA/dc> - beta Cov(A, dU/dc), [values, pairs of types, coefficients]."""
        c = self.coefficients().detach().requires_grad_(True)
        part = self.near(observable)
        weights = part.weights(c.detach())
        part._check_overlap(weights)
        values = part.values(observable, c)
        w, a = weights.numpy(), values.detach().numpy()
        rows = -beta(part.temperature) * (w[:, None] * (a - w @ a)).T
        total = torch.from_numpy(part.learned.response("energy", c, rows)).reshape(-1, *c.shape)
        if values.requires_grad:
            explicit = [
                torch.autograd.grad(mean, c, retain_graph=True, allow_unused=True)[0]
                for mean in weights @ values
            ]
            total = total + torch.stack([torch.zeros_like(c) if e is None else e for e in explicit])
        return total

    def gradient(self, loss: Callable[[Samples], Tensor]) -> tuple[Array, Array]:
        """Gradient of a scalar loss and its standard error, each flat over the parameters.

        ``loss`` takes Samples and returns a scalar Tensor, for example
        ``lambda s: ((s.average(rdf) - g) ** 2).mean()``. The error is a jackknife over blocks.

        Of a network, the gradient of each frame's energy is kept meanwhile: frames times
        parameters numbers.
        """
        parameters = learned_parameters(self.potential)
        blocks, whole = self.blocks, self._linear()

        def flat_gradient(samples: Samples) -> Array:
            parts = torch.autograd.grad(loss(samples), parameters, allow_unused=True)
            zeros = [torch.zeros_like(p) for p in parameters]
            return np.concatenate(
                [(z if g is None else g).numpy().ravel() for g, z in zip(parts, zeros, strict=True)]
            )

        parts = [flat_gradient(whole._without(blocks == b)) for b in range(blocks.max() + 1)]
        return flat_gradient(whole), jackknife_standard_error(np.array(parts))

    def _linear(self) -> Samples:
        """To first order about the present parameters, with the same weights there."""
        virials = any(observable.needs_virial for observable in self.records)
        part = replace(self, learned=self.learned.linear(self.coefficients(), virials))
        part.__dict__["_log_mixture"] = self._log_mixture
        return part

    def values(self, observable: Observable, coefficients: Tensor | None = None) -> Tensor:
        """A_n, the observable in each frame, shape [frames, values]."""
        if observable not in self.records:
            raise KeyError(
                f"{type(observable).__name__} was not recorded: pass it to sample(record=[...])"
            )
        conditions = Conditions(
            coefficients=self.coefficients() if coefficients is None else coefficients,
            temperature=self.temperature,
            learned_virial=self.learned.virial,
            volume=self._volume,
            sampled_coefficients=lambda: self.sampled_coefficients,
        )
        return observable.values(torch.from_numpy(self.records[observable]), conditions)

    def near(self, observable: Observable) -> Samples:
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
        if not isinstance(observable, SegmentObservable) or observable not in self.records:
            return self
        others = {run.temperature for run in self.runs} - {self.temperature}
        if others:
            raise StatePointError(
                f"{type(observable).__name__}: segments at {min(others):g} K cannot be reweighted "
                f"to {self.temperature:g} K, which their velocities and noise would have to have; "
                "sample there"
            )
        changes = np.array([self._first_order_change(run, observable) for run in self._runs()])
        if changes.min() > _MOST_CHANGE:
            raise OverlapError(
                f"{type(observable).__name__}: the parameters have moved so far from those sampled "
                f"that, to first order, a segment's value changes by {changes.min():.2f} of the "
                f"largest, expected at most {_MOST_CHANGE}; sample again",
                n_frames=len(self),
            )
        return self._of_runs(changes <= max(_FIRST_ORDER, changes.min()))

    def _first_order_change(self, run: Samples, observable: SegmentObservable) -> float:
        with torch.no_grad():
            mean = run.values(observable).mean(dim=0)
            as_sampled = torch.from_numpy(run.runs[0].coefficients)
            plain = run.values(observable, as_sampled).mean(dim=0)
        size = float(plain.abs().max())
        return float((mean - plain).abs().max()) / size if size > 0 else 0.0

    def _runs(self) -> list[Samples]:
        return [self._of_runs(np.arange(len(self.runs)) == k) for k in range(len(self.runs))]

    def _of_runs(self, chosen: NDArray[np.bool_]) -> Samples:
        if chosen.all():
            return self
        part = self._select(np.repeat(chosen, [run.n_frames for run in self.runs]))
        runs = tuple(run for run, keep in zip(self.runs, chosen, strict=True) if keep)
        return replace(part, runs=runs)

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """Block of each frame, int [frames], from the correlation of the energy in each run."""
        return self._blocks(self._inefficiency(self.run_energies()))

    def _blocks(self, inefficiency: float) -> NDArray[np.int64]:
        return assign_blocks([run.n_frames for run in self.runs], inefficiency)

    def blocks_of(self, values: Array) -> NDArray[np.int64]:
        """Blocks long enough for the energy and for what varies most in ``values``."""
        deviations = values - values.mean(axis=0)
        _, _, directions = np.linalg.svd(deviations, full_matrices=False)
        slow = self._inefficiency(deviations @ directions[0])
        return self._blocks(max(slow, self._inefficiency(self.run_energies())))

    def _inefficiency(self, series: Array) -> float:
        """Median statistical inefficiency of the runs."""
        return float(np.median([statistical_inefficiency(part) for part in self._split(series)]))

    def run_energies(self) -> Array:
        """Potential energy of each frame in the run that it came from, kJ/mol, shape [frames]."""
        learned = [
            part.learned.energy(torch.from_numpy(part.runs[0].coefficients)).numpy()
            for part in self._runs()
        ]
        return np.concatenate(learned) + self.rest_energy

    def _split(self, array: Array) -> list[Array]:
        return np.split(array, np.cumsum([run.n_frames for run in self.runs])[:-1])

    def _reduced_potential(self, coefficients: Tensor) -> Tensor:
        learned = self.learned.energy(coefficients)
        return _reduced(learned, self._rest, self._volume, self.temperature, self.pressure)

    @cached_property
    def _rest(self) -> Tensor:
        """Rest energies, or zeros where one temperature makes them cancel."""
        temperatures = {run.temperature for run in self.runs} | {self.temperature}
        return torch.from_numpy(self.rest_energy) * float(len(temperatures) > 1)

    @cached_property
    def _volume(self) -> Tensor:
        return torch.from_numpy(self.volume)

    @cached_property
    def sampled_coefficients(self) -> Tensor:
        """What each frame was sampled with, kJ/mol, [frames, pairs of types, coefficients]."""
        each = torch.from_numpy(np.array([run.coefficients for run in self.runs]))
        return each.repeat_interleave(torch.tensor([run.n_frames for run in self.runs]), dim=0)

    @cached_property
    def _log_mixture(self) -> Tensor:
        u_kn = torch.stack(
            [
                _reduced(
                    self.learned.energy(torch.from_numpy(run.coefficients)),
                    self._rest,
                    self._volume,
                    run.temperature,
                    run.pressure,
                )
                for run in self.runs
            ]
        )
        n_k = np.array([run.n_frames for run in self.runs], dtype=np.int64)
        return torch.from_numpy(log_mixture(u_kn.numpy(), n_k))

    def _without(self, frames: NDArray[np.bool_]) -> Samples:
        """Fewer frames with the same mixture weights: one leave-one-out sample."""
        kept = [int(part.sum()) for part in self._split((~frames).astype(np.float64))]
        runs = tuple(replace(run, n_frames=n) for run, n in zip(self.runs, kept, strict=True) if n)
        part = replace(self._select(~frames), runs=runs)
        part.__dict__["_log_mixture"] = self._log_mixture[torch.from_numpy(~frames)]
        return part

    def _select(self, keep: NDArray[np.bool_]) -> Samples:
        return replace(
            self,
            learned=self.learned.select(keep),
            volume=self.volume[keep],
            rest_energy=self.rest_energy[keep],
            records={o: a[keep] for o, a in self.records.items()},
        )

    @property
    def least_effective(self) -> float:
        """Least n_effective of an average: ``floor``, or half the frames where there are fewer."""
        return min(self.floor, 0.5 * len(self))

    def _check_overlap(self, weights: Tensor) -> None:
        effective = n_effective(weights)
        floor = self.least_effective
        if not effective >= floor:
            raise OverlapError(
                f"only {effective:.1f} of {len(self)} frames are effective, expected at least "
                f"{floor:g}: the parameters have moved too far from those sampled; sample again",
                n_effective=effective,
                n_frames=len(self),
                floor=floor,
            )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _reduced(
    learned: Tensor, rest: Tensor, volume: Tensor, temperature: float, pressure: float | None
) -> Tensor:
    energy = learned + rest
    if pressure is not None:
        energy = energy + (pressure / BAR) * volume
    return beta(temperature) * energy
