"""Pair potentials by the names that a configuration has for them, and their first guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..engine import native
from ..errors import ConfigurationError, PotentialError
from ..fluid import find_platform
from ..io import read_potential
from ..limits import LIMITS, shown
from ..potentials import (
    LennardJones,
    Mie,
    Morse,
    NeuralPair,
    PairPotential,
    SoftSphere,
    SplinePair,
    TemperatureDependent,
    Yukawa,
)
from ..refinement.initial import invert, match_potential
from ..units import MOLAR_GAS_CONSTANT
from .prepared import Known, Prepared
from .section import KINDS, Section
from .structures import Structure, between_others, structures, tell_borrowed
from .terms import TermSection, common

INITIAL = ("boltzmann-inversion", "lennard-jones", "table", "parameters", "zero")

Guess = Callable[[float, float, float], dict[str, float]]

_USUAL_RISE = 0.3  # nm, of a g(r) that nobody measured
_LEAST_RISE = 0.02  # of the cutoff: particles that go through each other have none


@dataclass(frozen=True)
class PairEntry:
    """What a configuration says of one pair of types."""

    initial: str
    file: Path | None = None  # of initial = "table"
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PotentialSection(TermSection):
    """A pair potential, and where it starts."""

    cutoff: float  # nm
    r_min: float | None  # nm; None: from where the first g(r) target rises
    knots: int
    file: Path | None  # of initial = "table"
    parameters: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], PairEntry] = field(default_factory=dict)  # of types
    temperature_dependent: bool = False  # u(r, T) = E(r) - T S(r)
    entropic: Mapping[str, float] = field(default_factory=dict)  # parameters of S; {}: a spline
    units: tuple[float, float] = (1.0, 1.0)  # of r and u in tables, in md units

    attached = 2

    @property
    def needs_structure(self) -> list[str]:
        """``r_min`` and ``initial``, where they are not given."""
        needs = [] if self.r_min is not None else ["r_min"]
        return needs + ["initial"] * (self.initial == "boltzmann-inversion")

    @property
    def reach(self) -> float | None:
        """The cutoff."""
        return self.cutoff

    def of_pair(self, types: tuple[int, int]) -> PairEntry:
        """What holds for one pair of types."""
        return self.pairs.get(types, PairEntry(self.initial, self.file, self.parameters))

    def of_fit(self, first_knot: float | None) -> PotentialSection:
        """With its ``r_min``, at zero or at any parameters."""
        initial = "parameters" if PAIR_KINDS[self.kind].has_parameters else "zero"
        r_min = first_knot if self.r_min is None else self.r_min
        return replace(self, r_min=r_min, initial=initial, file=None, pairs={})

    def first_guess(self, known: Known) -> PairPotential:
        """As it begins: see ``build_potential``."""
        return first_guess(self, known)

    def attach(self, potential: Any, place: Prepared) -> None:
        """To the atoms of the types, by the native force where there is one."""
        backend = "native" if native.supports(find_platform(place.dynamics.platform)) else "table"
        potential.attach(
            place.system,
            atoms=place.site.atoms,
            types=place.type_of[place.type_of >= 0],
            temperature=place.temperature if self.temperature_dependent else None,
            backend=backend,
            exclude_bonds=place.section.system.exclude_bonds,
        )


@dataclass(frozen=True)
class PairKind:
    """A kind of pair potential, as a configuration can ask for it."""

    make: Callable[..., PairPotential]
    parameters: tuple[str, ...]
    """What it may be given, besides what all have; in md units."""
    guess: Guess | None = None
    """Parameters of the right size for a g(r) that rises and peaks at two distances (nm), and a
    thermal energy (kJ/mol). None: it has no parameters, ``parameters`` make another that it starts
    from."""
    follows_well: bool = True
    """Can it come near the potential of mean force of a liquid?"""
    knots: int = 120

    @property
    def has_parameters(self) -> bool:
        """Can it start from parameters?"""
        return self.guess is not None


def _size_and_depth(rise: float, peak: float, thermal: float) -> dict[str, float]:
    return {"sigma": rise, "epsilon": thermal}


PAIR_KINDS: dict[str, PairKind] = {
    "spline": PairKind(SplinePair, ("sigma", "epsilon"), knots=60),
    "neural": PairKind(
        NeuralPair,
        ("prior_sigma", "prior_epsilon"),
        lambda rise, peak, thermal: {"prior_sigma": rise, "prior_epsilon": thermal},
    ),
    "lennard-jones": PairKind(LennardJones, ("sigma", "epsilon"), _size_and_depth),
    "mie": PairKind(Mie, ("sigma", "epsilon", "repulsive", "attractive"), _size_and_depth),
    "morse": PairKind(
        Morse,
        ("depth", "width", "r_0"),
        lambda rise, peak, thermal: {"depth": thermal, "width": 6 / peak, "r_0": peak},
    ),
    "yukawa": PairKind(
        Yukawa,
        ("strength", "kappa"),
        lambda rise, peak, thermal: {"strength": 20 * thermal * peak, "kappa": 3 / peak},
        follows_well=False,
    ),
    "soft-sphere": PairKind(
        SoftSphere, ("sigma", "epsilon", "exponent"), _size_and_depth, follows_well=False
    ),
}


def read_pair(section: Section, names: Sequence[str]) -> PotentialSection:
    """A pair potential; ``names`` are those of the types."""
    kind = section.choice("kind", tuple(PAIR_KINDS))
    known = PAIR_KINDS[kind]
    entry = _entry(section, known)
    cutoff = section.number("cutoff")
    r_min = section.number("r_min", None)
    if r_min is not None and r_min >= cutoff:
        raise section.error("r_min", f"got {r_min} nm, expected less than cutoff = {cutoff} nm")
    is_dependent = section.flag("temperature_dependent")
    return PotentialSection(
        kind=kind,
        cutoff=cutoff,
        r_min=r_min,
        knots=section.integer("knots", known.knots),
        **vars(entry),
        pairs=_pairs(section, known, names, entry),
        temperature_dependent=is_dependent,
        entropic=_entropic(section, known, is_dependent),
        units=(section.factor("length"), section.factor("energy")),
        **common(section, names),
    )


def _entry(section: Section, known: PairKind, above: PairEntry | None = None) -> PairEntry:
    """Where a potential starts; what is not said of a pair of types is as ``above``."""
    given = {
        name: value
        for name in known.parameters
        if (value := section.number(name, None)) is not None
    }
    parameters = given if above is None else {**above.parameters, **given}
    file = section.optional_path("file")
    default = "boltzmann-inversion"
    if file is not None:
        default = "table"
    elif given or (parameters and above is None) or not known.follows_well:
        default = "parameters" if known.has_parameters else "lennard-jones"
    elif above is not None:
        default, file = above.initial, above.file
    initial = section.choice("initial", INITIAL, default)
    if initial == "table" and file is None:
        raise section.error("file", "initial = 'table' needs file = a table of r (nm), u (kJ/mol)")
    if initial == "lennard-jones" and not {"sigma", "epsilon"} <= parameters.keys():
        raise section.error("sigma", "initial = 'lennard-jones' needs sigma (nm), epsilon (kJ/mol)")
    if initial == "parameters" and not known.has_parameters:
        raise section.error(
            "initial", f"a {section.raw.get('kind')} has no parameters; expected another"
        )
    if initial == "zero" and known.has_parameters:
        raise section.error("initial", "is for kind = 'spline'; expected parameters, or another")
    return PairEntry(initial, file, parameters)


def _pairs(
    section: Section, known: PairKind, names: Sequence[str], above: PairEntry
) -> dict[tuple[int, int], PairEntry]:
    """Each [[potential.pair]], by its types."""
    found: dict[tuple[int, int], PairEntry] = {}
    for own in section.sections("pair", []):
        types = own.type_pair("types", names)
        if types in found:
            raise own.error("types", f"got {shown(own.raw['types'])} twice, expected each once")
        found[types] = _entry(own, known, above)
        own.finish()
    return found


def _entropic(section: Section, known: PairKind, is_dependent: bool) -> dict[str, float]:
    """Parameters of S of an analytic kind: epsilon in kJ/mol/K."""
    own = section.optional_section("entropic")
    if own is None:
        return {}
    if not is_dependent:
        raise section.error("entropic", "is for temperature_dependent = true")
    if known.guess is None:
        raise section.error("entropic", "is for a kind with parameters; S of a spline begins at 0")
    per_kelvin = {"energy": "entropy", "energy_length": "entropy_length"}
    own.kinds |= {n: per_kelvin[k] for n, k in KINDS.items() if k in per_kelvin}
    found = {n: v for n in known.parameters if (v := own.number(n, None)) is not None}
    own.finish()
    if not found:
        raise section.error("entropic", f"got none, expected some of {', '.join(known.parameters)}")
    return found


def first_guess(section: PotentialSection, known: Known) -> PairPotential:
    """Of all state points and targets; what the user has to know of it is told.

    Raises
    ------
    ConfigurationError, TargetError, PotentialError
        As ``build_potential``, and where u is beyond ``LIMITS["energy"]``.
    """
    place, n_types = known.places[0], known.n_types
    entries = _entries(section, n_types)
    inverted = {k for k, each in enumerate(entries) if each.initial == "boltzmann-inversion"}
    corrections = between_others(place, n_types, known.tell) if inverted else {}
    zero = {k for k, charges in corrections.items() if charges is None}
    measured, borrowed = structures(known, n_types)
    tell_borrowed(measured, sorted(set(borrowed) & inverted - zero), n_types, known.tell)
    potential = build_potential(section, measured, place.temperature, n_types, corrections)
    for temperature in {each.temperature for each in known.places}:
        check_energies(potential, section, temperature)
    return potential


def _entries(section: PotentialSection, n_types: int) -> list[PairEntry]:
    """What holds for each pair of types."""
    pairs = zip(*np.triu_indices(n_types), strict=True)
    return [section.of_pair((int(a), int(b))) for a, b in pairs]


def build_potential(
    section: PotentialSection,
    measured: Sequence[Structure | None],
    temperature: float,
    n_types: int = 1,
    corrections: Mapping[int, Any] = MappingProxyType({}),
) -> PairPotential:
    """The potential of a configuration at its first guess.

    Where neither parameters nor a table are given, a spline starts from the potential of mean
    force of ``measured``, and any other kind from the parameters that come nearest to it.

    Parameters
    ----------
    section : what the configuration says of it
    measured : of each pair of types the g(r) that it starts from
    temperature : K
    n_types : of particles
    corrections : pairs of types that other forces act between, and begin at zero, not at the
        potential of mean force; or the charges of both, (e, e), where these are all that acts

    Raises
    ------
    ConfigurationError, TargetError, PotentialError
        If g(r) or the table cannot be used.
    """
    kind = PAIR_KINDS[section.kind]
    rises = [_USUAL_RISE if m is None else m.rise for m in measured]
    rise = max(min(rises), _LEAST_RISE * section.cutoff)
    r_min = _first_knot(measured, rise, section.cutoff) if section.r_min is None else section.r_min
    if r_min >= section.cutoff:
        raise ConfigurationError(
            f"potential.cutoff: got {section.cutoff} nm, but the target's g(r) rises only at "
            f"{rise:.4f} nm",
            key="potential.cutoff",
            got=section.cutoff,
        )
    start = (measured, r_min, temperature, n_types, corrections)
    if kind.guess is None:
        made: PairPotential = _first_spline(section, *start)
    else:
        made = _analytic(section, kind, rise, *start)
    return _with_entropy(section, kind, made) if section.temperature_dependent else made


def _analytic(
    section: PotentialSection,
    kind: PairKind,
    rise: float,
    measured: Sequence[Structure | None],
    r_min: float,
    temperature: float,
    n_types: int,
    corrections: Mapping[int, Any],
) -> PairPotential:
    """At its parameters, or those that come nearest to what a spline would begin at."""
    assert kind.guess is not None
    entries = _entries(section, n_types)
    thermal = MOLAR_GAS_CONSTANT * temperature
    guesses = [
        {**kind.guess(*_distances(m), thermal), **entry.parameters}
        for m, entry in zip(measured, entries, strict=True)
    ]
    shared = set.intersection(*(set(guess) for guess in guesses))
    parameters: dict[str, Any] = {name: [g[name] for g in guesses] for name in sorted(shared)}
    _check_shared(section, guesses, shared)
    common = {"cutoff": section.cutoff, "r_min": r_min, "knots": section.knots}
    potential = kind.make(**parameters, **common, n_types=n_types)
    if all(entry.initial == "parameters" for entry in entries):
        return potential
    spline = _first_spline(section, measured, r_min, temperature, n_types, corrections, potential)
    return match_potential(potential, spline, rise, temperature)


def _distances(structure: Structure | None) -> tuple[float, float]:
    """Where pairs begin to be found, and where most are, nm."""
    return (_USUAL_RISE,) * 2 if structure is None else (structure.rise, structure.peak)


def _check_shared(
    section: PotentialSection, guesses: Sequence[Mapping[str, float]], shared: set[str]
) -> None:
    """ConfigurationError where a parameter is given for some pairs of types alone."""
    for name in sorted(set().union(*guesses) - shared):
        key = f"{section.key}.{name}"
        raise ConfigurationError(
            f"{key}: is given for some pairs of types, and has no default; give it in "
            "[potential], for all others",
            key=key,
        )


def _with_entropy(
    section: PotentialSection, kind: PairKind, energetic: PairPotential
) -> TemperatureDependent:
    """E - T S; S begins at zero, or at the parameters that are given."""
    basis, n_types = energetic.basis, energetic.n_types
    grid: dict[str, Any] = {"r_min": basis.r_min, "cutoff": basis.cutoff, "knots": basis.knots}
    if section.entropic:
        assert kind.guess is not None
        usual = kind.guess(_USUAL_RISE, _USUAL_RISE, 0.0)
        entropic = kind.make(
            **{**usual, **section.parameters, **section.entropic, **grid}, n_types=n_types
        )
    else:
        entropic = SplinePair(**grid, n_types=n_types)
    return TemperatureDependent(energetic, entropic)


def _first_knot(measured: Sequence[Structure | None], rise: float, cutoff: float) -> float:
    """r_min, nm: below every pair that was found, for there a spline is a straight line."""
    first = min((0.97 * m.first_pair for m in measured if m is not None), default=rise)
    return max(min(0.88 * rise, first), 0.88 * _LEAST_RISE * cutoff)


def _first_spline(
    section: PotentialSection,
    measured: Sequence[Structure | None],
    r_min: float,
    temperature: float,
    n_types: int,
    corrections: Mapping[int, Any],
    analytic: PairPotential | None = None,
) -> SplinePair:
    """A spline as each entry of the section says; ``analytic`` has what has parameters."""
    spline = SplinePair(r_min, section.cutoff, section.knots, n_types)
    r = np.linspace(r_min, section.cutoff, 400)
    for pair, entry in enumerate(_entries(section, n_types)):
        structure, charges = measured[pair], corrections.get(pair)
        if entry.initial == "boltzmann-inversion":
            if pair in corrections and charges is None:
                continue
            assert structure is not None
            kelvin = structure.temperature or temperature
            invert(spline, structure.curve, kelvin, pair, charges=charges)
        elif entry.initial == "table":
            _take_table(spline, section, entry, pair)
        elif entry.initial == "parameters":
            assert analytic is not None
            spline.set_table(r, analytic.energy(r)[pair].detach().numpy(), pair)
        elif entry.initial == "lennard-jones":
            sigma, epsilon = entry.parameters["sigma"], entry.parameters["epsilon"]
            start = LennardJones(sigma, epsilon, section.cutoff, r_min)
            spline.set_table(r, start.energy(r)[0].detach().numpy(), pair)
    return spline


def _take_table(spline: SplinePair, section: PotentialSection, entry: PairEntry, pair: int) -> None:
    """ConfigurationError where the file says too little of the potential."""
    assert entry.file is not None
    try:
        r, u = read_potential(entry.file, spline.n_pairs)
        spline.set_table(section.units[0] * r, section.units[1] * u[pair], pair)
    except PotentialError as error:
        key = "potential.file"
        raise ConfigurationError(f"{key}: {entry.file}: {error}", key=key) from error


def check_energies(
    potential: PairPotential, section: PotentialSection, temperature: float
) -> PairPotential:
    """The same, whose energies double precision and a minimizer can bear.

    Raises
    ------
    ConfigurationError
        If u is beyond ``LIMITS["energy"]`` anywhere from ``r_min`` on.
    """
    r, limit = potential.basis.centers, LIMITS["energy"]
    u = potential.energy(r, temperature).detach().numpy()
    wrong = ~((u >= limit.least) & (u <= limit.most))
    if wrong.any():
        pair, place = np.argwhere(wrong)[0]
        key = "potential.kind" if section.file is None else "potential.file"
        raise ConfigurationError(
            f"{key}: {section.file or section.kind}: at r = {r[place]:.4g} nm u "
            f"{limit.error('energies', float(u[pair, place]))}; are r_min and all units right?",
            key=key,
            got=float(u[pair, place]),
        )
    return potential
