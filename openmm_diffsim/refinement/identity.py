"""Which fit a checkpoint belongs to, and in what another one differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..observables.identity import plain, public
from ..potentials import Potential
from .methods import Method
from .state import State
from .target import Target

_SHOWN = 60  # characters of a value in a message


def identity(
    potential: Potential, method: Method, targets: Sequence[Target], states: Sequence[State]
) -> dict[str, Any]:
    """Everything that a fit is, but for what it learns and how far it came, as plain data."""
    return {
        "potential": potential.form(),
        "method": {"method": type(method).__name__, **_options(method)},
        "targets": [target.identity() for target in targets],
        "state points": [state.state_point.identity() for state in states],
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, each as "the density was 21.5, is 21.4"."""
    return list(dict.fromkeys(_differences("", old, new)))


def _differences(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{name}, {key}" if name else str(key)
            yield from _differences(inner, old.get(key), new.get(key))
    elif _are_lists_of_one_length(old, new):
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{name} [{index}]", was, now)
    elif old != new:
        yield f"{name}: was {_short(old)}, is {_short(new)}"


def _are_lists_of_one_length(old: Any, new: Any) -> bool:
    """Of things with parts; numbers are shown as a whole."""
    lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    return lists and any(isinstance(item, Mapping | list) for item in [*old, *new])


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _options(method: Method) -> dict[str, Any]:
    """Its public attributes; a factory of torch's optimizers is known by what it makes."""
    own = {k: v for k, v in public(method).items() if k != "factory"}
    made = {"optimizer": method.name()} if hasattr(method, "name") else {}
    return {**{k: plain(v) for k, v in own.items()}, **made}
