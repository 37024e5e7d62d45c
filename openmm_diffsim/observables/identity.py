"""What an object was made from, as plain data: for fingerprints and files."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any
from xml.etree import ElementTree

from ..errors import ObservableError

_NOT_MEANT = ("randomSeed", "version", "openmmVersion")  # of an integrator's XML


def plain(value: Any) -> Any:
    """``value`` in what JSON has words for: the same for all that is equal, in every run.

    Arrays become lists, functions their qualified name, OpenMM integrators their parameters.

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
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    raise ObservableError(
        f"a {type(value).__name__} has no plain form that says what it is; give its owner an "
        "identity(), or an underscore before its name where nothing depends on it",
        got=value,
    )


def public(owner: Any) -> dict[str, Any]:
    """Attributes of an object whose names do not begin with an underscore."""
    return {name: value for name, value in vars(owner).items() if not name.startswith("_")}


def _of_xml(element: ElementTree.Element) -> dict[str, Any]:
    """An element of OpenMM's XML, but for what says nothing of the dynamics."""
    own = {key: text for key, text in element.attrib.items() if key not in _NOT_MEANT}
    children = [_of_xml(child) for child in element]
    return {"class": element.tag, **own, **({"parts": children} if children else {})}
