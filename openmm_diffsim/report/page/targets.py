"""Each target of a fit beside the model, as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ...curve import Curve
from ...refinement import Refinement, Target
from ...refinement.comparison import Comparison
from ...refinement.convergence import names_of
from ...refinement.result import Result
from . import figures
from .figures import Beside, Figure
from .text import labelled, number, unit, with_error

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One measured number beside the model's."""

    name: str
    unit: str
    target: str
    model: str
    off: str
    pull: Markup


@dataclass(frozen=True)
class TargetStory:
    """One target, as the page shows it."""

    name: str
    about: str
    is_met: bool | None
    """None: no verdict yet."""
    verdict: str
    remarks: Sequence[str]
    figure: Figure | None
    rows: Sequence[Row]
    nuisances: Sequence[Mapping[str, str]]


def target_stories(fit: Refinement, result: Result) -> list[TargetStory]:
    """Each target beside the model, in their order."""
    names = names_of(fit.targets)
    verdicts = {} if not fit.history else {t.name: t for t in fit.verdict().targets}
    agreed = {id(each.target): each for each in result.agreement}
    beside = {id(t): (c, here) for c in result.comparisons for t, here in c.places()}
    return [
        _target_story(name, target, *beside[id(target)], verdicts.get(name), agreed[id(target)])
        for name, target in zip(names, fit.targets, strict=True)
    ]


def _target_story(
    name: str, target: Target, comparison: Comparison, here: slice, verdict: Any, agreed: Any
) -> TargetStory:
    model, error = comparison.prediction[here], comparison.own_error()[here]
    left = comparison.unexplained[here]
    p_value = number(agreed.p_value, 2)
    said = f"χ² {agreed.chi_squared:.1f}, expected {agreed.expected:.1f} (p = {p_value})"
    is_met = None
    if verdict is not None:
        is_met = verdict.misfit <= verdict.limit and agreed.is_reached
        said = f"misfit {verdict.misfit:.2f}, at most {verdict.limit:.2f} of a right model; {said}"
    figure, rows = None, []
    if target.curve is not None and target.axis is not None:
        figure = figures.curve_figure(_beside(name, target, model, error, left, said))
    else:
        rows = _rows(name, target, model, error, left)
    return TargetStory(
        name, _source(target), is_met, said, [] if agreed.is_sound else [str(agreed)], figure, rows,
        [_nuisance(each) for each in agreed.nuisances],
    )  # fmt: skip


def _source(target: Target) -> str:
    path = target.curve.path if target.curve is not None else None
    at = ", ".join(dict.fromkeys(f"{p.temperature:g} K" for p in target.state_points))
    return f"{path.name}, {at}" if path else at


def _beside(
    name: str, target: Target, model: Array, error: Array, left: Array, said: str
) -> Beside:
    curve, axis, observable = target.curve, target.axis, target.observable
    assert curve is not None and axis is not None
    first = observable.contact(curve, 0.1)
    start = float(curve.x[0]) if first is None or not observable.is_structure else 0.8 * first
    return Beside(
        name,
        labelled(observable.label, observable.unit),
        labelled(axis.name, axis.unit),
        (start, float(curve.x[-1])),
        curve,
        Curve(curve.x, model, error),
        left,
        observable.tends_to,
        observable.is_histogram,
        said,
    )


def _rows(name: str, target: Target, model: Array, error: Array, left: Array) -> list[Row]:
    found = []
    several = len(model) > 1
    for k, (value, sigma) in enumerate(zip(target.values, target.uncertainty, strict=True)):
        off, own = left[k] / sigma, error[k] / sigma
        found.append(
            Row(
                f"{name}[{k}]" if several else name,
                unit(target.observable.unit),
                with_error(value, sigma),
                with_error(model[k], error[k]),
                f"{off:+.1f}".replace("-", "−") if abs(off) >= 0.05 else "0.0",
                figures.pull(float(off), float(own)),
            )
        )
    return found


def _nuisance(found: Any) -> dict[str, str]:
    return {
        "name": found.name,
        "value": with_error(found.value, found.error),
        "prior": number(found.prior, 2),
        "remark": found.remark if found.is_found else "",
        "found": "found" if found.is_found else "consistent with none",
    }
