"""Pair potentials by the names that a configuration has for them, and their first guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..curve import Curve
from ..errors import ConfigurationError, PotentialError
from ..io import read_potential
from ..limits import LIMITS
from ..observables import Observable
from ..potentials import (
    LennardJones,
    Mie,
    Morse,
    NeuralPair,
    PairPotential,
    SoftSphere,
    SplinePair,
    Yukawa,
)
from ..refinement.initial import invert, match_potential
from ..units import MOLAR_GAS_CONSTANT

Guess = Callable[[float, float, float], dict[str, float]]

_USUAL_RISE = 0.3  # nm, of a g(r) that nobody measured
_LEAST_RISE = 0.02  # of the cutoff: particles that go through each other have none


@dataclass(frozen=True)
class PotentialSection:
    """What is learned, and where it starts."""

    kind: str
    cutoff: float  # nm
    r_min: float | None  # nm; None: from where the first g(r) target rises
    knots: int
    initial: str
    file: Path | None  # of initial = "table"
    parameters: Mapping[str, float] = field(default_factory=dict)
    learn: tuple[tuple[int, int], ...] | None = None  # pairs of types; None: all


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


@dataclass(frozen=True)
class Structure:
    """A measured g(r), and the observable that knows how to read it."""

    observable: Observable
    curve: Curve

    @property
    def rise(self) -> float:
        """Where pairs begin to be found, nm."""
        found = self.observable.contact(self.curve, 0.05)
        if found is None:
            raise ConfigurationError(
                f"{self.curve.path}: g(r) never exceeds 0.5, so it gives no first guess of a "
                "potential; give potential.r_min and parameters",
                key="potential.initial",
            )
        return found

    @property
    def first_pair(self) -> float:
        """Where the first pairs are found, nm: a spline begins before."""
        found = self.observable.first_pairs(self.curve)
        return self.rise if found is None else found

    @property
    def peak(self) -> float:
        """Distance of nearest neighbours, nm."""
        found = self.observable.nearest_distance(self.curve)
        return self.rise if found is None else found


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
    if kind.guess is None:
        return _first_spline(section, measured, r_min, temperature, n_types, corrections)
    peaks = [r if m is None else m.peak for r, m in zip(rises, measured, strict=True)]
    thermal = MOLAR_GAS_CONSTANT * temperature
    guesses = [kind.guess(*pair, thermal) for pair in zip(rises, peaks, strict=True)]
    parameters: dict[str, Any] = {name: [g[name] for g in guesses] for name in guesses[0]}
    parameters |= section.parameters
    common = {"cutoff": section.cutoff, "r_min": r_min, "knots": section.knots}
    potential = kind.make(**parameters, **common, n_types=n_types)
    if section.initial == "parameters":
        return potential
    spline = _first_spline(section, measured, r_min, temperature, n_types, corrections)
    return match_potential(potential, spline, rise, temperature)


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
) -> SplinePair:
    """A spline as ``section.initial`` says, of each pair of types."""
    spline = SplinePair(r_min, section.cutoff, section.knots, n_types)
    for pair, structure in enumerate(measured):
        charges = corrections.get(pair)
        if pair in corrections and charges is None:
            continue
        if section.initial == "boltzmann-inversion":
            assert structure is not None
            invert(spline, structure.curve, temperature, pair, charges=charges)
        elif section.initial == "table":
            _take_table(spline, section, pair)
        else:
            sigma, epsilon = section.parameters["sigma"], section.parameters["epsilon"]
            start = LennardJones(sigma, epsilon, section.cutoff, r_min)
            r = np.linspace(r_min, section.cutoff, 400)
            spline.set_table(r, start.energy(r)[0].detach().numpy(), pair)
    return spline


def _take_table(spline: SplinePair, section: PotentialSection, pair: int) -> None:
    """ConfigurationError where the file says too little of the potential."""
    assert section.file is not None
    try:
        r, u = read_potential(section.file, spline.n_pairs)
        spline.set_table(r, u[pair], pair)
    except PotentialError as error:
        key = "potential.file"
        raise ConfigurationError(f"{key}: {section.file}: {error}", key=key) from error


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
