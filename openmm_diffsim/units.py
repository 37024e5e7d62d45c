"""The only place where openmm.unit Quantities become plain numbers.

Inside the package every number is in md units: nm, ps, kJ/mol, K, bar, amu, e; measured densities
are in g/cm^3, heat capacities in J/mol/K, surface tensions in mN/m. A plain number
passed by a user is taken to be in them already; a Quantity is converted, or refused when its
dimension is another one. OpenMM is imported only when a Quantity turns up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnitError, one_line
from .limits import checked_number, shown

AVOGADRO = 6.02214076e23
"""Particles per mole (exact)."""

MOLAR_GAS_CONSTANT = 0.00831446261815324
"""R [kJ/mol/K]."""

BAR = 1e25 / AVOGADRO
"""Bars in one kJ/mol/nm^3: a pressure in kJ/mol/nm^3 times BAR is in bar (16.605...)."""

COULOMB = 138.93545764
"""1 / (4 pi epsilon_0) [kJ nm/mol/e^2]."""

GRAM_PER_CM3 = AVOGADRO * 1e-21
"""amu/nm^3 in one g/cm^3 (602.2...): mass density over particle mass is the number density."""

# For each kind: the md unit, then other units OpenMM cannot convert to it (mole and gram are not
# dimensionless and amu to OpenMM), each with the number of md units in it.
_UNITS: dict[str, Callable[[Any], list[tuple[Any, float]]]] = {
    "length": lambda u: [(u.nanometer, 1.0)],
    "area": lambda u: [(u.nanometer**2, 1.0)],
    "volume": lambda u: [(u.nanometer**3, 1.0)],
    "wavenumber": lambda u: [(u.nanometer**-1, 1.0)],
    "linear_density": lambda u: [(u.nanometer**-1, 1.0)],
    "time": lambda u: [(u.picosecond, 1.0)],
    "rate": lambda u: [(u.picosecond**-1, 1.0)],
    "velocity": lambda u: [(u.nanometer / u.picosecond, 1.0)],
    "squared_velocity": lambda u: [((u.nanometer / u.picosecond) ** 2, 1.0)],
    "diffusion": lambda u: [(u.nanometer**2 / u.picosecond, 1.0)],
    "angle": lambda u: [(u.radian, 1.0)],
    "angular_density": lambda u: [(u.radian**-1, 1.0)],
    "bond_stiffness": lambda u: [(u.kilojoule_per_mole / u.nanometer**2, 1.0)],
    "angle_stiffness": lambda u: [(u.kilojoule_per_mole / u.radian**2, 1.0)],
    "energy": lambda u: [(u.kilojoule_per_mole, 1.0)],
    "energy_length": lambda u: [(u.kilojoule_per_mole * u.nanometer, 1.0)],
    "force": lambda u: [(u.kilojoule_per_mole / u.nanometer, 1.0)],
    "temperature": lambda u: [(u.kelvin, 1.0)],
    "pressure": lambda u: [(u.bar, 1.0), (u.kilojoule_per_mole / u.nanometer**3, BAR)],
    "mass": lambda u: [(u.dalton, 1.0)],
    "charge": lambda u: [(u.elementary_charge, 1.0)],
    "number_density": lambda u: [
        (u.nanometer**-3, 1.0),
        (u.mole / u.nanometer**3, AVOGADRO),
    ],
    "mass_density": lambda u: [
        (u.gram / u.centimeter**3, 1.0),
        (u.dalton / u.nanometer**3, 1 / GRAM_PER_CM3),
    ],
    "heat_capacity": lambda u: [(u.joule / u.mole / u.kelvin, 1.0)],
    "specific_heat_capacity": lambda u: [(u.joule / u.gram / u.kelvin, 1.0)],
    "compressibility": lambda u: [
        (u.bar**-1, 1.0),
        (u.nanometer**3 / u.kilojoule_per_mole, 1 / BAR),
    ],
    "expansion": lambda u: [(u.kelvin**-1, 1.0)],
    "surface_tension": lambda u: [
        (u.dyne / u.centimeter, 1.0),
        (u.kilojoule_per_mole / u.nanometer**2, BAR / 10),
    ],
    "dimensionless": lambda u: [(u.dimensionless, 1.0)],
}

UNIT_NAMES: dict[str, str] = {
    "length": "nm",
    "area": "nm^2",
    "volume": "nm^3",
    "wavenumber": "1/nm",
    "linear_density": "1/nm",
    "time": "ps",
    "rate": "1/ps",
    "velocity": "nm/ps",
    "squared_velocity": "nm^2/ps^2",
    "diffusion": "nm^2/ps",
    "angle": "rad",
    "angular_density": "1/rad",
    "bond_stiffness": "kJ/mol/nm^2",
    "angle_stiffness": "kJ/mol/rad^2",
    "energy": "kJ/mol",
    "energy_length": "kJ/mol/nm^-1",
    "force": "kJ/mol/nm",
    "temperature": "K",
    "pressure": "bar",
    "mass": "amu",
    "charge": "e",
    "number_density": "1/nm^3",
    "mass_density": "g/cm^3",
    "heat_capacity": "J/mol/K",
    "specific_heat_capacity": "J/g/K",
    "compressibility": "1/bar",
    "expansion": "1/K",
    "surface_tension": "mN/m",
    "dimensionless": "",
}
"""The md unit of each kind of number, as it is written beside one."""

ACCEPTED: dict[str, dict[str, float]] = {
    "volume": {"nm^3": 1.0, "A^3": 1e-3},
    "mass_density": {"g/cm3": 1.0, "kg/m3": 1e-3},
    "energy": {"kJ/mol": 1.0, "J/mol": 1e-3, "kcal/mol": 4.184},
    "pressure": {"bar": 1.0, "atm": 1.01325, "kPa": 0.01, "MPa": 10.0, "GPa": 1e4},
    "heat_capacity": {"J/mol/K": 1.0, "kJ/mol/K": 1e3, "cal/mol/K": 4.184},
    "specific_heat_capacity": {"J/g/K": 1.0, "kJ/kg/K": 1.0, "J/kg/K": 1e-3, "cal/g/K": 4.184},
    "compressibility": {"1/bar": 1.0, "1/atm": 1 / 1.01325, "1/Pa": 1e5, "1/GPa": 1e-4},
    "expansion": {"1/K": 1.0},
    "surface_tension": {"mN/m": 1.0, "N/m": 1e3, "dyn/cm": 1.0},
    "diffusion": {"nm2/ps": 1.0, "cm2/s": 100.0, "m2/s": 1e6},
}
"""For kinds of measured values the units that a configuration may name, each in md units.

A power may be written with a ^ or without: g/cm^3 is g/cm3.
"""


@dataclass(frozen=True)
class ReducedUnits:
    """Units in which sigma, epsilon and mass of one kind of particle are 1, as r* = r / sigma.

    Time is in sigma (m / epsilon)^1/2, temperature in epsilon / R, pressure in epsilon / sigma^3,
    charge in (4 pi epsilon_0 sigma epsilon)^1/2, all else likewise.
    """

    sigma: float  # nm
    epsilon: float  # kJ/mol
    mass: float  # amu

    def factor(self, kind: str) -> float:
        """The reduced unit of a kind of number, one of ``UNIT_NAMES``, in its md unit."""
        return self._factors[kind]

    @cached_property
    def _factors(self) -> dict[str, float]:
        length, energy, mass = self.sigma, self.epsilon, self.mass
        time = length * (mass / energy) ** 0.5  # amu nm^2/ps^2 is kJ/mol
        pressure = energy / length**3 * BAR
        return {
            "length": length,
            "area": length**2,
            "volume": length**3,
            "wavenumber": 1 / length,
            "linear_density": 1 / length,
            "time": time,
            "rate": 1 / time,
            "velocity": length / time,
            "squared_velocity": (length / time) ** 2,
            "diffusion": length**2 / time,
            "angle": 1.0,
            "angular_density": 1.0,
            "energy": energy,
            "energy_length": energy * length,
            "entropy": MOLAR_GAS_CONSTANT,
            "entropy_length": MOLAR_GAS_CONSTANT * length,
            "force": energy / length,
            "temperature": energy / MOLAR_GAS_CONSTANT,
            "pressure": pressure,
            "mass": mass,
            "charge": (length * energy / COULOMB) ** 0.5,
            "number_density": 1 / length**3,
            "mass_density": mass / length**3 / GRAM_PER_CM3,
            "heat_capacity": 1e3 * MOLAR_GAS_CONSTANT,
            "specific_heat_capacity": 1e3 * MOLAR_GAS_CONSTANT / mass,
            "bond_stiffness": energy / length**2,
            "angle_stiffness": energy,
            "compressibility": 1 / pressure,
            "expansion": MOLAR_GAS_CONSTANT / energy,
            "surface_tension": pressure * length / 10,
            "dimensionless": 1.0,
        }


def stated_units(configuration: Mapping[str, Any]) -> ReducedUnits | None:
    """The reduced units that a configuration is in, which was checked before; None: md units."""
    given = configuration.get("units")
    if given is None:
        return None
    table = configuration if isinstance(given, str) else given
    return ReducedUnits(*(float(table[key]) for key in ("sigma", "epsilon", "mass")))


def value_in_md_units(x: Any, kind: str) -> float | NDArray[np.float64]:
    """The number, or the new float64 array of the shape of x, in md units.

    Parameters
    ----------
    x : a Quantity, a number in md units already, or a (nested) list, tuple or array of either
    kind : one of ``UNIT_NAMES``, such as "length" [nm] or "pressure" [bar]

    Raises
    ------
    UnitError
        x has another dimension, or holds something that is not a number. NaN is let through.
    """
    if kind not in _UNITS:
        raise ValueError(f"kind {kind!r} is unknown, expected one of {', '.join(_UNITS)}")
    try:
        values = np.asarray(_plain(x, kind))
        if values.dtype.kind not in "fiu":
            raise TypeError(f"dtype {values.dtype}")
    except UnitError:
        raise
    except (TypeError, ValueError, RuntimeError) as problem:
        raise UnitError(
            f"got {shown(x)}, expected numbers for a {_named(kind)}", kind=kind
        ) from problem
    return values.astype(np.float64) if values.ndim else float(values)


def number_in_md_units(x: Any, kind: str) -> float:
    """As `value_in_md_units`, for what has to be one number and not NaN.

    Raises
    ------
    UnitError
        x has another dimension, or is not one number.
    """
    value = value_in_md_units(x, kind)
    if not isinstance(value, float) or np.isnan(value):
        raise UnitError(f"got {shown(x)}, expected one number for a {_named(kind)}", kind=kind)
    return value


def beta(temperature: Any) -> float:
    """The inverse temperature 1/(R T) [mol/kJ].

    Parameters
    ----------
    temperature : Quantity, or number [K]; must be positive

    Raises
    ------
    UnitError
        temperature is not a positive, finite temperature.
    """
    kelvin = number_in_md_units(temperature, "temperature")
    if not 0 < kelvin < np.inf:
        raise UnitError(
            f"got a temperature of {kelvin:g} K, expected a positive one", kind="temperature"
        )
    return 1.0 / (MOLAR_GAS_CONSTANT * kelvin)


def state_numbers(temperature: Any, pressure: Any) -> tuple[float, float | None]:
    """Temperature, K, and pressure, bar, or None at constant volume, of a state that can be.

    Raises
    ------
    UnitError
        A temperature that is not positive, a number out of its range, or of another dimension.
    """
    kelvin = state_number(temperature, "temperature")
    return kelvin, None if pressure is None else state_number(pressure, "pressure")


def state_number(x: Any, kind: str) -> float:
    """One of the ``state_numbers``, a "temperature" or a "pressure"; raises as these."""
    return checked_number(kind, number_in_md_units(x, kind), UnitError)


def _plain(x: Any, kind: str) -> Any:
    """x with each Quantity in it replaced by its number in the md unit of a kind."""
    if isinstance(x, (list, tuple)):
        return [_plain(item, kind) for item in x]
    if not hasattr(x, "value_in_unit"):
        return x
    from openmm import unit

    for md_unit, factor in _UNITS[kind](unit):
        if x.unit.is_compatible(md_unit):
            return np.asarray(x.value_in_unit(md_unit), dtype=np.float64) * factor
    raise UnitError(
        f"got {one_line(str(x), 60)} for a {_named(kind)}: the unit {x.unit.get_name()} cannot be "
        f"converted to {_UNITS[kind](unit)[0][0].get_name()}; pass a Quantity of the right "
        "dimension, or a plain number in that unit",
        kind=kind,
    )


def _named(kind: str) -> str:
    return kind.replace("_", " ")
