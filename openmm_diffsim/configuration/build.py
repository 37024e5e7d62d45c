"""From a configuration to a Refinement that is ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from ..engine.start import ROOM_FOR_BAROSTAT, box_fluctuates, sides
from ..engine.statepoint import StatePoint
from ..errors import ConfigurationError, StatePointError
from ..fluid import start_disordered, start_from
from ..potentials import Potential, Sum
from ..refinement import GaussNewton, Method, Refinement, Target
from ..refinement.methods import METHODS
from ..report.parameters import load_parameters
from ..statistics.kernels import largest_range
from .measured import build_target
from .prepared import Known, Measured, Prepared, Tell, curve_of, measure, prepare
from .refine import RefineSection
from .toml import Configuration

_LONG_SEGMENTS = 20  # MD steps on segments for each step between frames: a user should know


def build_refinement(configuration: Configuration, warn: Any = print) -> Refinement:
    """Build everything, and check it, before any MD.

    Raises
    ------
    ConfigurationError, TargetError, AttachError, StatePointError
        If an entry, a file or the combination of them cannot be.
    """
    return build(configuration, warn).to_be_fitted


@dataclass(frozen=True)
class Built:
    """All of a configuration: what is fitted, and what is predicted with the same potential."""

    potential: Potential
    fit: Refinement | None
    """None where nothing is to be fitted."""
    predicted: tuple[Target, ...]

    @property
    def to_be_fitted(self) -> Refinement:
        """ConfigurationError where there is nothing."""
        if self.fit is None:
            raise ConfigurationError(
                "target.predict: all targets are only predicted; expected one to be fitted",
                key="target.predict",
            )
        return self.fit


def build(configuration: Configuration, warn: Any = print) -> Built:
    """As ``build_refinement``, with the targets that are only to be predicted."""
    notes: list[str] = []
    tell, warn = warn, notes.append  # once all is known to be right: a refusal is a single line
    known = _known(configuration, warn)
    for place in known.places:
        _check_cutoff(configuration, place)
    _tell_unused(known)
    _tell_cost(known, configuration.refine.every)
    potential = _potential(configuration, known)
    points = [_state_point(place, potential, warn) for place in known.places]
    named = {place.name: point for place, point in zip(known.places, points, strict=True)}
    targets = [_target(k, each, named) for k, each in enumerate(known.measured)]
    is_fitted = [not each.entry.predict for each in known.measured]
    fit = None
    if any(is_fitted):
        fitted = list(compress(targets, is_fitted))
        used = list(dict.fromkeys(point for target in fitted for point in target.state_points))
        with told_warnings(warn):
            fit = Refinement(
                potential,
                fitted,
                _method(configuration.refine),
                largest_step=configuration.refine.largest_step,
                **_workers(configuration, used),
            )
    for note in notes:
        tell(note)
    return Built(
        potential, fit, tuple(t for t, own in zip(targets, is_fitted, strict=True) if not own)
    )


def _known(configuration: Configuration, warn: Tell) -> Known:
    """All state points and targets, before there is a potential."""
    curves = [curve_of(entry) for entry in configuration.targets]
    seed, trusted = configuration.refine.seed, configuration.trusted
    places = [
        prepare(section, index, seed, trusted, warn)
        for index, section in enumerate(configuration.states)
    ]
    pairs = zip(configuration.targets, curves, strict=True)
    measured = [measure(entry, curve, places) for entry, curve in pairs]
    return Known(places, measured, warn, trusted)


def _potential(configuration: Configuration, known: Known) -> Potential:
    """The sum of all terms, in the Systems of all state points."""
    terms = [term.build(known) for term in configuration.terms]
    potential = terms[0] if len(terms) == 1 else Sum(terms)
    if configuration.learned is not None:
        load_parameters(potential, configuration.learned)
    pairs = list(zip(configuration.terms, terms, strict=True))
    pairs.sort(key=lambda pair: pair[0].attached)
    with told_warnings(known.tell):
        for place in known.places:
            for term, part in pairs:
                term.attach(part, place)
    return potential


def _state_point(place: Prepared, potential: Potential, warn: Tell) -> StatePoint:
    """ConfigurationError where the System has a thermostat or barostat of another temperature."""
    simulation = place.dynamics.simulation(place.topology, place.system, place.seed)
    if place.positions is None:
        start_disordered(simulation, place.temperature, place.seed)
    else:
        start_from(simulation, place.state, place.positions, place.seed, warn)
    try:
        return StatePoint(simulation, potential, name=place.name)
    except StatePointError as error:
        key = "dynamics.temperature"
        what = f"{key}, or what system.system or system.state say: {error}"
        raise ConfigurationError(what, key=key) from error


def _target(number: int, measured: Measured, points: Mapping[str, StatePoint]) -> Target:
    """At the state points of its places: one, or as many as its observable takes."""
    own = [points[place.name] for place in measured.places]
    point = own if len(own) > 1 else own[0]
    return build_target(number, point, measured.entry, measured.observable, measured.curve)


def _method(section: RefineSection) -> str | Method:
    if section.method == "gauss-newton":
        return GaussNewton(section.gauss_newton)
    return METHODS[section.method](**section.options)


def _workers(configuration: Configuration, points: Sequence[StatePoint]) -> dict[str, Any]:
    """Where state points are sampled, and how often each at once."""
    section = configuration.refine
    own = {state.name: state.replicas or section.replicas for state in configuration.states}
    return {
        "executor": section.executor,
        "workers": section.workers,
        "replicas": {point: own[point.name] for point in points},
        "staleness": section.staleness,
    }


@contextmanager
def told_warnings(tell: Any) -> Iterator[None]:
    """Python's warnings in one line each, as all else that a user is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(f"warning: {warning.message}" for warning in caught):
        tell(text)


def _tell_unused(known: Known) -> None:
    """Say so where a state point has no target: it takes no part in the fit."""
    used = {place.name for each in known.measured for place in each.places}
    for place in known.places:
        if place.name not in used:
            known.tell(f"{place.name}: no target is of this state, so it is not sampled")


def _tell_cost(known: Known, every: int) -> None:
    """Say so where segments take many times the steps that lie between their starts."""
    for observable in [each.observable for each in known.measured]:
        if observable.steps > _LONG_SEGMENTS * every:
            known.tell(
                f"{observable.label}: a segment of {observable.steps} steps from every frame, "
                f"{every} steps apart, takes {observable.steps / every:.0f} times the MD of the "
                "fit itself; a shorter window or length, or a larger refine.every, is faster"
            )


def _check_cutoff(configuration: Configuration, place: Prepared) -> None:
    """ConfigurationError where a pair potential reaches beyond half the box."""
    limit, why = largest_range(place.box), ""
    if box_fluctuates(place.system):
        limit, why = ROOM_FOR_BAROSTAT * limit, ", less what a barostat needs"
    for term in configuration.terms:
        if term.reach is None or term.reach <= limit:
            continue
        cutoff, n = term.reach, place.section.system.particles
        hint = "take a larger box"
        if n is not None:
            hint = f"take at least {np.ceil(n * (cutoff / limit) ** 3):.9g} particles"
        of = f" of {place.name}" if len(configuration.states) > 1 else ""
        raise ConfigurationError(
            f"{term.key}.cutoff: {cutoff:g} nm is beyond half the box of {sides(place.box)} nm"
            f"{of}{why}: {limit:.4g} nm; {hint} or a smaller cutoff",
            key=f"{term.key}.cutoff",
            got=cutoff,
            expected=limit,
        )
