"""What was measured: each [[target]] of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..curve import CurveRules
from ..errors import ConfigurationError
from ..limits import shown
from ..observables import Observable
from ..refinement.measurement import NORMALISATION, POINTS, SHELLS, SMEAR
from ..refinement.target import NOISE
from ..units import ACCEPTED, UNIT_NAMES
from .observables import find_observable, not_one_of
from .section import Section

REDUCED = "reduced"
"""The unit of a file that is in reduced units."""


@dataclass(frozen=True)
class TargetSection:
    """What was measured."""

    observable: type[Observable]
    settings: Mapping[str, Any]  # the observable's own, see Observable.settings
    uncertainty: float | None  # in the unit of the values
    weight: float
    file: Path | None = None  # of a curve
    unit: str = ""  # of the x in the file
    window: tuple[float, float] | None = None  # md units, of a curve
    noise: str = "auto"  # of a histogram
    columns: tuple[int, ...] | None = None  # of x, y and perhaps the error, counted from 1
    block: int | None = None  # of several tables in the file, counted from 1 or from -1
    as_it_is: bool = False  # whatever it looks like
    value: float | tuple[float, ...] | None = (
        None  # of what is no curve, in md units times ``factor``
    )
    factor: float = 1.0  # of value, uncertainty and offset: their unit, in md units
    measurement: Mapping[str, Any] = field(default_factory=dict)  # see refinement.Measurement
    states: tuple[str, ...] = ()  # names of those that it is of, in order; (): the only one
    reduced: tuple[float, float] | None = None  # units of x and y in the file, in md units
    predict: bool = False  # not to be fitted, see ``openmm-diffsim predict``

    @property
    def rules(self) -> CurveRules | None:
        """Of the observable, which also know the reduced units of the file; None of a value."""
        rules = self.observable.rules
        if rules is None or self.reduced is None:
            return rules
        return replace(rules, units={**rules.accepted, REDUCED: self.reduced})


def read_target(section: Section, states: Sequence[str]) -> TargetSection:
    """ConfigurationError where a value cannot be; ``states`` are the names that there are."""
    observable = _observable(section)
    is_curve = observable.rules is not None
    if is_curve:
        section.kinds |= dict.fromkeys(("uncertainty", "offset", "background"), observable.kind)
    made = TargetSection(
        observable=observable,
        uncertainty=section.number("uncertainty", None),
        weight=section.number("weight", 1.0),
        **(_curve if is_curve else _value)(section, observable),
        measurement=_measurement(section, observable),
        settings=observable.settings(section),
        states=_states(section, states),
        predict=section.flag("predict"),
    )
    if made.uncertainty is not None and "covariance" in made.measurement:
        raise section.error("covariance", "got uncertainty as well; give one of them")
    section.finish()
    return made


def _states(section: Section, names: Sequence[str]) -> tuple[str, ...]:
    """Of one state point, or of several in the order that the observable takes them."""
    if section.has("states"):
        if section.has("state"):
            raise section.error("states", "got state as well; give one of them")
        chosen = section.texts("states")
    elif section.has("state"):
        chosen = (section.text("state"),)
    elif len(names) == 1:
        return tuple(names)
    else:
        raise section.error(
            "state", f"missing: there are several, {', '.join(names)}; say which this is of"
        )
    key = "state" if "state" in section.raw else "states"
    for name in chosen:
        if name not in names:
            raise section.error(key, not_one_of(name, names))
    if not chosen:
        raise section.error(key, f"got none, expected some of {', '.join(names)}")
    return chosen


def _measurement(section: Section, observable: type[Observable]) -> dict[str, Any]:
    """How it was measured, as far as it is said."""
    read: dict[str, Callable[[str], Any]] = {
        "scale": section.number,
        "offset": section.number,
        "systematic": section.path,
        "covariance": section.path,
    }
    if observable.rules is not None:
        unit = UNIT_NAMES[observable.rules.x_kind]
        read |= {
            "resolution": section.number_or_path,
            "smear": partial(section.choice, allowed=SMEAR),
            "points": partial(section.choice_or_pair, allowed=POINTS, unit=unit),
            "shells": partial(section.choice_or_pair, allowed=SHELLS, unit=unit),
            "normalisation": partial(section.choice_or_number, allowed=NORMALISATION),
            "scale": section.number_or_smooth,
            "background": section.smooth,
            "broadening": section.number,
            "shift": section.number,
        }
    return {key: take(key) for key, take in read.items() if section.has(key)}


def _observable(section: Section) -> type[Observable]:
    """The class that a target names."""
    name = section.text("observable")
    try:
        found = find_observable(name, section.folder, section.trusted)
        return found.measured_in(section.raw.get("unit"))
    except ConfigurationError as error:
        raise section.error("observable", str(error)) from error


def _curve(section: Section, observable: type[Observable]) -> dict[str, Any]:
    """What a target has that is read from a file."""
    rules = observable.rules
    assert rules is not None
    read = {
        "file": section.path("file"),
        "window": section.pair("window", UNIT_NAMES[rules.x_kind], rules.least_x),
        "unit": rules.default_unit,
        "columns": section.integers("columns"),
        "block": section.integer("block", None, at_least=-1000),
        "as_it_is": section.flag("as_it_is"),
    }
    accepted = tuple(rules.accepted)
    if section.units is not None:
        read["unit"] = REDUCED
        read["reduced"] = section.factor(rules.x_kind), section.factor(observable.kind)
        accepted = (REDUCED, *accepted)
        _refuse_files(section, observable.kind)
    if len(accepted) > 1:
        read["unit"] = section.choice(rules.unit_key, accepted, read["unit"])
    if observable.is_histogram:
        read["noise"] = section.choice("noise", NOISE, "auto")
    return read


def _value(section: Section, observable: type[Observable]) -> dict[str, Any]:
    """What a target has that is a number."""
    value = section.numbers("value", observable.n_values)
    factor = _factor(section, observable.kind)
    if not {"uncertainty", "covariance"} & section.raw.keys():
        unit = section.raw.get("unit", UNIT_NAMES[observable.kind])
        raise section.error(
            "uncertainty", f"a target of {observable.entry} needs its uncertainty ({unit})"
        )
    return {"value": value, "factor": factor, "as_it_is": section.flag("as_it_is")}


def _factor(section: Section, kind: str) -> float:
    """The unit of a value, in md units: 1 where it has none but that."""
    units = ACCEPTED.get(kind)
    if "unit" not in section.raw and section.units is not None:
        _refuse_files(section, kind)
        section.has("unit")
        return section.factor(kind)
    if units is None:
        return 1.0
    spelled = {name.replace("^", ""): name for name in units}
    given = section.raw.get("unit")
    known = spelled.get(given.replace("^", "")) if isinstance(given, str) else None
    unit = section.choice("unit", tuple(units), next(iter(units)), known)
    files = {"covariance", "systematic"} & section.raw.keys()
    if units[unit] != 1.0 and files:
        raise section.error("unit", f"got {unit!r}, but {min(files)} is in {UNIT_NAMES[kind]}")
    return units[unit]


def _refuse_files(section: Section, kind: str) -> None:
    """ConfigurationError where a matrix from a file would have to be in reduced units."""
    files = {"covariance", "systematic"} & section.raw.keys()
    if files and section.factor(kind) != 1.0:
        raise section.error(
            min(files),
            f"is in {UNIT_NAMES[kind]}, but the configuration in reduced units: "
            f"{shown(section.raw[min(files)])} cannot be given there",
        )
