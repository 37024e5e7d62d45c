"""OpenMM's XML from files, which others may have written: nothing in it runs unless it is trusted.

OpenMM unpickles the function of a ``PythonForce`` and loads the module of a ``TorchForce`` as soon
as it reads one, and takes what stands in a place for what belongs there. So a text is first read as
plain XML, and OpenMM gets only what was found in it, written anew: its own parser sees other
elements in a comment than this one does.
"""

from __future__ import annotations

from functools import cache
from inspect import isclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import openmm

from ..errors import FileError, UntrustedError

Made = TypeVar("Made")

_MOST_BYTES = 256 << 20  # a System of about a million particles
_MOST_ELEMENTS = 4_000_000
_DEEPEST = 50
_RUN_CODE = {"PythonForce"}  # of those that OpenMM itself has
_OF_THIS_PACKAGE = {"SplinePairForce"}
_PLACES: dict[str, tuple[type, set[str]]] = {
    "System": (openmm.System, {""}),
    "State": (openmm.State, {""}),
    "Integrator": (openmm.Integrator, {"", "Integrator"}),
    "Force": (openmm.Force, {"", "Forces", "Force", "CollectiveVariable"}),
    "Function": (openmm.TabulatedFunction, {"Functions"}),
}
"""What OpenMM makes of an element with a type, and below which ("": none) it stands."""


def read_xml(path: str | Path, kind: type[Made], trusted: bool = False) -> Made:
    """A System, State or Integrator from a file.

        system = diffsim.read_xml("system.xml", openmm.System)

    Parameters
    ----------
    path : a file
    kind : openmm.System, openmm.State or openmm.Integrator
    trusted : bool
        The file may hold code, which runs now: do you know who wrote it?

    Raises
    ------
    UntrustedError
        If the file holds code, or a force that is not known to hold none, and is not trusted.
    FileError
        If it is no regular file, cannot be read, is too large, or holds something else.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise FileError(f"{path}: there is no such file", path=path)
        size = path.stat().st_size
        if size > _MOST_BYTES and not trusted:
            raise FileError(
                f"{path}: has {size} bytes, expected at most {_MOST_BYTES}; {_HOW_TO_TRUST}",
                path=path,
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read: {error}", path=path) from error
    try:
        return from_xml(text, kind, trusted)
    except (UntrustedError, FileError) as error:
        raise type(error)(f"{path}: {error}", path=path) from error


def from_xml(text: str, kind: type[Made], trusted: bool = False) -> Made:
    """As ``read_xml``, of a text."""
    try:
        made = openmm.XmlSerializer.deserialize(text if trusted else _plain(text, kind.__name__))
    except (ElementTree.ParseError, openmm.OpenMMException, ValueError) as error:
        raise FileError(f"is no {kind.__name__} in OpenMM's XML: {error}") from error
    if not isinstance(made, kind):
        raise FileError(f"holds a {type(made).__name__}, expected a {kind.__name__}")
    return made


_HOW_TO_TRUST = "if you know who wrote it and trust them, add --trust (in Python trusted=True)"


def _plain(text: str, root: str) -> str:
    """The same XML, known to hold nothing but what OpenMM itself reads without running code."""
    parser = ElementTree.XMLParser(target=_Checked(root))
    parser.feed(text)
    return ElementTree.tostring(parser.close(), encoding="unicode")


class _Checked(ElementTree.TreeBuilder):
    """Refuses at once what must not reach OpenMM."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = root
        self._open = [""]
        self._n = 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """A DTD: OpenMM writes none, and entities can name other files or fill the memory."""
        raise FileError("declares a document type, which OpenMM never writes")

    def start(self, tag: Any, attributes: Any) -> Any:
        """An element begins."""
        above = self._open[-1]
        self._n += 1
        if above == "" and tag != self._root:
            raise FileError(f"holds a {tag[:80]}, expected a {self._root}")
        if self._n > _MOST_ELEMENTS or len(self._open) > _DEEPEST:
            raise FileError(
                f"has more than {_MOST_ELEMENTS} elements, or {_DEEPEST} in each other; "
                f"{_HOW_TO_TRUST}"
            )
        if "type" in attributes:
            _check_type(tag, above, attributes["type"])
        if "mass" in attributes:
            _check_mass(tag, attributes["mass"])
        self._open.append(tag)
        return super().start(tag, attributes)

    def end(self, tag: Any) -> Any:
        """It ends."""
        self._open.pop()
        return super().end(tag)


def _check_mass(tag: str, text: str) -> None:
    """Refuse what OpenMM would read as 0, which is a particle that does not move."""
    try:
        is_number = isfinite(float(text))
    except ValueError:
        is_number = False
    if not is_number:
        raise FileError(f"has a {tag[:80]} with the mass {text[:80]!r}, expected a number, in amu")


def _check_type(tag: str, above: str, name: str) -> None:
    """Refuse what OpenMM would make of an element, where that runs code or is not known."""
    if name.removeprefix("-").isdecimal():  # of a particle
        return
    kind, places = _PLACES.get(tag, (None, set()))
    known = _known().get(name)
    if known is None:
        raise UntrustedError(
            f"holds a {name[:80]}, which can hold code that would run when the file is read; "
            f"{_HOW_TO_TRUST}",
            got=name,
        )
    if kind is None or above not in places or not issubclass(known, kind):
        raise FileError(f"has a {name} where none belongs: {above or 'the root'}/{tag[:80]}")


@cache
def _known() -> dict[str, type]:
    """What OpenMM makes from XML without running code in it, by the types it has there."""
    kinds = tuple(kind for kind, _ in _PLACES.values())
    own = {name: c for name, c in vars(openmm).items() if isclass(c) and issubclass(c, kinds)}
    safe: dict[str, type] = {name: c for name, c in own.items() if name not in _RUN_CODE}
    return safe | dict.fromkeys(_OF_THIS_PACKAGE, openmm.Force)
