"""From a [[target]] to a Target: its measurement in md units, and the key of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..curve import Curve
from ..errors import ObservableError, TargetError
from ..io import read_matrix
from ..observables import Observable
from ..refinement import Target
from .targets import TargetSection

_ALONG = {"resolution", "points", "shells", "broadening", "shift"}  # the axis: in its unit
_SMOOTH = {"scale", "background"}  # a tuple's second number is a length along the axis


def build_target(number: int, points: Any, entry: TargetSection, *given: Any) -> Target:
    """A target at a state point, or several; what is wrong with it is said with its key."""
    try:
        return _target(points, entry, *given)
    except ObservableError as error:  # what cannot be measured at this state point
        key = f"target[{number}].observable"
        raise TargetError(f"{key}: {error}", key=key) from error
    except TargetError as error:
        by_path = [key for key, value in entry.measurement.items() if value == error.path]
        key, *_ = [*by_path, str(error).partition(":")[0]]
        if key not in entry.measurement.keys() | {"uncertainty", "window", "value"}:
            raise
        full, words = f"target[{number}].{key}", str(error).removeprefix(f"{key}: ")
        raise TargetError(f"{full}: {words}", **{**vars(error), "key": full}) from error


def _measured(entry: TargetSection) -> dict[str, Any]:
    """How it was measured, what lies along the axis being in its unit of the file until now."""
    how, rules = dict(entry.measurement), entry.rules
    if "offset" in how:
        how["offset"] *= entry.factor
    factor = 1.0 if rules is None or not entry.unit else rules.accepted[entry.unit][0]
    if factor == 1.0:
        return how
    for key in _ALONG.intersection(how):
        if isinstance(how[key], Path):
            numbers = read_matrix(how[key])
            how[key] = factor * numbers[:, 0] if numbers.shape[1] == 1 else how[key]
        elif not isinstance(how[key], str):
            number = factor * np.asarray(how[key])
            how[key] = number if number.ndim else float(number)
    for key in _SMOOTH.intersection(how):
        if isinstance(how[key], tuple):
            how[key] = (how[key][0], factor * how[key][1])
    return how


def _target(
    points: Any, entry: TargetSection, observable: Observable, curve: Curve | None
) -> Target:
    if curve is None:
        return Target(
            points,
            observable,
            _times(entry.value, entry.factor),
            uncertainty=_times(entry.uncertainty, entry.factor),
            weight=entry.weight,
            as_it_is=entry.as_it_is,
            **_measured(entry),
        )
    return Target(
        points,
        observable,
        curve,
        uncertainty=entry.uncertainty,
        weight=entry.weight,
        window=entry.window,
        noise=entry.noise,
        as_it_is=entry.as_it_is,
        **_measured(entry),
    )


def _times(number: Any, factor: float) -> Any:
    return None if number is None else factor * np.asarray(number)
