"""What an object was made from, as plain data: for fingerprints and files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType
from typing import Any
from xml.etree import ElementTree

from ..errors import ObservableError

_NOT_MEANT = ("randomSeed", "version", "openmmVersion")  # of an integrator's XML


def plain(value: Any) -> Any:
    """``value`` in what JSON has words for: the same for all that is equal, in every run.

    Arrays become lists, OpenMM integrators their parameters, functions their qualified name and a
    checksum of their code and of the values that it refers to.

    Raises
    ------
    ObservableError
        If it is of a kind that has no such form.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, numbers and Tensors
        return value.tolist()
    if hasattr(value, "identity"):
        return value.identity()
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, **own}
    if hasattr(value, "getStepSize"):
        return _of_xml(ElementTree.fromstring(value.__getstate__()))
    if isinstance(value, partial):
        return plain([value.func, value.args, value.keywords])
    if callable(value) and hasattr(value, "__qualname__"):
        return _of_function(value)
    raise ObservableError(
        f"a {type(value).__name__} has no plain form that says what it is; give its owner an "
        "identity(), or an underscore before its name where nothing depends on it",
        got=value,
    )


def public(owner: Any) -> dict[str, Any]:
    """Attributes of an object whose names do not begin with an underscore."""
    return {name: value for name, value in vars(owner).items() if not name.startswith("_")}


def _of_function(function: Callable[..., Any]) -> Any:
    """Its name alone where it is not written in Python, such as one of torch."""
    code = getattr(function, "__code__", None)
    if code is None:
        return function.__qualname__
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    defaults = [getattr(function, name, None) for name in ("__defaults__", "__kwdefaults__")]
    content = repr([*_of_code(code), *map(_held, [*cells, *defaults])])
    return {"name": function.__qualname__, "sha256": hashlib.sha256(content.encode()).hexdigest()}


def _of_code(code: CodeType) -> list[Any]:
    """What it does, with what names and constants; not where it is written."""
    return [code.co_code, code.co_names, [_constant(value) for value in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _of_code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _held(value: Any) -> Any:
    """A value that a function refers to; of what has no plain form, and of functions, the kind."""
    if hasattr(value, "__code__"):
        return _of_code(value.__code__)
    try:
        return plain(value)
    except ObservableError:
        return type(value).__qualname__


def _of_xml(element: ElementTree.Element) -> dict[str, Any]:
    """An element of OpenMM's XML, but for what says nothing of the dynamics."""
    own = {key: text for key, text in element.attrib.items() if key not in _NOT_MEANT}
    children = [_of_xml(child) for child in element]
    return {"class": element.tag, **own, **({"parts": children} if children else {})}
