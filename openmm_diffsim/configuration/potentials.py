"""Pair potentials by the names that a configuration has for them, and their first guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..curve import Curve
from ..errors import ConfigurationError
from ..io import read_potential
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
from ..refinement import boltzmann_inversion
from ..refinement.initial import match_potential
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
    def peak(self) -> float:
        """Distance of nearest neighbours, nm."""
        found = self.observable.nearest_distance(self.curve)
        return self.rise if found is None else found


def build_potential(
    section: PotentialSection, measured: Structure | None, temperature: float
) -> PairPotential:
    """The potential of a configuration at its first guess.

    Where neither parameters nor a table are given, a spline starts from the potential of mean
    force of ``measured``, and any other kind from the parameters that come nearest to it.

    Parameters
    ----------
    section : what the configuration says of it
    measured : the first g(r) of the targets
    temperature : K

    Raises
    ------
    ConfigurationError, TargetError, PotentialError
        If g(r) or the table cannot be used.
    """
    kind = PAIR_KINDS[section.kind]
    rise = _USUAL_RISE if measured is None else measured.rise
    rise = max(rise, _LEAST_RISE * section.cutoff)
    r_min = 0.88 * rise if section.r_min is None else section.r_min
    if r_min >= section.cutoff:
        raise ConfigurationError(
            f"potential.cutoff: got {section.cutoff} nm, but the target's g(r) rises only at "
            f"{rise:.4f} nm",
            key="potential.cutoff",
            got=section.cutoff,
        )
    if kind.guess is None:
        return _first_spline(section, measured, r_min, temperature)
    peak = rise if measured is None else measured.peak
    parameters = kind.guess(rise, peak, MOLAR_GAS_CONSTANT * temperature)
    parameters |= section.parameters
    common = {"cutoff": section.cutoff, "r_min": r_min, "knots": section.knots}
    potential = kind.make(**parameters, **common)
    if section.initial == "parameters":
        return potential
    spline = _first_spline(section, measured, r_min, temperature)
    return match_potential(potential, spline, rise, temperature)


def _first_spline(
    section: PotentialSection, measured: Structure | None, r_min: float, temperature: float
) -> SplinePair:
    """A spline as ``section.initial`` says."""
    spline = SplinePair(r_min, section.cutoff, section.knots)
    if section.initial == "zero":
        return spline
    if section.initial == "boltzmann-inversion":
        assert measured is not None
        return boltzmann_inversion(spline, measured.curve.x, measured.curve.y, temperature)
    if section.initial == "table":
        assert section.file is not None
        spline.set_table(*read_potential(section.file))
        return spline
    sigma, epsilon = section.parameters["sigma"], section.parameters["epsilon"]
    start = LennardJones(sigma, epsilon, section.cutoff, r_min)
    r = np.linspace(r_min, section.cutoff, 400)
    spline.set_table(r, start.energy(r)[0].detach().numpy())
    return spline
