"""What a refined potential says where nothing was fitted: averages at other states, with errors.

A prediction p is off by the noise of its own frames and by what the fit leaves open of theta, of
which the fit says the covariance:

    Cov(p, p) = C_frames + J Cov(theta, theta) J^T,    J = dp/dtheta where it is predicted.

Frames of the fit are reweighted to a state of the same System, at another temperature or pressure,
as far as they reach; elsewhere there is new MD. Of reweighted frames, the noise that the fit has
already followed is counted twice: there errors are too large rather than too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..observables import Observable
from ..potentials import Potential, flat_parameters
from ..samples import Samples, bars
from .comparison import Comparison
from .methods import GaussNewtonOptions
from .offline import ENOUGH_FRAMES
from .state import FitView, State, check_targets, make_states
from .target import Target

Array = NDArray[np.float64]

_FRAMES_ALONE = GaussNewtonOptions(theory=False)
_CONDITIONS = ("temperature in K", "pressure in bar")


@dataclass(frozen=True)
class Prediction:
    """A target beside what the potential says of it."""

    target: Target
    values: Array
    """Of the prediction, [points]."""
    frames_error: Array
    """Standard errors by the noise of the frames, [points]."""
    parameters_error: Array
    """And by what the fit leaves open of the parameters; NaN where that is not known, as of a
    network."""
    n_effective: float
    """Frames that it rests on; the least, of several states."""
    is_reweighted: bool
    """Are the frames those of the fit, at all of its states?"""

    @property
    def standard_error(self) -> Array:
        """Of the prediction, [points]."""
        return np.hypot(self.frames_error, np.nan_to_num(self.parameters_error))

    @property
    def states(self) -> str:
        """Names of its state points."""
        return ", ".join(dict.fromkeys(str(point.name) for point in self.target.state_points))

    def sentence(self) -> str:
        """How far it is from what was measured, and what it rests on."""
        how = "frames of the fit, reweighted" if self.is_reweighted else "new MD"
        off = f"rms {self.rms:.3g} off"
        if len(self.values) == 1:
            value, error = self.values[0], self.standard_error[0]
            off = f"{value:.4g} +/- {error:.2g}, measured {self.target.values[0]:.4g}"
        label = self.target.observable.label
        return f"{label} of {self.states}: {off}, misfit {self.misfit:.2f} ({how})"

    @property
    def rms(self) -> float:
        """Of prediction - target over all points, in the target's unit."""
        return float(np.sqrt(np.mean((self.values - self.target.values) ** 2)))

    @property
    def misfit(self) -> float:
        """Root mean square of prediction - target, each over their combined standard error."""
        combined = np.hypot(self.standard_error, self.target.uncertainty)
        return float(np.sqrt(np.mean(((self.values - self.target.values) / combined) ** 2)))


def predict(
    potential: Potential,
    targets: Sequence[Target],
    steps: int,
    every: int,
    *,
    equilibration: int | None = None,
    covariance: Array | None = None,
    states: Sequence[State] = (),
    progress: bool = True,
) -> list[Prediction]:
    """Each target as the potential, at its present parameters, predicts it.

        fit.run(...)  # at 288 and 338 K
        hot = diffsim.Target(liquid_at_388, rdf, r, g, uncertainty=error)
        found = diffsim.predict(fit.potential, [hot], 50_000, 50,
                                covariance=fit.result.covariance, states=fit.states)

    Parameters
    ----------
    potential : Potential
    targets : sequence of Target
        Of state points that hold this potential.
    steps, every : int
        MD steps recorded of each state that is sampled, and between frames.
    equilibration : int, optional
        Steps before. Default: half of ``steps``.
    covariance : array [parameters, parameters], optional
        Of the parameters, as the fit found it. Default: not known.
    states : sequence of State, optional
        Of the fit, whose frames are reweighted as far as they reach.
    progress : bool
        Show a bar.

    Returns
    -------
    list of Prediction, one for each target

    Raises
    ------
    TargetError
        If there is no target, or one of another potential.
    SamplingError, EquilibrationError
        As ``StatePoint.sample``.
    """
    check_targets(potential, targets)
    present = potential.coefficients(targets[0].state_point.temperature)
    here = make_states(potential, targets, present.detach(), theory=False)
    for state in here:
        state.pool = _reached(state, states)
    missing = [state for state in here if state.pool is None]
    lead = steps // 2 if equilibration is None else equilibration
    with bars(progress), tqdm(total=len(missing) * (steps + lead), disable=not progress) as bar:
        for state in missing:
            state.state_point.apply()
            state.pool = state.state_point.sample(
                steps, every, state.recorded(), lead, discard_transient=True, progress=bar.update
            )
    sampled = [state.state_point for state in missing]
    return _predictions(
        FitView(potential, tuple(here), flat_parameters(potential)), covariance, sampled
    )


def _predictions(
    view: FitView, covariance: Array | None, sampled: Sequence[Any]
) -> list[Prediction]:
    is_known = covariance is not None and view.potential.energy_is_linear
    found: dict[int, Prediction] = {}
    comparisons = view.compare(_FRAMES_ALONE, jacobian=is_known)
    for comparison, (_, members) in zip(comparisons, view.groups, strict=True):
        of_parameters = np.full(len(comparison.prediction), np.nan)
        if is_known:
            chain = np.concatenate([view.chain(k) for k in members])
            of_parameters = _error(comparison, chain, covariance)
        own = comparison.own_error()
        for target, rows in comparison.places():
            found[id(target)] = Prediction(
                target,
                comparison.prediction[rows],
                own[rows],
                of_parameters[rows],
                comparison.n_effective,
                not any(point is each for point in target.state_points for each in sampled),
            )
    return [found[id(target)] for target in view.targets]


def _error(comparison: Comparison, chain: Array, covariance: Any) -> Array:
    """sqrt of the diagonal of J Cov J^T, [points]."""
    slopes = comparison.jacobian @ chain
    variance = np.einsum("pi,ij,pj->p", slopes, covariance, slopes)
    return np.sqrt(np.maximum(variance, 0.0))


def _reached(state: State, known: Sequence[State]) -> Samples | None:
    """Frames of the same System with all that this state needs, if they reach it."""
    identity = _without_conditions(state)
    for other in known:
        if other.pool is None or _without_conditions(other) != identity:
            continue
        samples = _renamed(other.pool, state.recorded())
        if samples is None:
            continue
        here = samples.reweight(state.temperature, state.pressure)
        if here.n_effective() >= max(ENOUGH_FRAMES, here.least_effective):
            return here
    return None


def _without_conditions(state: State) -> dict[str, Any]:
    """Which System it is, and whether its volume is constant."""
    identity = state.state_point.identity()
    system = {key: value for key, value in identity.items() if key not in _CONDITIONS}
    return {**system, "constant volume": state.pressure is None}


def _renamed(samples: Samples, wanted: Sequence[Observable]) -> Samples | None:
    """With the records of these observables, by what they are made from; None where one lacks."""
    records = {_key(known): array for known, array in samples.records.items()}
    if any(_key(observable) not in records for observable in wanted):
        return None
    return replace(samples, records={each: records[_key(each)] for each in wanted})


def _key(observable: Observable) -> str:
    return repr(observable.identity())
