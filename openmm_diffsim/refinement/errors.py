"""What a fit knows of its result: errors of the potential and of its parameters.

Whatever method led there, the data know of the parameters what the Gauss-Newton solution from there
says: its covariance, and how far away it is, d. The truth is about the solution as its covariance
C says, so about the present parameters it is within

    C + d d^T.

C is the inverse of the Hessian, in which a Jacobian that was measured has only what is no noise in
it. At the minimum d is noise; where a fit was stopped before, or by a method of which the fixed
point is another one, d is what is missing. The model has to be linear up to there, so of a fit that
is far from its targets this is a rough bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..potentials import Potential
from .methods import GaussNewtonOptions, Step
from .methods.gauss_newton import LinearModel, to_minimum
from .state import FitView

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ParameterTable:
    """Parameters of a fit, flat, with what is known of them.

    Attributes
    ----------
    names : list of str
        "epsilon", or "epsilon[1]" where there are several of a name.
    values, standard_error : arrays [parameters]
    correlation : array [parameters, parameters]
        NaN, as the errors, where they are not known: of a network.
    prior : array [parameters]
        Standard deviation of each before anything was measured; infinite where nothing was known.
    """

    names: list[str]
    values: Array
    standard_error: Array
    correlation: Array
    prior: Array

    @property
    def posterior_over_prior(self) -> Array:
        """Standard error over that of the prior, [parameters]: near 1 the data decided nothing.

        Near 0 they decided all, and so where nothing was known beforehand; above 1 the fit is not
        at its minimum, or its frames are too few.
        """
        return self.standard_error / self.prior

    def part(self, where: slice) -> ParameterTable:
        """Some of the parameters alone."""
        return ParameterTable(
            self.names[where],
            self.values[where],
            self.standard_error[where],
            self.correlation[where, where],
            self.prior[where],
        )

    def __str__(self) -> str:
        columns = (self.values, self.standard_error, self.prior, self.posterior_over_prior)
        width = max(map(len, [*self.names, "parameter"]))
        head = f"{'parameter':{width}} {'value':>12} {'error':>10} {'prior':>10} {'of prior':>9}"
        rows = [
            f"{name:{width}} {value:12.6g} {error:10.3g} {prior:10.3g} {share:9.2f}"
            for name, value, error, prior, share in zip(self.names, *columns, strict=True)
        ]
        return "\n".join([head, *rows])


def parameter_table(view: FitView, covariance: Array) -> ParameterTable:
    """At the parameters of a view, with their covariance."""
    error = np.sqrt(np.diag(covariance))
    size = np.where(error > 0, error, 1.0)
    return ParameterTable(
        names=names_of(view.potential),
        values=view.parameters.numpy(force=True),
        standard_error=error,
        correlation=covariance / (size[:, None] * size),
        prior=np.full(len(error), np.inf) if view.prior is None else view.prior.standard_deviation,
    )


def solution_of(view: FitView, options: GaussNewtonOptions) -> Step | None:
    """The Gauss-Newton solution from here; None of what is no function of features, a network."""
    if not view.potential.energy_is_linear:
        return None
    model = LinearModel.of(view, options)
    step = model.step(is_damped=False)
    if view.potential.is_linear:
        return step
    return replace(step, change=to_minimum(view, model).change)


def covariance_about(view: FitView, solution: Step | None) -> Array:
    """C + d d^T, [parameters, parameters]; NaN where there is no solution."""
    if solution is None:
        return np.full((len(view.parameters),) * 2, np.nan)
    assert solution.covariance is not None
    return np.asarray(solution.covariance + np.outer(solution.change, solution.change))


def potential_with_error(
    view: FitView,
    q: ArrayLike,
    temperature: float,
    term: int | str,
    covariance: Array,
) -> tuple[Array, Array]:
    """u(q) and its standard error, each [types or pairs of types, len(q)], kJ/mol.

    ``covariance`` [parameters, parameters] is that about the parameters of the view.
    """
    where, function = function_of(view.potential, term)
    c = view.potential.coefficients_at(view.parameters, temperature).numpy(force=True)
    values = function.basis.values(q)
    u = c[where].reshape(-1, values.shape[1]) @ values.T
    chain = view.potential.pull_back(np.eye(len(c)), view.parameters, temperature)[where]
    rows = np.stack([values @ part for part in np.split(chain, len(u))])
    return u, np.sqrt(np.maximum(np.einsum("pri,ij,prj->pr", rows, covariance, rows), 0))


def function_of(potential: Potential, term: int | str) -> tuple[slice, Any]:
    """A function of one coordinate by its name, or a pair potential by its number, and where its
    coefficients are.

    Raises
    ------
    TargetError
        If there is none.
    """
    if not isinstance(term, str):
        return pair_of(potential, term)
    functions = {function.name: (where, function) for where, function in potential.functions()}
    if term not in functions:
        known = ", ".join(map(repr, functions)) or "none"
        raise TargetError(f"term: got {term!r}, expected one of {known}", got=term)
    return functions[term]


def pair_of(potential: Potential, term: int) -> tuple[slice, Any]:
    """A pair potential, and where its coefficients are.

    Raises
    ------
    TargetError
        If there is none of this number.
    """
    pairs = potential.pairs()
    if not pairs:
        named = [function.name for _, function in potential.functions()]
        hint = f"; of a bonded one say its name, {named[0]!r}" if named else ""
        raise TargetError(f"{type(potential).__name__} is no function of a distance{hint}")
    if not 0 <= term < len(pairs):
        raise TargetError(f"term: expected 0 .. {len(pairs) - 1}, got {term}", got=term)
    return pairs[term]


def names_of(potential: Potential) -> list[str]:
    """Of the parameters that are learned, in their order."""
    return [
        name + (f"[{index}]" if p.numel() > 1 else "")
        for name, p in potential.by_name().items()
        if p.requires_grad
        for index in range(p.numel())
    ]
