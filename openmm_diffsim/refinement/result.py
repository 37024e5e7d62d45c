"""What a fit says of itself, at its present parameters: comparison, errors, caveats.

A ``Result`` is of one view of a fit, and finds what is costly once: how the frames compare with the
targets, and the Gauss-Newton solution from there with its covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..errors import StatePointError
from ..potentials import Potential
from ..samples import Samples
from . import caveats
from .agreement import Agreement, agreement
from .bootstrap import Bootstrap, bootstrap
from .comparison import Comparison
from .convergence import Verdict
from .errors import (
    ParameterTable,
    covariance_about,
    pair_of,
    parameter_table,
    potential_with_error,
    solution_of,
)
from .methods import GaussNewtonOptions, Method, Step
from .progress import Progress, Round
from .state import FitView, State, compared, misfit_of, rdf_rms

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """A fit at one set of parameters, with the frames that it had then."""

    view: FitView
    options: GaussNewtonOptions
    """What is taken to be known besides the frames."""
    made_of: tuple[Any, ...] = ()
    """Frames and buffers of the potential, then."""

    @classmethod
    def of(cls, view: FitView, options: GaussNewtonOptions) -> Result:
        """Of the present."""
        return cls(view, options, _made_of(view))

    def is_of(self, view: FitView, options: GaussNewtonOptions) -> bool:
        """Would it be the same of that view?"""
        if self.options != options or len(self.view.parameters) != len(view.parameters):
            return False
        if self.view.memory is not view.memory:
            return False
        if not torch.equal(self.view.parameters, view.parameters):
            return False
        pairs = zip(self.made_of, _made_of(view), strict=True)
        return all(_is_same(old, new) for old, new in pairs)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Of each group of targets that share state points."""
        return compared(self.view, self.options)

    @cached_property
    def solution(self) -> Step | None:
        """That of Gauss-Newton from here; None of a network."""
        return solution_of(self.view, self.options)

    @cached_property
    def covariance(self) -> Array:
        """Of the parameters, about the present ones, [parameters, parameters]; see ``errors``."""
        return covariance_about(self.view, self.solution)

    @cached_property
    def agreement(self) -> list[Agreement]:
        """Of each target."""
        covariance = None if self.solution is None else self.solution.covariance
        return agreement(self.view, self.options, covariance)

    @cached_property
    def parameters(self) -> ParameterTable:
        """With what is known of them."""
        return parameter_table(self.view, self.covariance)

    def potential(self, r: ArrayLike, temperature: float, term: int | str) -> tuple[Array, Array]:
        """u(r) and its standard error, each [pairs of types, len(r)], kJ/mol, for r in nm."""
        return potential_with_error(self.view, r, temperature, term, self.covariance)

    def numbers(self) -> dict[str, float]:
        """Misfit, rms of all g(r), effective frames, and theory's weight."""
        views = self.comparisons
        return {
            "misfit": misfit_of(views),
            "rdf_rms": rdf_rms(views),
            "n_effective": min(view.n_effective for view in views),
            "theory_weight": float(np.mean([view.theory_weight for view in views])),
        }

    @cached_property
    def remarks(self) -> list[str]:
        """What frames, errors, the potential and the targets tell, a sentence each."""
        kelvin = min(state.temperature for state in self.view.states)
        found = caveats.after_sampling(
            self.view, self.comparisons, lambda r, term: self.potential(r, kelvin, term)
        )
        return found + [str(each) for each in self.agreement if not each.is_sound]


@dataclass(frozen=True, eq=False)
class InPassing(Result):
    """What is known between two rounds without asking for more: errors are those of a step."""

    step: Step | None = None

    @property
    def solution(self) -> None:
        """Not asked for."""

    @cached_property
    def covariance(self) -> Array:
        """That of the step, [parameters, parameters]; NaN where it knows of none."""
        known = None if self.step is None else self.step.covariance
        return np.full((len(self.view.parameters),) * 2, np.nan) if known is None else known

    @property
    def remarks(self) -> list[str]:
        """Not asked for."""
        return []


def _made_of(view: FitView) -> tuple[Any, ...]:
    """What a result depends on besides parameters; buffers change in place, so they are copied."""
    buffers = [buffer.detach().clone() for _, buffer in view.potential.named_buffers()]
    return (*(state.pool for state in view.states), *buffers)


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, Samples) or old is None:
        return old is new
    return old.shape == new.shape and torch.equal(old, new)


class Results:
    """What can be asked of a fit; for a ``Refinement``, which says what these are."""

    potential: Potential
    states: list[State]
    method: Method
    last_step: Step | None
    _progress: Progress
    _result: Result | None = None

    def view(self) -> FitView:
        """The fit at the present parameters, as a method is given it."""
        raise NotImplementedError

    @property
    def result(self) -> Result:
        """At the present parameters: the same until these, the frames or the options change."""
        view, options = self.view(), self._options
        if self._result is None or not self._result.is_of(view, options):
            self._result = Result.of(view, options)
        return self._result

    def in_passing(self) -> InPassing:
        """At the parameters of the last round, and only what is known of them without much ado."""
        last = self.result if self._result is None else self._result
        return InPassing(last.view, last.options, last.made_of, self.last_step)

    @property
    def history(self) -> list[Round]:
        """All rounds so far."""
        return self._progress.history

    @property
    def converged(self) -> bool:
        """Does every target agree within its own error, and is the next step small? See verdict."""
        return self._progress.converged

    @property
    def md_steps(self) -> int:
        """MD steps so far, equilibration included."""
        return self._progress.md_steps

    def comparisons(self) -> list[Comparison]:
        """How the frames compare with the targets, at the present parameters.

        One for each group of targets that share state points.

        Raises
        ------
        OverlapError
            If the frames sampled so far do not reach the present parameters.
        """
        return list(self.result.comparisons)

    def verdict(self) -> Verdict:
        """Of the last round that was believed: every target by its own error, and why not.

        A single value may be off by 1.96 combined errors of target and model, a curve by an rms
        that 19 of 20 right models stay below; by the last round alone, which nothing was fitted
        to, by three, or what 997 of 1000 stay below. The model's own error is at most half of that
        of a single value, and that of a curve. The next step moves no mode of the parameters by
        more than its standard error, where the method knows it; where it does not, no misfit is
        above 1. And the particles move.

        Raises
        ------
        StatePointError
            If there was none yet.
        """
        if self._progress.verdict is None:
            raise StatePointError("nothing was sampled yet: a fit knows no verdict before run()")
        return self._progress.verdict

    def summary(self) -> dict[str, float]:
        """Of the present parameters, as in ``Round``, and MD steps and seconds so far."""
        so_far = {"md_steps": self.md_steps, "seconds": self._progress.seconds}
        return self.result.numbers() | so_far

    def agreement(self) -> list[Agreement]:
        """Is each target reached within its errors, and what are its scale, offset, ...?"""
        return list(self.result.agreement)

    def potential_table(
        self, r: ArrayLike, temperature: float | None = None, term: int | str = 0
    ) -> tuple[Array, Array]:
        """u(r) and its standard error, each [pairs of types, len(r)], kJ/mol, for r in nm.

        The error is that of the Gauss-Newton solution, whatever the method: noise of the targets
        and of the frames, what the data leave to the prior, and how far away that solution is.
        Beside a network it is not known, NaN. Of pairs of types that ``learn_only`` leaves out it
        is zero: u is given there, not estimated. ``term`` counts the pair potentials of a sum, or
        is the name of any term: of a bonded one r is its coordinate, in nm or rad, and each row is
        of a type, with errors of differences to its mean.

        Raises
        ------
        TargetError
            If the potential is no function of a distance, or has no such term.
        StatePointError
            If nothing was sampled yet.
        """
        kelvin = self.states[0].temperature if temperature is None else temperature
        return self.result.potential(r, kelvin, term)

    def parameter_table(self) -> ParameterTable:
        """Names, values, standard errors and correlations of all parameters; see ``errors``.

        Raises
        ------
        StatePointError
            If nothing was sampled yet.
        """
        return self.result.parameters

    def bootstrap(self, n: int, seed: int = 0, progress: bool = True) -> Bootstrap:
        """The errors once more, in a way of their own: n fits to synthetic data, without any MD.

        Each has targets drawn about the model's prediction by the noise that the targets are taken
        to have, and frames resampled in stretches of independent length; it starts from the present
        parameters, by Gauss-Newton on reweighted frames, until it no longer moves or the frames no
        longer reach. The spread is that of noise alone: what a prior holds back does not spread.

        Parameters
        ----------
        n : int
            Two at least; a hundred tell the errors to seven per cent.
        seed : int
        progress : bool
            Show a bar. An interrupt (Ctrl-C) ends it with the replicates so far, if two are done.

        Raises
        ------
        TargetError
            If n is less than two, or the energy of the potential is not linear in coefficients, as
            that of a network.
        StatePointError
            If nothing was sampled yet.
        OverlapError
            If the frames do not reach the present parameters.
        """
        return bootstrap(self.view(), self._options, n, seed, progress)

    def first_contact(self) -> float:
        """Where g(r) of the targets rises above 0.1, nm: below, the potential was not seen."""
        basis = self.pair_potential().basis
        found = [state.contact() for state in self.states]
        return min(min(basis.r_min if r is None else r, 0.9 * basis.cutoff) for r in found)

    def pair_potential(self, term: int = 0) -> Any:
        """The potential, or a term of a sum, where it is one of pairs.

        Raises
        ------
        TargetError
            If it is a network, or has no such term.
        """
        return pair_of(self.potential, term)[1]

    @property
    def _options(self) -> GaussNewtonOptions:
        """What the method takes to be known besides the frames, as far as it says so."""
        options = getattr(self.method, "options", None)
        if isinstance(options, GaussNewtonOptions):
            return options
        roughness = getattr(self.method, "roughness", GaussNewtonOptions.roughness)
        return GaussNewtonOptions(roughness=roughness)
