"""The System of a state point: [system] of a configuration, or what a [[state]] says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..limits import LIMITS, shown
from ..units import GRAM_PER_CM3
from .section import Section

FLUID_KEYS = ("particles", "number_density", "mass_density", "mass")
OWN_KEYS = ("topology", "system", "state", "trajectory", "atoms", "exclude_bonds")
SYSTEM_KEYS = (*FLUID_KEYS, *OWN_KEYS, "types")

_NAME = re.compile(r"[A-Za-z]\w*")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class SystemSection:
    """A fluid of one or several kinds of particle, or the user's own files."""

    particles: int | None = None
    number_density: float | None = None  # 1/nm^3
    mass: float | None = None  # amu, the mean of all particles
    topology: Path | None = None
    system: Path | None = None
    state: Path | None = None
    trajectory: Path | None = None  # to begin with, sampled with the potential as it is here
    atoms: str | None = None  # a selection in mdtraj's language
    types: tuple[str, ...] = ()  # selections, one for each type, in place of atoms
    exclude_bonds: int | None = None  # pairs so many bonds apart or fewer do not interact
    names: tuple[str, ...] = ()  # of the types; none where there is one
    counts: tuple[int, ...] = ()  # particles of each type of a mixture
    masses: tuple[float, ...] = ()  # amu, of each type of a mixture

    @property
    def n_types(self) -> int:
        """Of particles."""
        return max(1, len(self.names))


def read_system(section: Section) -> SystemSection:
    """ConfigurationError where a value cannot be."""
    own = {"topology", "system"} & section.raw.keys()
    made = _own(section) if own else _fluid(section)
    section.finish()
    return made


def _own(section: Section) -> SystemSection:
    names, selections = _types(section)
    made = SystemSection(
        topology=section.path("topology"),
        system=section.path("system"),
        state=section.optional_path("state"),
        trajectory=section.optional_path("trajectory"),
        atoms=section.text("atoms", None),
        types=selections,
        exclude_bonds=section.integer("exclude_bonds", None, at_least=0),
        names=names,
    )
    if made.atoms is not None and made.types:
        raise section.error("types", "got atoms as well; types say which atoms there are")
    return made


def _types(section: Section) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and selections, which are their own names in a list."""
    if not isinstance(section.raw.get("types"), Mapping):
        selections = section.texts("types")
        return selections, selections
    table = section.section("types")
    return tuple(table.raw), tuple(table.text(name) for name in table.raw)


def _fluid(section: Section) -> SystemSection:
    is_mixture = isinstance(section.raw.get("particles"), list)
    counts = section.counts("particles") if is_mixture else (section.integer("particles"),)
    total, least = sum(counts), LIMITS["particles"]
    if not least.least <= total <= least.most:
        raise section.error("particles", least.error("a whole number", total))
    masses = section.each_number("mass", len(counts))
    mean = float(np.dot(counts, masses) / total)
    density = section.number("number_density", None)
    mass_density = section.number("mass_density", None)
    if (density is None) == (mass_density is None):
        raise section.error(
            "number_density",
            "give either number_density (1/nm^3) or mass_density (g/cm3), and not both",
        )
    if density is None:
        density = mass_density * GRAM_PER_CM3 / mean
    made = SystemSection(particles=total, number_density=density, mass=mean)
    if not is_mixture:
        return made
    names = _names(section, len(counts))
    return replace(made, names=names, counts=counts, masses=masses)


def _names(section: Section, n: int) -> tuple[str, ...]:
    """Of the kinds of particle of a mixture, which are those of its atoms: by default A, B, ..."""
    names = section.texts("types") or tuple(_LETTERS[:n])
    if len(names) != n or len(set(names)) < n or not all(map(_NAME.fullmatch, names)):
        raise section.error(
            "types",
            f"got {shown(list(names))}, expected {n} different names of letters and digits, one "
            "for each number of particles",
        )
    return names
