"""A second way to the errors of a fit: many fits to synthetic data, on reweighted frames.

A parametric bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap (1993), 6.5): where
the first way takes the Hessian at the minimum, this one draws data about the model's prediction and
minimizes again. What is nonlinear, and what a weighting that is not the inverse of the noise does,
shows in it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ..errors import OverlapError, TargetError
from ..limits import checked_whole
from ..potentials import Potential
from ..samples import Samples
from ..statistics.correlated import error_of_sum
from .errors import covariance_about, function_of, names_of, solution_of
from .methods import GaussNewton, GaussNewtonOptions
from .state import FitView
from .target import Target

Array = NDArray[np.float64]

_MOST_ITERATIONS = 12
_CONVERGED = 0.1  # of a standard error, that a parameter still moves
_LARGEST_STEP = 0.5  # kT, on the way


@dataclass(frozen=True)
class Bootstrap:
    """Parameters that fits to synthetic data came to.

    Attributes
    ----------
    potential : Potential
    names : list of str
    center : array [parameters]
        Of the fit itself.
    parameters : array [replicates, parameters]
    reached : bool array [replicates]
        Did the frames reach to the minimum? Where they did not, the fit ended on the way, and the
        spread is too small.
    claimed : array [parameters]
        Standard errors that ``parameter_table`` gives.
    """

    potential: Potential
    names: list[str]
    center: Array
    parameters: Array
    reached: NDArray[np.bool_]
    claimed: Array

    @property
    def standard_error(self) -> Array:
        """Spread of the parameters, [parameters]."""
        return np.asarray(self.parameters.std(axis=0, ddof=1))

    @property
    def ratio(self) -> Array:
        """Spread over the claimed standard error, [parameters]: one where both ways agree."""
        return self.standard_error / self.claimed

    @property
    def covariance(self) -> Array:
        """Of the parameters, [parameters, parameters]."""
        return np.asarray(np.atleast_2d(np.cov(self.parameters.T)))

    def potential_spread(self, r: ArrayLike, temperature: float, term: int | str = 0) -> Array:
        """Standard deviation of u(r), [pairs of types, len(r)], kJ/mol, for r in nm.

        ``term`` as of ``Refinement.potential_table``.
        """
        where, function = function_of(self.potential, term)
        values = function.basis.values(r)
        each = []
        for theta in torch.from_numpy(self.parameters):
            c = self.potential.coefficients_at(theta, temperature).numpy(force=True)
            each.append(c[where].reshape(-1, values.shape[1]) @ values.T)
        return np.asarray(np.std(each, axis=0, ddof=1))

    def __str__(self) -> str:
        told = f"{len(self.parameters)} replicates"
        if not self.reached.all():
            told += (
                f", {np.sum(~self.reached)} of which the frames did not reach: too small a spread"
            )
        lines = [
            f"{name}: spread {spread:.3g}, claimed {claim:.3g}"
            for name, spread, claim in zip(
                self.names, self.standard_error, self.claimed, strict=True
            )
        ]
        return "\n".join([told, *lines])


def bootstrap(
    view: FitView, options: GaussNewtonOptions, n: int, seed: int, progress: bool
) -> Bootstrap:
    """See ``Refinement.bootstrap``."""
    checked_whole("n", n, TargetError)
    if n < 2:
        raise TargetError(f"n: expected two replicates at least, got {n}", got=n)
    if not view.potential.energy_is_linear:
        raise TargetError(
            f"{type(view.potential).__name__}: its energy is not linear in coefficients, so it has "
            "no Gauss-Newton solution to repeat; expected a pair potential"
        )
    covariance = covariance_about(view, solution_of(view, options))
    claimed = np.sqrt(np.diag(covariance))
    rng = np.random.default_rng(seed)
    draw = Synthetic.at(view, options)
    found: list[tuple[Array, bool]] = []
    try:
        for _ in tqdm(range(n), unit="fit", disable=not progress):
            found.append(minimum(draw.replicate(rng), options, claimed))
    except KeyboardInterrupt:
        if len(found) < 2:
            raise
    return Bootstrap(
        view.potential,
        names_of(view.potential),
        view.parameters.numpy(force=True),
        np.array([theta for theta, _ in found]),
        np.array([reached for _, reached in found]),
        claimed,
    )


@dataclass(frozen=True)
class Synthetic:
    """A fit of which data are drawn again."""

    view: FitView
    targets: Sequence[Target]
    predictions: Sequence[Array]
    roots: Sequence[Array]
    """Of the covariance of all targets that hang together, [points, points] each."""
    groups: Sequence[Sequence[int]]
    """Indices of the targets of each."""

    @classmethod
    def at(cls, view: FitView, options: GaussNewtonOptions) -> Synthetic:
        """About the predictions at the parameters of a view."""
        comparisons = view.compare(options)
        targets = view.targets
        index = {id(target): k for k, target in enumerate(targets)}
        of_target: dict[int, Array] = {}
        for comparison in comparisons:
            for target, where in comparison.places():
                of_target[index[id(target)]] = comparison.prediction[where]
        return cls(
            view,
            targets,
            [of_target[k] for k in range(len(targets))],
            [_root(comparison.target_covariance) for comparison in comparisons],
            [[index[id(t)] for t in comparison.targets] for comparison in comparisons],
        )

    def replicate(self, rng: np.random.Generator) -> FitView:
        """The same fit with data drawn anew, and frames."""
        drawn: dict[int, Target] = {}
        for members, root in zip(self.groups, self.roots, strict=True):
            noise = root @ rng.standard_normal(root.shape[1])
            sizes = [len(self.predictions[k]) for k in members]
            for k, own in zip(members, np.split(noise, np.cumsum(sizes)[:-1]), strict=True):
                target = self.targets[k]
                drawn[id(target)] = _with_values(target, self.predictions[k] + own)
        states = [
            replace(
                state,
                targets=[drawn[id(target)] for target in state.targets],
                pool=resampled(state.frames, rng),
            )
            for state in self.view.states
        ]
        return self.view.of(states)


def minimum(view: FitView, options: GaussNewtonOptions, scale: Array) -> tuple[Array, bool]:
    """Parameters at the minimum, or where the frames no longer reach, and whether they do.

    ``scale`` [parameters] are the standard errors against which a step is small.
    """
    method, reached = GaussNewton(options), False
    for _ in range(_MOST_ITERATIONS):
        change = method.propose(view).change
        if not np.all(np.isfinite(change)):
            break
        size = view.step_size(change)
        if size is not None and size > _LARGEST_STEP:
            change = change * (_LARGEST_STEP / size)
        after = view.moved(change)
        try:
            for frames in after.frames:
                frames.check_overlap()
        except OverlapError:
            break
        view = after
        if np.all(np.abs(change) < _CONVERGED * scale):
            reached = True
            break
    return view.parameters.numpy(force=True), reached


def resampled(samples: Samples, rng: np.random.Generator) -> Samples:
    """As many frames, drawn in stretches of independent length, each run from itself.

    Weights of the mixture are those of the whole.
    """
    length, first, chosen = independent_length(samples), 0, []
    for run in samples.runs:
        own = min(length, run.n_frames)
        starts = rng.integers(0, run.n_frames, -(-run.n_frames // own))
        within = (starts[:, None] + np.arange(own)).ravel()[: run.n_frames] % run.n_frames
        chosen.append(first + within)
        first += run.n_frames
    indices: Any = np.concatenate(chosen)
    mixture = samples.log_mixture[torch.from_numpy(indices)]
    return samples.select(indices).with_mixture(mixture)


def independent_length(samples: Samples) -> int:
    """Frames, after which all recorded values are independent, on average."""
    view, blocks = samples.at(), samples.blocks
    weights = view.weights.numpy(force=True)
    with torch.no_grad():
        values = np.concatenate([view.values(o).numpy() for o in samples.records], axis=1)
    influence = blocks.sums(weights[:, None] * (values - weights @ values))
    length = error_of_sum(influence, blocks, weights).length.mean()
    return int(np.ceil(length * len(samples) / len(blocks)))


def _with_values(target: Target, values: Array) -> Target:
    """The same target, measured to be ``values`` [points]."""
    other = copy.copy(target)
    other.values = values
    if target.curve is not None:
        other.curve = replace(target.curve, y=values)
    return other


def _root(covariance: Array) -> Array:
    """R with R R^T = covariance, whether it has all ranks or not."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
