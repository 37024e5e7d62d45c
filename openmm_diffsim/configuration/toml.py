"""The configuration of a fit: a TOML file, checked to the last key before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..io import read_regular
from ..report.parameters import read_parameters_json
from ..units import ReducedUnits, stated_units
from .bonded import BONDED_KINDS, read_bonded
from .dynamics import DynamicsSection
from .networks import read_network
from .parameters import read_parameters
from .potentials import PAIR_KINDS, read_pair
from .refine import RefineSection, read_refine
from .section import Section
from .states import StateSection, read_states
from .system import SystemSection
from .targets import TargetSection, read_target
from .terms import Reader, TermSection, read_terms

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 2**20  # of a configuration

READERS: dict[str, Reader] = {
    **dict.fromkeys(PAIR_KINDS, read_pair),
    **dict.fromkeys(BONDED_KINDS, read_bonded),
    "parameters": read_parameters,
    "network": read_network,
}
"""What reads each kind of [potential]."""


@dataclass(frozen=True)
class Configuration:
    """All of it, and the text it was made from."""

    states: tuple[StateSection, ...]
    terms: tuple[TermSection, ...]
    """Of the potential, which is their sum."""
    targets: tuple[TargetSection, ...]
    refine: RefineSection
    raw: Mapping[str, Any]
    trusted: bool = False  # may what it names run code?
    units: ReducedUnits | None = None
    """That the file is in; all numbers here are in md units."""
    learned: Path | None = None
    """Folder of a fit, which the potential is from; None: it begins as the terms say."""

    @property
    def system(self) -> SystemSection:
        """Of the first state point."""
        return self.states[0].system

    @property
    def dynamics(self) -> DynamicsSection:
        """Of the first state point."""
        return self.states[0].dynamics

    @property
    def potential(self) -> Any:
        """The first term."""
        return self.terms[0]


def read_configuration(
    path: str | Path, trusted: bool = False, learned: Path | None = None
) -> Configuration:
    """Read and check a configuration file; paths in it are relative to its own folder.

    With ``learned``, the output folder of a fit, the potential is what that fit has learned, and
    no first guess is made: [potential] has to be of the same form.

    It may come from others. Unless it is ``trusted`` it cannot run code, neither an observable's
    nor that in a System, and writes nowhere but below the folder that the program runs in. What it
    names to be read may lie anywhere: that is only data.

    Raises
    ------
    ConfigurationError
        If the file is missing or no TOML, a key is unknown or missing, or a value cannot be;
        ``key`` names it.
    """
    path = Path(path)
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        raw = tomllib.loads(text.replace("\r\n", "\n"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: nested too deeply") from error
    return parse_configuration(raw, path.parent, trusted, learned)


def parse_configuration(
    raw: Mapping[str, Any], folder: Path, trusted: bool = False, learned: Path | None = None
) -> Configuration:
    """As ``read_configuration``, from a dictionary."""
    top = Section("", raw, folder, trusted)
    top.units = units = _units(top)
    states = read_states(top)
    terms = read_terms(top, READERS, states[0].system.names)
    names = [state.name for state in states]
    targets = tuple(read_target(section, names) for section in top.sections("target"))
    refine = read_refine(top.section("refine"))
    top.finish()
    if learned is not None:
        terms = _of_fit(terms, learned)
    made = Configuration(states, terms, targets, refine, raw, trusted, units, learned)
    _check_start(made)
    return made


def _of_fit(terms: tuple[TermSection, ...], folder: Path) -> tuple[TermSection, ...]:
    """The same terms, where nothing has to be guessed.

    Raises
    ------
    ConfigurationError
        If the folder holds no fit, or one of another number of terms.
    """
    knots = read_parameters_json(folder).get("first_knots", [])
    if len(knots) != len(terms):
        raise ConfigurationError(
            f"potential: has {len(terms)} terms, but that in {folder} {len(knots)}; expected the "
            "same [potential] as of that fit",
            key="potential",
        )
    return tuple(term.of_fit(knot) for term, knot in zip(terms, knots, strict=True))


def _units(top: Section) -> ReducedUnits | None:
    """Reduced ones: ``units = "lennard-jones"`` with sigma, epsilon and mass beside it.

    Or these in a table, [units] with kind = "lennard-jones".
    """
    if not top.has("units"):
        return None
    is_word = isinstance(top.raw["units"], str)
    section = top if is_word else top.section("units")
    section.choice("units" if is_word else "kind", ("lennard-jones",))
    for key in ("sigma", "epsilon", "mass"):
        section.number(key, above=0)
    if not is_word:
        section.finish()
    return stated_units(top.raw)


def _check_start(configuration: Configuration) -> None:
    """ConfigurationError where the first guess of a term lacks what it is made from."""
    has_structure = any(target.observable.is_structure for target in configuration.targets)
    reads = any(state.system.trajectory is not None for state in configuration.states)
    if reads and len(configuration.states) > 1:
        raise ConfigurationError(
            "system.trajectory: is for a single state point; of several, read them in Python, by "
            "Refinement.read",
            key="system.trajectory",
        )
    for term in configuration.terms:
        if reads and term.initial == "boltzmann-inversion":
            raise ConfigurationError(
                f"{term.key}.initial: got 'boltzmann-inversion', expected what system.trajectory "
                "was sampled with: parameters such as sigma and epsilon, or a table in file",
                key=f"{term.key}.initial",
            )
        needs = [] if has_structure else term.needs_structure
        if needs:
            raise ConfigurationError(
                f"{term.key}.{needs[0]}: without an rdf target it cannot be found; give it",
                key=f"{term.key}.{needs[0]}",
            )
