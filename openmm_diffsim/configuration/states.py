"""The state points of a fit: [[state]] of a configuration, over [system] and [dynamics]."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..limits import shown
from .dynamics import DYNAMICS_KEYS, DynamicsSection, read_dynamics
from .section import Section
from .system import FLUID_KEYS, OWN_KEYS, SYSTEM_KEYS, SystemSection, read_system

_NAME = re.compile(r"[A-Za-z0-9](?:[\w.+-]*\w)?")  # of a part of the name of a file
_INSTEAD = ({"number_density", "mass_density"},)  # one of them takes the place of the others


@dataclass(frozen=True)
class StateSection:
    """One state point: a System at a temperature and a pressure or density."""

    name: str
    system: SystemSection
    dynamics: DynamicsSection
    replicas: int | None = None
    """Simulations of it that run side by side; None: as many as ``refine.replicas``."""


def read_states(top: Section) -> tuple[StateSection, ...]:
    """Every [[state]]; without one, [system] and [dynamics] are the only state point.

    Raises
    ------
    ConfigurationError
        If a value cannot be, two states have one name, or their types of particles differ.
    """
    if not top.has("state"):
        system, dynamics = top.section("system"), top.section("dynamics")
        return (StateSection("state0", read_system(system), read_dynamics(dynamics)),)
    defaults = [top.optional_section(key) or top.within(key, {}) for key in ("system", "dynamics")]
    for default, known in zip(defaults, (SYSTEM_KEYS, DYNAMICS_KEYS), strict=True):
        default.known += known
        default.finish()
    sections = top.sections("state")
    if not sections:
        raise top.error("state", "got none, expected one [[state]] at least")
    states = [_state(k, section, *defaults) for k, section in enumerate(sections)]
    _check_names(sections, states)
    _check_types(states)
    return tuple(states)


def _state(index: int, section: Section, system: Section, dynamics: Section) -> StateSection:
    name = section.text("name", f"state{index}")
    replicas = section.integer("replicas", None, at_least=1)
    section.known += [*SYSTEM_KEYS, *DYNAMICS_KEYS]
    section.finish()
    return StateSection(
        name,
        read_system(_over(system, section, SYSTEM_KEYS)),
        read_dynamics(_over(dynamics, section, DYNAMICS_KEYS)),
        replicas,
    )


def _over(default: Section, state: Section, keys: Sequence[str]) -> Section:
    """A default with what a state says in its place."""
    own = {key: state.raw[key] for key in keys if key in state.raw}
    kept = {key: value for key, value in default.raw.items() if not _is_replaced(key, own)}
    places = dict.fromkeys(kept.keys() - own.keys(), default.name)
    return state.within(state.name, kept | own, places)


def _is_replaced(key: str, own: Mapping[str, object]) -> bool:
    """Does another key of the state take its place: another density, or files of its own?"""
    if any(key in group and group & own.keys() for group in _INSTEAD):
        return True
    if {"topology", "system"} & own.keys():
        return key in FLUID_KEYS
    return "particles" in own and key in OWN_KEYS


def _check_names(sections: Sequence[Section], states: Sequence[StateSection]) -> None:
    names = [state.name.lower() for state in states]  # some disks do not tell A from a
    for section, name in zip(sections, [state.name for state in states], strict=True):
        if not _NAME.fullmatch(name) or names.count(name.lower()) > 1:
            raise section.error(
                "name",
                f"got {shown(name)}, expected a name of its own, of letters, digits and . + - _: "
                "files are called by it",
            )


def _check_types(states: Sequence[StateSection]) -> None:
    """ConfigurationError where states have other types: one potential is of all of them."""
    first = states[0].system
    for index, state in enumerate(states):
        if state.system.names != first.names and state.system.n_types != first.n_types:
            key = f"state[{index}].types"
            raise ConfigurationError(
                f"{key}: {state.name} has the types {list(state.system.names)}, but "
                f"{states[0].name} {list(first.names)}; expected the same, in the same order",
                key=key,
            )
