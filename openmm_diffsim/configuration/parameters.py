"""Parameters of the forces that a System has, as a term of a configuration."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmm import app
from openmm.app import forcefield

from ..engine.parameters import SystemParameters, atom_types
from ..errors import AttachError, ConfigurationError, PotentialError
from ..fluid import select_atoms
from ..limits import shown
from .prepared import Known, Prepared
from .section import Section
from .terms import TermSection, common

_RUN_CODE = ("Script", "InitializationScript", "Include")  # what OpenMM runs, or opens
_OF_ATOMS = ("lennard_jones", "pair_tables", "charges")
_OF_ENTRIES = ("bonds", "angles", "torsions", "rb_torsions", "cmap")
_BY_NAMES = ("global_parameters", "custom")
METHODS = (*_OF_ATOMS, *_OF_ENTRIES, *_BY_NAMES)

_OWN_OPTIONS: dict[str, tuple[str, ...]] = {
    "lennard_jones": ("learn", "bounds"),
    "pair_tables": ("learn", "bounds"),
    "charges": ("neutral", "bounds"),
    **dict.fromkeys(("bonds", "angles", "torsions", "rb_torsions"), ("types", "each", "learn")),
    "cmap": ("each", "bounds", "scale"),
    "global_parameters": ("linear", "positive", "bounds", "scale"),
    "custom": ("types", "each", "linear", "positive", "bounds", "scale"),
}
"""Of each method of ``SystemParameters``, besides ``force`` and ``name``."""


@dataclass(frozen=True)
class LearnedSection:
    """One call of a method of ``SystemParameters``."""

    key: str
    method: str
    options: Mapping[str, Any]
    atoms: Any = None  # a selection, or selections by names
    select: Any = None  # indices, tuples of types, or either by names
    parameters: tuple[str, ...] = ()  # names, of global_parameters and custom
    types: str = ""  # "types" or "classes" of a force field


@dataclass(frozen=True, kw_only=True)
class ParametersSection(TermSection):
    """Parameters of the System of the first state point, and of those of the others."""

    learned: tuple[LearnedSection, ...]
    force_field: tuple[str, ...] = ()  # XML files, that know types of atoms

    def first_guess(self, known: Known) -> SystemParameters:
        """As the System has them.

        Raises
        ------
        ConfigurationError
            If it has no such forces or particles.
        """
        place = known.places[0]
        if place.section.system.particles is not None:
            raise ConfigurationError(
                f"{self.key}.kind: a fluid has no forces of which parameters could be learned; "
                "expected system.topology and system.system",
                key=f"{self.key}.kind",
            )
        made = SystemParameters(place.system)
        for each in self.learned:
            try:
                self._learn(made, each, place)
            except (PotentialError, AttachError) as error:
                key = f"{self.key}.{each.key}"
                raise ConfigurationError(f"{key}: {error}", key=key) from error
        return made

    def attach(self, potential: Any, place: Prepared) -> None:
        """To Systems of the other state points."""
        if place.system is not potential.system:
            potential.attach(place.system)

    def _learn(self, made: SystemParameters, each: LearnedSection, place: Prepared) -> None:
        options = dict(each.options)
        if each.types:
            options["types"] = self._types(place, each.types == "classes")
        if each.method in _OF_ATOMS:
            atoms = _particles(each.atoms, place, f"{self.key}.{each.key}.atoms")
            getattr(made, each.method)(atoms, **options)
        elif each.method == "global_parameters":
            made.global_parameters(*each.parameters, **options)
        elif each.method == "custom":
            made.custom(*each.parameters, select=each.select, **options)
        else:
            getattr(made, each.method)(each.select, **options)

    def _types(self, place: Prepared, classes: bool) -> list[str]:
        """Of each atom, by the force field."""
        key = f"{self.key}.force_field"
        try:
            field = app.ForceField(*self.force_field)
            return atom_types(field, place.topology, classes=classes)
        except Exception as error:  # OpenMM raises many kinds
            raise ConfigurationError(f"{key}: {error}", key=key) from error


def _particles(atoms: Any, place: Prepared, key: str) -> Any:
    """Indices for each selection."""
    if atoms is None:
        return None
    if isinstance(atoms, str):
        return select_atoms(place.topology, atoms, key)
    return {name: select_atoms(place.topology, text, key) for name, text in atoms.items()}


# Reading ------------------------------------------------------------------------------------------


def read_parameters(section: Section, names: Sequence[str]) -> ParametersSection:
    """Which parameters are learned, method by method."""
    section.choice("kind", ("parameters",))
    force_field = _force_field(section)
    learned = [each for method in METHODS for each in _calls(section, method, bool(force_field))]
    if not learned:
        raise section.error(
            "kind", f"nothing would be learned; expected some of {', '.join(METHODS)}"
        )
    return ParametersSection(
        kind="parameters",
        learned=tuple(learned),
        force_field=force_field,
        **common(section, names),
    )


def _calls(section: Section, method: str, has_types: bool) -> list[LearnedSection]:
    """Of one method: ``true``, a table, or a list of tables."""
    given = section.raw.get(method)
    if not isinstance(given, list):
        if given is None or given is False or given is True:
            asked = section.flag(method)
            return [LearnedSection(method, method, {})] * bool(asked and method not in _BY_NAMES)
        return [_call(section.section(method), method, method, has_types)]
    tables = section.sections(method)
    return [_call(t, method, f"{method}[{k}]", has_types) for k, t in enumerate(tables)]


def _call(own: Section, method: str, key: str, has_types: bool) -> LearnedSection:
    options = ("force", "name", *_OWN_OPTIONS[method])
    if method in _OF_ATOMS and "atoms" not in own.raw and not own.raw.keys() <= set(options):
        own = own.within(own.name, {"atoms": dict(own.raw)})  # types by their names alone
    made = LearnedSection(
        key=key,
        method=method,
        options={name: _READ[name](own, name) for name in options if own.has(name)},
        atoms=_selections(own) if method in _OF_ATOMS else None,
        select=_select(own) if method in (*_OF_ENTRIES, "custom") else None,
        parameters=own.texts("names") if method in _BY_NAMES else (),
        types=str(own.raw.get("types", "")),
    )
    made.options.pop("types", None)  # type: ignore[attr-defined]
    if method in _BY_NAMES and not made.parameters:
        raise own.error("names", "missing: which parameters are learned?")
    if made.types and not has_types:
        raise own.error("types", "needs force_field = files of a ForceField, beside kind")
    own.finish()
    return made


def _selections(own: Section) -> Any:
    """A selection, or several by the names of types; None: all."""
    if isinstance(own.raw.get("atoms"), Mapping):
        table = own.section("atoms")
        return {name: table.text(name) for name in table.raw}
    return own.text("atoms", None)


def _select(own: Section) -> Any:
    """Indices, lists of the types of particles, or either by names; None: all."""
    if not own.has("select"):
        return None
    given = own.raw["select"]
    if isinstance(given, Mapping):
        return {name: _entries(own, rows) for name, rows in given.items()}
    return _entries(own, given)


def _entries(own: Section, rows: Any) -> list[Any]:
    if isinstance(rows, list) and rows:
        if all(type(row) is int and row >= 0 for row in rows):
            return list(rows)
        if all(isinstance(row, list) and all(isinstance(v, str) for v in row) for row in rows):
            return [tuple(row) for row in rows]
    raise own.error(
        "select",
        f"got {shown(rows)}, expected indices of entries, as [0, 1], or the types of their "
        "particles, as [['CT', 'HC']], or a table of either by names",
    )


def _bounds(own: Section, key: str) -> Any:
    """[low, high], or a table of such by names."""
    if isinstance(own.raw[key], Mapping):
        table = own.section(key)
        return {name: table.bounds(name) for name in table.raw}
    return own.bounds(key)


def _learn(own: Section, key: str) -> tuple[str, ...]:
    return own.texts(key)


_READ: dict[str, Callable[[Section, str], Any]] = {
    "force": Section.text,
    "name": Section.text,
    "learn": _learn,
    "bounds": _bounds,
    "neutral": Section.flag,
    "each": Section.flag,
    "linear": Section.flag,
    "positive": Section.flag,
    "scale": Section.number,
    "types": lambda own, key: own.choice(key, ("types", "classes")),
}


def _force_field(section: Section) -> tuple[str, ...]:
    """Files of a ForceField: beside the configuration, or those that OpenMM comes with."""
    found = []
    for name in section.texts("force_field"):
        path = section.folder / name
        if not path.is_file():
            found.append(_installed(section, name))
            continue
        if not section.trusted and _holds_code(path):
            raise section.error(
                "force_field",
                f"{name} is no XML, or holds a script or names other files; if you know who wrote "
                "it and trust them, add --trust",
            )
        found.append(str(path))
    return tuple(found)


def _installed(section: Section, name: str) -> str:
    """A file of OpenMM's, or of a package that adds some: what is installed is trusted."""
    for folder in map(Path, forcefield._getDataDirectories()):
        path = (folder / name).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return str(path)
    raise section.error(
        "force_field",
        f"there is no file {shown(str(section.folder / name), 300)}, and none of OpenMM's has this "
        "name",
    )


def _holds_code(path: Path) -> bool:
    """Does an XML file hold what OpenMM would run, or name other files?"""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError):
        return True
    return any(element.tag in _RUN_CODE for element in root.iter())
