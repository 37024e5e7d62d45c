"""Can a measured curve be what it is said to be, or is its unit or its norm another one?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import Curve
from ..errors import TargetError
from ..io.tables import table_error
from ..units import number_in_md_units

Array = NDArray[np.float64]

_CLOSEST = 0.1  # nm, no two atoms of a fluid come nearer
_WIDEST = 1.3  # of rho^(-1/3): how far apart hard spheres can be held by their size, and some room
_FAR = 8.0  # times the reach: that far beyond, soft particles are more likely in angstrom
_EMPTY = 0.1  # of g: less is a core
_OFF = 0.12  # how far from 1 a g(r) may end: finite size, a range that ends early
_OFF_EARLY = 0.35  # the same of one too short for a whole wave beyond its first peak
_FEWEST = 4  # points that a mean is of
_WAVES = 0.1  # what of the standard deviation of g over its last wave may be left in the mean


def doubt(curve: Curve, what: str, name: str) -> TargetError:
    """A refusal of what looks like a slip, which says how to take the curve all the same."""
    return table_error(
        curve.path, f"{what} Where it is right as it is, say as_it_is = true", name=name
    )


def check_usual(label: str, values: Array, usual: tuple[float, float] | None, md_unit: str) -> None:
    """TargetError where a measured value lies beyond what is usual, as with a unit forgotten."""
    if usual is None:
        return
    wrong = ~((values >= usual[0]) & (values <= usual[1]))
    if wrong.any():
        raise TargetError(
            f"value: {label}: got {values[wrong][0]:g}, expected {usual[0]:g} to {usual[1]:g} "
            f"{md_unit}: a plain number is in {md_unit or 'no unit'}; give its unit, as a Quantity "
            "or by unit=. Where it is right as it is, say as_it_is = true",
            got=float(values[wrong][0]),
            expected=usual,
        )


def check_rdf(curve: Curve, number_density: Any = None, reach: float = np.inf) -> None:
    """Raise when numbers cannot be a g(r) of a fluid or solid, as a check of units and norm.

    With r_rise the first r where g > 0.5, a distance of closest approach: spheres of that
    diameter cannot be packed closer than rho r_rise^3 = sqrt(2), so r_rise is below
    1.12 rho^(-1/3); 1.3 leaves room for soft particles. Those may have g > 0.5 from r = 0 on.

    Far out g goes round 1 in waves about as long as the first peak is far from 0; a mean over the
    last whole one is 1 within a few per cent, where the data end at least half of one beyond the
    rise. Refused is more than 0.12 + 3 standard errors of the mean + a tenth of the standard
    deviation of g there (a crystal's shells): N/(N-1) of a small box passes, a factor of 1.2 does
    not. Data that end before say less: their last fifth is to be within 0.35.

    Parameters
    ----------
    curve : g over r, nm
    number_density : of what g counts [1/nm^3], number or Quantity; None where it is not known
    reach : up to where the model's g is known [nm]

    Raises
    ------
    TargetError
        g never rises above 0.5; it rises below 0.1 nm, or beyond 1.3 rho^(-1/3) or the reach; the
        data end before 1.2 r_rise, or far beyond the reach of soft particles; or g does not go to
        1. path names the file.
    UnitError
        number_density is not a density.
    """
    rise = _rise(curve)
    if number_density is not None:
        _check_density(curve, rise, number_density)
    end = curve.x[-1]
    if rise > reach or (rise < 0.1 * end and end > _FAR * reach):
        raise doubt(
            curve,
            f"g rises above 0.5 at r = {rise:.4g} nm and reaches to {end:.4g} nm, but is compared "
            f"up to {reach:.4g} nm; was the file in angstrom and read as nm, or is the box too "
            "small?",
            "g(r)",
        )
    if end < 1.2 * rise:
        raise doubt(
            curve,
            f"the data end at r = {end:.4g} nm, expected at least {1.2 * rise:.4g} nm (g rises "
            f"at {rise:.4g} nm); is the file truncated?",
            "g(r)",
        )
    _check_level(curve, rise)


def _rise(curve: Curve) -> float:
    """The first r where g > 0.5, nm."""
    above = np.flatnonzero(curve.y > 0.5)
    if not len(above):
        raise doubt(
            curve,
            f"g never rises above 0.5: its largest value is {curve.y.max():.3g}, expected a peak "
            "and then 1; is the file truncated, or not g(r)?",
            "g(r)",
        )
    rise = float(curve.x[above[0]])
    if rise < _CLOSEST and _has_core(curve, rise):
        raise doubt(
            curve,
            f"g rises above 0.5 at r = {rise:.4g} nm, expected beyond {_CLOSEST} nm; was the file "
            "in nm and read as angstrom, or does it have noise at small r?",
            "g(r)",
        )
    return rise


def _has_core(curve: Curve, rise: float) -> bool:
    """Is g empty over a good part of the range, or (in a table with ripples) after its rise?

    Soft particles have no more than a few bins without counts near r = 0.
    """
    if rise > 0.1 * curve.x[-1]:
        return True
    inside = curve.y[: int(np.argmax(curve.y))]
    return len(inside) > 5 and float(np.convolve(inside, np.full(5, 0.2), "valid").min()) < _EMPTY


def _check_density(curve: Curve, rise: float, number_density: Any) -> None:
    density = number_in_md_units(number_density, "number_density")
    if not 0 < density < np.inf:
        raise table_error(
            curve.path,
            f"got a number density of {density:g} /nm^3, expected a positive one",
            name="g(r)",
        )
    furthest = _WIDEST * density ** (-1 / 3)
    if rise > furthest:
        raise doubt(
            curve,
            f"g rises above 0.5 at r = {rise:.4g} nm, expected below {furthest:.4g} nm at "
            f"{density:.4g} particles per nm^3, where spheres that large do not fit; was the file "
            "in angstrom and read as nm, or is the density wrong?",
            "g(r)",
        )


def _check_level(curve: Curve, rise: float) -> None:
    """Raise where g ends at another level than 1, as far as the data reach to tell."""
    x, y, end = curve.x, curve.y, curve.x[-1]
    last = x >= end - 0.2 * (end - x[0])
    wave, off = float(x[np.argmax(y)]), _OFF
    if y.max() <= 1.3 * y[last].mean():  # without a peak, so without waves: is it level?
        wave = 0.2 * (end - x[0])
        off += 5 * abs(_halves_apart(y[last]))
    if end - 1.5 * wave >= rise:
        last = x >= end - wave
    elif end > 2 * rise:
        off = _OFF_EARLY
    else:
        return
    if last.sum() < _FEWEST:
        return
    places = np.linspace(x[last][0], end, 400)
    smooth = np.interp(places, x, y)
    level = float(smooth.mean())
    off += _WAVES * float(smooth.std()) + 3 * _noise(curve, last) / np.sqrt(last.sum())
    if abs(level - 1) > off:
        raise doubt(
            curve,
            f"g does not go to 1: its mean from {places[0]:.4g} nm to the end at {end:.4g} nm is "
            f"{level:.3g}, expected 1 within {off:.2g}; is it g(r), not h(r) = g(r) - 1 or a "
            "number of neighbours, and is its norm the density of what it counts? Or are there "
            "two phases?",
            "g(r)",
        )


def _halves_apart(y: Array) -> float:
    """How much the second half lies above the first; infinite for less than two points."""
    first, second = np.array_split(y, 2)
    return float(second.mean() - first.mean()) if len(second) else np.inf


def _noise(curve: Curve, places: NDArray[np.bool_]) -> float:
    """Standard error of one point: as it is given, or as neighbours scatter, if that is more."""
    bends = np.diff(curve.y[places], 2)
    scatter = 1.4826 * float(np.median(np.abs(bends))) / np.sqrt(6) if len(bends) else 0.0
    return max(scatter, 0.0 if curve.error is None else float(np.median(curve.error[places])))
