"""Observables by the names that a configuration has for them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigurationError
from ..limits import shown
from ..observables import ENTRIES, Observable


def find_observable(name: str, folder: Path, trusted: bool = False) -> type[Observable]:
    """The class of an ``entry`` such as "rdf", or of the user's own.

    Parameters
    ----------
    name : an entry; or "file.py:ClassName", a path relative to ``folder``; or
        "package.module:ClassName". The last two run the code of that file or module.
    trusted : may code be run that the configuration names?

    Raises
    ------
    ConfigurationError
        If there is none of that name, it is no Observable, or it is code and not trusted.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        if name not in ENTRIES:
            raise ConfigurationError(
                f"{not_one_of(name, tuple(ENTRIES))}; one of your own is 'file.py:ClassName'"
            )
        return ENTRIES[name]
    found = named_in_code(name, folder, trusted)
    if not (isinstance(found, type) and issubclass(found, Observable)):
        raise ConfigurationError(
            f"got {name!r}: {place} has no class {attribute!r} that is an Observable"
        )
    return found


def named_in_code(name: str, folder: Path, trusted: bool) -> Any:
    """What "file.py:name" or "package.module:name" stands for, by running that code; or None.

    Raises
    ------
    ConfigurationError
        If the code is not trusted, or cannot be run.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise ConfigurationError(f"got {name!r}, expected 'file.py:name' or 'module:name'")
    if not trusted:
        raise ConfigurationError(
            f"got {name!r}, which runs the code of {place}; if you know who wrote that and the "
            "configuration and trust them, add --trust (in Python trusted=True)"
        )
    module = _of_file(folder / place) if place.endswith(".py") else _of_name(place)
    return getattr(module, attribute, None)


def not_one_of(value: object, allowed: Sequence[str]) -> str:
    """What to say where ``value`` is none of the names allowed."""
    close = difflib.get_close_matches(shown(value).strip("'"), allowed, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"got {shown(value)}, expected one of {', '.join(allowed)}{hint}"


def _of_file(path: Path) -> ModuleType:
    """The module in a file: once per process, so that its classes stay the same."""
    path = path.resolve()
    for module in list(sys.modules.values()):
        known = getattr(module, "__file__", None)
        if known is not None and Path(known) == path:
            return module
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    name = f"file:{path}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigurationError(
            f"{path} cannot be run: {type(error).__name__}: {error}"
        ) from error
    return module


def _of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigurationError(
            f"{name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
