"""Functions of averages: ratios, differences between state points, fluctuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..errors import ObservableError
from .arguments import at_least
from .base import Observable, Particles, Recorder


class FunctionOfAverages(Observable):
    """f(<A>, <B>, ...) of averages at one or several state points.

        FunctionOfAverages(lambda a, b: a / b, [first, second])            # at one state point
        FunctionOfAverages(lambda hot, cold: hot - cold, [rdf, rdf])       # at two

    It has no value in a frame: the observables are recorded, and ``combine`` gives f of their
    averages, through which torch differentiates. The average of a function is another thing than
    the function of an average: f is taken here of the averages.

    Parameters
    ----------
    function : callable
        Takes a Tensor [n_values] of each observable and returns a Tensor [n_values of its own]; for
        one value also a scalar.
    observables : Observable or sequence of Observable
    kind : str
        Of the values of f, one of ``units.UNIT_NAMES``.
    n_values : int
        Number of values of f.
    symbol : str, optional
        What tables and figures call it. Default: the name of the function.
    states : sequence of int, optional
        Which of a target's state points each observable is measured at. Default: the only one, or
        one for each observable.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        observables: Observable | Sequence[Observable],
        kind: str = "dimensionless",
        n_values: int = 1,
        symbol: str | None = None,
        states: Sequence[int] | None = None,
    ) -> None:
        self.observables = (
            (observables,) if isinstance(observables, Observable) else tuple(observables)
        )
        if not callable(function) or not self.observables:
            raise ObservableError(
                "FunctionOfAverages: expected a function and one observable at least, got "
                f"{function!r} and {len(self.observables)}"
            )
        if states is not None and len(states) != len(self.observables):
            raise ObservableError(
                f"states: expected one index for each of {len(self.observables)} observables, got "
                f"{list(states)}"
            )
        self.function = function
        self.kind = kind
        self.n_values = at_least(1, "n_values", n_values)
        self.symbol = symbol or str(getattr(function, "__name__", "function"))
        self.states = None if states is None else [at_least(0, "states", s) for s in states]

    @property
    def name(self) -> str:
        """In output files: the ``entry`` of a subclass, or else the symbol."""
        return self.entry or self.symbol.lower()

    def terms(self, state_points: Sequence[Any]) -> tuple[tuple[Any, Observable], ...]:
        """(state point, observable) of each average, in the order of the function's arguments."""
        n, n_points = len(self.observables), len(state_points)
        states = self.states or ([0] * n if n_points == 1 else list(range(n)))
        if set(states) != set(range(n_points)):
            raise ObservableError(
                f"{self.symbol}: {n} observables at state points {states}, got {n_points} state "
                "points; expected as many as they need, see states=",
                got=n_points,
                expected=len(set(states)),
            )
        if self.needs_pressure:
            for point in state_points:
                self.check_pressure(point.pressure)
        pairs = zip(states, self.observables, strict=True)
        return tuple(term for i, o in pairs for term in o.terms([state_points[i]]))

    def recorder(self, particles: Particles) -> Recorder:
        """There is none.

        Raises
        ------
        ObservableError
            Always.
        """
        raise ObservableError(
            f"{self.symbol} is a function of averages, with no value in a frame: record its "
            "observables, none of which may be such a function"
        )

    def combine(self, *averages: Tensor) -> Tensor:
        """f of the averages, each [its n_values], shape [n_values].

        Raises
        ------
        ObservableError
            If f returns something of another shape.
        """
        return shaped(self.symbol, self.function(*averages), (self.n_values,))


def shaped(name: str, values: Any, shape: tuple[int, ...]) -> Tensor:
    """What a user's function returned, in double precision; a single value may lack its axis.

    Raises
    ------
    ObservableError
        If it is no Tensor of this shape.
    """
    if isinstance(values, Tensor) and shape[-1] == 1 and tuple(values.shape) == shape[:-1]:
        values = values[..., None]
    if not isinstance(values, Tensor) or tuple(values.shape) != shape:
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ObservableError(f"{name} must return a Tensor of shape {list(shape)}, got {got}")
    return values.double()
