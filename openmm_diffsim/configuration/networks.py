"""Networks as terms of a configuration, whose code runs only where that is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import ConfigurationError, PotentialError
from ..potentials import NetworkPotential, Potential
from .observables import named_in_code
from .prepared import Known, Prepared
from .section import Section
from .terms import TermSection, common


@dataclass(frozen=True, kw_only=True)
class NetworkSection(TermSection):
    """A torch module of the user's own: what it is, or what makes it."""

    module: Any
    attached = 3

    def first_guess(self, known: Known) -> Potential:
        """As its module begins.

        Raises
        ------
        ConfigurationError
            If it is no torch module, or none that gives an energy.
        """
        made = self.module
        key = f"{self.key}.module"
        try:
            if isinstance(made, type) or not isinstance(made, nn.Module | Potential):
                made = made()
            if isinstance(made, Potential):
                return made
            return NetworkPotential(made, n_types=known.n_types)
        except PotentialError as error:
            raise ConfigurationError(f"{key}: {error}", key=key) from error
        except Exception as error:  # of code that is not this package's
            what = f"{key}: it cannot be made: {type(error).__name__}: {error}"
            raise ConfigurationError(what, key=key) from error

    def attach(self, potential: Any, place: Prepared) -> None:
        """To the atoms of the types."""
        types = place.type_of[place.type_of >= 0]
        potential.attach(place.system, atoms=place.site.atoms, types=types if types.any() else None)


def read_network(section: Section, names: Sequence[str]) -> NetworkSection:
    """A network, by "file.py:name" or "package.module:name" of a module, a class or a function."""
    section.choice("kind", ("network",))
    named = section.text("module")
    try:
        found = named_in_code(named, section.folder, section.trusted)
    except ConfigurationError as error:
        raise section.error("module", str(error)) from error
    if not callable(found):
        raise section.error("module", f"{named} is a {type(found).__name__}, no torch module")
    return NetworkSection(kind="network", module=found, **common(section, names))
