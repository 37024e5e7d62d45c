"""What was recorded per frame, from which states, and averages over it with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import StatePointError
from ..io.archive import Arrays
from ..observables import Observable, parts_of
from ..potentials import Potential, learned_parameters
from ..statistics.averages import Estimate
from ..statistics.correlated import error_of_sum
from ..units import state_numbers
from . import store
from .features import Features
from .recorded import Recorded, check_same_forces
from .view import View

Array = NDArray[np.float64]

_SMALL = 1e-4  # change of a free energy, kT, for a slope


@dataclass(frozen=True)
class Samples(Recorded):
    """Frames recorded from one system, in one or several runs.

    U(x) = U_learned(x; c) + U_rest(x): what ``learned`` knows gives the energy of a frame for any
    parameters, and so its weight in any state. Where the energy is linear in the coefficients
    that is a dot product with the features of the frame, U_learned = c . S(x); a network is
    evaluated anew.

    ``at(parameters)`` is how these frames look at one set of parameters. ``average`` and the like
    refer to the present parameters of ``potential``, at ``temperature`` and ``pressure``, whatever
    the frames were sampled with; n_effective says how well that works.
    """

    def at(self, parameters: Tensor | None = None) -> View:
        """These frames at the present parameters, or at others, flat: weights are computed once.

        Parameters
        ----------
        parameters : Tensor [parameters], optional
            theta, flat over those of the potential that require a gradient; the view has a graph
            to it. Default: the present ones, with a graph to the potential.
        """
        if parameters is None:
            return View(self, self.potential.coefficients(self.temperature))
        return View(self, self.potential.coefficients_at(parameters, self.temperature))

    def average(self, observable: Observable) -> Tensor:
        """<A>, [values], with a graph to the potential's parameters; see ``View.average``."""
        return self.at().average(observable)

    def estimate(self, observable: Observable) -> Estimate:
        """<A> with its error bar; see ``View.estimate``."""
        with torch.no_grad():
            return self.at().estimate(observable)

    def weights(self) -> Tensor:
        """Weight of each frame, shape [frames], with a graph to the potential's parameters."""
        return self.at().weights

    def n_effective(self) -> float:
        """Effective number of frames, entropy form exp(-sum w ln w)."""
        with torch.no_grad():
            return self.at().n_effective

    def gradient(self, loss: Callable[[Samples], Tensor]) -> tuple[Array, Array]:
        """Gradient of a scalar loss and its standard error, each flat over the parameters.

        ``loss`` takes Samples and returns a scalar Tensor, for example
        ``lambda s: ((s.average(rdf) - g) ** 2).mean()``. The error is that of the influences of
        blocks of frames, each the change without one; see ``statistics.correlated``.

        Of a network, the gradient of each frame's energy is kept meanwhile: frames times
        parameters numbers.
        """
        whole, blocks = self._linear(), self.blocks
        weights = self.weights().numpy(force=True)

        def flat(samples: Samples) -> Array:
            return _flat_gradient(loss(samples), self.potential)

        gradient = flat(whole)
        without = [flat(whole.without(blocks.of_frame == b)) for b in range(len(blocks))]
        shares = blocks.sums(weights)[:, None]
        influence = (1 - shares) * (gradient - np.array(without))
        if len(self.runs) > 1:  # whose free energies are estimated too
            shifted = [
                flat(replace(whole).with_mixture(self.log_mixture + _SMALL * torch.from_numpy(p)))
                for p in self.run_shares
            ]
            slopes = (np.array(shifted) - gradient) / _SMALL
            influence += blocks.sums(self.free_energy_influence.T) @ slopes
        return gradient, error_of_sum(influence, blocks, weights).standard_error

    def _linear(self) -> Samples:
        """To first order about the present parameters, with the same weights there."""
        virials = any(observable.needs_virial for observable in self.records)
        c = self.potential.coefficients(self.temperature)
        linear = replace(self, learned=self.learned.linear(c, virials))
        return linear.with_mixture(self.log_mixture)

    @property
    def features(self) -> Array:
        """S = dU/dc, [frames, coefficients], where the energy is linear in the coefficients.

        Raises
        ------
        StatePointError
            If it is not: that of a network is linear in nothing.
        """
        return self._features().energies

    @property
    def virial_features(self) -> Array:
        """dW/dc, [frames, coefficients]; see ``features``."""
        return self._features().virials

    def _features(self) -> Features:
        if not self.potential.energy_is_linear:
            raise StatePointError(
                f"{type(self.potential).__name__} has no features: its energy is not linear in "
                "coefficients; take a pair potential"
            )
        return self.learned.linear(self.potential.coefficients(self.temperature))

    # Other frames, other states -------------------------------------------------------------------

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
            If the parts come from different potentials, or from NPT and NVT, or other forces
            were changed between them.
        """
        last = parts[-1]
        for part in parts:
            if part.potential is not last.potential:
                raise StatePointError("samples of different potentials cannot be pooled")
            if (part.pressure is None) != (last.pressure is None):
                raise StatePointError("samples at constant volume and at constant pressure differ")
            check_same_forces(part.runs[-1], last.runs[-1])
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
        part = self.select(np.arange(len(self)) >= first)
        return replace(part, runs=(replace(self.runs[0], n_frames=len(part)),))

    def last_runs(self, number: int = 1) -> Samples:
        """The frames of the last run only, or of so many."""
        return self.of_runs(np.arange(len(self.runs)) >= len(self.runs) - number)

    def relevant(self, least_share: float, last: int = 1) -> Samples:
        """Without runs whose share of the weight, at the present parameters, is less than that.

        The last run stays, or so many of them.
        """
        with torch.no_grad():
            shares = np.array([part.sum() for part in self.split(self.weights().numpy())])
        chosen = shares >= least_share
        chosen[-last:] = True
        return self.of_runs(chosen)

    def reweight(self, temperature: Any, pressure: Any = None) -> Samples:
        """The same frames, to be averaged at another temperature (K) and pressure (bar).

        Raises
        ------
        StatePointError
            If a pressure is given for frames at constant volume.
        UnitError
            If the temperature is not positive, or the pressure no number that can be.
        """
        if pressure is None:
            pressure = self.pressure
        elif self.pressure is None:
            raise StatePointError(
                f"reweight(): got a pressure of {pressure}, but the frames were sampled at "
                "constant volume: leave it out, or sample with a barostat",
                got=pressure,
            )
        kelvin, bar = state_numbers(temperature, pressure)
        return replace(self, temperature=kelvin, pressure=bar)

    # Files ----------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Keep everything in a file (.npz), with a checksum, for ``load``.

        The frames of a network stay in the trajectory that ``sample`` was given. It may move
        together with the file.

        Raises
        ------
        StatePointError
            If they are in a temporary file.
        """
        store.SAMPLES.write(Path(path), self.arrays(list(self.records), Path(path).parent))

    @classmethod
    def load(
        cls, path: str | Path, potential: Potential, observables: Sequence[Observable]
    ) -> Samples:
        """What ``save`` kept, for a potential of the same form, with what was recorded, in order.

        Raises
        ------
        StatePointError
            If the file holds records of other observables, or was made with another form of
            potential.
        FramesError
            If the file is damaged, or the trajectory of a network is gone or holds other frames.
        """
        return cls.from_arrays(
            potential, observables, store.SAMPLES.read(Path(path)), Path(path).parent
        )

    def arrays(self, observables: Sequence[Observable], folder: Path) -> Arrays:
        """All of it, and the records of these observables, for a file in a folder."""
        return store.pack(self, parts_of(observables), folder)

    @classmethod
    def from_arrays(
        cls,
        potential: Potential,
        observables: Sequence[Observable],
        arrays: Mapping[str, NDArray[Any]],
        folder: Path,
    ) -> Samples:
        """From what ``arrays`` gave; raises as ``load``."""
        return cls(**store.unpack(potential, parts_of(observables), arrays, folder))


def _flat_gradient(loss: Tensor, potential: Potential) -> Array:
    """Of a scalar, flat over the parameters; zero where it does not depend on them."""
    parameters = learned_parameters(potential)
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parts, parameters, strict=True)
    return np.concatenate(
        [(torch.zeros_like(p) if g is None else g).numpy(force=True).ravel() for g, p in pairs]
    )
