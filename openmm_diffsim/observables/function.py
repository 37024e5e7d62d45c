"""Functions of averages: ratios, differences between state points, fluctuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ObservableError
from ..limits import shown
from ..units import UNIT_NAMES
from .arguments import at_least
from .base import Array, Observable, Particles, Recorder


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
        for each in self.observables:
            check_observable(each)
        if kind not in UNIT_NAMES:
            raise ObservableError(f"kind: expected one of {', '.join(UNIT_NAMES)}, got {kind!r}")
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
                "points; expected as many as they need, see states=. Of frames of several, "
                "estimate(observable, [samples, ...]) gives the whole",
                got=n_points,
                expected=len(set(states)),
            )
        if self.needs_pressure:
            for point in state_points:
                self.check_pressure(point.pressure)
        pairs = zip(states, self.observables, strict=True)
        return tuple(term for i, o in pairs for term in o.terms([state_points[i]]))

    def parts(self) -> tuple[Observable, ...]:
        """Its observables, which stand for it where it is recorded."""
        return tuple(part for o in self.observables for part in o.parts())

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


def parts_of(record: Any) -> tuple[Observable, ...]:
    """What is recorded of these observables, each once; a function's own stand for it.

    Raises
    ------
    ObservableError
        If one is no Observable.
    """
    given = (record,) if isinstance(record, Observable | str | type) else tuple(record)
    for each in given:
        check_observable(each)
    return tuple(dict.fromkeys(part for each in given for part in each.parts()))


def check_observable(given: Any) -> None:
    """ObservableError where it is no Observable, as a class or a name is none."""
    if isinstance(given, Observable):
        return
    is_class = isinstance(given, type) and issubclass(given, Observable)
    got = f"the class {given.__name__}" if is_class else shown(given)
    hint = f"; make one of it, {given.__name__}(...)" if is_class else ", such as Density()"
    raise ObservableError(f"expected an Observable, got {got}{hint}", got=given)


def linearized(observable: Observable, averages: Sequence[Tensor]) -> tuple[Array, list[Array]]:
    """What an observable makes of its averages, and the Jacobian with respect to each.

    Returns
    -------
    array [n_values], and of each average an array [n_values, its values]

    Raises
    ------
    ObservableError
        If torch finds no way back to the averages, or either is not finite.
    """
    leaves = tuple(average.detach().requires_grad_(True) for average in averages)
    with torch.enable_grad():
        value = observable.combine(*leaves).double()
    if not value.requires_grad:
        raise ObservableError(
            f"{observable.label} is computed from the averages in a way that torch cannot "
            "follow: expected torch functions of the Tensors it gets, without detach()"
        )
    each = torch.eye(len(value), dtype=value.dtype)
    slopes = torch.autograd.grad(value, leaves, each, is_grads_batched=True, allow_unused=True)
    jacobians = [
        np.zeros((len(value), len(leaf))) if slope is None else slope.numpy()
        for slope, leaf in zip(slopes, leaves, strict=True)
    ]
    values = value.detach().numpy()
    if not all(np.all(np.isfinite(a)) for a in [values, *jacobians]):
        raise ObservableError(
            f"{observable.label} gives {value.tolist()} of the averages, or a derivative "
            "that is not finite: expected a function that is smooth where the frames are"
        )
    return values, jacobians


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
