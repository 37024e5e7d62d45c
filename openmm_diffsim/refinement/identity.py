"""Which fit a checkpoint belongs to, and in what another one differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..observables import Observable
from ..observables.identity import plain, public
from .methods import Method
from .state import FitView
from .target import Target

_SHOWN = 60  # characters of a value in a message
_BEFORE = 20  # of them, those that are the same in both
_DIGITS = (6, 9, 12, 17)  # of numbers: as few as tell them apart
_MISSING = object()


def identity(view: FitView, method: Method, targets: Sequence[Target]) -> dict[str, Any]:
    """Everything that a fit is, but for what it learns and how far it came, as plain data."""
    points = [state.state_point for state in view.states]
    prior = view.prior
    known = {} if prior is None else {"standard deviations": prior.standard_deviation.tolist()}
    return {
        "potential": view.potential.form(),
        **({} if prior is None else {"prior of parameters": known}),
        "method": _of_method(method),
        "targets": [
            {
                "state points": [points.index(p) for p in target.state_points],
                **target.identity(),
                "integrators": [_integrator(*term) for term in target.terms],
            }
            for target in targets
        ],
        "state points": [point.identity() for point in points],
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, such as "state point 0: the density in 1/nm^3 was 21.499, is 20"."""
    return list(dict.fromkeys(_differences((), old, new)))


def _integrator(point: Any, observable: Observable) -> Any:
    """The Simulation's where segments are run with it, as plain data; else None."""
    if not observable.is_dynamic or getattr(observable, "integrator", None) is not None:
        return None
    return plain(point.simulation.integrator)


def _of_method(method: Method) -> dict[str, Any]:
    """Its class, and its ``identity()`` or its public attributes."""
    own = method.identity() if hasattr(method, "identity") else plain(public(method))
    return {"class": type(method).__name__, **own}


def _differences(path: tuple[str, ...], old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if _is_checksum(old) and _is_checksum(new):
        yield f"{_subject(path)} changed"
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences((*path, key), old.get(key, _MISSING), new.get(key, _MISSING))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        yield from _differences_of_lists(path, old, new)
    elif old is _MISSING or new is _MISSING:
        yield f"{_subject(path)} {_verbs(path)[1]} {'new' if old is _MISSING else 'missing'}"
    else:
        yield _sentence(path, old, new)


def _differences_of_lists(path: tuple[str, ...], old: list[Any], new: list[Any]) -> Iterator[str]:
    """Item by item, or the first where they are plain values and many."""
    changed = [n for n, (was, now) in enumerate(zip(old, new, strict=True)) if was != now]
    if any(isinstance(item, Mapping) for item in [*old, *new]):
        *where, what = path
        for n in changed:
            item = f"{what.removesuffix('s')} {n}"
            yield from _differences((*where, item), old[n], new[n])
        return
    first = changed[0]
    if len(old) == 1:
        yield _sentence(path, old[0], new[0])
    else:
        was, now = _told_apart(old[first], new[first])
        count = f"{len(changed)} of {len(old)} differ"
        yield f"{_subject(path, f'number {first} of ')} was {was}, is {now} ({count})"


def _is_checksum(value: Any) -> bool:
    """Does it stand for what is too long to be written out?"""
    return isinstance(value, Mapping) and "sha256" in value


def _subject(path: tuple[str, ...], part: str = "") -> str:
    *where, what = path
    return ", ".join(where) + (": " if where else "") + f"{part}the {what}"


def _sentence(path: tuple[str, ...], old: Any, new: Any) -> str:
    (was, now), texts = _verbs(path), _told_apart(old, new)
    return f"{_subject(path)} {was} {texts[0]}, {now} {texts[1]}"


def _verbs(path: tuple[str, ...]) -> tuple[str, str]:
    """Of what stands last: one thing or, by the ending of a plain word, several."""
    word = path[-1].partition(" in ")[0].partition(" of ")[0]
    several = word.endswith("s") and not word.endswith("ss") and "_" not in word
    return ("were", "are") if several else ("was", "is")


def _told_apart(old: Any, new: Any) -> tuple[str, str]:
    """Both as short text; of long ones what is near the first difference."""
    if _is_number(old) and _is_number(new):
        pairs = [(f"{old:.{n}g}", f"{new:.{n}g}") for n in _DIGITS]
        return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    texts = [" ".join(str(value).split()) for value in (old, new)]
    if isinstance(old, list) and isinstance(new, list) and max(map(len, texts)) > _SHOWN:
        return f"a list of {len(old)}", f"one of {len(new)}"
    same = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0)
    was, now = (_cut(text, max(same - _BEFORE, 0)) for text in texts)
    return was, now


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(text: str, start: int) -> str:
    if len(text) <= _SHOWN:
        return text
    end = start + _SHOWN
    return f"{'... ' if start else ''}{text[start:end]}{' ...' if end < len(text) else ''}"
